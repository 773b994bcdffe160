//! One consumer of a queue: its credit and what it has in flight.

use std::collections::VecDeque;

use ferrymq_broker::QueueId;
use ferrymq_message::Selector;

use crate::Direct;

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
    /// The same of messages that the log does not know.
    pub(crate) direct: VecDeque<(u64, Direct)>,
}

/// What an acknowledgement takes out of a consumer's unacknowledged deliveries.
#[derive(Debug, Default)]
pub(crate) struct Taken {
    /// Numbers of logged messages.
    pub(crate) seqs: Vec<u64>,
    pub(crate) direct: Vec<Direct>,
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
            direct: VecDeque::new(),
        }
    }

    /// Deliveries that it could take now.
    pub fn room(&self) -> u32 {
        self.prefetch.saturating_sub(self.unacknowledged() as u32)
    }

    /// Deliveries that are not acknowledged.
    pub fn unacknowledged(&self) -> usize {
        self.in_flight.len() + self.direct.len()
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

    pub(crate) fn take_direct(&mut self, direct: Direct) -> u64 {
        let tag = self.tag();
        self.direct.push_back((tag, direct));
        tag
    }

    /// Takes the acknowledged deliveries out of what is in flight and returns their messages.
    pub(crate) fn settle(&mut self, target: Target) -> Taken {
        Taken {
            seqs: settle(&mut self.in_flight, target),
            direct: settle(&mut self.direct, target),
        }
    }
}

fn settle<T>(in_flight: &mut VecDeque<(u64, T)>, target: Target) -> Vec<T> {
    match target {
        Target::UpTo(tag) => {
            let count = in_flight.partition_point(|&(t, _)| t <= tag);
            in_flight.drain(..count).map(|(_, message)| message).collect()
        }
        Target::One(tag) => match in_flight.binary_search_by_key(&tag, |&(t, _)| t) {
            Ok(at) => in_flight.remove(at).map(|(_, message)| message).into_iter().collect(),
            Err(_) => Vec::new(),
        },
    }
}
