//! Stands where the journal's two threads stand: their work is done in steps, on the one thread there is.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    sync::{Arc, mpsc},
};

use crate::{
    error::Error,
    journal::Journal,
    shared::Shared,
    writer::{Next, Writer},
};

thread_local! {
    /// The writer of each open journal, by its shared part's address: looked up, never walked over.
    static WRITERS: RefCell<BTreeMap<usize, Writer>> = const { RefCell::new(BTreeMap::new()) };
}

/// The steps of one journal's writer; they end with the last clone of the journal.
pub(crate) struct Threads {
    shared: Arc<Shared>,
}

impl Threads {
    pub(crate) fn start(shared: &Arc<Shared>, writer: Writer) -> Result<Self, Error> {
        WRITERS.with_borrow_mut(|writers| writers.insert(key(shared), writer));
        Ok(Self { shared: shared.clone() })
    }

    /// Nothing is written any more: a simulated process ends by being dropped, like a killed one.
    pub(crate) fn stop(&self) {
        let _ = WRITERS.try_with(|writers| writers.borrow_mut().remove(&key(&self.shared)));
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Journal {
    /// Does what the writer's and the room's threads would do now: writes, syncs and answers all that is queued.
    /// `rested`: nothing has come for so long that what is lazy is written too.
    pub fn step(&self, rested: bool) {
        step(&self.shared, rested);
        drop(self.shared.room.turn());
        step(&self.shared, rested);
    }
}

fn key(shared: &Shared) -> usize {
    std::ptr::from_ref(shared) as usize
}

fn step(shared: &Shared, rested: bool) {
    // Taken out meanwhile: an answer may submit more, but never step.
    let Some(mut writer) = WRITERS.with_borrow_mut(|writers| writers.remove(&key(shared))) else {
        return;
    };
    let mut rested = rested;
    loop {
        let next = writer.ready(&mut shared.lock(), rested);
        let Some(next) = next else { break };
        // A rest is over with the first thing that is done after it.
        rested &= !matches!(next, Next::Prove);
        if !writer.carry_out(next) {
            return;
        }
    }
    WRITERS.with_borrow_mut(|writers| writers.insert(key(shared), writer));
}

/// Waits for an answer by doing the writer's work until it comes.
pub(crate) fn wait_for(shared: &Shared, answer: &mpsc::Receiver<Result<(), Error>>) -> Result<(), Error> {
    step(shared, true);
    answer.try_recv().unwrap_or(Err(Error::Closed))
}
