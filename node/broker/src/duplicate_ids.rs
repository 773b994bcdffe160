//! The ids by which senders mark messages that may come twice, as Artemis has it (`_AMQ_DUPL_ID`, its "duplicate message
//! detection"): for each destination the latest ones, whoever sent them and whatever the messages hold.
//!
//! Bounded for each destination (Artemis: `id-cache-size`) and in all (P8). What goes first follows from the content: the
//! oldest of its destination, or of all.

use std::{
    collections::{BTreeMap, HashSet, VecDeque},
    sync::Arc,
};

use ferrymq_message::DestinationKind;
use foldhash::fast::FixedState;

/// Ids remembered for one destination at most: Artemis's default of `id-cache-size`.
pub const IDS_MAX: usize = 20_000;
/// Memory for all of them at most, in bytes.
pub const IDS_BYTES_MAX: usize = 32 << 20;
/// Longest id, in bytes.
pub const ID_BYTES_MAX: usize = 1024;

/// What an id takes beside its text: its places in the order, in the set and in its destination's line.
const ID_BYTES: usize = 192;
/// What a destination with ids takes beside its name.
const DESTINATION_BYTES: usize = 256;

/// See the file's head.
#[derive(Debug, Clone)]
pub struct DuplicateIds {
    by_destination: BTreeMap<Name, Ids>,
    /// All, by the order in which they came.
    in_order: BTreeMap<u64, (Name, Arc<str>)>,
    next: u64,
    bytes: usize,
    ids_max: usize,
    bytes_max: usize,
}

/// A destination.
type Name = (u8, Arc<str>);

#[derive(Debug, Clone, Default)]
struct Ids {
    known: HashSet<Arc<str>, FixedState>,
    orders: VecDeque<u64>,
}

impl Default for DuplicateIds {
    fn default() -> Self {
        Self::within(IDS_MAX, IDS_BYTES_MAX)
    }
}

/// Of the same content, in the same order.
impl PartialEq for DuplicateIds {
    fn eq(&self, other: &Self) -> bool {
        self.bytes == other.bytes && self.in_order.values().eq(other.in_order.values())
    }
}

impl DuplicateIds {
    fn within(ids_max: usize, bytes_max: usize) -> Self {
        Self {
            by_destination: BTreeMap::new(),
            in_order: BTreeMap::new(),
            next: 0,
            bytes: 0,
            ids_max,
            bytes_max,
        }
    }

    /// True where a message with this id was stored there.
    pub fn has(&self, kind: DestinationKind, name: &str, id: &str) -> bool {
        if self.by_destination.is_empty() {
            return false;
        }
        let ids = self.by_destination.get(&(kind as u8, name.into()));
        ids.is_some_and(|ids| ids.known.contains(id))
    }

    /// A message with this id is stored there; false where one was before.
    pub(crate) fn add(&mut self, kind: DestinationKind, name: &str, id: &str) -> bool {
        let key: Name = (kind as u8, name.into());
        let (name_bytes, id): (usize, Arc<str>) = (name.len(), id.into());
        let is_first = !self.by_destination.contains_key(&key);
        let ids = self.by_destination.entry(key.clone()).or_default();
        if !ids.known.insert(id.clone()) {
            return false;
        }
        if is_first {
            self.bytes += DESTINATION_BYTES + name_bytes;
        }
        self.bytes += ID_BYTES + id.len();
        ids.orders.push_back(self.next);
        let oldest = (ids.orders.len() > self.ids_max).then(|| ids.orders.front().copied());
        self.in_order.insert(self.next, (key, id));
        self.next += 1;
        if let Some(oldest) = oldest.flatten() {
            self.forget(oldest);
        }
        while self.bytes > self.bytes_max
            && let Some((&oldest, _)) = self.in_order.first_key_value()
        {
            self.forget(oldest);
        }
        true
    }

    /// Ids remembered.
    pub fn len(&self) -> usize {
        self.in_order.len()
    }

    /// True where none is.
    pub fn is_empty(&self) -> bool {
        self.in_order.is_empty()
    }

    /// (kind, name, id), in the order in which they came.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u8, &str, &str)> {
        self.in_order.values().map(|((kind, name), id)| (*kind, &**name, &**id))
    }

    /// The oldest one of its destination.
    fn forget(&mut self, order: u64) {
        let Some((key, id)) = self.in_order.remove(&order) else {
            return;
        };
        self.bytes -= ID_BYTES + id.len();
        if let Some(ids) = self.by_destination.get_mut(&key) {
            ids.known.remove(&id);
            ids.orders.pop_front();
            if ids.orders.is_empty() {
                self.bytes -= DESTINATION_BYTES + key.1.len();
                self.by_destination.remove(&key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUEUE: DestinationKind = DestinationKind::Queue;

    #[test]
    fn an_id_counts_once_for_each_destination() {
        let mut ids = DuplicateIds::default();
        assert!(ids.add(QUEUE, "A", "1") && ids.add(QUEUE, "B", "1") && ids.add(DestinationKind::Topic, "A", "1"));
        assert!(!ids.add(QUEUE, "A", "1") && ids.has(QUEUE, "A", "1"));
        assert!(!ids.has(QUEUE, "A", "2") && !ids.has(QUEUE, "C", "1"));
        assert_eq!(ids.len(), 3);
    }

    #[test]
    fn the_oldest_go_first_of_a_destination_and_of_all() {
        let mut ids = DuplicateIds::within(3, 6 * (ID_BYTES + 1) + 2 * (DESTINATION_BYTES + 1));
        for id in ["1", "2", "3", "4"] {
            assert!(ids.add(QUEUE, "A", id));
        }
        assert!(!ids.has(QUEUE, "A", "1") && ids.has(QUEUE, "A", "2"));
        for id in ["1", "2", "3"] {
            assert!(ids.add(QUEUE, "B", id));
        }
        assert_eq!(ids.len(), 6);
        assert!(ids.add(QUEUE, "C", "1"));
        let left: Vec<_> = ids.iter().map(|(_, name, id)| format!("{name}{id}")).collect();
        assert_eq!(
            left.concat(),
            "B1B2B3C1",
            "a new destination needs more room than an id"
        );
        assert!(ids.bytes <= ids.bytes_max);
        assert!(ids.add(QUEUE, "C", &"x".repeat(ids.bytes_max / 2)));
        assert!(ids.has(QUEUE, "C", "1") && !ids.has(QUEUE, "A", "4"));
        let mut again = DuplicateIds::within(ids.ids_max, ids.bytes_max);
        for (_, name, id) in ids.iter() {
            again.add(QUEUE, name, id);
        }
        assert_eq!(again, ids);
    }
}
