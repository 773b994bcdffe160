//! How much log has come since the last snapshot and how many bytes of messages have gone: when a snapshot is due, and up
//! to where the log may be cut after it.

use std::collections::VecDeque;

/// Log between two marks at most, in bytes: as exactly is known where the log may be cut.
const MARK_BYTES_MAX: u64 = 1 << 20;

/// Bytes applied and freed, with marks along the log.
#[derive(Debug, Default)]
pub(crate) struct Growth {
    /// Log that usually stays behind a cut, in bytes.
    keep_bytes: u64,
    /// Since a snapshot was last due: log that came, and messages that went.
    due_bytes: u64,
    /// What it was when one was due last.
    taken_bytes: u64,
    /// Log since the start, in bytes.
    log_bytes: u64,
    /// (index, log bytes up to and with it), in order.
    marks: VecDeque<(u64, u64)>,
    /// `log_bytes` at the last look.
    seen_bytes: u64,
}

impl Growth {
    /// Nothing has grown yet.
    pub(crate) fn new(keep_bytes: u64) -> Self {
        Self {
            keep_bytes,
            due_bytes: 0,
            taken_bytes: 0,
            log_bytes: 0,
            marks: VecDeque::new(),
            seen_bytes: 0,
        }
    }

    /// An entry was applied.
    pub(crate) fn add(&mut self, index: u64, log: u64, freed: u64) {
        self.due_bytes += log + freed;
        self.log_bytes += log;
        let step = (self.keep_bytes / 64).min(MARK_BYTES_MAX);
        if self
            .marks
            .back()
            .is_none_or(|&(_, bytes)| self.log_bytes - bytes >= step)
        {
            self.marks.push_back((index, self.log_bytes));
        }
    }

    /// Whether a snapshot is due: after `bytes`, or after an eighth of that once nothing more comes. Saying yes counts
    /// as having taken it.
    pub(crate) fn take_due(&mut self, bytes: u64) -> bool {
        let idle = self.seen_bytes == self.log_bytes;
        self.seen_bytes = self.log_bytes;
        let due = self.due_bytes >= bytes || (idle && self.due_bytes >= bytes / 8);
        if due {
            self.taken_bytes = std::mem::take(&mut self.due_bytes);
        }
        due
    }

    /// The snapshot that was due last could not be made: it is still due.
    pub(crate) fn not_taken(&mut self) {
        self.due_bytes += std::mem::take(&mut self.taken_bytes);
    }

    /// The entry up to which the log may go so that `keep_bytes` stay, never beyond the snapshot. Marks below are dropped.
    pub(crate) fn cut(&mut self, snapshot_index: u64, keep_bytes: u64) -> Option<u64> {
        let mut cut = None;
        while let Some(&(index, bytes)) = self.marks.front() {
            if index > snapshot_index || self.log_bytes - bytes < keep_bytes {
                break;
            }
            cut = Some(index);
            self.marks.pop_front();
        }
        cut
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_is_due_by_log_by_freed_bytes_and_sooner_when_idle() {
        let mut growth = Growth::new(0);
        growth.add(1, 100, 0);
        assert!(!growth.take_due(1000));
        growth.add(2, 100, 800);
        assert!(growth.take_due(1000));
        assert!(!growth.take_due(1000), "nothing has grown since");
        growth.add(3, 130, 0);
        assert!(!growth.take_due(1000), "more may come");
        assert!(growth.take_due(1000), "nothing more came");
        assert!(!growth.take_due(1000));
        growth.not_taken();
        assert!(growth.take_due(1000), "the last one failed");
    }

    #[test]
    fn the_last_bytes_stay_and_nothing_beyond_the_snapshot_goes() {
        let mut growth = Growth::new(3 * MARK_BYTES_MAX);
        for index in 1..=10 {
            growth.add(index, MARK_BYTES_MAX, 0);
        }
        assert_eq!(growth.cut(4, 3 * MARK_BYTES_MAX), Some(4));
        assert_eq!(growth.cut(10, 3 * MARK_BYTES_MAX), Some(7));
        assert_eq!(growth.cut(10, 3 * MARK_BYTES_MAX), None);
        assert_eq!(
            growth.cut(10, MARK_BYTES_MAX),
            Some(9),
            "less is kept where space is short"
        );
    }
}
