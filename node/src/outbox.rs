//! What one connection has on its way in and out, counted in bytes, so that neither a slow reader nor a flood of sends
//! can take more memory than it is allowed (P8).

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use tokio::sync::Notify;

/// What all clients together have sent and not had answered.
#[derive(Debug, Default)]
pub(crate) struct Budget {
    unanswered: AtomicUsize,
    max: usize,
}

impl Budget {
    pub(crate) fn new(max: usize) -> Self {
        Self {
            unanswered: AtomicUsize::new(0),
            max,
        }
    }

    /// True where no client shall be read from for now.
    pub(crate) fn is_spent(&self) -> bool {
        self.unanswered.load(Ordering::Relaxed) >= self.max
    }
}

/// Shared between a connection and the master's loop.
#[derive(Debug)]
pub(crate) struct Outbox {
    budget: Arc<Budget>,
    /// Message bytes handed to the connection and not yet written to its socket.
    unwritten: AtomicUsize,
    /// Message bytes that the client sent and that are not yet answered.
    unanswered: AtomicUsize,
    /// Told when sends were answered.
    answered: Notify,
    /// The master's loop wants the connection to end, whether its client reads or not.
    ended: AtomicBool,
    ending: Notify,
}

impl Outbox {
    pub(crate) fn new(budget: Arc<Budget>) -> Self {
        Self {
            budget,
            unwritten: AtomicUsize::new(0),
            unanswered: AtomicUsize::new(0),
            answered: Notify::new(),
            ended: AtomicBool::new(false),
            ending: Notify::new(),
        }
    }

    pub(crate) fn unwritten_bytes(&self) -> usize {
        self.unwritten.load(Ordering::Relaxed)
    }

    pub(crate) fn hand_out(&self, bytes: usize) {
        self.unwritten.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn written(&self, bytes: usize) {
        self.unwritten.fetch_sub(bytes, Ordering::Relaxed);
    }

    pub(crate) fn unanswered_bytes(&self) -> usize {
        self.unanswered.load(Ordering::Relaxed)
    }

    pub(crate) fn take_in(&self, bytes: usize) {
        self.unanswered.fetch_add(bytes, Ordering::Relaxed);
        self.budget.unanswered.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn answer(&self, bytes: usize) {
        self.unanswered.fetch_sub(bytes, Ordering::Relaxed);
        self.budget.unanswered.fetch_sub(bytes, Ordering::Relaxed);
        self.answered.notify_one();
    }

    /// No more shall be read for now: of this client, or of all.
    pub(crate) fn is_full(&self, unanswered_bytes_max: usize) -> bool {
        // Whoever has nothing unanswered may always be heard: it may be a consumer whose acknowledgements make room.
        let own = self.unanswered_bytes();
        own >= unanswered_bytes_max || (own > 0 && self.budget.is_spent())
    }

    /// Ends the connection at once.
    pub(crate) fn end(&self) {
        self.ended.store(true, Ordering::Relaxed);
        self.ending.notify_one();
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }

    /// Completes when the connection shall end at once.
    pub(crate) async fn wait_for_end(&self) {
        while !self.has_ended() {
            self.ending.notified().await;
        }
    }

    /// Completes when something was answered since the last call.
    pub(crate) async fn wait_for_answer(&self) {
        self.answered.notified().await;
    }
}

impl Drop for Outbox {
    fn drop(&mut self) {
        // What was never answered, because the connection or the term ended first, is nobody's any more.
        self.budget
            .unanswered
            .fetch_sub(self.unanswered_bytes(), Ordering::Relaxed);
    }
}
