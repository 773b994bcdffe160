//! Taking over another node's living slices: they are written as kept records that count for nothing until one last
//! record makes them the journal's whole contents.

use std::sync::{Arc, Mutex, PoisonError, mpsc};

use crate::{
    copy::QUEUED_BYTES_MAX,
    error::Error,
    front::Place,
    queue::{Need, Op, PACK_BYTES, Pack},
    shared::{Shared, State},
    threads::wait_for,
};

/// An install under way. Dropping it leaves the old contents as they were. Its methods wait for the disk: call them
/// where blocking is allowed.
pub struct Install {
    shared: Arc<Shared>,
    id: u64,
    pack: Pack,
    /// The first failure of a record written so far.
    failure: Arc<Mutex<Option<Error>>>,
    finished: bool,
}

impl Install {
    pub(crate) fn begin(shared: Arc<Shared>, id: u64) -> Self {
        let failure = Arc::new(Mutex::new(None));
        shared.submit(Need::Written, note_in(&failure), |state| {
            state.front.install = Some(id);
            Ok(Op::InstallBegin { id })
        });
        Self {
            shared,
            id,
            pack: Pack::default(),
            failure,
            finished: false,
        }
    }

    /// Adds the bytes of a living place. Best in the order of indexes: slices of one record then stay together.
    ///
    /// # Errors
    /// The first failure of anything put before; [`Error::Gone`] where `bytes` has not the place's length.
    pub fn put(&mut self, place: Place, bytes: &[u8]) -> Result<(), Error> {
        if bytes.len() != place.len as usize {
            return Err(Error::Gone {
                index: place.index,
                offset: place.offset,
                len: place.len,
            });
        }
        self.pack.push(place, bytes);
        if self.pack.bytes() >= PACK_BYTES {
            self.flush();
            self.shared.wait_queued_below(QUEUED_BYTES_MAX);
        }
        self.check()
    }

    /// Makes what was put the whole contents: the log is empty and ends at (`last_term`, `last_index`), older entries
    /// and slices are gone. On disk when this returns. Call [`crate::Journal::reset_live`] and
    /// [`crate::Journal::set_live_horizon`] next.
    ///
    /// # Errors
    /// Then the old contents hold.
    pub fn finish(mut self, last_term: u64, last_index: u64) -> Result<(), Error> {
        if !self.pack.is_empty() {
            self.flush();
        }
        // Answers come in the queue's order: after this one, it is known whether everything put was written.
        self.wait_for(Need::Written, |_| Ok(Op::Append(Vec::new())))?;
        self.check()?;
        let result = self.wait_for(Need::Synced, |state| {
            if state.front.install != Some(self.id) {
                return Err(Error::InstallAbandoned);
            }
            state.front.install((last_term, last_index));
            Ok(Op::Install {
                id: self.id,
                last: (last_term, last_index),
            })
        });
        self.finished = result.is_ok();
        result
    }

    /// Whether another install was begun since, so that this one cannot finish.
    pub fn is_abandoned(&self) -> bool {
        self.shared.lock().front.install != Some(self.id)
    }

    fn wait_for(&self, need: Need, make: impl FnOnce(&mut State) -> Result<Op, Error>) -> Result<(), Error> {
        let (told, outcome) = mpsc::channel();
        self.shared
            .submit(need, Box::new(move |result| _ = told.send(result)), make);
        wait_for(&self.shared, &outcome)
    }

    fn flush(&mut self) {
        let op = self.pack.take(self.id);
        self.shared.submit(Need::Written, note_in(&self.failure), |_| Ok(op));
    }

    fn check(&self) -> Result<(), Error> {
        let abandoned = self.is_abandoned();
        match self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone() {
            Some(error) => Err(error),
            None if abandoned => Err(Error::InstallAbandoned),
            None => Ok(()),
        }
    }
}

impl Drop for Install {
    fn drop(&mut self) {
        if !self.finished {
            let id = self.id;
            self.shared.submit(Need::Written, Box::new(|_| {}), |state| {
                if state.front.install == Some(id) {
                    state.front.install = None;
                }
                Ok(Op::InstallAbandon { id })
            });
        }
    }
}

impl std::fmt::Debug for Install {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Install").field("id", &self.id).finish_non_exhaustive()
    }
}

fn note_in(failure: &Arc<Mutex<Option<Error>>>) -> crate::queue::Done {
    let failure = failure.clone();
    Box::new(move |result| {
        if let Err(error) = result {
            failure
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .get_or_insert(error);
        }
    })
}
