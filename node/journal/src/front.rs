//! What callers see at once: the log and cells as they will be when everything queued is on disk, and the newest
//! records in memory.
//!
//! Invariant: an index that is on disk neither at all nor with the same content is in the tail. So a read asks the tail
//! first, then the catalog.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use crate::{catalog::Catalog, event::LogId, queue::Op};

/// A log entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The term that it was proposed in.
    pub term: u64,
    /// Its place in the log; indexes are consecutive.
    pub index: u64,
    /// Opaque bytes.
    pub payload: Bytes,
}

/// A byte range in the payload of the log record `index`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// The record's log index.
    pub index: u64,
    /// First byte in its payload.
    pub offset: u32,
    /// Bytes.
    pub len: u32,
}

/// Where the log begins and ends; (term, index) each.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LogState {
    /// Everything up to here is no longer part of the log.
    pub purged: Option<(u64, u64)>,
    /// The newest entry, or what is purged where the log is empty.
    pub last: Option<(u64, u64)>,
}

/// See the file's head.
#[derive(Debug, Default)]
pub(crate) struct Front {
    pub(crate) log: LogState,
    pub(crate) cells: BTreeMap<u8, Bytes>,
    pub(crate) tail: Tail,
    /// The install that may finish.
    pub(crate) install: Option<u64>,
    /// Number of the newest queued operation.
    pub(crate) sequence: u64,
}

impl Front {
    pub(crate) fn next_index(&self) -> Option<u64> {
        self.log.last.map(|(_, index)| index + 1)
    }

    pub(crate) fn append(&mut self, record: &Record) {
        self.log.last = Some((record.term, record.index));
        self.tail.push(record, self.sequence);
    }

    /// Ends the log before `from`. `term_of` finds the term of an entry that is on disk only.
    pub(crate) fn truncate(&mut self, from: u64, term_of: impl Fn(u64) -> Option<u64>) {
        if self.log.last.is_none_or(|(_, last)| last < from) {
            return;
        }
        let floor = self.log.purged;
        self.log.last = match from.checked_sub(1) {
            Some(index) if floor.is_none_or(|(_, purged)| index > purged) => self
                .tail
                .get(index)
                .map(|record| record.term)
                .or_else(|| term_of(index))
                .map(|term| (term, index)),
            _ => floor,
        };
        self.tail.truncate(from);
    }

    pub(crate) fn purge(&mut self, upto: LogId) {
        if self.log.purged.is_some_and(|(_, purged)| purged >= upto.1) {
            return;
        }
        self.log.purged = Some(upto);
        if self.log.last.is_none_or(|(_, last)| last < upto.1) {
            self.log.last = Some(upto);
        }
    }

    pub(crate) fn install(&mut self, last: LogId) {
        self.log = LogState {
            purged: Some(last),
            last: Some(last),
        };
        self.tail = Tail::default();
        self.install = None;
    }

    /// The queued entries have failed: what remains is what is on disk, and what `later` operations do to it.
    pub(crate) fn roll_back<'a>(&mut self, catalog: &Catalog, later: impl Iterator<Item = &'a Op>) {
        let (purged, tail) = (self.log.purged, std::mem::take(&mut self.tail));
        let mut on_disk = Self {
            log: catalog.log,
            tail,
            ..Self::default()
        };
        for op in later {
            match op {
                Op::Truncate { from, .. } => on_disk.truncate(*from, |index| catalog.slot(index).map(|slot| slot.term)),
                Op::Purge { upto } => on_disk.purge(*upto),
                Op::Install { last, .. } => on_disk.install(*last),
                _ => {}
            }
        }
        self.log = LogState {
            purged,
            last: on_disk.log.last,
        };
        self.tail = on_disk.tail;
        self.tail.truncate(self.log.last.map_or(0, |(_, last)| last + 1));
    }
}

/// The newest records, without gaps.
#[derive(Debug, Default)]
pub(crate) struct Tail {
    first: u64,
    records: VecDeque<TailRecord>,
    bytes: usize,
}

/// A record in memory.
#[derive(Debug)]
pub(crate) struct TailRecord {
    pub(crate) term: u64,
    pub(crate) payload: Bytes,
    /// The operation that brings it to disk.
    sequence: u64,
}

impl Tail {
    fn push(&mut self, record: &Record, sequence: u64) {
        if self.records.is_empty() || self.first + self.records.len() as u64 != record.index {
            self.records.clear();
            self.bytes = 0;
            self.first = record.index;
        }
        self.bytes += record.payload.len();
        self.records.push_back(TailRecord {
            term: record.term,
            payload: record.payload.clone(),
            sequence,
        });
    }

    pub(crate) fn get(&self, index: u64) -> Option<&TailRecord> {
        let at = index.checked_sub(self.first)?;
        self.records.get(usize::try_from(at).ok()?)
    }

    fn truncate(&mut self, from: u64) {
        while self.first + self.records.len() as u64 > from {
            let Some(record) = self.records.pop_back() else { break };
            self.bytes -= record.payload.len();
        }
    }

    /// Lets go of the oldest records until `bytes_max` holds, but of none whose operation is newer than `written`.
    pub(crate) fn evict(&mut self, bytes_max: usize, written: u64) {
        while self.bytes > bytes_max && self.records.front().is_some_and(|record| record.sequence <= written) {
            let Some(record) = self.records.pop_front() else { break };
            self.bytes -= record.payload.len();
            self.first += 1;
        }
    }

    /// Payload bytes held.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }
}
