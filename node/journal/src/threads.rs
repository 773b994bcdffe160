//! The journal's two threads: the writer's and the room's.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread::{self, JoinHandle},
};

use crate::{error::Error, shared::Shared, writer::Writer};

/// The journal's threads; ended with the last clone.
pub(crate) struct Threads {
    shared: Arc<Shared>,
    running: Mutex<Vec<JoinHandle<()>>>,
}

impl Threads {
    /// Sets the writer to work, and somebody to look after the room.
    pub(crate) fn start(shared: &Arc<Shared>, writer: Writer) -> Result<Self, Error> {
        let at_failure = shared.clone();
        let write = move || {
            // A callback may panic; nobody may then wait for an answer that never comes.
            if catch_unwind(AssertUnwindSafe(|| writer.run())).is_err() {
                at_failure.fail("the writer thread panicked".into());
                let queued: Vec<_> = at_failure.lock().queue.drain(..).collect();
                let reason = at_failure.failure().unwrap_or_default();
                queued
                    .into_iter()
                    .for_each(|q| at_failure.answer(q, Err(Error::Failed { reason: reason.clone() })));
                at_failure.progress.notify_all();
            }
        };
        let room = shared.clone();
        let spawn = |name: &str, run: Box<dyn FnOnce() + Send>| {
            let spawned = thread::Builder::new().name(name.into()).spawn(run);
            spawned.map_err(|e| Error::io("start a thread", &shared.config.dir, e))
        };
        let room = spawn(
            "journal-room",
            Box::new(move || room.room.look_after(|why| room.fail(why))),
        )?;
        let writer = spawn("journal-write", Box::new(write));
        if writer.is_err() {
            shared.room.close();
        }
        Ok(Self {
            shared: shared.clone(),
            running: Mutex::new(vec![writer?, room]),
        })
    }

    /// Ends them once everything queued is answered.
    pub(crate) fn stop(&self) {
        let running: Vec<_> = self
            .running
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .drain(..)
            .collect();
        self.shared.lock().closing = true;
        self.shared.work.notify_all();
        if running
            .iter()
            .any(|thread| thread.thread().id() == thread::current().id())
        {
            // A callback held the last clone. The threads end by themselves, and the directory's lock goes with them.
            self.shared.room.close();
            return;
        }
        for thread in running {
            let _ = thread.join();
            self.shared.room.close();
        }
        drop(
            self.shared
                .lock_file
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take(),
        );
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Waits for an answer that the writer's thread will give.
pub(crate) fn wait_for(_shared: &Shared, answer: &mpsc::Receiver<Result<(), Error>>) -> Result<(), Error> {
    answer.recv().unwrap_or(Err(Error::Closed))
}
