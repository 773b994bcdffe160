//! The replicated state of this node under its lock, and how many references point into the journal.
//!
//! Invariant: for each log entry, the journal's count is the number of the broker's places in it plus one for each
//! [`Pin`] that holds it. Apply holds the lock for writing; everything else, making a snapshot too, only reads.

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard};

use bytes::Bytes;
use ferrymq_broker::{Applied, ApplyError, Broker, Place, Settings};
use ferrymq_journal::Journal;
use tokio::sync::mpsc;

use crate::event::GroupEvent;
use crate::growth::Growth;
use crate::rooms::Rooms;
use crate::state_file::{StateFile, StateFileError, open_newest, remove_older};
use crate::types::{LogId, StoredMembership, term_and_index};

/// How much of the disk is for what, in bytes; see [`crate::Config`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct DiskBounds {
    pub(crate) reserve_bytes: u64,
    pub(crate) short_bytes: u64,
    pub(crate) store_limit_bytes: u64,
}

impl DiskBounds {
    /// The whole disk is for everything.
    #[cfg(test)]
    pub(crate) const NONE: DiskBounds = DiskBounds {
        reserve_bytes: 0,
        short_bytes: 0,
        store_limit_bytes: u64::MAX,
    };
}

/// The state and where it comes from; shared by the state machine and the group's door.
pub(crate) struct Replica {
    pub(crate) journal: Journal,
    /// Where state files lie.
    pub(crate) dir: PathBuf,
    disk: DiskBounds,
    settings: Settings,
    state: RwLock<State>,
    /// Whether effects are wanted. Only changes while the lock is held, so never in the middle of an apply.
    attached: AtomicBool,
    /// Snapshots that are being made or sent.
    pins: AtomicUsize,
    /// Index of the newest state on disk, 0 for none.
    on_disk: AtomicU64,
    /// What slaves have told of their disks.
    pub(crate) rooms: Rooms,
    /// A state is being written.
    saving: Mutex<()>,
    /// How much a snapshot would let go since the last one, and where the log may be cut.
    growth: Mutex<Growth>,
    events: mpsc::UnboundedSender<GroupEvent>,
}

/// What the lock protects.
pub(crate) struct State {
    pub(crate) broker: Broker,
    pub(crate) applied: Option<LogId>,
    pub(crate) membership: StoredMembership,
    /// Grows when the journal's counts are set anew, which makes earlier pins void.
    counts: u64,
}

/// The state at one moment.
pub(crate) struct View {
    pub(crate) log_id: LogId,
    pub(crate) membership: StoredMembership,
    pub(crate) state: Bytes,
    /// The bodies that the state refers to, if asked for, held in the journal until this is dropped.
    pub(crate) bodies: Option<Pin>,
}

/// Keeps bodies in the journal that the state may have let go of meanwhile.
pub(crate) struct Pin {
    replica: Arc<Replica>,
    counts: u64,
    indexes: Vec<u64>,
    pub(crate) places: Vec<Place>,
}

impl Replica {
    /// Loads the newest state that goes with the journal and tells the journal what lives.
    pub(crate) fn open(
        journal: Journal,
        dir: PathBuf,
        disk: DiskBounds,
        settings: Settings,
        events: mpsc::UnboundedSender<GroupEvent>,
    ) -> Result<Arc<Replica>, StateFileError> {
        let log = journal.log_state();
        let newest = open_newest(
            &dir,
            log.purged.map(|(_, index)| index),
            log.last.map(|(_, index)| index),
        )?;
        let on_disk = newest.as_ref().map_or(0, |file| file.log_id.index);
        let state = match newest {
            None => State {
                broker: Broker::new(settings.clone()),
                applied: None,
                membership: StoredMembership::default(),
                counts: 0,
            },
            Some(file) => State {
                broker: Broker::decode(&file.state, settings.clone()).map_err(|error| damaged(&dir, &file, &error))?,
                applied: Some(file.log_id),
                membership: file.membership,
                counts: 0,
            },
        };
        reset_live(&journal, &state);
        Ok(Arc::new(Replica {
            journal,
            dir,
            disk,
            settings,
            state: RwLock::new(state),
            attached: AtomicBool::new(false),
            pins: AtomicUsize::new(0),
            on_disk: AtomicU64::new(on_disk),
            rooms: Rooms::default(),
            saving: Mutex::new(()),
            growth: Mutex::new(Growth::default()),
            events,
        }))
    }

    pub(crate) fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().expect("no code panics under this lock")
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().expect("no code panics under this lock")
    }

    /// Applies one batch; the flag tells whether its effects are wanted.
    pub(crate) fn apply(&self, log_id: LogId, batch: &Bytes) -> Result<(Applied, bool), ApplyError> {
        let mut state = self.write();
        let applied = state.broker.apply(log_id.index, batch)?;
        state.applied = Some(log_id);
        let freed: i64 = applied.live.iter().map(|change| change.bytes.min(0)).sum();
        self.growth()
            .add(log_id.index, batch.len() as u64, freed.unsigned_abs());
        let attached = self.attached.load(Ordering::Relaxed);
        // Before the lock goes, so that a snapshot's pins and these counts see the same state.
        for change in &applied.live {
            self.journal.adjust_live(change.index, change.references, change.bytes);
        }
        Ok((applied, attached))
    }

    /// Notes an entry that is no batch.
    pub(crate) fn pass(&self, log_id: LogId, membership: Option<StoredMembership>) {
        let mut state = self.write();
        state.applied = Some(log_id);
        if let Some(membership) = membership {
            state.membership = membership;
        }
    }

    /// From the next batch on, effects are wanted; `look` sees the state up to there.
    pub(crate) fn attach<R>(&self, look: impl FnOnce(&Broker, u64) -> R) -> R {
        let state = self.read();
        self.attached.store(true, Ordering::Relaxed);
        look(&state.broker, state.applied.as_ref().map_or(0, |log_id| log_id.index))
    }

    /// Effects are no longer wanted.
    pub(crate) fn detach(&self) {
        let _state = self.read();
        self.attached.store(false, Ordering::Relaxed);
    }

    /// The state now, encoded. Takes time in proportion to the state; `None` before the first entry.
    pub(crate) fn view(self: &Arc<Self>, with_bodies: bool) -> Option<View> {
        let state = self.read();
        let log_id = state.applied?;
        let bodies = with_bodies.then(|| self.pin(&state));
        Some(View {
            log_id,
            membership: state.membership.clone(),
            state: state.broker.encode().into(),
            bodies,
        })
    }

    fn pin(self: &Arc<Self>, state: &State) -> Pin {
        let indexes: Vec<u64> = state
            .broker
            .live_counts()
            .into_iter()
            .map(|(index, ..)| index)
            .collect();
        for index in &indexes {
            self.journal.adjust_live(*index, 1, 0);
        }
        self.pins.fetch_add(1, Ordering::AcqRel);
        Pin {
            replica: self.clone(),
            counts: state.counts,
            indexes,
            places: state.broker.live_places(0, u64::MAX),
        }
    }

    /// Whether a snapshot holds bodies; they must not be moved or be taken for dead then.
    pub(crate) fn is_pinned(&self) -> bool {
        self.pins.load(Ordering::Acquire) > 0
    }

    /// Whether a batch of so many bytes can be proposed. One that `stores` messages leaves more than the reserve alone, in
    /// which acknowledgements find room: two batches are under way at a time, and each may begin another segment. All
    /// others leave what is needed to make a snapshot, without which nothing gets free.
    pub(crate) fn has_room_for(&self, bytes: usize, stores: bool) -> bool {
        let keep = if stores {
            self.disk.reserve_bytes.saturating_mul(3)
        } else {
            self.disk.reserve_bytes / 4 * 3
        };
        self.journal.free_bytes() >= keep.saturating_add(bytes as u64)
    }

    /// Whether a majority has room for that many more bytes of messages, with what the journal calls room to spare.
    pub(crate) fn majority_has_room(&self, bytes: u64) -> bool {
        let spare = self.disk.reserve_bytes.saturating_mul(2);
        self.journal.has_room(bytes) && self.rooms.majority_bytes() >= bytes.saturating_add(spare)
    }

    /// Whether entries of so many bytes can be taken from the master. A slave whose disk is somewhat fuller than the
    /// master's keeps up with what the master has room for. It must be more than the journal leaves behind a shorter
    /// segment, or an append would stop the replica.
    pub(crate) fn has_room_for_entries(&self, bytes: usize) -> bool {
        self.journal.free_bytes() >= (self.disk.reserve_bytes / 2).saturating_add(bytes as u64)
    }

    /// Space is so short that what was consumed is to be let go at once.
    pub(crate) fn is_short_of_room(&self) -> bool {
        let in_use = || {
            let stats = self.journal.stats();
            stats.bytes_on_disk.saturating_sub(stats.spare_bytes)
        };
        self.journal.free_bytes() < self.disk.short_bytes
            || (self.disk.store_limit_bytes < u64::MAX && in_use() > self.disk.store_limit_bytes / 4 * 3)
    }

    /// Log that is kept for slaves that lag while space is short, in bytes.
    pub(crate) fn short_of_room_bytes(&self) -> u64 {
        self.disk.reserve_bytes
    }

    /// What has grown since the last snapshot.
    pub(crate) fn growth(&self) -> MutexGuard<'_, Growth> {
        self.growth.lock().expect("no code panics under this lock")
    }

    /// Decodes a state that came from another node.
    pub(crate) fn decode(&self, state: &[u8]) -> Result<Broker, ApplyError> {
        Broker::decode(state, self.settings.clone())
    }

    /// Puts another state in the place of this one; its bodies are in the journal already.
    pub(crate) fn replace(&self, broker: Broker, log_id: Option<LogId>, membership: StoredMembership) {
        let mut state = self.write();
        let counts = state.counts + 1;
        *state = State {
            broker,
            applied: log_id,
            membership,
            counts,
        };
        reset_live(&self.journal, &state);
    }

    /// Writes a state to disk, has `count` do what makes it count, and removes older ones. One at a time: a state that is
    /// made here and one that comes from the master would each take the other's unfinished file for a left-over. Blocks.
    pub(crate) fn save(&self, file: &StateFile, count: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        let _one_at_a_time = self.saving.lock().expect("no code panics under this lock");
        file.write(&self.dir)?;
        count()?;
        let (_, index) = term_and_index(&file.log_id);
        self.on_disk.fetch_max(index, Ordering::AcqRel);
        remove_older(&self.dir, index)
    }

    /// Index of the newest state on disk, 0 for none: the log up to there can be done without. openraft's own snapshot
    /// may be newer, since after a start it takes the state in memory for one.
    pub(crate) fn on_disk(&self) -> u64 {
        self.on_disk.load(Ordering::Acquire)
    }

    /// Tells the node; it may have gone already.
    pub(crate) fn tell(&self, event: GroupEvent) {
        let _ = self.events.send(event);
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        let state = self.replica.read();
        if state.counts == self.counts {
            for index in &self.indexes {
                self.replica.journal.adjust_live(*index, -1, 0);
            }
        }
        self.replica.pins.fetch_sub(1, Ordering::AcqRel);
    }
}

/// A place as the journal calls it.
pub(crate) fn journal_place(place: Place) -> ferrymq_journal::Place {
    ferrymq_journal::Place {
        index: place.index,
        offset: place.offset,
        len: place.len,
    }
}

fn reset_live(journal: &Journal, state: &State) {
    // One item for each reference; their bytes are known in sum only.
    let of_entry = |(index, references, bytes): (u64, u64, u64)| {
        (0..references).map(move |nth| (index, if nth == 0 { bytes } else { 0 }))
    };
    journal.reset_live(state.broker.live_counts().into_iter().flat_map(of_entry));
    journal.set_live_horizon(state.applied.as_ref().map_or(0, |log_id| log_id.index));
}

fn damaged(dir: &std::path::Path, file: &StateFile, error: &ApplyError) -> StateFileError {
    StateFileError::Damaged {
        file: dir.join(format!("snapshot-{:020}.state", file.log_id.index)),
        offset: 0,
        reason: format!("the state in it cannot be read: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use ferrymq_broker::{Acknowledge, BatchBuilder, Command, Enqueue};
    use ferrymq_journal::Record;
    use ferrymq_message::{Destination, Message};

    use super::*;
    use crate::types::log_id;

    fn batch(command: &Command) -> Bytes {
        let mut batch = BatchBuilder::default();
        batch.push(&command.encode());
        batch.finish()
    }

    fn message(bytes: usize) -> Command {
        let message = Message::new("id", Destination::queue("q"), Bytes::from(vec![b'x'; bytes]));
        Command::Enqueue(Enqueue {
            message: message.encode(),
        })
    }

    /// Appends to the journal and applies.
    fn commit(replica: &Replica, index: u64, command: &Command) {
        let payload = batch(command);
        replica.journal.append(
            vec![Record {
                term: 1,
                index,
                payload: payload.clone(),
            }],
            Box::new(|_| {}),
        );
        replica.apply(log_id(1, index), &payload).unwrap();
        replica.journal.set_live_horizon(index);
    }

    fn until(what: &str, mut holds: impl FnMut() -> bool) {
        let started = Instant::now();
        while !holds() {
            assert!(
                started.elapsed() < Duration::from_secs(10),
                "waited in vain until {what}"
            );
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// After a restart a node makes a state of its own while the master sends it one.
    #[test]
    fn states_that_are_saved_at_the_same_time_leave_each_other_alone() {
        let dir = tempfile::tempdir().unwrap();
        let (events, _) = mpsc::unbounded_channel();
        let journal = Journal::open(ferrymq_journal::Config::new(dir.path().join("journal"))).unwrap();
        let replica = Replica::open(
            journal,
            dir.path().join("state"),
            DiskBounds::NONE,
            Settings::default(),
            events,
        )
        .unwrap();
        let save_all = |indexes: std::ops::Range<u64>| {
            for index in indexes {
                let file = StateFile {
                    log_id: log_id(1, index),
                    membership: StoredMembership::default(),
                    state: vec![7; 100_000].into(),
                    received: index >= 1_000,
                };
                replica.save(&file, || Ok(())).unwrap();
            }
        };
        std::thread::scope(|scope| {
            scope.spawn(|| save_all(1..100));
            scope.spawn(|| save_all(1_000..1_100));
        });
        assert_eq!(replica.on_disk(), 1_099);
        let newest = open_newest(&replica.dir, None, Some(2_000)).unwrap().unwrap();
        assert_eq!(newest.log_id, log_id(1, 1_099));
    }

    #[test]
    fn bodies_of_a_view_stay_readable_until_it_is_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let config = ferrymq_journal::Config {
            segment_bytes: 64 * 1024,
            cache_bytes_max: 64 * 1024,
            ..ferrymq_journal::Config::new(dir.path().join("journal"))
        };
        let (events, _) = mpsc::unbounded_channel();
        let journal = Journal::open(config).unwrap();
        let replica = Replica::open(
            journal,
            dir.path().join("state"),
            DiskBounds::NONE,
            Settings::default(),
            events,
        )
        .unwrap();
        for index in 0..20 {
            commit(&replica, index, &message(10_000));
        }
        let view = replica.view(true).unwrap();
        let pin = view.bodies.unwrap();
        assert_eq!(pin.places.len(), 20);
        let seqs = replica
            .read()
            .broker
            .queues()
            .iter()
            .flat_map(|q| q.iter_from(0).map(|(seq, _)| seq))
            .collect();
        let queue = replica
            .read()
            .broker
            .queues()
            .find(ferrymq_message::DestinationKind::Queue, "q")
            .unwrap();
        commit(&replica, 20, &Command::Acknowledge(Acknowledge { queue, seqs }));
        // Further log pushes the dead bodies out of the cache and into segments that could go.
        for index in 21..60 {
            commit(&replica, index, &message(10_000));
        }
        replica.journal.purge(59, 1, Box::new(|_| {}));
        for place in &pin.places {
            let body = replica.journal.read_place(journal_place(*place)).unwrap();
            assert_eq!(body.len(), place.len as usize);
        }
        let first = journal_place(pin.places[0]);
        assert!(replica.is_pinned());
        drop(pin);
        assert!(!replica.is_pinned());
        until("the bodies are let go", || replica.journal.read_place(first).is_err());
    }
}
