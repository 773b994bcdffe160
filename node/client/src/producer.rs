//! The application's handle on a producer.

use std::sync::Arc;

use tokio::sync::Notify;

use crate::{
    connection::Handle,
    core::Id,
    error::SendError,
    outgoing::{self, Outgoing},
};

/// Sends messages to one destination, many under way at a time. A resend after the loss of a broker carries the same
/// producer and number, so the group stores it once (P5), and in order (P6).
pub struct Producer {
    handle: Arc<Handle>,
    id: Id,
    name: String,
    changed: Arc<Notify>,
    answered: Arc<Notify>,
}

impl Producer {
    pub(crate) fn new(handle: Arc<Handle>, id: Id, name: String, changed: Arc<Notify>, answered: Arc<Notify>) -> Self {
        Self {
            handle,
            id,
            name,
            changed,
            answered,
        }
    }

    /// The producer's name, which every message carries as `producer-id`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Sends a message and returns its number. Waits only for room in the window, not for the receipt: call
    /// [`Producer::flush`] to know that it is stored.
    ///
    /// # Errors
    /// [`SendError::Refused`] tells about an *earlier* message; this one was not taken then, and sending it again is
    /// right. The other errors are about this message.
    pub async fn send(&self, message: Outgoing) -> Result<u64, SendError> {
        outgoing::validate(&message)?;
        if let Some(sequence) = self.try_send(&message)? {
            return Ok(sequence);
        }
        let Some(limit) = self.handle.shared.endpoints.send_timeout else {
            return self.wait_and_send(&message).await;
        };
        match tokio::time::timeout(limit, self.wait_and_send(&message)).await {
            Ok(result) => result,
            Err(_) => Err(SendError::TimedOut(limit)),
        }
    }

    /// Waits until every message that was sent has its receipt. Ends a transaction that was begun.
    ///
    /// # Errors
    /// The oldest refusal that was not told yet; call again for the next. Or that the connection has ended before.
    pub async fn flush(&self) -> Result<(), SendError> {
        self.handle.shared.core().commit(self.id);
        self.handle.shared.output.notify_one();
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            {
                let mut core = self.handle.shared.core();
                let producer = core.producer(self.id);
                if let Some(refusal) = producer.take_refusal() {
                    return Err(refusal);
                }
                if producer.waiting == 0 {
                    return Ok(());
                }
                core.check_ended()?;
            }
            changed.await;
        }
    }

    /// Messages that have their receipt.
    pub fn confirmed(&self) -> u64 {
        self.handle.shared.core().producer(self.id).confirmed
    }

    /// Messages that have none yet.
    pub fn unconfirmed(&self) -> usize {
        self.handle.shared.core().producer(self.id).waiting
    }

    /// Waits until more than `count` messages have their receipt, and returns how many have. Messages of one producer are
    /// answered in the order in which they were sent, so these are the first ones that were not refused. One wake-up
    /// tells of all receipts that came together. Safe to drop while it waits.
    ///
    /// # Errors
    /// As [`Producer::flush`].
    pub async fn wait_confirmed(&self, count: u64) -> Result<u64, SendError> {
        loop {
            let mut answered = std::pin::pin!(self.answered.notified());
            answered.as_mut().enable();
            {
                let mut core = self.handle.shared.core();
                let producer = core.producer(self.id);
                if let Some(refusal) = producer.take_refusal() {
                    return Err(refusal);
                }
                if producer.confirmed > count {
                    return Ok(producer.confirmed);
                }
                core.check_ended()?;
            }
            answered.await;
        }
    }

    async fn wait_and_send(&self, message: &Outgoing) -> Result<u64, SendError> {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            if let Some(sequence) = self.try_send(message)? {
                return Ok(sequence);
            }
            changed.await;
        }
    }

    fn try_send(&self, message: &Outgoing) -> Result<Option<u64>, SendError> {
        let shared = &self.handle.shared;
        let mut core = shared.core();
        if let Some(refusal) = core.producer(self.id).take_refusal() {
            return Err(refusal);
        }
        // The writer looks again after each write: it needs a wake-up only where it found nothing.
        let was_empty = !core.has_output();
        let sent = core.send(self.id, message)?;
        let wake = was_empty && core.has_output();
        drop(core);
        if wake {
            shared.output.notify_one();
        }
        Ok(sent)
    }
}

impl Drop for Producer {
    fn drop(&mut self) {
        self.handle.shared.core().remove_producer(self.id);
        self.handle.shared.output.notify_one();
    }
}

impl std::fmt::Debug for Producer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Producer")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}
