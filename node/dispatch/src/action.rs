//! What the dispatcher wants done. The list is closed; tests compare it.

use bytes::Bytes;
use ferrymq_broker::{Command, DeadLetter, Numbered, Place, QueueId};
use ferrymq_message::StoredMessage;

use crate::{ConnectionId, ConsumerId};

/// One thing for the master's loop to do.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Send a message to a consumer.
    Deliver {
        /// The consumer.
        consumer: ConsumerId,
        /// Its connection.
        connection: ConnectionId,
        /// The consumer's number for this delivery, from 1, without gaps.
        tag: u64,
        /// Where the bytes lie.
        place: Place,
        /// May have been delivered before (P3).
        redelivered: bool,
        /// Times it was dispatched and came back.
        redeliveries: u16,
        /// Why it is in a dead letter queue.
        dead_letter: Option<DeadLetter>,
    },
    /// Send a message to a consumer that the log does not know.
    DeliverDirect {
        /// The consumer.
        consumer: ConsumerId,
        /// Its connection.
        connection: ConnectionId,
        /// As of any delivery.
        tag: u64,
        /// The message.
        message: StoredMessage,
        /// Times it was dispatched and came back; it is marked as redelivered where there are any.
        redeliveries: u16,
    },
    /// A message that was held is delivered: its producer can be answered.
    Answer {
        /// The caller's name for the message.
        ticket: u64,
    },
    /// A message that was held takes the log. [`crate::Dispatcher::logged`] is owed.
    Log {
        /// Its queue.
        queue: QueueId,
        /// The caller's name for the message.
        ticket: u64,
        /// Who numbered it: see [`crate::Dispatcher::passed`].
        producer: Option<Numbered>,
        /// The encoded command.
        command: Bytes,
    },
    /// A message that came back takes the log. [`crate::Dispatcher::logged`] is owed.
    PutBack {
        /// Its queue.
        queue: QueueId,
        /// The command.
        command: Command,
    },
    /// Put a command into the group's log.
    Propose(Command),
    /// A browser has seen everything.
    Browsed {
        /// The consumer.
        consumer: ConsumerId,
        /// Its connection.
        connection: ConnectionId,
    },
    /// A message's bytes cannot be read; the queue waits.
    Unreadable {
        /// The queue.
        queue: QueueId,
        /// The bytes.
        place: Place,
    },
}

/// Where message bytes come from, for selectors.
pub trait Bodies {
    /// The stored form of the message at this place; none where it cannot be read, which the reader reports.
    fn read(&self, place: Place) -> Option<Bytes>;
    /// May more be written to this connection, or is its outbox full?
    fn has_room(&self, connection: ConnectionId) -> bool;
    /// So many bytes are on their way to this connection now.
    fn hand_out(&self, connection: ConnectionId, bytes: usize);
}
