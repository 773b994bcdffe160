//! What is wrong with a configuration: where, what was expected, and the cure. All of it at once.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    fmt,
};

/// One thing that is wrong, or that deserves a second look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// `file:line:column` (both 1-based, columns in characters), or the name of an environment variable.
    pub place: String,
    /// What is wrong, with the cure where there is one.
    pub text: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.text)
    }
}

/// Everything that is wrong with a configuration, in the order of the file; at least one problem, one on a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problems(pub Vec<Problem>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, problem) in self.0.iter().enumerate() {
            if number > 0 {
                writeln!(f)?;
            }
            write!(f, "{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

/// Where a value came from. The order is that in which problems are shown.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Place {
    /// Byte offset in the file.
    File(usize),
    /// An environment variable.
    Variable(String),
}

/// Collects problems and warnings while a file is read and checked.
pub(crate) struct Report<'a> {
    name: &'a str,
    text: &'a str,
    errors: RefCell<Vec<(Place, String)>>,
    warnings: RefCell<Vec<(Place, String)>>,
    /// Where each key that was read stands, by its path such as `timers.heartbeat`; so that a rule which compares two
    /// keys can point at one.
    read: RefCell<BTreeMap<String, Place>>,
    /// Sections with an error. A value that could not be read stands at its default, so that rules on such a section
    /// would only report what follows from the first error.
    spoiled: RefCell<BTreeSet<String>>,
}

impl<'a> Report<'a> {
    pub(crate) fn new(name: &'a str, text: &'a str) -> Self {
        Self {
            name,
            text,
            errors: RefCell::default(),
            warnings: RefCell::default(),
            read: RefCell::default(),
            spoiled: RefCell::default(),
        }
    }

    pub(crate) fn note(&self, path: String, place: Place) {
        self.read.borrow_mut().insert(path, place);
    }

    /// Whether the key stands in the file or the environment, in place of being left to its default.
    pub(crate) fn is_given(&self, path: &str) -> bool {
        self.read.borrow().contains_key(path)
    }

    pub(crate) fn error(&self, place: &Place, text: impl Into<String>) {
        self.errors.borrow_mut().push((place.clone(), text.into()));
    }

    /// An error about the key at `path`; about its section, or the whole file, where the key is left to its default.
    pub(crate) fn error_at(&self, path: &str, text: impl Into<String>) {
        self.errors.borrow_mut().push((self.place_of(path), text.into()));
    }

    /// A warning about the key at `path`, placed in the same way.
    pub(crate) fn warn_at(&self, path: &str, text: impl Into<String>) {
        self.warnings.borrow_mut().push((self.place_of(path), text.into()));
    }

    /// Notes that the section of this path has an error.
    pub(crate) fn spoil(&self, path: &str) {
        let section = path.split(['.', '[']).next().unwrap_or(path);
        self.spoiled.borrow_mut().insert(section.to_owned());
    }

    /// Whether none of these sections has an error; the top of the file is called "".
    pub(crate) fn is_sound(&self, sections: &[&str]) -> bool {
        let spoiled = self.spoiled.borrow();
        !sections.iter().any(|section| spoiled.contains(*section))
    }

    /// The errors and the warnings, each in the order of the file.
    pub(crate) fn finish(self) -> (Vec<Problem>, Vec<Problem>) {
        let sorted = |mut list: Vec<(Place, String)>| {
            list.sort();
            list.dedup();
            list.into_iter()
                .map(|(place, text)| Problem {
                    place: self.show(&place),
                    text,
                })
                .collect()
        };
        (sorted(self.errors.take()), sorted(self.warnings.take()))
    }

    fn place_of(&self, path: &str) -> Place {
        let read = self.read.borrow();
        let section = path.split_once('.').and_then(|(section, _)| read.get(section));
        read.get(path).or(section).cloned().unwrap_or(Place::File(0))
    }

    fn show(&self, place: &Place) -> String {
        match place {
            Place::Variable(name) => name.clone(),
            Place::File(offset) => {
                let before = self.text.get(..*offset).unwrap_or(self.text);
                let line = before.matches('\n').count() + 1;
                let column = before.rsplit('\n').next().unwrap_or("").chars().count() + 1;
                format!("{}:{line}:{column}", self.name)
            }
        }
    }
}
