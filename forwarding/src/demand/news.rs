//! What has changed since the neighbours were told last: the rows to look at again, so that a change costs no more than
//! itself however much else there is.

use std::collections::{BTreeMap, BTreeSet};

use ferrymq_broker::GroupId;
use ferrymq_message::Destination;

use crate::row::Key;

/// By destination (`None`: who is there), the origins whose rows may have changed.
#[derive(Debug, Default)]
pub(crate) struct News {
    pub(super) about: BTreeMap<Option<Destination>, Origins>,
    /// Origins of which a neighbour has won or lost a link of its own: all of their rows.
    pub(super) relinked: BTreeSet<GroupId>,
}

/// Some or all origins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Origins {
    /// Every one.
    All,
    /// Only these.
    These(BTreeSet<GroupId>),
}

impl News {
    /// All rows of a destination.
    pub(super) fn all(&mut self, destination: Option<Destination>) {
        self.about.insert(destination, Origins::All);
    }

    /// One row.
    pub(super) fn row(&mut self, key: &Key) {
        match self.about.get_mut(&key.destination) {
            Some(Origins::All) => {}
            Some(Origins::These(origins)) => _ = origins.insert(key.origin),
            None => {
                let origins = Origins::These(BTreeSet::from([key.origin]));
                self.about.insert(key.destination.clone(), origins);
            }
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.about.is_empty() && self.relinked.is_empty()
    }
}

impl Origins {
    pub(super) fn contains(&self, origin: GroupId) -> bool {
        match self {
            Self::All => true,
            Self::These(origins) => origins.contains(&origin),
        }
    }
}
