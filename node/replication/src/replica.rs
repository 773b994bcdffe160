//! The replicated state of this node under its lock, and how many references point into the journal.
//!
//! Invariant: for each log entry, the journal's count is the number of the broker's places in it plus one for each
//! [`Pin`] that holds it. Apply holds the lock for writing; everything else, making a snapshot too, only reads.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, RwLock, RwLockReadGuard, RwLockWriteGuard};

use bytes::Bytes;
use ferrymq_broker::{Applied, ApplyError, Broker, Place, Settings};
use ferrymq_journal::Journal;
use tokio::sync::mpsc;

use crate::event::GroupEvent;
use crate::state_file::{StateFile, StateFileError, open_newest};
use crate::types::{LogId, StoredMembership};

/// The state and where it comes from; shared by the state machine and the group's door.
pub(crate) struct Replica {
    pub(crate) journal: Journal,
    /// Where state files lie.
    pub(crate) dir: PathBuf,
    settings: Settings,
    state: RwLock<State>,
    /// Whether effects are wanted. Only changes while the lock is held, so never in the middle of an apply.
    attached: AtomicBool,
    /// Snapshots that are being made or sent.
    pins: AtomicUsize,
    /// Bytes of batches applied since a snapshot was last asked for.
    log_bytes: AtomicU64,
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

/// The state at one moment, and where its bodies lie.
pub(crate) struct View {
    pub(crate) log_id: LogId,
    pub(crate) membership: StoredMembership,
    pub(crate) state: Bytes,
    /// The bodies that the state refers to, held in the journal until this is dropped.
    pub(crate) bodies: Pin,
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
        settings: Settings,
        events: mpsc::UnboundedSender<GroupEvent>,
    ) -> Result<Arc<Replica>, StateFileError> {
        let log = journal.log_state();
        let newest = open_newest(&dir, log.purged.map(|(_, index)| index), log.last.map(|(_, index)| index))?;
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
            settings,
            state: RwLock::new(state),
            attached: AtomicBool::new(false),
            pins: AtomicUsize::new(0),
            log_bytes: AtomicU64::new(0),
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
        self.log_bytes.fetch_add(batch.len() as u64, Ordering::Relaxed);
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
    pub(crate) fn view(self: &Arc<Self>) -> Option<View> {
        let state = self.read();
        let log_id = state.applied.clone()?;
        let bodies = self.pin(&state);
        Some(View { log_id, membership: state.membership.clone(), state: state.broker.encode().into(), bodies })
    }

    fn pin(self: &Arc<Self>, state: &State) -> Pin {
        let indexes: Vec<u64> = state.broker.live_counts().into_iter().map(|(index, ..)| index).collect();
        for index in &indexes {
            self.journal.adjust_live(*index, 1, 0);
        }
        self.pins.fetch_add(1, Ordering::AcqRel);
        Pin { replica: self.clone(), counts: state.counts, indexes, places: state.broker.live_places(0, u64::MAX) }
    }

    /// Whether a snapshot holds bodies; they must not be moved or be taken for dead then.
    pub(crate) fn is_pinned(&self) -> bool {
        self.pins.load(Ordering::Acquire) > 0
    }

    /// Whether at least that much log was applied since this last said so.
    pub(crate) fn take_log_bytes(&self, bytes: u64) -> bool {
        let is_much = self.log_bytes.load(Ordering::Relaxed) >= bytes;
        if is_much {
            self.log_bytes.store(0, Ordering::Relaxed);
        }
        is_much
    }

    /// Decodes a state that came from another node.
    pub(crate) fn decode(&self, state: &[u8]) -> Result<Broker, ApplyError> {
        Broker::decode(state, self.settings.clone())
    }

    /// Puts another state in the place of this one; its bodies are in the journal already.
    pub(crate) fn replace(&self, broker: Broker, log_id: Option<LogId>, membership: StoredMembership) {
        let mut state = self.write();
        let counts = state.counts + 1;
        *state = State { broker, applied: log_id, membership, counts };
        reset_live(&self.journal, &state);
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
    ferrymq_journal::Place { index: place.index, offset: place.offset, len: place.len }
}

fn reset_live(journal: &Journal, state: &State) {
    journal.reset_live(state.broker.live_counts());
    journal.set_live_horizon(state.applied.as_ref().map_or(0, |log_id| log_id.index));
}

fn damaged(dir: &std::path::Path, file: &StateFile, error: &ApplyError) -> StateFileError {
    StateFileError::Damaged {
        file: dir.join(format!("snapshot-{:020}.state", file.log_id.index)),
        offset: 0,
        reason: format!("the state in it cannot be read: {error}"),
    }
}
