//! The rows of demand of one direction of a link, with the hash over them that both sides compare (P12).

use std::collections::BTreeMap;

use bytes::BytesMut;

use ferrymq_broker::GroupId;
use ferrymq_message::Destination;

use crate::row::{Key, Row};

/// Rows by key. Invariant: `hash` is the wrapping sum of all rows' hashes.
#[derive(Debug, Clone, Default)]
pub(crate) struct RowSet {
    rows: BTreeMap<Key, (Row, u64)>,
    hash: u64,
    scratch: BytesMut,
}

impl RowSet {
    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }

    pub(crate) fn hash(&self) -> u64 {
        self.hash
    }

    pub(crate) fn get(&self, key: &Key) -> Option<&Row> {
        self.rows.get(key).map(|(row, _)| row)
    }

    /// True where this changed something.
    pub(crate) fn insert(&mut self, row: Row) -> bool {
        if self.get(&row.key) == Some(&row) {
            return false;
        }
        let hash = row.hash(&mut self.scratch);
        self.hash = self.hash.wrapping_add(hash);
        if let Some((_, old)) = self.rows.insert(row.key.clone(), (row, hash)) {
            self.hash = self.hash.wrapping_sub(old);
        }
        true
    }

    pub(crate) fn remove(&mut self, key: &Key) -> bool {
        let Some((_, hash)) = self.rows.remove(key) else {
            return false;
        };
        self.hash = self.hash.wrapping_sub(hash);
        true
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Row> {
        self.rows.values().map(|(row, _)| row)
    }

    /// The rows of one destination (or, for `None`, those that say who is there), by origin.
    pub(crate) fn about(&self, destination: Option<&Destination>) -> impl Iterator<Item = &Row> {
        let key = |origin: GroupId| Key {
            destination: destination.cloned(),
            origin,
        };
        self.rows
            .range(key(GroupId::MIN)..=key(GroupId::MAX))
            .map(|(_, (row, _))| row)
    }
}
