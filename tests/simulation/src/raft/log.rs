//! The log: what the master sends, what slaves append, what is committed and applied.

use std::sync::atomic::Ordering;

use bytes::Bytes;
use ferrymq_simulated_journal::{Journal, Record};

use super::{After, Committed, ENTRIES_MAX, Peer, Replica, State, unknown};
use crate::{
    clock::Instant,
    config::NodeId,
    group::{Failure, GroupEvent},
    sabotage::Sabotage,
};

/// The cell of term and vote.
pub(super) const VOTE: u8 = 1;
/// The cell that says how far the newest state file may be.
pub(super) const SNAPSHOT: u8 = 2;

/// The cell of how far the log was known to be committed; lazily written, as in `log_store.rs`.
const COMMITTED: u8 = 3;

/// Term and vote as they are on disk.
pub(super) fn read_vote(journal: &Journal) -> (u64, Option<NodeId>) {
    let cell = journal.cell(VOTE).unwrap_or_default();
    let number = |at: usize| {
        cell.get(at..at + 8)
            .and_then(|b| b.try_into().ok())
            .map_or(0, u64::from_le_bytes)
    };
    let node = number(8);
    (number(0), (node != 0).then_some(node))
}

impl Replica {
    /// Term and index of the newest entry.
    pub(super) fn last(&self) -> (u64, u64) {
        self.journal.log_state().last.unwrap_or((0, 0))
    }

    pub(super) fn purged(&self) -> (u64, u64) {
        self.journal.log_state().purged.unwrap_or((0, 0))
    }

    /// After a start: what was known to be committed is applied, so that the state is no older than what was moved or
    /// let go of since its file was written.
    pub(super) fn apply_known(&mut self) {
        let cell = self.journal.cell(COMMITTED).unwrap_or_default();
        if let Some(known) = cell.first_chunk::<8>() {
            self.commit_to(u64::from_le_bytes(*known));
        }
    }

    fn entry(&mut self, index: u64) -> Option<Record> {
        match self.journal.read_log(index, index + 1, usize::MAX) {
            Ok(mut records) => records.pop(),
            Err(error) => {
                self.stop(format!("log entry {index}: {error}"));
                None
            }
        }
    }

    /// The term of an entry that the log has, or that is its beginning.
    fn term_of(&mut self, index: u64) -> Option<u64> {
        let purged = self.purged();
        match index {
            0 => Some(0),
            _ if index == purged.1 => Some(purged.0),
            _ if index < purged.1 || index > self.last().1 => None,
            _ => self.entry(index).map(|record| record.term),
        }
    }

    /// The master appends; returns the entry's index.
    pub(super) fn append_own(&mut self, payload: Bytes) -> u64 {
        let (term, index) = (self.term, self.last().1 + 1);
        let done = self.operation();
        self.journal.append(vec![Record { term, index, payload }], done);
        self.then(After::Synced { term, index });
        for to in self.others() {
            self.send_entries(to, false);
        }
        index
    }

    /// Sends what a slave lacks; `always`: a pulse where it lacks nothing.
    pub(super) fn send_entries(&mut self, to: NodeId, always: bool) {
        let State::Leader(leading) = &self.state else { return };
        let Some(follower) = leading.followers.get(&to).copied() else {
            return;
        };
        let last = self.last().1;
        if follower.next <= self.purged().1 {
            if always {
                self.send_snapshot(to);
            }
            return;
        }
        if follower.next > last && !always {
            return;
        }
        let end = (follower.next + ENTRIES_MAX).min(last + 1);
        let entries: Vec<Record> = (follower.next..end).map_while(|index| self.entry(index)).collect();
        let prev_index = follower.next - 1;
        let Some(prev_term) = self.term_of(prev_index) else {
            return;
        };
        let next = follower.next + entries.len() as u64;
        self.say(
            to,
            Peer::Append {
                term: self.term,
                prev: (prev_term, prev_index),
                entries,
                commit: self.commit,
                sent_us: Instant::now().0,
            },
        );
        if let State::Leader(leading) = &mut self.state
            && let Some(follower) = leading.followers.get_mut(&to)
        {
            follower.next = next;
        }
    }

    /// Whether a master's request counts; makes this node its slave.
    pub(super) fn heed(&mut self, from: NodeId, term: u64, sent_us: u64) -> bool {
        if term < self.term {
            let term = self.term;
            self.say(
                from,
                Peer::Appended {
                    term,
                    ok: false,
                    index: 0,
                    sent_us,
                },
            );
            return false;
        }
        self.see_term(term);
        let now = Instant::now().0;
        self.follow(Some(from));
        self.heard_us = Some(now);
        self.rest_until_election(now);
        true
    }

    pub(super) fn hear_entries(
        &mut self,
        from: NodeId,
        term: u64,
        prev: (u64, u64),
        entries: Vec<Record>,
        commit: u64,
        sent_us: u64,
    ) {
        if !self.heed(from, term, sent_us) {
            return;
        }
        let known = prev.1 <= self.commit.max(self.purged().1) || self.term_of(prev.1) == Some(prev.0);
        if !known {
            let index = self.last().1.min(prev.1.saturating_sub(1));
            let reply = Peer::Appended {
                term,
                ok: false,
                index,
                sent_us,
            };
            return self.then(After::Send(from, reply));
        }
        let verified = prev.1 + entries.len() as u64;
        for record in entries {
            if record.index <= self.commit.max(self.purged().1) {
                continue;
            }
            match self.term_of(record.index) {
                Some(term) if term == record.term => continue,
                Some(_) => self.truncate(record.index),
                None => {}
            }
            let done = self.operation();
            self.journal.append(vec![record], done);
        }
        if self.fatal.is_some() {
            return;
        }
        self.commit_to(commit.min(verified));
        let reply = Peer::Appended {
            term,
            ok: true,
            index: verified,
            sent_us,
        };
        self.then(After::Send(from, reply));
    }

    fn truncate(&mut self, from: u64) {
        let done = self.operation();
        self.journal.truncate_after(Some(from - 1), done);
        let lost = self.proposals.split_off(&from);
        let results: Vec<_> = lost.into_values().flat_map(unknown).collect();
        if !results.is_empty() {
            self.shut(Failure::Unknown);
            self.events.push(GroupEvent::Done { results });
        }
    }

    pub(super) fn appended(&mut self, from: NodeId, term: u64, ok: bool, index: u64, sent_us: u64) {
        if term > self.term {
            return self.see_term(term);
        }
        let now = Instant::now().0;
        let State::Leader(leading) = &mut self.state else {
            return;
        };
        if term < self.term {
            return;
        }
        if self.handing_over != term {
            self.shared.lease.answered(from, term, Instant(sent_us));
        }
        let Some(follower) = leading.followers.get_mut(&from) else {
            return;
        };
        if ok {
            if index > follower.matched {
                follower.matched = index;
                follower.progress_us = now;
            }
            follower.next = follower.next.max(follower.matched + 1);
            self.advance();
            self.send_entries(from, false);
        } else {
            follower.next = (index + 1).min(follower.next).max(follower.matched + 1);
            self.send_entries(from, true);
        }
    }

    /// Commits what a majority has.
    pub(super) fn advance(&mut self) {
        let State::Leader(leading) = &self.state else { return };
        let mut matched: Vec<u64> = leading
            .followers
            .values()
            .map(|f| f.matched)
            .chain([leading.synced])
            .collect();
        matched.sort_unstable_by(|a, b| b.cmp(a));
        let index = matched[self.majority() - 1];
        if index > self.commit && self.term_of(index) == Some(self.term) {
            self.commit_to(index);
            self.say_commit();
        }
    }

    /// Slaves learn of a commit with the next request; where there is none, with this one.
    fn say_commit(&mut self) {
        for to in self.others() {
            self.send_entries(to, true);
        }
    }

    pub(super) fn commit_to(&mut self, index: u64) {
        let index = index.min(self.last().1);
        if index > self.commit {
            self.commit = index;
            let value = Bytes::copy_from_slice(&index.to_le_bytes());
            self.journal.put_cell(COMMITTED, value, false, Box::new(|_| {}));
        }
        while self.applied < self.commit && self.fatal.is_none() {
            self.apply(self.applied + 1);
        }
        self.shared.applied.store(self.applied, Ordering::Relaxed);
        self.journal.set_live_horizon(self.applied);
        self.snapshot_if_due();
    }

    fn apply(&mut self, index: u64) {
        let Some(record) = self.entry(index) else {
            return self.stop(format!("log entry {index} is not there"));
        };
        let term = record.term;
        let (mut effects, mut outcomes) = (Vec::new(), Vec::new());
        if !record.payload.is_empty() {
            let applied = self.shared.broker_mut().apply(index, &record.payload);
            match applied {
                Ok(applied) => {
                    for change in &applied.live {
                        let forgets = self.shared.sabotage == Some(Sabotage::ForgetLiving) && change.references > 0;
                        if !forgets {
                            self.journal.adjust_live(change.index, change.references, change.bytes);
                        }
                    }
                    (effects, outcomes) = (applied.effects, applied.outcomes);
                }
                Err(error) => return self.stop(format!("log entry {index} cannot be applied: {error}")),
            }
        }
        self.applied = index;
        self.applied_term = term;
        self.committed.push(Committed {
            term,
            index,
            payload: record.payload,
        });
        let results = self.completions(index, term, outcomes);
        if !self.attached() {
            effects.clear();
        }
        self.tell(index, effects, results);
    }
}
