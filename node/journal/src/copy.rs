//! Copying forward: what still lives in mostly dead segments is written again, so that their files can go.

use std::sync::{Arc, Mutex, PoisonError};

use crate::{
    error::Error,
    front::Place,
    queue::{Done, Need, PACK_BYTES, Pack},
    shared::Shared,
};

/// So much may be queued before copying waits for the writer.
pub(crate) const QUEUED_BYTES_MAX: usize = 8 << 20;

/// Reads `places` and queues them as kept records; runs on the room's thread.
pub(crate) fn forward(shared: &Arc<Shared>, places: Vec<Place>, done: Done) {
    let outcome = Outcome::new(done);
    let places = shared.lock().catalog.complete_groups(places);
    let mut pack = Pack::default();
    // The slices of one record stay together: a kept record takes the place of all earlier copies of its indexes.
    for group in places.chunk_by(|a, b| a.index == b.index) {
        for place in group {
            match read(shared, *place) {
                Ok(body) => pack.push(*place, &body),
                Err(error) => return outcome.note(Err(error)),
            }
        }
        if pack.bytes() >= PACK_BYTES {
            submit(shared, &mut pack, &outcome);
        }
    }
    if !pack.is_empty() {
        submit(shared, &mut pack, &outcome);
    }
}

fn submit(shared: &Arc<Shared>, pack: &mut Pack, outcome: &Outcome) {
    let op = pack.take(0);
    let outcome = outcome.clone();
    shared.submit(Need::Synced, Box::new(move |result| outcome.note(result)), |_| Ok(op));
    shared.wait_queued_below(QUEUED_BYTES_MAX);
}

fn read(shared: &Shared, place: Place) -> Result<bytes::Bytes, Error> {
    let gone = Error::Gone {
        index: place.index,
        offset: place.offset,
        len: place.len,
    };
    let state = shared.lock();
    let (payload, start) = if let Some(record) = state.front.tail.get(place.index) {
        (record.payload.clone(), place.offset as usize)
    } else {
        let location = state.catalog.locate(place).ok_or_else(|| gone.clone())?;
        drop(state);
        let payload = shared.read_payload(&location, true)?.ok_or_else(|| gone.clone())?;
        (payload, location.within as usize)
    };
    let end = start + place.len as usize;
    if end > payload.len() {
        Err(gone)
    } else {
        Ok(payload.slice(start..end))
    }
}

/// Tells `done` the first error, or success, once the last holder is gone.
#[derive(Clone)]
pub(crate) struct Outcome(Arc<Open>);

struct Open {
    done: Mutex<Option<Done>>,
    error: Mutex<Option<Error>>,
}

impl Outcome {
    pub(crate) fn new(done: Done) -> Self {
        Self(Arc::new(Open {
            done: Mutex::new(Some(done)),
            error: Mutex::new(None),
        }))
    }

    /// Consumes this holder.
    pub(crate) fn note(self, result: Result<(), Error>) {
        if let Err(error) = result {
            self.0
                .error
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .get_or_insert(error);
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let error = self.error.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(done) = self.done.lock().unwrap_or_else(PoisonError::into_inner).take() {
            done(error.map_or(Ok(()), Err));
        }
    }
}
