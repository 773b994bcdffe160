//! Snapshots: written now and then so that the log can be cut, and sent to a slave that has fallen behind; and living
//! messages moved out of sparse segments. After `node/replication/src/{state_machine,housekeeping,snapshot}.rs`.

use std::{collections::BTreeSet, sync::atomic::Ordering};

use bytes::Bytes;
use ferrymq_broker::{Broker, Settings};
use ferrymq_simulated_journal::Place;

use super::{After, KEEP_ENTRIES, Peer, Replica, SNAPSHOT_ENTRIES, State, log::SNAPSHOT, state_file};
use crate::{clock::Instant, config::NodeId, group::journal_place};

/// How often sparse segments are looked for.
const STRAGGLERS_US: u64 = 1_000_000;

impl Replica {
    pub(super) fn reset_live(&self) {
        let of_entry = |(index, references, bytes): (u64, u64, u64)| {
            (0..references).map(move |nth| (index, if nth == 0 { bytes } else { 0 }))
        };
        let counts = self.with_broker(Broker::live_counts);
        self.journal.reset_live(counts.into_iter().flat_map(of_entry));
        self.journal.set_live_horizon(self.applied);
    }

    pub(super) fn snapshot_if_due(&mut self) {
        if self.snapshot_under_way || self.applied < self.snapshot_index + SNAPSHOT_ENTRIES {
            return;
        }
        self.snapshot_under_way = true;
        let (index, term) = (self.applied, self.applied_term);
        let state: Bytes = self.with_broker(Broker::encode).into();
        // The file must not get ahead of the journal.
        let done = self.operation();
        self.journal
            .put_cell(SNAPSHOT, Bytes::copy_from_slice(&index.to_le_bytes()), true, done);
        self.then(After::WriteState { index, term, state });
    }

    pub(super) fn write_state(&mut self, index: u64, term: u64, state: &Bytes) {
        self.snapshot_under_way = false;
        if index < self.snapshot_index {
            return;
        }
        let written = state_file::write(&self.dir, index, term, state);
        if let Err(error) = written.and_then(|()| state_file::remove_older(&self.dir, index)) {
            return self.stop(format!("the state file: {error}"));
        }
        self.snapshot_index = index;
        let keep_from = index.saturating_sub(KEEP_ENTRIES);
        if keep_from > self.purged().1
            && let Ok(records) = self.journal.read_log(keep_from, keep_from + 1, usize::MAX)
            && let Some(record) = records.first()
        {
            let done = self.operation();
            self.journal.purge(keep_from, record.term, done);
        }
    }

    /// The state of this moment with its bodies.
    pub(super) fn send_snapshot(&mut self, to: NodeId) {
        let places = self.with_broker(|broker| broker.live_places(0, u64::MAX));
        let mut bodies = Vec::new();
        for place in places {
            match self.journal.read_place(journal_place(place)) {
                Ok(body) => bodies.push((journal_place(place), body)),
                // After a restart the state may be behind its own journal, which has let go of what was consumed in the
                // entries between. They are committed, and applied soon: as in the product, this attempt fails.
                Err(ferrymq_simulated_journal::Error::Gone { .. }) => return self.note_progress(to),
                Err(error) => return self.stop(format!("a snapshot's message at {place:?}: {error}")),
            }
        }
        let peer = Peer::Snapshot {
            term: self.term,
            last: (self.applied_term, self.applied),
            state: self.with_broker(Broker::encode).into(),
            bodies,
            sent_us: Instant::now().0,
        };
        self.say(to, peer);
        let next = self.applied + 1;
        self.note_progress(to);
        if let State::Leader(leading) = &mut self.state
            && let Some(follower) = leading.followers.get_mut(&to)
        {
            follower.next = next;
        }
    }

    /// The next attempt comes after a pause.
    fn note_progress(&mut self, to: NodeId) {
        if let State::Leader(leading) = &mut self.state
            && let Some(follower) = leading.followers.get_mut(&to)
        {
            follower.progress_us = Instant::now().0;
        }
    }

    pub(super) fn hear_snapshot(
        &mut self,
        from: NodeId,
        term: u64,
        last: (u64, u64),
        state: &Bytes,
        bodies: Vec<(Place, Bytes)>,
        sent_us: u64,
    ) {
        if !self.heed(from, term, sent_us) {
            return;
        }
        if last.1 > self.commit
            && let Err(error) = self.install(last, state, bodies)
        {
            return self.stop(format!("a snapshot cannot be taken in: {error}"));
        }
        let reply = Peer::Appended {
            term,
            ok: true,
            index: last.1,
            sent_us,
        };
        self.then(After::Send(from, reply));
    }

    /// In the order of `StateMachine::install_snapshot`: bodies, state file, then the mark that makes both count.
    fn install(&mut self, last: (u64, u64), state: &Bytes, bodies: Vec<(Place, Bytes)>) -> Result<(), String> {
        let text = |error: ferrymq_simulated_journal::Error| error.to_string();
        let broker = Broker::decode(state, Settings::default()).map_err(|error| error.to_string())?;
        let mut install = self.journal.begin_install();
        for (place, body) in bodies {
            install.put(place, &body).map_err(text)?;
        }
        state_file::write(&self.dir, last.1, last.0, state).map_err(|error| error.to_string())?;
        install.finish(last.0, last.1).map_err(text)?;
        state_file::remove_older(&self.dir, last.1).map_err(|error| error.to_string())?;
        *self.shared.broker_mut() = broker;
        self.applied = last.1;
        self.applied_term = last.0;
        self.commit = last.1;
        self.snapshot_index = last.1;
        self.shared.applied.store(last.1, Ordering::Relaxed);
        self.proposals.clear();
        self.reset_live();
        self.take_answers();
        Ok(())
    }

    /// As `housekeeping::move_stragglers`.
    pub(super) fn move_stragglers(&mut self, now: u64) {
        if now < self.stragglers_at_us || self.copying.load(Ordering::Relaxed) {
            return;
        }
        self.stragglers_at_us = now + STRAGGLERS_US;
        let sparse = self.journal.sparse_segments();
        let indexes: BTreeSet<u64> = sparse.into_iter().flat_map(|segment| segment.indexes).collect();
        if indexes.is_empty() {
            return;
        }
        let places: Vec<Place> = self.with_broker(|broker| {
            let places = broker
                .queues()
                .iter()
                .flat_map(|queue| queue.iter_from(0))
                .map(|(_, slot)| slot.place);
            places
                .filter(|place| indexes.contains(&place.index))
                .map(journal_place)
                .collect()
        });
        if places.is_empty() {
            return;
        }
        self.copying.store(true, Ordering::Relaxed);
        let copying = self.copying.clone();
        let done = Box::new(move |_| copying.store(false, Ordering::Relaxed));
        self.journal.copy_forward(places, done);
    }
}
