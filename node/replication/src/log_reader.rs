//! Reading the log back: for each slave, and for apply. Bounded in bytes, since the library bounds by count only.

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};

use ferrymq_journal::{Error, Journal};
use futures_util::stream::{self, Stream, StreamExt};
use openraft::OptionalSend;
use openraft::storage::RaftLogReader;

use crate::entry::{decode_vote, from_record};
use crate::log_store::cell;
use crate::types::{Entry, Types, Vote};

/// openraft's view of the log; any number may exist.
#[derive(Clone)]
pub(crate) struct LogReader {
    journal: Journal,
    read_bytes_max: usize,
}

impl LogReader {
    pub(crate) fn new(journal: Journal, read_bytes_max: usize) -> LogReader {
        LogReader {
            journal,
            read_bytes_max,
        }
    }

    /// Where the log begins: behind what is purged, otherwise at 0. openraft allows a log that begins later without a
    /// purge, though it never makes one, so that is searched for.
    fn first_index(&self) -> u64 {
        let log = self.journal.log_state();
        if let Some((_, purged)) = log.purged {
            return purged + 1;
        }
        let is_missing = |index: u64| matches!(self.journal.read_log(index, index + 1, 0), Err(Error::Gone { .. }));
        let (mut first, mut end) = (0, log.last.map_or(0, |(_, last)| last));
        if !is_missing(0) {
            return 0;
        }
        while first < end {
            let middle = first + (end - first) / 2;
            if is_missing(middle) {
                first = middle + 1
            } else {
                end = middle
            }
        }
        first
    }

    fn read(&self, from: u64, to_exclusive: u64, bytes_max: usize) -> io::Result<Vec<Entry>> {
        if from >= to_exclusive {
            return Ok(Vec::new());
        }
        let records = self
            .journal
            .read_log(from, to_exclusive, bytes_max)
            .map_err(io::Error::other)?;
        records.into_iter().map(from_record).collect()
    }
}

impl RaftLogReader<Types> for LogReader {
    async fn try_get_log_entries<RB>(&mut self, range: RB) -> io::Result<Vec<Entry>>
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        // A range means what is there of it; the other methods must not skip what is purged.
        let (from, to_exclusive) = bounds(&range);
        self.read(from.max(self.first_index()), to_exclusive, usize::MAX)
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        self.journal
            .cell(cell::VOTE)
            .map(|value| decode_vote(&value))
            .transpose()
    }

    /// What one append request carries.
    async fn limited_get_log_entries(&mut self, from: u64, to_exclusive: u64) -> io::Result<Vec<Entry>> {
        self.read(from, to_exclusive, self.read_bytes_max)
    }

    /// What apply consumes. After a restart that can be the whole log, so it is read piece by piece.
    async fn entries_stream<RB>(&mut self, range: RB) -> impl Stream<Item = io::Result<Entry>> + OptionalSend
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let (from, to_exclusive) = bounds(&range);
        let reader = self.clone();
        let pieces = stream::unfold(Some(from), move |next| {
            let reader = reader.clone();
            async move {
                let from = next?;
                match reader.read(from, to_exclusive, reader.read_bytes_max) {
                    Ok(entries) => {
                        let next = entries.last().map(|entry| entry.log_id.index + 1)?;
                        Some((entries.into_iter().map(Ok).collect(), Some(next)))
                    }
                    Err(error) => Some((vec![Err(error)], None)),
                }
            }
        });
        pieces.flat_map(stream::iter)
    }
}

/// A range as first index and first index behind.
fn bounds(range: &impl RangeBounds<u64>) -> (u64, u64) {
    let from = match range.start_bound() {
        Bound::Included(index) => *index,
        Bound::Excluded(index) => index.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let to_exclusive = match range.end_bound() {
        Bound::Included(index) => index.saturating_add(1),
        Bound::Excluded(index) => *index,
        Bound::Unbounded => u64::MAX,
    };
    (from, to_exclusive)
}
