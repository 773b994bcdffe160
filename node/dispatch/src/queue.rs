//! One queue's dispatch: what comes next and who may get it.
//!
//! Invariant: a living message is in exactly one of these: at or after `cursor`; in `waiting` (looked at, and nobody
//! could take it, or it came back); in `flights`; or set aside for another group in the replicated state.

mod choice;
mod direct;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use ferrymq_broker::{Acknowledge, Command, Consuming, Expire, Offer, Queue, QueueId, Slot};
use foldhash::fast::FixedState;

use crate::{
    Action, Bridge, Consumer, ConsumerId, Limits,
    direct::Directs,
    pace::Pace,
    surroundings::{Lazy, Surroundings},
    turns::Turns,
};
use choice::Choice;

/// Messages that are looked at beyond one that waits for its consumer, at most.
const LOOKAHEAD_MAX: usize = 4096;
/// Messages in one offer, at most.
const OFFER_MESSAGES_MAX: usize = 256;
/// Message bytes in one offer, at most; a larger message goes alone.
const OFFER_BYTES_MAX: usize = 1 << 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flight {
    /// With a consumer, not acknowledged.
    Delivered(ConsumerId),
    /// A command that takes it away is under way, or waits in a transaction.
    Leaving,
    /// A command that makes it a dead letter is under way; a dead letter itself comes back.
    Rejected,
    /// A command that brings it back is under way. What lies behind it waits, so that a sole consumer that comes in
    /// the place of another one sees the order (P6).
    Returning,
    /// Set aside for another group, or the command for that is under way; until that group's answer is told here.
    Offering,
}

/// What this master has told the log of a queue's consumers (P3). The replicated mark alone does not do: while the
/// command that takes it away is under way it still stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Consumption {
    /// That there are none, or nothing in this term.
    #[default]
    Closed,
    /// The command that says that they come is under way.
    Opening,
    /// That there are some.
    Open,
}

#[derive(Debug, Default)]
pub(crate) struct QueueDispatch {
    pub(crate) consumers: Turns,
    /// How many of them have a selector, are browsers, are exclusive: most queues have none of these, and shall not walk
    /// over all consumers to find that out.
    selective: usize,
    browsers: usize,
    exclusive: usize,
    pub(crate) bridges: Vec<Bridge>,
    pub(crate) flights: HashMap<u64, Flight, FixedState>,
    waiting: BTreeSet<u64>,
    cursor: u64,
    /// Where the next round goes on, after one that ended before it had looked at everything.
    scan_at: u64,
    consuming: Consumption,
    /// What earlier masters have offered is known.
    pub(crate) adopted: bool,
    pub(crate) idle_since_ms: Option<i64>,
    /// What does not take the log.
    pub(crate) direct: Directs,
    pub(crate) pace: Pace,
}

/// What a round takes out of the queue, to be proposed at its end.
#[derive(Default)]
struct Taken {
    expired: Vec<u64>,
    unmatched: Vec<u64>,
    /// By position of the bridge: messages and their bytes.
    offers: BTreeMap<usize, Vec<(u64, u32)>>,
}

/// What became of one look.
enum Step {
    /// Dealt with.
    Passed,
    /// Somebody wants it and has no room; others may want what comes behind.
    Later,
    Stop,
}

/// Messages that one round looks at, at most: the master's other work waits meanwhile.
const LOOKS_MAX: usize = 16_384;
/// The same where a look may mean that a message is read from disk.
const SELECTIVE_LOOKS_MAX: usize = 512;

impl QueueDispatch {
    /// A consumer comes.
    pub(crate) fn add_consumer(&mut self, id: ConsumerId, consumer: &Consumer) {
        self.consumers.push(id, consumer.priority);
        self.selective += usize::from(consumer.selector.is_some());
        self.browsers += usize::from(consumer.browser);
        self.direct.prefetch += u64::from(consumer.prefetch);
        self.exclusive += usize::from(consumer.exclusive);
        self.idle_since_ms = None;
        self.rescan();
    }

    /// A consumer goes. The queue may have been deleted and looked at since it came, so that it is not here.
    pub(crate) fn remove_consumer(&mut self, id: ConsumerId, consumer: &Consumer) {
        if !self.consumers.remove(id) {
            return;
        }
        self.selective -= usize::from(consumer.selector.is_some());
        self.browsers -= usize::from(consumer.browser);
        self.direct.prefetch -= u64::from(consumer.prefetch);
        self.exclusive -= usize::from(consumer.exclusive);
        if consumer.exclusive {
            // Others may want what the exclusive one did not.
            self.rescan();
        }
    }

    /// Looks at everything again, because somebody came who may want what others did not.
    pub(crate) fn rescan(&mut self) {
        self.cursor = 0;
        self.scan_at = 0;
        self.waiting.clear();
    }

    /// A message can be dispatched.
    ///
    /// The state may be ahead of its effects, so a message may be with a consumer by now. Only what was expected back
    /// comes back.
    pub(crate) fn available(&mut self, seq: u64, returned: bool) {
        let expected = [Flight::Rejected, Flight::Returning, Flight::Offering];
        if returned && self.flights.get(&seq).is_some_and(|flight| expected.contains(flight)) {
            self.flights.remove(&seq);
        }
        if seq < self.cursor && !self.flights.contains_key(&seq) {
            self.waiting.insert(seq);
        }
        if seq < self.scan_at {
            self.scan_at = 0;
        }
    }

    /// Notes what becomes of messages in flight, and passes over those that are no more.
    pub(crate) fn settle(&mut self, seqs: &mut Vec<u64>, flight: Flight) {
        seqs.sort_unstable();
        // What comes back holds back what lies behind it (P6): the next round begins at the front.
        self.scan_at = 0;
        seqs.retain(|seq| match self.flights.get_mut(seq) {
            Some(found) => {
                *found = flight;
                true
            }
            None => false,
        });
    }

    /// The log knows now that there are consumers.
    pub(crate) fn consuming_began(&mut self) {
        self.consuming = Consumption::Open;
    }

    /// Says that there are no consumers any more, where that may be said.
    pub(crate) fn close(&mut self, queue: &Queue) -> Option<Command> {
        let idle = self.consumers.is_empty() && self.in_flight() == 0;
        if !queue.consuming || !idle || self.consuming == Consumption::Opening {
            return None;
        }
        self.consuming = Consumption::Closed;
        Some(Command::Consuming(Consuming {
            queue: queue.id,
            begins: false,
        }))
    }

    /// Another group's answer will tell what becomes of it.
    pub(crate) fn offered(&mut self, seq: u64) {
        self.flights.insert(seq, Flight::Offering);
        self.waiting.remove(&seq);
    }

    /// Messages with consumers, or on their way from them.
    pub(crate) fn in_flight(&self) -> usize {
        self.flights
            .values()
            .filter(|flight| **flight != Flight::Offering)
            .count()
    }

    pub(crate) fn removed(&mut self, seq: u64) {
        self.flights.remove(&seq);
        self.waiting.remove(&seq);
    }

    /// Messages neither in flight nor set aside, as far as the dispatcher knows.
    pub(crate) fn backlog(&self, queue: &Queue) -> u64 {
        queue.len().saturating_sub(self.flights.len() as u64)
    }

    /// Whether there is anybody to hand anything to.
    pub(crate) fn has_takers(&self) -> bool {
        !self.consumers.is_empty() || !self.bridges.is_empty()
    }

    /// Hands out what can be handed out; true where there is more to look at than one round may.
    pub(crate) fn dispatch(&mut self, mut around: Surroundings<'_>, out: &mut Vec<Action>) -> bool {
        if !self.has_takers() {
            self.give_up(&mut around, out);
            return false;
        }
        let (browsers, browse_more) = self.browse(&mut around, out);
        let open = self.consuming == Consumption::Open && around.queue.consuming;
        if self.consumers.len() > browsers && !open {
            // P3: the log must know that messages may be delivered before the first one is.
            if self.consuming != Consumption::Opening {
                self.consuming = Consumption::Opening;
                let queue = around.queue.id;
                out.push(Action::Propose(Command::Consuming(Consuming { queue, begins: true })));
            }
            return browse_more;
        }
        let mut taken = Taken::default();
        let selective = self.is_selective();
        let sole = self.sole_consumer(&around);
        // Without selectors the cursor remembers it all.
        let mut position = if selective {
            std::mem::take(&mut self.scan_at)
        } else {
            0
        };
        let mut looks = if selective { SELECTIVE_LOOKS_MAX } else { LOOKS_MAX };
        let mut returned_at = (0, 0);
        let quiet = self.direct.logging == 0;
        while self.anybody_has_room(&around) {
            if looks == 0 {
                self.scan_at = position;
                break;
            }
            looks -= 1;
            let next = self.next(around.queue, position);
            if let Some(place) = self.direct.first_returned(returned_at, next.map(|(seq, _)| seq)) {
                returned_at = (place.0, place.1 + 1);
                self.hand_out_returned(place, sole, quiet, &mut around, out);
                continue;
            }
            let Some((seq, slot)) = next else {
                break;
            };
            position = seq + 1;
            match self.hand_out(seq, &slot, sole, &mut around, &mut taken, out) {
                Step::Passed => self.pass(seq),
                Step::Later if seq < self.cursor || self.waiting.len() < LOOKAHEAD_MAX => {
                    self.waiting.insert(seq);
                    self.cursor = self.cursor.max(seq + 1);
                }
                Step::Later | Step::Stop => break,
            }
        }
        self.propose(around.queue, around.limits, taken, out);
        self.release(sole, &mut around, out);
        looks == 0 || browse_more
    }

    /// The first message from this position on that may be looked at.
    fn next(&self, queue: &Queue, position: u64) -> Option<(u64, Slot)> {
        // The state may be ahead of its effects: what waits here may be gone there.
        let waiting = self
            .waiting
            .range(position..)
            .find_map(|&seq| Some((seq, *queue.get(seq)?)));
        waiting.or_else(|| {
            queue
                .first_from(self.cursor.max(position))
                .map(|(seq, slot)| (seq, *slot))
        })
    }

    /// This message needs no further look.
    fn pass(&mut self, seq: u64) {
        if !self.waiting.remove(&seq) {
            self.cursor = self.cursor.max(seq + 1);
        }
    }

    fn hand_out(
        &mut self,
        seq: u64,
        slot: &Slot,
        sole: Option<ConsumerId>,
        around: &mut Surroundings<'_>,
        taken: &mut Taken,
        out: &mut Vec<Action>,
    ) -> Step {
        match self.flights.get(&seq) {
            Some(Flight::Returning) => return Step::Stop,
            Some(_) => return Step::Passed,
            None if slot.offered() => return Step::Passed,
            None => {}
        }
        if slot.expires_ms != 0 && slot.expires_ms <= around.now_ms {
            self.flights.insert(seq, Flight::Leaving);
            taken.expired.push(seq);
            return Step::Passed;
        }
        match self.choose(slot, sole, around) {
            Choice::Consumer(id) => {
                self.flights.insert(seq, Flight::Delivered(id));
                around.deliver(id, seq, slot, out);
                Step::Passed
            }
            Choice::Bridge(at) => {
                self.flights.insert(seq, Flight::Offering);
                self.bridges[at].offering += 1;
                taken.offers.entry(at).or_default().push((seq, slot.place.len));
                Step::Passed
            }
            Choice::Later => Step::Later,
            Choice::Unwanted => {
                // A subscription's selector is part of it: what does not match was never for it.
                let asked = !self.consumers.is_empty() || around.queue.other_group().is_some();
                if asked && is_subscription(around.queue) {
                    self.flights.insert(seq, Flight::Leaving);
                    taken.unmatched.push(seq);
                }
                Step::Passed
            }
            Choice::Unreadable => {
                out.push(Action::Unreadable {
                    queue: around.queue.id,
                    place: slot.place,
                });
                Step::Stop
            }
        }
    }

    /// Browsers see each message once and take nothing. Returns how many of the consumers are browsers, and whether there
    /// is more to look at than one round may.
    fn browse(&mut self, around: &mut Surroundings<'_>, out: &mut Vec<Action>) -> (usize, bool) {
        if self.browsers == 0 {
            return (0, false);
        }
        let mut more = false;
        let browsers: Vec<ConsumerId> = self
            .consumers
            .iter()
            .filter(|id| around.consumers.get(id).is_some_and(|consumer| consumer.browser))
            .collect();
        for &id in &browsers {
            let Some(consumer) = around.consumers.get(&id) else {
                continue;
            };
            if consumer.browse_ended {
                continue;
            }
            let (connection, selector) = (consumer.connection, consumer.selector.clone());
            let seen = consumer.browsed_to;
            let looks = around.queue.iter_from(seen).take(SELECTIVE_LOOKS_MAX + 1);
            for (looked, (seq, slot)) in looks.enumerate() {
                if !around.bodies.has_room(connection) {
                    break;
                }
                if looked == SELECTIVE_LOOKS_MAX {
                    more = true;
                    break;
                }
                let mut message = Lazy::new(around.bodies, slot.place);
                if selector
                    .as_ref()
                    .is_none_or(|selector| message.matches(selector) == Some(true))
                {
                    out.push(around.delivery(id, connection, seq, slot));
                }
                around.advance_browser(id, seq + 1);
            }
            let done = around
                .consumers
                .get(&id)
                .is_some_and(|c| around.queue.first_from(c.browsed_to).is_none());
            if done && around.finish_browser(id) {
                out.push(Action::Browsed {
                    consumer: id,
                    connection,
                });
            }
        }
        (browsers.len(), more)
    }

    /// The command that takes these messages out, because their time is over.
    pub(crate) fn expire(&mut self, queue: QueueId, seqs: Vec<u64>, limits: &Limits) -> Option<Command> {
        if seqs.is_empty() {
            return None;
        }
        self.flights.extend(seqs.iter().map(|&seq| (seq, Flight::Leaving)));
        let dead_letter = limits.expired_to_dead_letter.then(|| limits.dead_letter_queue.clone());
        Some(Command::Expire(Expire {
            queue,
            seqs: sorted(seqs),
            dead_letter,
        }))
    }

    fn propose(&mut self, queue: &Queue, limits: &Limits, taken: Taken, out: &mut Vec<Action>) {
        let id = queue.id;
        out.extend(self.expire(id, taken.expired, limits).map(Action::Propose));
        if !taken.unmatched.is_empty() {
            let seqs = sorted(taken.unmatched);
            out.push(Action::Propose(Command::Acknowledge(Acknowledge { queue: id, seqs })));
        }
        for (at, messages) in taken.offers {
            let bridge = &self.bridges[at];
            for seqs in in_portions(messages) {
                out.push(Action::Propose(Command::Offer(Offer {
                    queue: id,
                    seqs,
                    group: bridge.next_hop,
                    group_name: bridge.next_hop_name.clone(),
                })));
            }
        }
    }
}

/// Cuts an offer so that one transfer stays small enough for one entry of the receiver's log.
fn in_portions(mut messages: Vec<(u64, u32)>) -> Vec<Vec<u64>> {
    messages.sort_unstable();
    let mut portions: Vec<Vec<u64>> = Vec::new();
    let mut bytes = 0;
    for (seq, len) in messages {
        bytes += len as usize;
        match portions.last_mut() {
            Some(portion) if portion.len() < OFFER_MESSAGES_MAX && bytes <= OFFER_BYTES_MAX => portion.push(seq),
            _ => {
                bytes = len as usize;
                portions.push(vec![seq]);
            }
        }
    }
    portions
}

fn is_subscription(queue: &Queue) -> bool {
    matches!(queue.kind, ferrymq_broker::QueueKind::Subscription { .. })
}

fn sorted(mut seqs: Vec<u64>) -> Vec<u64> {
    seqs.sort_unstable();
    seqs
}
