//! Stands where `ferrymq_replication::Group` stands: the same contract towards the master's loop, kept by the model of
//! Raft in `raft/`. The lease is the real one.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use ferrymq_broker::{Broker, Effect, Outcome, Place};
use ferrymq_simulated_journal::Journal;

use crate::{
    clock::Instant,
    config::NodeId,
    replication::lease::Lease,
    sabotage::{Sabotage, spoil_command},
};

/// What became of one submitted command.
pub type Completion = (u64, Result<Outcome, Failure>);

/// As in `node/replication/src/event.rs`.
#[derive(Debug, PartialEq)]
pub enum GroupEvent {
    /// An entry was applied.
    Applied {
        /// The entry's log index.
        index: u64,
        /// What the master has to do.
        effects: Vec<Effect>,
        /// Results of the commands submitted here.
        results: Vec<Completion>,
    },
    /// Commands that were not applied, or of which nothing is known.
    Done {
        /// In the order of submission.
        results: Vec<Completion>,
    },
    /// The process must end.
    Fatal(String),
}

/// As in `node/replication/src/event.rs`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// Certainly not stored.
    NotMaster,
    /// Perhaps stored.
    Unknown,
    /// Certainly not stored.
    Full,
    /// Perhaps stored.
    Fatal,
}

/// As in `node/replication/src/role.rs`, but for the addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Role {
    /// This node is the master of that term, and has applied everything of earlier terms.
    Master {
        /// The term.
        term: u64,
    },
    /// Another node is, or nobody.
    Slave {
        /// The highest term known.
        term: u64,
        /// Who.
        master: Option<NodeId>,
    },
}

/// Why a message's bytes cannot be had.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ReadError {
    /// It was consumed meanwhile.
    #[error("the message is no longer there")]
    Gone,
    /// Damage.
    #[error("{0}")]
    Failed(String),
}

/// What status the master's loop looks at.
#[derive(Debug, Default)]
pub struct GroupStatus {
    /// Of the journal.
    pub journal: BTreeMap<&'static str, u64>,
}

/// As in `node/replication/src/clocks.rs`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Clocks {
    /// Voters of the group, this node included.
    pub voters: usize,
    /// Those that can be asked, this node included.
    pub members: Vec<MemberClock>,
}

/// As in `node/replication/src/clocks.rs`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemberClock {
    /// Whose.
    pub node: NodeId,
    /// Its wall clock, less this node's time since boot.
    pub from_boot_ms: i64,
    /// How far that may be wrong.
    pub error_ms: u64,
}

/// The door to the replicated state.
#[derive(Clone)]
pub struct Group {
    pub(crate) shared: Arc<Shared>,
}

/// A command on its way to the log.
#[derive(Debug)]
pub(crate) struct Submitted {
    pub(crate) command: Bytes,
    pub(crate) token: u64,
    pub(crate) awaited: bool,
}

/// What the master's loop tells the log's entrance, in its order.
#[derive(Debug)]
pub(crate) enum Told {
    Command(Submitted),
    /// A new loop begins.
    Begin,
    /// What a full disk has cost is known.
    GoOnAfterFull,
}

/// What the replica and the master's loop share.
pub(crate) struct Shared {
    broker: RwLock<Broker>,
    pub(crate) applied: AtomicU64,
    pub(crate) attached: AtomicBool,
    pub(crate) journal: Journal,
    pub(crate) lease: Arc<Lease>,
    told: Mutex<Vec<Told>>,
    /// Answers that come before their time (a deliberate fault).
    pub(crate) early: Mutex<Vec<GroupEvent>>,
    /// A read has met damage.
    pub(crate) damage: Mutex<Option<String>>,
    /// The id that this group is founded with; in place of randomness.
    pub(crate) founds_as: u64,
    pub(crate) sabotage: Option<Sabotage>,
    /// Until then the disk has no room for messages, microseconds.
    short_until_us: AtomicU64,
    /// What the members' wall clocks show, as the world last saw it.
    pub(crate) clocks: Mutex<Clocks>,
    /// Whether the model believes to be leader: for the fault that ignores the lease.
    pub(crate) leads: AtomicBool,
}

impl Shared {
    pub(crate) fn new(
        broker: Broker,
        applied: u64,
        journal: Journal,
        lease: Arc<Lease>,
        founds_as: u64,
        sabotage: Option<Sabotage>,
    ) -> Arc<Self> {
        Arc::new(Self {
            broker: RwLock::new(broker),
            applied: AtomicU64::new(applied),
            attached: AtomicBool::new(false),
            journal,
            lease,
            told: Mutex::new(Vec::new()),
            early: Mutex::new(Vec::new()),
            damage: Mutex::new(None),
            founds_as,
            sabotage,
            short_until_us: AtomicU64::new(0),
            clocks: Mutex::default(),
            leads: AtomicBool::new(false),
        })
    }

    pub(crate) fn broker(&self) -> RwLockReadGuard<'_, Broker> {
        self.broker.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn broker_mut(&self) -> RwLockWriteGuard<'_, Broker> {
        self.broker.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn take_told(&self) -> Vec<Told> {
        std::mem::take(&mut *locked(&self.told))
    }

    pub(crate) fn was_told(&self) -> bool {
        !locked(&self.told).is_empty()
    }

    /// From now on for a while the disk has room for acknowledgements only.
    pub(crate) fn be_short_for(&self, for_us: u64) {
        self.short_until_us.store(Instant::now().0 + for_us, Ordering::Relaxed);
    }

    /// P7, unless a deliberate fault says otherwise.
    pub(crate) fn may_act(&self) -> bool {
        if self.sabotage == Some(Sabotage::IgnoreLease) {
            return self.leads.load(Ordering::Relaxed);
        }
        self.lease.holds()
    }
}

pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Group {
    /// See `ferrymq_replication::Group::submit`.
    pub fn submit(&self, command: Bytes, token: u64) {
        self.put(command, token, true);
    }

    /// See `ferrymq_replication::Group::submit_along`.
    pub fn submit_along(&self, command: Bytes, token: u64) {
        self.put(command, token, false);
    }

    /// Bytes that wait to be proposed; nothing waits long here.
    pub fn backlog_bytes(&self) -> usize {
        let told = locked(&self.shared.told);
        let bytes = told.iter().map(|told| match told {
            Told::Command(submitted) => submitted.command.len(),
            Told::Begin | Told::GoOnAfterFull => 0,
        });
        bytes.sum()
    }

    fn put(&self, command: Bytes, token: u64, awaited: bool) {
        let command = spoil_command(&self.shared, command, token);
        locked(&self.shared.told).push(Told::Command(Submitted {
            command,
            token,
            awaited,
        }));
    }

    /// P7.
    pub fn lease_valid(&self) -> bool {
        self.shared.may_act()
    }

    /// What the members' wall clocks show.
    pub fn clocks(&self) -> Clocks {
        locked(&self.shared.clocks).clone()
    }

    /// Looks at the state.
    pub fn with_broker<R>(&self, look: impl FnOnce(&Broker) -> R) -> R {
        look(&self.shared.broker())
    }

    /// From the next entry on effects are wanted.
    pub fn attach<R>(&self, look: impl FnOnce(&Broker, u64) -> R) -> R {
        locked(&self.shared.told).push(Told::Begin);
        self.shared.attached.store(true, Ordering::Relaxed);
        look(&self.shared.broker(), self.shared.applied.load(Ordering::Relaxed))
    }

    /// See `ferrymq_replication::Group::go_on_after_full`.
    pub fn go_on_after_full(&self) {
        locked(&self.shared.told).push(Told::GoOnAfterFull);
    }

    /// Effects are no longer wanted.
    pub fn detach(&self) {
        self.shared.attached.store(false, Ordering::Relaxed);
    }

    /// A message's stored bytes.
    ///
    /// # Errors
    /// Where they are gone, or damaged.
    pub fn read(&self, place: Place) -> Result<Bytes, ReadError> {
        match self.shared.journal.read_place(journal_place(place)) {
            Ok(bytes) => Ok(bytes),
            Err(ferrymq_simulated_journal::Error::Gone { .. }) => Err(ReadError::Gone),
            Err(error) => {
                let text = error.to_string();
                locked(&self.shared.damage).get_or_insert_with(|| text.clone());
                Err(ReadError::Failed(text))
            }
        }
    }

    /// Whether the disk has room.
    pub fn has_room(&self, bytes: u64) -> bool {
        let short_until_us = self.shared.short_until_us.load(Ordering::Relaxed);
        Instant::now().0 >= short_until_us && self.shared.journal.has_room(bytes)
    }

    /// What the loop looks at.
    pub fn status(&self) -> GroupStatus {
        let bytes_on_disk = self.shared.journal.stats().bytes_on_disk;
        GroupStatus {
            journal: BTreeMap::from([("bytes_on_disk", bytes_on_disk)]),
        }
    }
}

/// A place as the journal calls it.
pub(crate) fn journal_place(place: Place) -> ferrymq_simulated_journal::Place {
    ferrymq_simulated_journal::Place {
        index: place.index,
        offset: place.offset,
        len: place.len,
    }
}
