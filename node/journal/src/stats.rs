//! What the journal tells about itself.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// A reading of the journal's gauges and counters; counters start at zero with the process.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stats {
    /// Segments that hold records, the one being written included.
    pub segments: usize,
    /// Size of all files, spare ones included, bytes.
    pub bytes_on_disk: u64,
    /// Bytes that live, as told by `adjust_live` and `reset_live`.
    pub live_bytes: u64,
    /// Payload bytes in memory: recent records and records read back.
    pub cache_bytes: usize,
    /// Payload bytes accepted and not yet answered.
    pub queued_bytes: usize,
    /// Times that the journal waited for the disk.
    pub syncs: u64,
    /// Bytes written, headers and padding included.
    pub bytes_written: u64,
    /// How long syncs took.
    pub sync_micros: SyncTimes,
    /// Files ready for use as the next segments, the reserved one included.
    pub spare_segments: usize,
    /// Their size, bytes.
    pub spare_bytes: u64,
}

/// Durations in microseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SyncTimes {
    /// How many.
    pub count: u64,
    /// Their sum.
    pub total: u64,
    /// The longest.
    pub max: u64,
}

/// The counters behind [`Stats`].
#[derive(Debug, Default)]
pub(crate) struct Counters {
    syncs: AtomicU64,
    sync_micros_total: AtomicU64,
    sync_micros_max: AtomicU64,
    bytes_written: AtomicU64,
}

impl Counters {
    pub(crate) fn synced(&self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.syncs.fetch_add(1, Ordering::Relaxed);
        self.sync_micros_total.fetch_add(micros, Ordering::Relaxed);
        self.sync_micros_max.fetch_max(micros, Ordering::Relaxed);
    }

    pub(crate) fn wrote(&self, bytes: u64) {
        self.bytes_written.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn read_into(&self, stats: &mut Stats) {
        stats.syncs = self.syncs.load(Ordering::Relaxed);
        stats.bytes_written = self.bytes_written.load(Ordering::Relaxed);
        stats.sync_micros = SyncTimes {
            count: stats.syncs,
            total: self.sync_micros_total.load(Ordering::Relaxed),
            max: self.sync_micros_max.load(Ordering::Relaxed),
        };
    }
}
