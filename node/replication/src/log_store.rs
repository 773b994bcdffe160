//! The group's log in the journal: openraft's log entries, vote and commit mark in one sequence of records, so that
//! their order on disk is the order in which they were decided.

use std::io;

use bytes::Bytes;
use ferrymq_journal::Journal;
use openraft::LogState;
use openraft::OptionalSend;
use openraft::storage::{IOFlushed, RaftLogStorage};
use tokio::sync::oneshot;

use crate::entry::{decode_log_id, encode_log_id, encode_vote, to_record};
use crate::log_reader::LogReader;
use crate::types::{Entry, LogId, Types, Vote, log_id, term_and_index};

/// The journal's small named cells that this room uses.
pub(crate) mod cell {
    /// openraft's vote.
    pub(crate) const VOTE: u8 = 1;
    /// How far the log was known to be committed; lazily written.
    pub(crate) const COMMITTED: u8 = 2;
    /// Whose data this is: group and node.
    pub(crate) const IDENTITY: u8 = 3;
    /// Whether this node may vote and acknowledge, once that was decided (admission.rs).
    pub(crate) const ADMITTED: u8 = 4;
    /// Written in front of a state file, so that the log up to it is on disk first (snapshot.rs).
    pub(crate) const SNAPSHOT: u8 = 5;
    /// The number of the last start, and of the one under which it was taken in anew (meeting.rs).
    pub(crate) const STARTS: u8 = 6;
    /// What is known of the other members' lives (meeting.rs).
    pub(crate) const LIVES: u8 = 7;
}

/// openraft's log storage.
#[derive(Clone)]
pub(crate) struct LogStore {
    journal: Journal,
    read_bytes_max: usize,
}

impl LogStore {
    pub(crate) fn new(journal: Journal, read_bytes_max: usize) -> LogStore {
        LogStore {
            journal,
            read_bytes_max,
        }
    }
}

impl RaftLogStorage<Types> for LogStore {
    type LogReader = LogReader;

    async fn get_log_state(&mut self) -> io::Result<LogState<Types>> {
        let state = self.journal.log_state();
        let last_purged_log_id = state.purged.map(|(term, index)| log_id(term, index));
        let last_log_id = state
            .last
            .map(|(term, index)| log_id(term, index))
            .or(last_purged_log_id);
        Ok(LogState {
            last_purged_log_id,
            last_log_id,
        })
    }

    async fn get_log_reader(&mut self) -> LogReader {
        LogReader::new(self.journal.clone(), self.read_bytes_max)
    }

    /// Returns when the vote is on disk: a vote that is forgotten could be given twice.
    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        put_cell(&self.journal, cell::VOTE, encode_vote(vote)).await
    }

    /// Rides with the next sync. It is a hint that saves a restarted node from waiting for the master.
    async fn save_committed(&mut self, committed: Option<LogId>) -> io::Result<()> {
        let value = committed.map(|log_id| encode_log_id(&log_id)).unwrap_or_default();
        self.journal.put_cell(cell::COMMITTED, value, false, Box::new(|_| {}));
        Ok(())
    }

    /// Never beyond the log: the mark may have reached the disk when a truncated tail did not, or the other way round.
    async fn read_committed(&mut self) -> io::Result<Option<LogId>> {
        let Some(value) = self.journal.cell(cell::COMMITTED).filter(|value| !value.is_empty()) else {
            return Ok(None);
        };
        let committed = decode_log_id(&value)?;
        let last = self.journal.log_state().last.map(|(term, index)| log_id(term, index));
        Ok(Some(committed).filter(|committed| Some(committed) <= last.as_ref()))
    }

    async fn append<I>(&mut self, entries: I, flushed: IOFlushed<Types>) -> io::Result<()>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let records = entries.into_iter().map(to_record).collect::<io::Result<Vec<_>>>()?;
        self.journal.append(
            records,
            Box::new(move |result| flushed.io_completed(result.map_err(io::Error::other))),
        );
        Ok(())
    }

    /// Not waited for: whatever is appended afterwards lies behind it in the journal, and a vote that follows waits for
    /// both.
    async fn truncate_after(&mut self, last: Option<LogId>) -> io::Result<()> {
        let index = last.map(|log_id| log_id.index);
        self.journal.truncate_after(index, Box::new(|_| {}));
        Ok(())
    }

    async fn purge(&mut self, upto: LogId) -> io::Result<()> {
        let (term, index) = term_and_index(&upto);
        // An installed snapshot has moved the mark already.
        if self.journal.log_state().purged.is_none_or(|(_, purged)| purged < index) {
            self.journal.purge(index, term, Box::new(|_| {}));
        }
        Ok(())
    }
}

/// Writes a cell and waits until it, and everything before it, is on disk.
pub(crate) async fn put_cell(journal: &Journal, key: u8, value: Bytes) -> io::Result<()> {
    let (done, synced) = oneshot::channel();
    journal.put_cell(
        key,
        value,
        true,
        Box::new(move |result| {
            let _ = done.send(result);
        }),
    );
    match synced.await {
        Ok(result) => result.map_err(io::Error::other),
        Err(_) => Err(io::Error::other("the journal was closed")),
    }
}
