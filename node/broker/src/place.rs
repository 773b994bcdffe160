//! The names by which the state refers to things: a message's place in the log, queues, groups, transfers.

use ferrymq_message::Destination;

/// Where a message's stored bytes lie: a range inside the payload of one log entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// Index of the log entry.
    pub index: u64,
    /// First byte inside the entry's payload.
    pub offset: u32,
    /// Bytes.
    pub len: u32,
}

/// Number of a queue or of a durable subscription's backlog; never used twice in one group.
pub type QueueId = u32;

/// Drawn at random when a group is founded, so that a group made anew under an old name is another group.
pub type GroupId = u64;

/// Grows by one with each transfer from one owner to one receiving group.
pub type TransferId = u64;

/// Why and from where a message came to a dead letter queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// Where it was sent to.
    pub original: Destination,
    /// For people.
    pub reason: String,
}
