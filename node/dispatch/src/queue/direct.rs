//! How a queue hands out what does not take the log, in order with what does: see [`crate::direct`].

use ferrymq_broker::{Admission, Numbered};
use ferrymq_message::StoredMessage;

use super::{Consumption, QueueDispatch};
use crate::{
    Action, Arrival, Arrived, ConsumerId, Ways,
    direct::{HELD_MESSAGES_MAX, cost},
    surroundings::{Lazy, Surroundings},
};

/// What became of a look at an arrival.
enum Look {
    /// With a consumer; or its time is over, or it was there before.
    Done,
    /// Somebody wants it and has no room.
    Later,
    /// Nobody wants it; or its number may not be its own, and the log shall judge.
    Unwanted,
}

impl QueueDispatch {
    /// Decides on the way of a message that comes now.
    pub(crate) fn arrive(
        &mut self,
        arrival: Arrival,
        ways: Ways,
        mut around: Surroundings<'_>,
        out: &mut Vec<Action>,
    ) -> Arrived {
        let has_consumers = self.consumers.len() > self.browsers;
        let fits = *around.direct_bytes + cost(&arrival.message) <= around.limits.direct_bytes_max;
        if ways.direct && has_consumers && fits {
            let caught_up = self.has_caught_up(&around);
            if caught_up && self.direct.logging == 0 && self.direct.held.is_empty() {
                let sole = self.sole_consumer(&around);
                match self.look(&arrival.message, &arrival.producer, sole, &mut around, out) {
                    Look::Done => return Arrived::Done,
                    Look::Unwanted => return Arrived::Log(arrival),
                    Look::Later => {}
                }
            }
            let has_room = self.consumers.iter().any(|id| around.consumer_has_room(id));
            if caught_up && has_room {
                self.direct.impatient = false;
            }
            let others_take = !has_room && !self.bridges.is_empty();
            let patient = !self.direct.impatient && self.direct.held.len() < HELD_MESSAGES_MAX;
            if ways.wait && patient && !others_take {
                return Arrived::Wait(arrival);
            }
        }
        // What is held came before it.
        self.spill(&mut around, out);
        Arrived::Log(arrival)
    }

    /// Hands out what is held, once everything before it is delivered; or lets it take the log, where waiting is in vain.
    pub(super) fn release(&mut self, sole: Option<ConsumerId>, around: &mut Surroundings<'_>, out: &mut Vec<Action>) {
        while self.direct.logging == 0 && self.has_caught_up(around) {
            let Some(held) = self.direct.held.pop_front() else {
                self.direct.impatient = false;
                return;
            };
            let arrival = &held.arrival;
            let look = self.look(&arrival.message, &arrival.producer, sole, around, out);
            if let Look::Done = look {
                *around.direct_bytes -= cost(&arrival.message);
                self.direct.released(around.now_ms);
                out.push(Action::Answer { ticket: held.ticket });
                continue;
            }
            self.direct.held.push_front(held);
            if let Look::Unwanted = look {
                self.spill(around, out);
            }
            break;
        }
        let has_room = || self.consumers.iter().any(|id| around.consumer_has_room(id));
        if !self.direct.held.is_empty() && !self.bridges.is_empty() && !has_room() {
            self.spill(around, out);
        }
    }

    /// Lets everything that is held take the log.
    pub(crate) fn spill(&mut self, around: &mut Surroundings<'_>, out: &mut Vec<Action>) {
        *around.direct_bytes -= self.held_bytes();
        self.direct.spill(around.queue.id, out);
    }

    pub(crate) fn held_bytes(&self) -> usize {
        let held = self.direct.held.iter();
        held.map(|held| cost(&held.arrival.message)).sum()
    }

    /// Nothing that the log brought, nor what came back, waits here.
    fn has_caught_up(&self, around: &Surroundings<'_>) -> bool {
        self.consuming == Consumption::Open
            && around.queue.consuming
            && self.direct.returned.is_empty()
            && self.next(around.queue, 0).is_none()
    }

    /// Gives a message to a consumer that wants it and has room.
    fn look(
        &mut self,
        message: &StoredMessage,
        producer: &Option<Numbered>,
        sole: Option<ConsumerId>,
        around: &mut Surroundings<'_>,
        out: &mut Vec<Action>,
    ) -> Look {
        if is_over(message, around.now_ms) {
            return Look::Done;
        }
        match producer.as_ref().map(|producer| around.admission(producer)) {
            None | Some(Admission::New) => {}
            Some(Admission::Seen) => return Look::Done,
            Some(_) => return Look::Unwanted,
        }
        let (taker, wanted) = self.taker(&mut Lazy::of(message), sole, around);
        let Some(id) = taker else {
            return if wanted { Look::Later } else { Look::Unwanted };
        };
        if let Some(producer) = producer {
            out.extend(around.numbers.add(producer).map(Action::Propose));
        }
        let direct = self.direct.begin(message.clone(), around.queue.next_seq);
        *around.direct_bytes += direct.cost();
        around.deliver_direct(id, direct, out);
        Look::Done
    }

    /// Gives what came back to a consumer. What nobody here wants takes the log, unless that would put it behind what
    /// it has to come before; if only another group can take it, that does not count. `quiet` says that nothing of this
    /// queue was on its way through the log when the round began.
    pub(super) fn hand_out_returned(
        &mut self,
        place: (u64, u64),
        sole: Option<ConsumerId>,
        quiet: bool,
        around: &mut Surroundings<'_>,
        out: &mut Vec<Action>,
    ) {
        let Some(direct) = self.direct.returned.remove(&place) else {
            return;
        };
        if is_over(&direct.message, around.now_ms) {
            *around.direct_bytes -= direct.cost();
            self.direct.end(&direct);
            return;
        }
        match self.taker(&mut Lazy::of(&direct.message), sole, around) {
            (Some(id), _) => around.deliver_direct(id, direct, out),
            (None, false) if self.may_put_back(place, quiet, around) => {
                *around.direct_bytes -= direct.cost();
                self.direct.put_back(around.queue.id, direct, out);
            }
            (None, _) => {
                self.direct.returned.insert(place, direct);
            }
        }
    }

    /// Nobody consumes here: nothing is held, and what came back takes the log where its order allows that.
    pub(super) fn give_up(&mut self, around: &mut Surroundings<'_>, out: &mut Vec<Action>) {
        let quiet = self.direct.logging == 0;
        let mut from = (0, 0);
        while let Some(place) = self.direct.first_returned(from, None) {
            from = (place.0, place.1 + 1);
            self.hand_out_returned(place, None, quiet, around, out);
        }
        self.spill(around, out);
    }

    fn may_put_back(&self, place: (u64, u64), quiet: bool, around: &Surroundings<'_>) -> bool {
        !self.bridges.is_empty() || (quiet && around.queue.first_from(place.0).is_none())
    }
}

fn is_over(message: &StoredMessage, now_ms: i64) -> bool {
    let expires_ms = message.expires_ms();
    expires_ms != 0 && expires_ms <= now_ms
}
