//! The environment's say: `FERRYMQ_LISTEN_STOMP` goes before `stomp` under `[listen]`.

use std::collections::BTreeMap;

/// The variables that begin with `FERRYMQ_`.
#[derive(Debug, Default)]
pub(crate) struct Environment(BTreeMap<String, String>);

const PREFIX: &str = "FERRYMQ_";

impl Environment {
    pub(crate) fn new(variables: impl IntoIterator<Item = (String, String)>) -> Self {
        Self(
            variables
                .into_iter()
                .filter(|(name, _)| name.starts_with(PREFIX))
                .collect(),
        )
    }

    /// The variable for a key's path such as `listen.stomp`.
    pub(crate) fn take(&self, path: &str) -> Option<(&str, &str)> {
        let name = format!("{PREFIX}{}", path.replace('.', "_").to_uppercase());
        self.0
            .get_key_value(&name)
            .map(|(name, text)| (name.as_str(), text.as_str()))
    }

    /// Key, variable and text of every variable of a section whose keys the user chooses.
    pub(crate) fn take_all<'a>(&'a self, section: &str) -> impl Iterator<Item = (&'a str, &'a str, &'a str)> {
        let start = format!("{PREFIX}{}_", section.to_uppercase());
        self.0
            .iter()
            .filter_map(move |(name, text)| Some((name.strip_prefix(&start)?, name.as_str(), text.as_str())))
    }

    /// Variables of `section` that are none of `known`, each with its key. Those outside every section are let pass:
    /// Kubernetes makes variables such as `FERRYMQ_PORT` for a service called `ferrymq`.
    pub(crate) fn unknown(&self, section: &str, known: &[&str]) -> Vec<(&str, String)> {
        if section.is_empty() || section.contains(['.', '[']) {
            return Vec::new();
        }
        self.take_all(section)
            .map(|(key, name, _)| (name, key.to_lowercase()))
            .filter(|(_, key)| !known.contains(&key.as_str()))
            .collect()
    }

    /// The variable's name for a key of a section.
    pub(crate) fn name_of(section: &str, key: &str) -> String {
        format!("{PREFIX}{section}_{key}").to_uppercase()
    }
}
