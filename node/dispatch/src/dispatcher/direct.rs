//! What the master's loop asks and tells of messages that do not take the log: see [`crate::direct`].

use ferrymq_broker::{Broker, Command, DeadLetter, Numbered, PutBack, QueueId};

use super::Dispatcher;
use crate::{
    Action, Arrival, Arrived, Bodies, ConnectionId, Direct, DirectCounts, Ways,
    direct::{Directs, Held, cost},
    surroundings::Surroundings,
};

impl Dispatcher {
    /// A non-persistent message comes for this queue. What is put into `out` goes before whatever the answer demands.
    pub fn arrive(
        &mut self,
        queue: QueueId,
        arrival: Arrival,
        ways: Ways,
        broker: &Broker,
        bodies: &dyn Bodies,
        now_ms: i64,
        out: &mut Vec<Action>,
    ) -> Arrived {
        let (Some(dispatch), Some(replicated)) = (self.queues.get_mut(&queue), broker.queues().get(queue)) else {
            return Arrived::Log(arrival);
        };
        let around = Surroundings {
            queue: replicated,
            consumers: &mut self.consumers,
            bodies,
            limits: &self.limits,
            now_ms,
            producers: broker.producers(),
            numbers: &mut self.numbers,
            direct_bytes: &mut self.direct_bytes,
        };
        let arrived = dispatch.arrive(arrival, ways, around, out);
        if matches!(arrived, Arrived::Done) {
            self.demand_changed.insert(queue);
        }
        arrived
    }

    /// Holds an arrival that was told to wait. An action with this ticket will come.
    pub fn hold(&mut self, queue: QueueId, ticket: u64, arrival: Arrival, now_ms: i64) {
        self.direct_bytes += cost(&arrival.message);
        self.holding.insert(queue);
        self.touch(queue).direct.hold(Held {
            ticket,
            since_ms: now_ms,
            arrival,
        });
    }

    /// A non-persistent message of this queue was proposed to the log. [`Dispatcher::logged`] is owed.
    pub fn logging(&mut self, queue: QueueId) {
        self.queues.entry(queue).or_default().direct.logging += 1;
    }

    /// The log has stored it, or will not.
    pub fn logged(&mut self, queue: QueueId) {
        if let Some(dispatch) = self.touch_known(queue) {
            dispatch.direct.logging = dispatch.direct.logging.saturating_sub(1);
        }
    }

    /// True where an arrival may be held.
    pub fn is_holding(&self) -> bool {
        !self.holding.is_empty()
    }

    /// Lets what is held for this connection take the log, before something else of the same producer does.
    pub fn spill_of(&mut self, connection: ConnectionId, out: &mut Vec<Action>) {
        let is_its_own = |held: &Held| held.arrival.connection == connection;
        self.spill_where(out, |direct| direct.held.iter().any(is_its_own), false);
    }

    /// Forgets what is held for this connection, because something that it sent before was not stored: it will send all
    /// of that again, in its order (P6). Returns the tickets, to which no action will come.
    pub fn drop_held_of(&mut self, connection: ConnectionId) -> Vec<u64> {
        let mut tickets = Vec::new();
        for id in &self.holding {
            let Some(dispatch) = self.queues.get_mut(id) else {
                continue;
            };
            dispatch.direct.held.retain(|held| {
                let is_dropped = held.arrival.connection == connection;
                if is_dropped {
                    self.direct_bytes -= cost(&held.arrival.message);
                    tickets.push(held.ticket);
                }
                !is_dropped
            });
        }
        tickets
    }

    /// When [`Dispatcher::spill_old`] has something to do next, as far as is known.
    pub fn held_until_ms(&self) -> Option<i64> {
        let holding = self.holding.iter();
        holding
            .filter_map(|id| self.queues.get(id)?.direct.held_until_ms())
            .min()
    }

    /// Lets what was held for too long take the log.
    pub fn spill_old(&mut self, now_ms: i64, out: &mut Vec<Action>) {
        self.spill_where(out, |direct| direct.is_held_for_too_long(now_ms), true);
    }

    /// Lets all that is held of a queue take the log where this is true of it.
    fn spill_where(&mut self, out: &mut Vec<Action>, is_due: impl Fn(&Directs) -> bool, impatient: bool) {
        let queues = &mut self.queues;
        let direct_bytes = &mut self.direct_bytes;
        self.holding.retain(|&id| {
            let Some(dispatch) = queues.get_mut(&id) else {
                return false;
            };
            if is_due(&dispatch.direct) {
                *direct_bytes -= dispatch.held_bytes();
                dispatch.direct.spill(id, out);
                dispatch.direct.impatient |= impatient;
            }
            !dispatch.direct.held.is_empty()
        });
    }

    /// What the log must be told before it gets a message of this producer: numbers that did not take it.
    pub fn passed(&mut self, producer: Option<&Numbered>) -> Option<Command> {
        if self.numbers.is_empty() {
            return None;
        }
        self.numbers.take(producer?)
    }

    /// Acknowledged messages are gone.
    pub fn forget(&mut self, queue: QueueId, messages: impl IntoIterator<Item = Direct>) {
        let mut dispatch = self.queues.get_mut(&queue);
        for message in messages {
            self.direct_bytes -= message.cost();
            if let Some(dispatch) = &mut dispatch {
                dispatch.direct.end(&message);
            }
        }
    }

    /// The command that makes a rejected message a dead letter; the message itself is still to be forgotten or taken
    /// back.
    pub fn bury(&self, queue: QueueId, message: &Direct) -> Option<Command> {
        self.dead_letter(queue, message, "rejected by a consumer")
    }

    /// Brings acknowledged messages back, because their transaction was aborted. Returns the commands that make dead
    /// letters of those that came back too often.
    pub fn take_back(&mut self, queue: QueueId, messages: Vec<Direct>) -> Vec<Command> {
        let redeliveries_max = self.limits.redeliveries_max;
        let (back, dead): (Vec<_>, Vec<_>) = messages
            .into_iter()
            .partition(|message| message.redeliveries < redeliveries_max);
        let letters = dead.iter();
        let commands = letters
            .filter_map(|message| self.dead_letter(queue, message, "redelivered too often"))
            .collect();
        self.forget(queue, dead);
        match self.touch_known(queue) {
            Some(dispatch) => back
                .into_iter()
                .for_each(|message| dispatch.direct.take_back(message, true)),
            None => self.forget(queue, back),
        }
        commands
    }

    fn dead_letter(&self, queue: QueueId, message: &Direct, reason: &str) -> Option<Command> {
        let letter = DeadLetter {
            // It was encoded on this node: it has one.
            original: message.message.destination().ok()?,
            reason: reason.to_owned(),
        };
        Some(Command::PutBack(PutBack {
            queue,
            redeliveries: message.redeliveries.saturating_add(1),
            dead_letter: Some((self.limits.dead_letter_queue.clone(), letter)),
            message: message.message.bytes().clone(),
        }))
    }

    /// For status.
    pub fn direct_counts(&self, queue: QueueId) -> DirectCounts {
        self.queues
            .get(&queue)
            .map_or_else(DirectCounts::default, |dispatch| dispatch.direct.counts)
    }

    /// Memory of messages that do not take the log, in bytes.
    pub fn direct_bytes(&self) -> usize {
        self.direct_bytes
    }
}
