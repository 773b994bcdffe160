//! Who gets a message: the choice among a queue's consumers, and after them among the other groups.

use std::cmp::Reverse;

use ferrymq_broker::Slot;

use super::QueueDispatch;
use crate::{
    ConsumerId,
    surroundings::{Lazy, Surroundings},
};

/// Who takes a message.
pub(super) enum Choice {
    Consumer(ConsumerId),
    /// Position among the bridges.
    Bridge(usize),
    /// Somebody wants it and has no room.
    Later,
    /// Nobody wants it.
    Unwanted,
    Unreadable,
}

impl QueueDispatch {
    /// Local consumers first, by priority and then in turn; then other groups, the most room first, then the nearest.
    pub(super) fn choose(&mut self, slot: &Slot, sole: Option<ConsumerId>, around: &mut Surroundings<'_>) -> Choice {
        let mut message = Lazy::new(around.bodies, slot.place);
        let (taker, mut wanted) = self.taker(&mut message, sole, around);
        if message.is_unreadable() {
            return Choice::Unreadable;
        }
        if let Some(id) = taker {
            return Choice::Consumer(id);
        }
        // What came from another group goes on only where nobody here wants it; else it would go to and fro.
        let may_leave = !slot.parked() && slot.hops < around.limits.hops_max && (slot.hops == 0 || !wanted);
        let mut to: Option<(u32, u32, usize)> = None;
        for (at, bridge) in self.bridges.iter().enumerate().filter(|_| may_leave) {
            let matching = bridge.selectors.is_empty()
                || bridge
                    .selectors
                    .iter()
                    .any(|selector| message.matches(selector) == Some(true));
            if !matching {
                continue;
            }
            wanted = true;
            let key = (bridge.room(), u32::MAX - bridge.distance, at);
            if bridge.room() > 0 && to.is_none_or(|(room, near, _)| (key.0, key.1) > (room, near)) {
                to = Some(key);
            }
        }
        match to {
            Some((_, _, at)) => Choice::Bridge(at),
            None if wanted => Choice::Later,
            None => Choice::Unwanted,
        }
    }

    /// The consumer that takes this message, if one with room wants it; and whether any wants it, room or not.
    pub(super) fn taker(
        &mut self,
        message: &mut Lazy<'_>,
        sole: Option<ConsumerId>,
        around: &Surroundings<'_>,
    ) -> (Option<ConsumerId>, bool) {
        let mut wants = |id: ConsumerId| {
            let Some(consumer) = around.consumers.get(&id) else {
                return false;
            };
            if consumer.browser || sole.is_some_and(|sole| sole != id) {
                return false;
            }
            let selector = consumer.selector.as_ref();
            selector.is_none_or(|selector| message.matches(selector) == Some(true))
        };
        let taker = self
            .consumers
            .first_that(|id| around.consumer_has_room(id) && wants(id));
        let wanted = taker.is_some() || self.consumers.iter().any(wants);
        (taker, wanted)
    }

    /// The exclusive consumer that is served while it is there: of several the one of the highest priority, and of
    /// these the oldest (ActiveMQ: `QueueDispatchSelector`).
    pub(super) fn sole_consumer(&self, around: &Surroundings<'_>) -> Option<ConsumerId> {
        if self.exclusive == 0 {
            return None;
        }
        let exclusive = self.consumers.iter().filter_map(|id| {
            let consumer = around.consumers.get(&id)?;
            (consumer.exclusive && !consumer.browser).then_some((Reverse(consumer.priority), id))
        });
        exclusive.min().map(|(_, id)| id)
    }

    /// True where a look may mean that a message is read and decoded.
    pub(super) fn is_selective(&self) -> bool {
        self.selective > 0 || self.bridges.iter().any(|bridge| !bridge.selectors.is_empty())
    }

    pub(super) fn anybody_has_room(&self, around: &Surroundings<'_>) -> bool {
        self.bridges.iter().any(|bridge| bridge.room() > 0)
            || self.consumers.iter().any(|id| around.consumer_has_room(id))
    }
}
