//! Messages that arrived over a link and are not yet counted in the credit that the node tells: until they are, they
//! take up credit here, or a neighbour would be told of the same room twice.

use std::collections::{BTreeMap, VecDeque};

use ferrymq_broker::GroupId;
use ferrymq_message::Destination;

/// Arrivals by destination and, for topics, the group they are for.
#[derive(Debug, Default)]
pub(crate) struct Arrivals {
    waiting: BTreeMap<Road, VecDeque<(u64, u32)>>,
}

type Road = (Destination, Option<GroupId>);

/// After so long the node has counted them, or they were offered on, or were duplicates that take no room.
const COUNTED_AFTER_MS: u64 = 250;

impl Arrivals {
    pub(crate) fn arrived(&mut self, now_ms: u64, destination: &Destination, target: Option<GroupId>, count: u32) {
        if count > 0 {
            self.waiting
                .entry((destination.clone(), target))
                .or_default()
                .push_back((now_ms, count));
        }
    }

    /// The node has told the credit of its consumers anew. True where something waited to be counted.
    pub(crate) fn counted(&mut self, destination: &Destination, us: GroupId) -> bool {
        let queued = self.waiting.remove(&(destination.clone(), None));
        let published = self.waiting.remove(&(destination.clone(), Some(us)));
        queued.is_some() || published.is_some()
    }

    /// Messages were offered on to another group.
    pub(crate) fn offered_on(&mut self, destination: &Destination, target: Option<GroupId>, mut count: u32) {
        let road = (destination.clone(), target);
        let Some(waiting) = self.waiting.get_mut(&road) else {
            return;
        };
        while let Some((_, first)) = waiting.front_mut() {
            let taken = count.min(*first);
            *first -= taken;
            count -= taken;
            if *first > 0 {
                return;
            }
            waiting.pop_front();
        }
        self.waiting.remove(&road);
    }

    /// Messages that take up credit.
    pub(crate) fn waiting(&self, destination: &Destination, target: Option<GroupId>) -> u32 {
        let waiting = self.waiting.get(&(destination.clone(), target));
        waiting.map_or(0, |waiting| {
            waiting
                .iter()
                .fold(0, |sum: u32, (_, count)| sum.saturating_add(*count))
        })
    }

    /// Drops what is old; tells the destinations concerned.
    pub(crate) fn expire(&mut self, now_ms: u64) -> Vec<Destination> {
        let mut expired = Vec::new();
        self.waiting.retain(|(destination, _), waiting| {
            let before = waiting.len();
            waiting.retain(|(at_ms, _)| now_ms < at_ms + COUNTED_AFTER_MS);
            if waiting.len() < before {
                expired.push(destination.clone());
            }
            !waiting.is_empty()
        });
        expired
    }

    /// When [`Self::expire`] next finds something.
    pub(crate) fn expires_at_ms(&self) -> Option<u64> {
        self.waiting
            .values()
            .filter_map(|waiting| waiting.front())
            .map(|(at_ms, _)| at_ms + COUNTED_AFTER_MS)
            .min()
    }
}
