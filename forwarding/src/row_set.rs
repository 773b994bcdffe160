//! The rows of demand of one direction of a link, with the hash over them that both sides compare (P12).

use std::{collections::BTreeMap, sync::Arc};

use bytes::BytesMut;

use ferrymq_broker::GroupId;
use ferrymq_message::Destination;

use crate::row::{Key, Row};

/// Rows by key. Invariant: `hash` is the wrapping sum of all rows' hashes.
#[derive(Debug, Clone, Default)]
pub(crate) struct RowSet {
    rows: BTreeMap<Key, SharedRow>,
    hash: u64,
    scratch: BytesMut,
}

/// A row with its hash. What is told to many neighbours is hashed and held once.
#[derive(Debug, Clone)]
pub(crate) struct SharedRow(Arc<(Row, u64)>);

impl SharedRow {
    pub(crate) fn new(row: Row, scratch: &mut BytesMut) -> Self {
        let hash = row.hash(scratch);
        Self(Arc::new((row, hash)))
    }

    pub(crate) fn row(&self) -> &Row {
        &self.0.0
    }
}

impl RowSet {
    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }

    pub(crate) fn hash(&self) -> u64 {
        self.hash
    }

    pub(crate) fn get(&self, key: &Key) -> Option<&Row> {
        self.rows.get(key).map(SharedRow::row)
    }

    /// True where this changed something.
    pub(crate) fn insert(&mut self, row: Row) -> bool {
        if self.get(&row.key) == Some(&row) {
            return false;
        }
        let shared = SharedRow::new(row, &mut self.scratch);
        self.put(shared);
        true
    }

    /// As [`Self::insert`], for a row that others hold too and that is known to differ.
    pub(crate) fn put(&mut self, shared: SharedRow) {
        self.hash = self.hash.wrapping_add(shared.0.1);
        if let Some(old) = self.rows.insert(shared.row().key.clone(), shared) {
            self.hash = self.hash.wrapping_sub(old.0.1);
        }
    }

    pub(crate) fn remove(&mut self, key: &Key) -> bool {
        let Some(old) = self.rows.remove(key) else {
            return false;
        };
        self.hash = self.hash.wrapping_sub(old.0.1);
        true
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Row> {
        self.rows.values().map(SharedRow::row)
    }

    /// The rows of one destination (or, for `None`, those that say who is there), by origin.
    pub(crate) fn about(&self, destination: Option<&Destination>) -> impl Iterator<Item = &Row> {
        let key = |origin: GroupId| Key {
            destination: destination.cloned(),
            origin,
        };
        self.rows
            .range(key(GroupId::MIN)..=key(GroupId::MAX))
            .map(|(_, shared)| shared.row())
    }
}
