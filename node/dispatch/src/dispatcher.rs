//! All queues' dispatch on one master. Routes effects and requests to the queue that they concern.

mod direct;

use std::collections::{BTreeMap, BTreeSet};

use ferrymq_broker::{Acknowledge, Broker, Command, Effect, Queue, QueueId, QueueKind, Return};
use ferrymq_message::Destination;

use crate::{
    Action, Bodies, Bridge, ConnectionId, Consumer, ConsumerId, Direct, Target,
    consumer::Taken,
    numbers::Numbers,
    queue::{Flight, QueueDispatch},
    surroundings::Surroundings,
};

/// What the operator may set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Redeliveries after which a message goes to the dead letter queue (ActiveMQ: 6).
    pub redeliveries_max: u16,
    /// The dead letter queue (ActiveMQ: `ActiveMQ.DLQ`).
    pub dead_letter_queue: Destination,
    /// Whether persistent messages that expire go there too (ActiveMQ: yes).
    pub expired_to_dead_letter: bool,
    /// Hand-overs after which a message stays in its group.
    pub hops_max: u8,
    /// How long a queue without consumers is remembered as having some, in milliseconds.
    pub consuming_linger_ms: i64,
    /// Memory of messages that do not take the log, in bytes; beyond it they do.
    pub direct_bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            redeliveries_max: 6,
            dead_letter_queue: Destination::queue("ActiveMQ.DLQ"),
            expired_to_dead_letter: true,
            hops_max: 16,
            consuming_linger_ms: 2_000,
            direct_bytes_max: 64 << 20,
        }
    }
}

/// Messages and queues that one tick looks at for expired messages, at most.
const EXPIRY_LOOKS_MAX: usize = 2_000;

/// What this group's own consumers want of one queue.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Demand {
    /// Consumers.
    pub consumers: u32,
    /// Messages that they have room for beyond what waits here already.
    pub credit: u32,
    /// Messages that wait here beyond what they have room for; all that wait where selectors choose among them.
    pub behind: u32,
    /// Consumers that have been at work lately.
    pub busy: u32,
    /// Messages that all of these finish in a second while they are at work.
    pub per_second: u32,
    /// Messages that are delivered and not acknowledged.
    pub in_hand: u32,
    /// Their distinct selectors; `None` wants everything.
    pub selectors: Vec<Option<String>>,
}

/// All consumers and what they have in flight.
#[derive(Debug, Default)]
pub struct Dispatcher {
    limits: Limits,
    queues: BTreeMap<QueueId, QueueDispatch>,
    consumers: BTreeMap<ConsumerId, Consumer>,
    /// The same by connection: whose outbox has room again.
    by_connection: BTreeSet<(ConnectionId, ConsumerId)>,
    /// Queues where something can be done.
    dirty: BTreeSet<QueueId>,
    /// Queues whose demand may have changed since it was last asked for.
    demand_changed: BTreeSet<QueueId>,
    /// Where the search for expired messages goes on.
    expiry_at: (QueueId, u64),
    /// Queues whose demand the mesh has been told of.
    reported: BTreeMap<QueueId, Destination>,
    /// Numbers of messages that did not take the log, and that the log was not told of.
    numbers: Numbers,
    /// Memory of messages that do not take the log, in bytes.
    direct_bytes: usize,
    /// Queues that may hold arrivals.
    holding: BTreeSet<QueueId>,
    /// For the next [`Dispatcher::dispatch`].
    ready: Vec<Action>,
}

/// What an acknowledgement settles.
#[derive(Debug, Default)]
pub struct Settled {
    /// What the log has to know; none where it does not know the messages.
    pub command: Option<Command>,
    /// The queue.
    pub queue: QueueId,
    /// Messages that the log does not know; they are the caller's now, who gives them to [`Dispatcher::forget`],
    /// [`Dispatcher::bury`] or [`Dispatcher::take_back`].
    pub direct: Vec<Direct>,
}

impl Dispatcher {
    /// A dispatcher without consumers.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            ..Self::default()
        }
    }

    /// A consumer comes. Its queue must be there.
    pub fn add_consumer(&mut self, id: ConsumerId, consumer: Consumer) {
        self.touch(consumer.queue).add_consumer(id, &consumer);
        self.by_connection.insert((consumer.connection, id));
        self.consumers.insert(id, consumer);
    }

    /// A consumer goes; what it has not acknowledged comes back. That counts as a redelivery but is no reason for the
    /// dead letter queue: a consumer with a large prefetch that comes and goes has not rejected anything.
    pub fn remove_consumer(&mut self, id: ConsumerId, counted: bool) -> Option<Command> {
        let mut consumer = self.consumers.remove(&id)?;
        self.by_connection.remove(&(consumer.connection, id));
        let direct = std::mem::take(&mut consumer.direct);
        let Some(queue) = self.touch_known(consumer.queue) else {
            self.forget(consumer.queue, direct.into_iter().map(|(_, message)| message));
            return None;
        };
        queue.remove_consumer(id, &consumer);
        let mut seqs: Vec<u64> = consumer.in_flight.iter().map(|&(_, seq)| seq).collect();
        queue.settle(&mut seqs, Flight::Returning);
        for (_, message) in direct {
            queue.direct.take_back(message, counted);
        }
        (!seqs.is_empty()).then(|| {
            Command::Return(Return {
                queue: consumer.queue,
                seqs,
                counted,
                redeliveries_max: u16::MAX,
                dead_letter: None,
                reason: String::new(),
            })
        })
    }

    /// Takes acknowledged deliveries out of what is in flight. The command takes the messages away; with `rejected` it
    /// sends them to the dead letter queue (STOMP NACK, as ActiveMQ's poison acknowledgement).
    pub fn acknowledge(&mut self, id: ConsumerId, target: Target, rejected: bool) -> Settled {
        let Some(consumer) = self.consumers.get_mut(&id) else {
            return Settled::default();
        };
        let queue = consumer.queue;
        let Taken { mut seqs, direct } = consumer.settle(target);
        let flight = if rejected { Flight::Rejected } else { Flight::Leaving };
        match self.touch_known(queue) {
            Some(known) => {
                known.pace.finished(seqs.len() + direct.len());
                known.settle(&mut seqs, flight);
            }
            None => seqs.clear(),
        }
        let command = if seqs.is_empty() {
            None
        } else if rejected {
            Some(self.reject(queue, seqs))
        } else {
            Some(Command::Acknowledge(Acknowledge { queue, seqs }))
        };
        Settled { command, queue, direct }
    }

    fn reject(&self, queue: QueueId, seqs: Vec<u64>) -> Command {
        Command::Return(Return {
            queue,
            seqs,
            counted: true,
            redeliveries_max: 0,
            dead_letter: Some(self.limits.dead_letter_queue.clone()),
            reason: "rejected by a consumer".into(),
        })
    }

    /// Brings acknowledged messages back, because their transaction was aborted.
    pub fn give_back(&mut self, queue: QueueId, mut seqs: Vec<u64>) -> Command {
        if let Some(dispatch) = self.touch_known(queue) {
            dispatch.settle(&mut seqs, Flight::Returning);
        }
        Command::Return(Return {
            queue,
            seqs,
            counted: true,
            redeliveries_max: self.limits.redeliveries_max,
            dead_letter: Some(self.limits.dead_letter_queue.clone()),
            reason: "redelivered too often".into(),
        })
    }

    /// What other groups want of a queue, in place of what they wanted before.
    pub fn set_bridges(&mut self, queue: QueueId, bridges: Vec<Bridge>) {
        let dispatch = self.touch(queue);
        let mut wanted_before = Vec::new();
        let mut fresh = bridges;
        for bridge in &mut fresh {
            let before = dispatch.bridges.iter().find(|old| old.next_hop == bridge.next_hop);
            bridge.offering = before.map_or(0, |old| old.offering);
            wanted_before.push(before.is_some_and(|old| old.selectors == bridge.selectors));
        }
        dispatch.bridges = fresh;
        if wanted_before.contains(&false) {
            dispatch.rescan();
        }
    }

    /// Takes in what a committed batch brought about.
    pub fn on_effect(&mut self, effect: &Effect, broker: &Broker) {
        match *effect {
            Effect::Available { queue, seq, returned } => {
                self.touch(queue).available(seq, returned);
            }
            Effect::Removed { queue, seq } => self.touch(queue).removed(seq),
            Effect::Offered { queue, group, transfer } => {
                let offer = broker
                    .transfers()
                    .outgoing
                    .get(&group)
                    .and_then(|o| o.pending.get(&transfer));
                let dispatch = self.touch(queue);
                let seqs = offer.map_or(&[][..], |offer| &offer.seqs);
                for seq in seqs {
                    dispatch.offered(*seq);
                }
                if let Some(bridge) = dispatch.bridges.iter_mut().find(|bridge| bridge.next_hop == group) {
                    let count = seqs.len() as u32;
                    bridge.offering = bridge.offering.saturating_sub(count);
                    bridge.available = bridge.available.saturating_sub(count);
                }
            }
            Effect::ConsumingBegan { queue } => self.touch(queue).consuming_began(),
            Effect::QueueDeleted { queue } => {
                if let Some(mut gone) = self.queues.remove(&queue) {
                    self.direct_bytes -= gone.held_bytes() + gone.direct.returned_bytes();
                    // The log makes the queue anew for what came after the deletion.
                    gone.direct.spill(queue, &mut self.ready);
                }
                self.demand_changed.insert(queue);
            }
            Effect::QueueCreated { .. } | Effect::Published { .. } => {}
        }
    }

    /// Something changed outside (an outbox has room again): look at the connection's queues.
    pub fn poke(&mut self, connection: ConnectionId) {
        let queues: Vec<QueueId> = self
            .by_connection
            .range((connection, 0)..=(connection, ConsumerId::MAX))
            .filter_map(|(_, id)| self.consumers.get(id))
            .map(|consumer| consumer.queue)
            .collect();
        for queue in queues {
            self.touch_known(queue);
        }
    }

    /// True where [`Dispatcher::dispatch`] has something to look at.
    pub fn is_dirty(&self) -> bool {
        !self.dirty.is_empty() || !self.ready.is_empty()
    }

    /// Hands out what can be handed out, a limited number of messages at a time: it may be dirty again after it.
    pub fn dispatch(&mut self, broker: &Broker, bodies: &dyn Bodies, now_ms: i64, out: &mut Vec<Action>) {
        out.append(&mut self.ready);
        for id in std::mem::take(&mut self.dirty) {
            let (Some(dispatch), Some(queue)) = (self.queues.get_mut(&id), broker.queues().get(id)) else {
                continue;
            };
            if !std::mem::replace(&mut dispatch.adopted, true) {
                offered(broker, id).for_each(|seq| dispatch.offered(seq));
            }
            let consumers = &mut self.consumers;
            let around = Surroundings {
                queue,
                consumers,
                bodies,
                limits: &self.limits,
                now_ms,
                producers: broker.producers(),
                numbers: &mut self.numbers,
                direct_bytes: &mut self.direct_bytes,
            };
            if dispatch.dispatch(around, out) {
                self.dirty.insert(id);
            }
        }
    }

    /// Looks for messages whose time is over and for queues that nobody consumes any more.
    pub fn tick(&mut self, broker: &Broker, now_ms: i64) -> Vec<Command> {
        let linger = self.limits.consuming_linger_ms;
        let mut commands = Vec::new();
        for (&id, dispatch) in &mut self.queues {
            if dispatch.has_takers() {
                self.dirty.insert(id);
            }
            if !dispatch.pace.is_idle() {
                self.demand_changed.insert(id);
            }
            if !dispatch.consumers.is_empty() || dispatch.in_flight() > 0 {
                continue;
            }
            let since = *dispatch.idle_since_ms.get_or_insert(now_ms);
            if now_ms - since > linger {
                commands.extend(broker.queues().get(id).and_then(|queue| dispatch.close(queue)));
            }
        }
        commands.extend(self.expire(broker, now_ms));
        commands
    }

    /// Looks at the next stretch of all queues, round and round, for messages whose time is over, with consumers or
    /// without (ActiveMQ: `expireMessagesPeriod`). Part of each tick.
    pub fn expire(&mut self, broker: &Broker, now_ms: i64) -> Vec<Command> {
        let mut commands = Vec::new();
        let mut looks = EXPIRY_LOOKS_MAX;
        while looks > 0 {
            let (at, from) = self.expiry_at;
            let Some(queue) = broker.queues().range(at..).next() else {
                self.expiry_at = (0, 0);
                break;
            };
            looks -= 1;
            let mut expired = Vec::new();
            let mut end = None;
            if queue.expiring() > 0 {
                for (seq, slot) in queue.iter_from(if queue.id == at { from } else { 0 }) {
                    if looks == 0 {
                        end = Some(seq);
                        break;
                    }
                    looks -= 1;
                    if slot.expires_ms != 0 && slot.expires_ms <= now_ms && !slot.offered() {
                        expired.push(seq);
                    }
                }
            }
            self.expiry_at = end.map_or((queue.id.saturating_add(1), 0), |seq| (queue.id, seq));
            if !expired.is_empty() {
                let dispatch = self.queues.entry(queue.id).or_default();
                expired.retain(|seq| !dispatch.flights.contains_key(seq));
                commands.extend(dispatch.expire(queue.id, expired, &self.limits));
            }
        }
        commands
    }

    /// The queues whose demand may have changed since the last call, with what is wanted of them now.
    pub fn changed_demand(&mut self, broker: &Broker, now_ms: i64) -> Vec<(Destination, Demand)> {
        let mut changed = Vec::new();
        for id in std::mem::take(&mut self.demand_changed) {
            match broker.queues().get(id) {
                Some(Queue {
                    kind: QueueKind::Subscription { .. },
                    ..
                }) => {}
                Some(queue) => {
                    let demand = self.demand(queue, now_ms);
                    if demand.consumers > 0 {
                        self.reported.insert(id, queue.destination().clone());
                        changed.push((queue.destination().clone(), demand));
                    } else if let Some(destination) = self.reported.remove(&id) {
                        changed.push((destination, demand));
                    }
                }
                None => changed.extend(self.reported.remove(&id).map(|gone| (gone, Demand::default()))),
            }
        }
        changed
    }

    fn demand(&mut self, queue: &Queue, now_ms: i64) -> Demand {
        let Some(dispatch) = self.queues.get_mut(&queue.id) else {
            return Demand::default();
        };
        let mut demand = Demand::default();
        let (mut room, mut at_work) = (0u64, 0);
        let consumers = dispatch.consumers.iter().filter_map(|id| self.consumers.get(&id));
        for consumer in consumers.filter(|consumer| !consumer.browser) {
            demand.consumers += 1;
            room += u64::from(consumer.room());
            at_work += u32::from(consumer.unacknowledged() > 0);
            demand.in_hand += consumer.unacknowledged() as u32;
            let selector = consumer.selector.as_ref().map(|selector| selector.text());
            if !demand.selectors.iter().any(|known| known.as_deref() == selector) {
                demand.selectors.push(selector.map(str::to_owned));
            }
        }
        dispatch.pace.look(at_work, now_ms);
        demand.busy = dispatch.pace.busy().min(demand.consumers);
        demand.per_second = dispatch.pace.per_second();
        let waiting = dispatch.backlog(queue) + dispatch.direct.waiting() as u64;
        // What a selector leaves lying here does not take anybody's room, but nobody knows what of it that is: nothing is
        // sent ahead of the room then.
        let selective = !demand.selectors.contains(&None);
        let credit = room.saturating_sub(if selective { 0 } else { waiting });
        let behind = waiting.saturating_sub(if selective { 0 } else { room });
        demand.credit = u32::try_from(credit).unwrap_or(u32::MAX);
        demand.behind = u32::try_from(behind).unwrap_or(u32::MAX);
        demand
    }

    /// Consumers of a queue and messages in flight, for status.
    pub fn counts(&self, queue: QueueId) -> (usize, usize) {
        self.queues
            .get(&queue)
            .map_or((0, 0), |q| (q.consumers.len(), q.in_flight() + q.direct.in_flight()))
    }

    /// The consumer of this number.
    pub fn consumer(&self, id: ConsumerId) -> Option<&Consumer> {
        self.consumers.get(&id)
    }

    /// As [`Dispatcher::touch`], but for what may be about a queue that was deleted meanwhile.
    fn touch_known(&mut self, queue: QueueId) -> Option<&mut QueueDispatch> {
        let known = self.queues.get_mut(&queue)?;
        self.dirty.insert(queue);
        self.demand_changed.insert(queue);
        Some(known)
    }

    fn touch(&mut self, queue: QueueId) -> &mut QueueDispatch {
        self.dirty.insert(queue);
        self.demand_changed.insert(queue);
        self.queues.entry(queue).or_default()
    }
}

/// What is under offer of one queue.
fn offered(broker: &Broker, queue: QueueId) -> impl Iterator<Item = u64> {
    let pending = broker
        .transfers()
        .outgoing
        .values()
        .flat_map(|outgoing| outgoing.pending.values());
    pending
        .filter(move |offer| offer.queue == queue)
        .flat_map(|offer| offer.seqs.iter().copied())
}
