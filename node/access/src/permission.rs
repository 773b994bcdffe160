//! One line of what groups may do: ActiveMQ's `authorizationEntry`.

use std::collections::BTreeSet;

use crate::{identity::Identity, pattern::Pattern, right::Right};

/// Rights of groups on the destinations of a pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Permission {
    /// Which destinations.
    pub destinations: Pattern,
    /// Who may consume.
    pub read: BTreeSet<String>,
    /// Who may send.
    pub write: BTreeSet<String>,
    /// Who may delete and purge.
    pub admin: BTreeSet<String>,
}

impl Permission {
    /// In place of a group: everybody who came in.
    pub const EVERYBODY: &str = "*";

    /// Whether one of somebody's groups has this right here.
    pub fn grants(&self, identity: &Identity, right: Right) -> bool {
        let groups = match right {
            Right::Read => &self.read,
            Right::Write => &self.write,
            Right::Admin => &self.admin,
        };
        groups.contains(Self::EVERYBODY) || identity.is_in_one_of(groups)
    }
}
