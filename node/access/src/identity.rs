//! Who somebody has proven to be.

use std::collections::BTreeSet;

/// A user who came in, with the groups from which rights follow. Only [`crate::Access`] and a solved
/// [`crate::Challenge`] make one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    name: String,
    groups: BTreeSet<String>,
}

impl Identity {
    /// The name, and the only group, of whoever shows no login (ActiveMQ's `anonymousUser` and `anonymousGroup`).
    pub const ANONYMOUS: &str = "anonymous";

    pub(crate) fn new(name: &str, groups: BTreeSet<String>) -> Self {
        Self {
            name: name.to_owned(),
            groups,
        }
    }

    pub(crate) fn anonymous() -> Self {
        Self::new(Self::ANONYMOUS, BTreeSet::from([Self::ANONYMOUS.to_owned()]))
    }

    /// The user's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// True for whoever showed no login. No user has the name or the group of those.
    pub fn is_anonymous(&self) -> bool {
        self.name == Self::ANONYMOUS
    }

    /// Whether one of these groups is the user's.
    pub fn is_in_one_of(&self, groups: &BTreeSet<String>) -> bool {
        self.groups.iter().any(|group| groups.contains(group))
    }
}
