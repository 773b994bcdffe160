//! What callers, the writer and the room's thread share.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicUsize, Ordering, fence},
    },
};

use bytes::Bytes;

use crate::{
    cache::ReadCache,
    catalog::{Catalog, Location},
    config::Config,
    disk::File,
    error::Error,
    front::Front,
    queue::{Done, Need, Op, Queued},
    room::Room,
    stats::Counters,
};

/// See the file's head. Lock order: `state` before any other.
pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) room: Room,
    pub(crate) counters: Counters,
    state: Mutex<State>,
    /// For the writer: there is something to do.
    pub(crate) work: Condvar,
    /// For whoever waits until less is queued.
    pub(crate) progress: Condvar,
    /// How many wait for that.
    waiters: AtomicUsize,
    read_cache: Mutex<ReadCache>,
    failed: OnceLock<Arc<str>>,
    queued_bytes: AtomicUsize,
    /// Held while the directory is in use.
    pub(crate) lock_file: Mutex<Option<File>>,
}

/// Under one lock, so that the queue's order is the order in which callers saw their changes.
#[derive(Default)]
pub(crate) struct State {
    pub(crate) front: Front,
    /// What is on disk, as far as the writer got.
    pub(crate) catalog: Catalog,
    pub(crate) queue: VecDeque<Queued>,
    /// Queued operations that do not wait for another's sync.
    pub(crate) urgent: usize,
    /// The segment being written.
    pub(crate) active: u64,
    pub(crate) closing: bool,
    pub(crate) writer: Rest,
}

/// What the writer's thread does. It is woken only where that changes something: a wake-up costs more than an append.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Rest {
    /// It works, or has been woken: it will look at the queue by itself.
    #[default]
    Awake,
    /// It waits for something urgent, and has set itself an alarm for the rest.
    Dozing,
    /// It waits for anything.
    Asleep,
}

impl State {
    /// Whether the writer must be woken, because of something `urgent` or not. Who gets a yes must do it.
    fn must_wake(&mut self, urgent: bool) -> bool {
        let wakes = self.writer == Rest::Asleep || urgent && self.writer == Rest::Dozing;
        if wakes {
            self.writer = Rest::Awake;
        }
        wakes
    }
}

impl Shared {
    pub(crate) fn new(config: Config, room: Room, state: State, lock_file: File) -> Self {
        Self {
            read_cache: Mutex::new(ReadCache::new(config.read_cache_bytes_max())),
            room,
            counters: Counters::default(),
            state: Mutex::new(state),
            work: Condvar::new(),
            progress: Condvar::new(),
            waiters: AtomicUsize::new(0),
            failed: OnceLock::new(),
            queued_bytes: AtomicUsize::new(0),
            lock_file: Mutex::new(Some(lock_file)),
            config,
        }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues what `make` says, or answers its error at once.
    pub(crate) fn submit(&self, need: Need, done: Done, make: impl FnOnce(&mut State) -> Result<Op, Error>) {
        let mut state = self.lock();
        let refusal = if let Some(reason) = self.failed.get() {
            Some(Error::Failed { reason: reason.clone() })
        } else {
            state.closing.then_some(Error::Closed)
        };
        state.front.sequence += 1;
        let op = match refusal.map_or_else(|| make(&mut state), Err) {
            Ok(op) => op,
            Err(error) => {
                drop(state);
                return done(Err(error));
            }
        };
        let bytes = op.payload_bytes();
        self.queued_bytes.fetch_add(bytes, Ordering::Relaxed);
        // Where nothing is synced for entries, nobody's sync comes along either.
        let need = if need == Need::Lazy && !self.config.sync {
            Need::Written
        } else {
            need
        };
        let sequence = state.front.sequence;
        state.queue.push_back(Queued {
            sequence,
            op,
            need,
            bytes,
            done,
        });
        let urgent = need != Need::Lazy;
        state.urgent += usize::from(urgent);
        let wakes = state.must_wake(urgent);
        // Not under the lock, or the writer would wake up to wait for it.
        drop(state);
        if wakes {
            self.work.notify_one();
        }
    }

    /// Answers `queued`, which has left the queue.
    pub(crate) fn answer(&self, queued: Queued, result: Result<(), Error>) {
        self.queued_bytes.fetch_sub(queued.bytes, Ordering::Relaxed);
        (queued.done)(result);
    }

    pub(crate) fn queued_bytes(&self) -> usize {
        self.queued_bytes.load(Ordering::Relaxed)
    }

    /// Waits until at most `bytes_max` are queued.
    pub(crate) fn wait_queued_below(&self, bytes_max: usize) {
        let mut state = self.lock();
        self.waiters.fetch_add(1, Ordering::Relaxed);
        // Either this thread sees what was answered, or the writer sees this thread.
        fence(Ordering::SeqCst);
        while self.queued_bytes() > bytes_max && self.failure().is_none() {
            state = self.progress.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        self.waiters.fetch_sub(1, Ordering::Relaxed);
    }

    /// Something was answered.
    pub(crate) fn wake_waiters(&self) {
        fence(Ordering::SeqCst);
        if self.waiters.load(Ordering::Relaxed) > 0 {
            // The lock makes sure that a waiter is not between its check and its wait.
            drop(self.lock());
            self.progress.notify_all();
        }
    }

    /// Wakes the writer if a segment may have become free.
    pub(crate) fn release_if_due(&self, mut state: MutexGuard<'_, State>) {
        let wakes = state.catalog.release_due && state.must_wake(true);
        drop(state);
        if wakes {
            self.work.notify_one();
        }
    }

    pub(crate) fn failure(&self) -> Option<Arc<str>> {
        self.failed.get().cloned()
    }

    /// The first failure stays.
    pub(crate) fn fail(&self, reason: String) {
        tracing::error!(reason, "the journal stops");
        let _ = self.failed.set(reason.into());
    }

    /// The whole payload at `location`, verified; `keep` puts it in the read cache. `Ok(None)`: the segment was
    /// released meanwhile.
    pub(crate) fn read_payload(&self, location: &Location, keep: bool) -> Result<Option<Bytes>, Error> {
        let key = (location.file.id, location.at);
        if let Some(payload) = self.read_cache().get(key) {
            return Ok(Some(payload));
        }
        match location.file.read_record(location.at.bytes(), location.len) {
            Ok((_, payload)) => {
                if keep {
                    self.read_cache().put(key, payload.clone());
                }
                Ok(Some(payload))
            }
            // A file may be given new contents while it is read, once nothing needs it.
            Err(Error::Damaged { .. }) if !self.lock().catalog.segments.contains_key(&location.file.id) => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(crate) fn read_cache(&self) -> MutexGuard<'_, ReadCache> {
        self.read_cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
