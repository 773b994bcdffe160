//! What other groups want of topics while their clients are away, as this group last heard it. A promise to them outlives
//! a restart here (P2), so it is part of the replicated state; the mesh of each term begins with it.
//!
//! What is known of a group is one whole: all its topics as of one version, which that group itself has numbered. Of two
//! words about the same group the higher version counts, so that nobody's old memory brings back what was given up.

use std::collections::{BTreeMap, BTreeSet};

use crate::GroupId;

/// Which word of a group it is: the epoch of its master, and how often its durable subscriptions have changed in it. The
/// epoch carries the incarnation (see [`epoch_of`](crate::epoch_of)): a group whose log went back is heard all the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct DemandVersion {
    /// Its master's epoch.
    pub term: u64,
    /// Changes in that term.
    pub change: u64,
}

/// What one other group wants.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Wanted {
    /// The group's name, for people.
    pub name: String,
    /// The word that this is.
    pub version: DemandVersion,
    /// The groups on the way to it, the next hop first and itself last.
    pub path: Vec<GroupId>,
    /// Since when it cannot be reached, in milliseconds since 1970 on the clock of this group's master; `None` while it can.
    pub away_since_ms: Option<i64>,
    /// Topics, possibly with wildcards, of which it has durable subscriptions.
    pub topics: BTreeSet<String>,
}

/// By group.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Wants {
    pub(crate) by_group: BTreeMap<GroupId, Wanted>,
}

impl Wants {
    /// What this group wants.
    pub fn get(&self, group: GroupId) -> Option<&Wanted> {
        self.by_group.get(&group)
    }

    /// In the order of the groups' ids.
    pub fn iter(&self) -> impl Iterator<Item = (GroupId, &Wanted)> {
        self.by_group.iter().map(|(&group, wanted)| (group, wanted))
    }
}
