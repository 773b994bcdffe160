//! Which neighbours told of which row, and whose word leads along the best way: so that nobody has to be asked who told
//! nothing, and a way is chosen when something about it changes, not each time that it is used.

use std::{collections::BTreeMap, ops::RangeInclusive};

use ferrymq_broker::GroupId;
use ferrymq_message::Destination;

use super::news::Origins;
use crate::row::Key;

/// Invariant: holds the key of each row heard, with those that told it.
#[derive(Debug, Default)]
pub(super) struct Tellers {
    by_key: BTreeMap<Key, Told>,
}

/// Who told a row.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// In ascending order.
    pub(super) by: Vec<GroupId>,
    /// The best of them; `None` where none of their rows may be used.
    pub(super) best: Option<GroupId>,
}

impl Tellers {
    pub(super) fn add(&mut self, key: &Key, teller: GroupId) {
        if let Some(told) = self.by_key.get_mut(key) {
            if let Err(at) = told.by.binary_search(&teller) {
                told.by.insert(at, teller);
            }
        } else {
            let told = Told {
                by: vec![teller],
                best: None,
            };
            self.by_key.insert(key.clone(), told);
        }
    }

    /// A teller of the row is gone; whether it was the best.
    pub(super) fn remove(&mut self, key: &Key, teller: GroupId) -> bool {
        let Some(told) = self.by_key.get_mut(key) else {
            return false;
        };
        told.by.retain(|other| *other != teller);
        if told.by.is_empty() {
            self.by_key.remove(key);
            return false;
        }
        told.best == Some(teller)
    }

    pub(super) fn choose(&mut self, key: &Key, best: Option<GroupId>) {
        if let Some(told) = self.by_key.get_mut(key) {
            told.best = best;
        }
    }

    /// Every key that somebody told, in order.
    pub(super) fn keys(&self) -> impl Iterator<Item = &Key> {
        self.by_key.keys()
    }

    /// Who told this row.
    pub(super) fn of(&self, key: &Key) -> Option<&Told> {
        self.by_key.get(key)
    }

    /// The rows of a destination that somebody told, with those that did, in order of origin.
    pub(super) fn about(&self, destination: Option<&Destination>, origins: &Origins) -> Vec<(&Key, &Told)> {
        match origins {
            Origins::All => self.by_key.range(keys_of(destination)).collect(),
            Origins::These(origins) => {
                let key = |origin: &GroupId| Key {
                    destination: destination.cloned(),
                    origin: *origin,
                };
                let found = origins
                    .iter()
                    .filter_map(|origin| self.by_key.get_key_value(&key(origin)));
                found.collect()
            }
        }
    }
}

/// The keys of all origins' rows of a destination.
pub(super) fn keys_of(destination: Option<&Destination>) -> RangeInclusive<Key> {
    let key = |origin: GroupId| Key {
        destination: destination.cloned(),
        origin,
    };
    key(GroupId::MIN)..=key(GroupId::MAX)
}
