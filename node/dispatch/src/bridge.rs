//! What another group wants of a queue. To the dispatcher it is a consumer that comes after all local ones.

use ferrymq_broker::GroupId;
use ferrymq_message::Selector;

/// Another group's demand for one queue, or for one topic's copies.
#[derive(Debug, Clone)]
pub struct Bridge {
    /// The group to which messages are handed over; its consumers may be further away.
    pub next_hop: GroupId,
    /// Its name, for people.
    pub next_hop_name: String,
    /// Messages that its consumers have room for.
    pub available: u32,
    /// Which messages they want; empty means all.
    pub selectors: Vec<Selector>,
    /// Hand-overs until the consumers' own group.
    pub distance: u32,
    /// Offered in commands that have not yet come back.
    pub(crate) offering: u32,
}

impl Bridge {
    /// Demand that takes every message.
    pub fn new(next_hop: GroupId, next_hop_name: impl Into<String>, available: u32, distance: u32) -> Self {
        Self {
            next_hop,
            next_hop_name: next_hop_name.into(),
            available,
            selectors: Vec::new(),
            distance,
            offering: 0,
        }
    }

    pub(crate) fn room(&self) -> u32 {
        self.available.saturating_sub(self.offering)
    }
}
