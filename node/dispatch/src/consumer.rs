//! One consumer of a queue: its credit and what it has in flight.

use std::collections::VecDeque;

use ferrymq_broker::QueueId;
use ferrymq_message::Selector;

/// A consumer's number, unique on this master.
pub type ConsumerId = u64;
/// A connection's number, unique on this node.
pub type ConnectionId = u64;

/// Which deliveries an acknowledgement speaks of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// This one and all before it.
    UpTo(u64),
    /// Just this one.
    One(u64),
}

/// A consumer of a queue or of a durable subscription's backlog.
#[derive(Debug, Clone)]
pub struct Consumer {
    /// Whose it is.
    pub connection: ConnectionId,
    /// What it consumes.
    pub queue: QueueId,
    /// Deliveries that may be unacknowledged at once, at least 1.
    pub prefetch: u32,
    /// Which messages it wants; none means all.
    pub selector: Option<Selector>,
    /// Consumers of a higher priority are served first (ActiveMQ: `consumer.priority`).
    pub priority: i8,
    /// The only one to be served while it is there (ActiveMQ: `consumer.exclusive`).
    pub exclusive: bool,
    /// Only looks: gets a copy of everything that is there and takes nothing away.
    pub browser: bool,
    pub(crate) next_tag: u64,
    /// A browser's position.
    pub(crate) browsed_to: u64,
    pub(crate) browse_ended: bool,
    /// Unacknowledged deliveries, in the order of their tags: (tag, message).
    pub(crate) in_flight: VecDeque<(u64, u64)>,
}

impl Consumer {
    /// A plain consumer.
    pub fn new(connection: ConnectionId, queue: QueueId, prefetch: u32) -> Self {
        Self {
            connection,
            queue,
            prefetch: prefetch.max(1),
            selector: None,
            priority: 0,
            exclusive: false,
            browser: false,
            next_tag: 1,
            browsed_to: 0,
            browse_ended: false,
            in_flight: VecDeque::new(),
        }
    }

    /// Deliveries that it could take now.
    pub fn room(&self) -> u32 {
        self.prefetch.saturating_sub(self.in_flight.len() as u32)
    }

    /// Deliveries that are not acknowledged.
    pub fn unacknowledged(&self) -> usize {
        self.in_flight.len()
    }

    pub(crate) fn tag(&mut self) -> u64 {
        self.next_tag += 1;
        self.next_tag - 1
    }

    pub(crate) fn take(&mut self, seq: u64) -> u64 {
        let tag = self.tag();
        self.in_flight.push_back((tag, seq));
        tag
    }

    /// Takes the acknowledged deliveries out of what is in flight and returns their messages.
    pub(crate) fn settle(&mut self, target: Target) -> Vec<u64> {
        match target {
            Target::UpTo(tag) => {
                let count = self.in_flight.partition_point(|&(t, _)| t <= tag);
                self.in_flight.drain(..count).map(|(_, seq)| seq).collect()
            }
            Target::One(tag) => match self.in_flight.binary_search_by_key(&tag, |&(t, _)| t) {
                Ok(at) => self.in_flight.remove(at).map(|(_, seq)| seq).into_iter().collect(),
                Err(_) => Vec::new(),
            },
        }
    }
}
