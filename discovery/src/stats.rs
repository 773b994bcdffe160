//! Discovery's counters.

use std::sync::atomic::{AtomicU64, Ordering};

/// Discovery's counters since it was started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    /// Announcements sent, one for each interface and time.
    pub sent: u64,
    /// Announcements of other nodes received and believed.
    pub received: u64,
    /// Announcements that begin as ours do and cannot be read, or are of another version.
    pub malformed: u64,
    /// Announcements with a missing or wrong tag.
    pub unauthenticated: u64,
    /// Nodes that were not heard for too long.
    pub expired: u64,
    /// Announcements of new nodes ignored because the table or the queue before it was full.
    pub table_full: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) sent: AtomicU64,
    pub(crate) received: AtomicU64,
    pub(crate) malformed: AtomicU64,
    pub(crate) unauthenticated: AtomicU64,
    pub(crate) expired: AtomicU64,
    pub(crate) table_full: AtomicU64,
}

impl Counters {
    pub(crate) fn add(counter: &AtomicU64, number: usize) {
        counter.fetch_add(number as u64, Ordering::Relaxed);
    }

    pub(crate) fn read(&self) -> Stats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Stats {
            sent: read(&self.sent),
            received: read(&self.received),
            malformed: read(&self.malformed),
            unauthenticated: read(&self.unauthenticated),
            expired: read(&self.expired),
            table_full: read(&self.table_full),
        }
    }
}
