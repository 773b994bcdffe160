//! What the dispatcher wants done. The list is closed; tests compare it.

use bytes::Bytes;
use ferrymq_broker::{Command, DeadLetter, Place, QueueId};

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
