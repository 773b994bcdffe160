//! One table of the file together with its part of the environment: hands out values by key, and in the end names the
//! keys that nobody asked for.

use std::cell::RefCell;

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use crate::{
    environment::Environment,
    nearest,
    problem::{Place, Report},
};

/// A value and where it stands.
pub(crate) struct Entry<'a> {
    pub(crate) place: Place,
    pub(crate) value: Raw<'a>,
}

/// A value as it was written.
pub(crate) enum Raw<'a> {
    /// In the file, with TOML's type.
    Toml(&'a DeValue<'a>),
    /// In the environment, where everything is text.
    Variable(&'a str),
}

impl Raw<'_> {
    /// For error texts: the value as the user sees it.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Raw::Variable(_) => "text",
            Raw::Toml(value) => value.type_str(),
        }
    }
}

/// One table, by the path of its keys: `listen` for `[listen]`, empty for the top of the file.
pub(crate) struct Section<'a> {
    pub(crate) report: &'a Report<'a>,
    environment: &'a Environment,
    path: String,
    table: Option<&'a DeTable<'a>>,
    place: Place,
    asked: RefCell<Vec<&'static str>>,
}

impl<'a> Section<'a> {
    /// The top of the file.
    pub(crate) fn root(report: &'a Report<'a>, environment: &'a Environment, table: &'a DeTable<'a>) -> Self {
        Self {
            report,
            environment,
            path: String::new(),
            table: Some(table),
            place: Place::File(0),
            asked: RefCell::default(),
        }
    }

    /// The table `[key]`; an empty one where the file lacks it, since the environment may still fill it.
    pub(crate) fn section(&self, key: &'static str) -> Section<'a> {
        self.asked.borrow_mut().push(key);
        let mut inner = Section {
            report: self.report,
            environment: self.environment,
            path: key.to_owned(),
            table: None,
            place: Place::File(0),
            asked: RefCell::default(),
        };
        if let Some((place, value)) = self.toml(key) {
            self.report.note(key.to_owned(), place.clone());
            match value.as_table() {
                Some(table) => inner.table = Some(table),
                None => inner.complain(
                    &place,
                    format!("{key:?} is a section; write it as [{key}], found {}", value.type_str()),
                ),
            }
            inner.place = place;
        }
        inner
    }

    /// A table that has no name in the environment, such as an entry of a list.
    pub(crate) fn unnamed(&self, path: String, place: Place, table: &'a DeTable<'a>) -> Section<'a> {
        let (report, environment) = (self.report, self.environment);
        Section {
            report,
            environment,
            path,
            table: Some(table),
            place,
            asked: RefCell::default(),
        }
    }

    /// The value of `key`, read by `read`. `None` where it is absent, or wrong and reported.
    pub(crate) fn read<T>(&self, key: &'static str, read: impl Fn(&Raw<'a>) -> Result<T, String>) -> Option<T> {
        let entry = self.entry(key)?;
        let path = self.path_of(key);
        let found = read(&entry.value);
        if let Err(text) = &found {
            self.complain(&entry.place, format!("{path}: {text}"));
        }
        self.report.note(path, entry.place);
        found.ok()
    }

    /// As [`Section::read`], for a key that has to be there.
    pub(crate) fn require<T>(
        &self,
        key: &'static str,
        what: &str,
        read: impl Fn(&Raw<'a>) -> Result<T, String>,
    ) -> Option<T> {
        let found = self.read(key, read);
        if found.is_none() && !self.report.is_given(&self.path_of(key)) {
            self.complain(&self.place, format!("{:?} is missing: {what}", self.path_of(key)));
        }
        found
    }

    /// The value of `key` as it was written.
    pub(crate) fn entry(&self, key: &'static str) -> Option<Entry<'a>> {
        self.asked.borrow_mut().push(key);
        if let Some((name, text)) = self.environment.take(&self.path_of(key)) {
            return Some(Entry {
                place: Place::Variable(name.to_owned()),
                value: Raw::Variable(text),
            });
        }
        self.toml(key).map(|(place, value)| Entry {
            place,
            value: Raw::Toml(value),
        })
    }

    /// Every key and value of a table whose keys the user chooses.
    pub(crate) fn free_entries(&self) -> Vec<(&'a str, Entry<'a>)> {
        let mut entries: Vec<(&'a str, Entry<'a>)> = Vec::new();
        for (key, value) in self.table.into_iter().flatten() {
            let place = Place::File(key.span().start);
            entries.push((
                key.get_ref().as_ref(),
                Entry {
                    place,
                    value: Raw::Toml(value.get_ref()),
                },
            ));
        }
        for (key, name, text) in self.environment.take_all(&self.path) {
            let entry = Entry {
                place: Place::Variable(name.to_owned()),
                value: Raw::Variable(text),
            };
            // The environment goes before the file.
            entries.retain(|(known, _)| !known.eq_ignore_ascii_case(key));
            entries.push((key, entry));
        }
        entries
    }

    /// Reports the keys that nobody asked for.
    pub(crate) fn finish(self) {
        let asked = self.asked.borrow();
        for (key, _) in self.table.into_iter().flatten() {
            let word: &str = key.get_ref();
            if !asked.contains(&word) {
                let advice = nearest::advice(word, asked.iter().copied());
                self.complain(&Place::File(key.span().start), format!("unknown key {word:?}{advice}"));
            }
        }
        for (name, key) in self.environment.unknown(&self.path, &asked) {
            let variables: Vec<String> = asked.iter().map(|key| Environment::name_of(&self.path, key)).collect();
            let advice = match nearest::nearest(&key, asked.iter().copied()) {
                Some(meant) => format!("; did you mean {:?}?", Environment::name_of(&self.path, meant)),
                None => format!("; known here: {}", variables.join(", ")),
            };
            self.complain(&Place::Variable(name.to_owned()), format!("unknown variable{advice}"));
        }
    }

    /// Reports an error with this section.
    pub(crate) fn complain(&self, place: &Place, text: impl Into<String>) {
        self.report.spoil(&self.path);
        self.report.error(place, text);
    }

    /// Reports an error with this section as a whole.
    pub(crate) fn complain_here(&self, text: impl Into<String>) {
        self.complain(&self.place, text);
    }

    /// The place of the value for problems with it, of the key for problems with the key: here the value's.
    fn toml(&self, key: &str) -> Option<(Place, &'a DeValue<'a>)> {
        let value: &'a Spanned<DeValue<'a>> = self.table?.get(key)?;
        // A section's span is that of its header or of nothing; then its key says more.
        let place = match value.get_ref() {
            DeValue::Table(_) => self.table?.get_key_value(key).map_or(0, |(key, _)| key.span().start),
            _ => value.span().start,
        };
        Some((Place::File(place), value.get_ref()))
    }

    fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() {
            key.to_owned()
        } else {
            format!("{}.{key}", self.path)
        }
    }
}
