//! What one connection has on its way in and out, counted in bytes, so that neither a slow reader nor a flood of sends
//! can take more memory than it is allowed (P8).

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

/// Shared between a connection and the master's loop.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    /// Message bytes handed to the connection and not yet written to its socket.
    unwritten: AtomicUsize,
    /// Message bytes that the client sent and that are not yet answered.
    unanswered: AtomicUsize,
    /// Told when sends were answered.
    answered: Notify,
}

impl Outbox {
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
    }

    pub(crate) fn answer(&self, bytes: usize) {
        self.unanswered.fetch_sub(bytes, Ordering::Relaxed);
        self.answered.notify_one();
    }

    /// Completes when something was answered since the last call.
    pub(crate) async fn wait_for_answer(&self) {
        self.answered.notified().await;
    }
}
