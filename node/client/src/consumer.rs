//! The application's handle on a consumer.

use std::sync::Arc;

use ferrymq_protocol::stomp::Command;
use tokio::sync::Notify;

use crate::{
    connection::Handle,
    core::{Core, Id},
    error::{AckError, ReceiveError},
    received::Received,
};

/// Receives messages from one destination. After the loss of a broker it subscribes anew; what was delivered and not
/// acknowledged comes again, marked as redelivered (P3).
pub struct Consumer {
    handle: Arc<Handle>,
    id: Id,
    changed: Arc<Notify>,
}

impl Consumer {
    pub(crate) fn new(handle: Arc<Handle>, id: Id, changed: Arc<Notify>) -> Self {
        Self { handle, id, changed }
    }

    /// The next message.
    ///
    /// # Errors
    /// Where the broker refused the subscription, or the connection has ended.
    pub async fn recv(&self) -> Result<Received, ReceiveError> {
        loop {
            if let Some(received) = self.try_recv() {
                return Ok(received);
            }
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            if let Some(received) = self.try_recv() {
                return Ok(received);
            }
            {
                let mut core = self.handle.shared.core();
                if let Some(text) = &core.consumer(self.id).failed {
                    return Err(ReceiveError::Refused(text.clone()));
                }
                core.check_ended()?;
            }
            changed.await;
        }
    }

    /// Waits for at least one message and appends all that have come. Safe to drop while it waits.
    ///
    /// # Errors
    /// As [`Consumer::recv`].
    pub async fn recv_all(&self, into: &mut Vec<Received>) -> Result<(), ReceiveError> {
        let first = self.recv().await?;
        into.push(first);
        let shared = &self.handle.shared;
        let mut core = shared.core();
        let before = core.inbox_bytes();
        core.receive_all(self.id, into);
        let room = before > shared.options.inbox_bytes_max && core.inbox_bytes() <= shared.options.inbox_bytes_max;
        drop(core);
        if room {
            shared.inbox_room.notify_one();
        }
        Ok(())
    }

    /// Waits until the broker has taken the subscription: what is sent to a topic from then on comes here.
    ///
    /// # Errors
    /// As [`Consumer::recv`].
    pub async fn subscribed(&self) -> Result<(), ReceiveError> {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            {
                let mut core = self.handle.shared.core();
                let consumer = core.consumer(self.id);
                if consumer.subscribed {
                    return Ok(());
                }
                if let Some(text) = &consumer.failed {
                    return Err(ReceiveError::Refused(text.clone()));
                }
                core.check_ended()?;
            }
            changed.await;
        }
    }

    /// The next message, if one has come already.
    pub fn try_recv(&self) -> Option<Received> {
        let shared = &self.handle.shared;
        let mut core = shared.core();
        let before = core.inbox_bytes();
        let received = core.receive(self.id)?;
        let room = before > shared.options.inbox_bytes_max && core.inbox_bytes() <= shared.options.inbox_bytes_max;
        drop(core);
        if room {
            shared.inbox_room.notify_one();
        }
        Some(received)
    }

    /// Memory of the messages that have come and wait to be taken, in bytes.
    pub fn waiting_bytes(&self) -> usize {
        self.handle.shared.core().consumer(self.id).inbox_bytes()
    }

    /// Acknowledges a message; with [`crate::AckMode::Client`] also every earlier one. Returns at once: call
    /// [`Consumer::flush`] to know that the broker has taken it.
    ///
    /// # Errors
    /// [`AckError::Stale`] where the message came over a connection that was lost since.
    pub fn ack(&self, received: &Received) -> Result<(), AckError> {
        self.answer(received, Command::Ack)
    }

    /// Tells the broker that the message cannot be taken: it is delivered again or becomes a dead letter, by the
    /// broker's policy.
    ///
    /// # Errors
    /// As [`Consumer::ack`].
    pub fn nack(&self, received: &Received) -> Result<(), AckError> {
        self.answer(received, Command::Nack)
    }

    /// Waits until the broker has taken every acknowledgement.
    ///
    /// # Errors
    /// [`AckError::Unconfirmed`] once, where some were under way when a connection was lost.
    pub async fn flush(&self) -> Result<(), AckError> {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            {
                let mut core = self.handle.shared.core();
                let consumer = core.consumer(self.id);
                if consumer.unconfirmed == 0 {
                    return match std::mem::take(&mut consumer.lost) {
                        0 => Ok(()),
                        lost => Err(AckError::Unconfirmed(lost)),
                    };
                }
                core.check_ended()?;
            }
            changed.await;
        }
    }

    fn answer(&self, received: &Received, command: Command) -> Result<(), AckError> {
        let shared = &self.handle.shared;
        let mut core: std::sync::MutexGuard<'_, Core> = shared.core();
        core.check_ended()?;
        let was_empty = !core.has_output();
        let valid = core.acknowledge(self.id, received, command);
        let wake = was_empty && core.has_output();
        drop(core);
        if wake {
            shared.output.notify_one();
        }
        if valid { Ok(()) } else { Err(AckError::Stale) }
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        self.handle.shared.core().remove_consumer(self.id);
        self.handle.shared.output.notify_one();
    }
}

impl std::fmt::Debug for Consumer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Consumer").field("id", &self.id).finish_non_exhaustive()
    }
}
