//! A dispatcher, the state that it dispatches from, and all that is on the way between the two. Proposals are committed,
//! and their effects told, only when a test says so: until then the one does not know of the other, as in the node.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet, VecDeque},
};

use bytes::Bytes;
use ferrymq_broker::{
    BatchBuilder, Broker, Command, Effect, Enqueue, EnqueueOnce, Numbered, Outcome, Owner, Place, QueueId, Settings,
    Subscribe, stored_in,
};
use ferrymq_dispatch::{
    Action, Arrival, Arrived, Bodies, ConnectionId, Consumer, ConsumerId, Direct, Dispatcher, Limits, Target, Ways,
};
use ferrymq_message::{Destination, Digest, Message, Selector, StoredMessage, Value};

/// See the file's head.
pub(crate) struct World {
    pub(crate) dispatcher: Dispatcher,
    pub(crate) broker: Broker,
    pub(crate) log: Vec<Bytes>,
    /// Not committed yet.
    pub(crate) proposed: VecDeque<Command>,
    /// Committed, and not told to the dispatcher yet.
    pub(crate) told: VecDeque<Vec<Effect>>,
    pub(crate) outcomes: Vec<Outcome>,
    /// Connections whose outbox is full.
    pub(crate) full: BTreeSet<ConnectionId>,
    pub(crate) now_ms: i64,
    next_consumer: ConsumerId,
    /// Non-persistent messages whose producers have no answer yet, by ticket: held, or on their way through the log.
    pub(crate) unanswered: BTreeMap<u64, Message>,
    next_ticket: u64,
    /// Messages of these bytes, when committed and told, are to be told as logged; and whom that answers.
    owed: BTreeMap<Bytes, VecDeque<(QueueId, Option<u64>)>>,
    owed_told: VecDeque<Vec<(QueueId, Option<u64>)>>,
}

/// A delivery, as a test wants to see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Delivered {
    pub(crate) consumer: ConsumerId,
    pub(crate) tag: u64,
    pub(crate) id: String,
    pub(crate) redelivered: bool,
    pub(crate) redeliveries: u16,
}

struct Reading<'a> {
    log: &'a [Bytes],
    full: &'a BTreeSet<ConnectionId>,
    handed_out: RefCell<usize>,
}

impl Bodies for Reading<'_> {
    fn read(&self, place: Place) -> Option<Bytes> {
        Some(read(self.log, place))
    }

    fn has_room(&self, connection: ConnectionId) -> bool {
        !self.full.contains(&connection)
    }

    fn hand_out(&self, connection: ConnectionId, bytes: usize) {
        assert!(self.has_room(connection), "bytes for a full outbox");
        *self.handed_out.borrow_mut() += bytes;
    }
}

fn read(log: &[Bytes], place: Place) -> Bytes {
    let start = place.offset as usize;
    log[place.index as usize - 1].slice(start..start + place.len as usize)
}

impl World {
    pub(crate) fn new() -> Self {
        Self {
            dispatcher: Dispatcher::new(limits()),
            broker: Broker::new(Settings::default()),
            log: Vec::new(),
            proposed: VecDeque::new(),
            told: VecDeque::new(),
            outcomes: Vec::new(),
            full: BTreeSet::new(),
            now_ms: 1_000,
            next_consumer: 1,
            unanswered: BTreeMap::new(),
            next_ticket: 1,
            owed: BTreeMap::new(),
            owed_told: VecDeque::new(),
        }
    }

    pub(crate) fn message(&self, place: Place) -> Message {
        StoredMessage::new(read(&self.log, place)).unwrap().decode().unwrap()
    }

    pub(crate) fn queue(&self, name: &str) -> QueueId {
        let destination = Destination::queue(name);
        self.broker.queues().find(destination.kind(), name).unwrap()
    }

    /// Opens a queue at once.
    pub(crate) fn open(&mut self, name: &str) -> QueueId {
        self.proposed
            .push_back(Command::OpenDestination(Destination::queue(name)));
        self.settle();
        self.queue(name)
    }

    /// Opens a durable subscription at once.
    pub(crate) fn subscribe(&mut self, topic: &str) -> QueueId {
        let owner = Owner::Client {
            client_id: "c".into(),
            name: topic.into(),
        };
        let topic = Destination::topic(topic);
        let subscribe = Subscribe {
            topic,
            owner: owner.clone(),
            selector: String::new(),
        };
        self.proposed.push_back(Command::Subscribe(subscribe));
        self.settle();
        self.broker.subscriptions().find(&owner).unwrap()
    }

    /// A client sends messages with these ids, whose property `x` is the id's length.
    pub(crate) fn send(&mut self, destination: &Destination, ids: &[&str]) {
        for id in ids {
            let mut message = Message::new(*id, destination.clone(), "body");
            message.properties.push(("x".into(), Value::Int(id.len() as i32)));
            self.propose_send(&message);
        }
    }

    pub(crate) fn propose_send(&mut self, message: &Message) {
        self.proposed.push_back(enqueue(message));
    }

    /// A client sends non-persistent messages with these ids to a queue, and whatever way they may take is open.
    pub(crate) fn send_direct(&mut self, destination: &Destination, ids: &[&str]) -> Vec<Delivered> {
        let mut delivered = Vec::new();
        for id in ids {
            let mut message = Message::new(*id, destination.clone(), "body");
            message.properties.push(("x".into(), Value::Int(id.len() as i32)));
            message.persistent = false;
            let actions = self.arrive(&message, WAYS);
            delivered.extend(self.deliveries(&actions));
        }
        delivered
    }

    /// A non-persistent message comes, as the master's loop takes it in.
    pub(crate) fn arrive(&mut self, message: &Message, ways: Ways) -> Vec<Action> {
        let command = enqueue(message).encode();
        let arrival = Arrival {
            connection: 77,
            producer: numbered(message),
            message: StoredMessage::new(stored_in(&command).unwrap()).unwrap(),
            command,
        };
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        let mut actions = Vec::new();
        let queue = self.queue(message.destination.name());
        let bodies = Reading {
            log: &self.log,
            full: &self.full,
            handed_out: RefCell::new(0),
        };
        let arrived = self
            .dispatcher
            .arrive(queue, arrival, ways, &self.broker, &bodies, self.now_ms, &mut actions);
        self.carry_out(&actions);
        match arrived {
            Arrived::Done => {}
            Arrived::Wait(arrival) => {
                self.unanswered.insert(ticket, message.clone());
                self.dispatcher.hold(queue, ticket, arrival, self.now_ms);
            }
            Arrived::Log(arrival) => {
                self.dispatcher.logging(queue);
                self.unanswered.insert(ticket, message.clone());
                self.log_it(queue, ticket, arrival.producer.as_ref(), &arrival.command);
            }
        }
        actions
    }

    fn log_it(&mut self, queue: QueueId, ticket: u64, producer: Option<&Numbered>, command: &Bytes) {
        self.proposed.extend(self.dispatcher.passed(producer));
        let message = StoredMessage::new(stored_in(command).unwrap()).unwrap();
        let command = enqueue(&message.decode().unwrap());
        let message = message.bytes().clone();
        self.owed
            .entry(message.clone())
            .or_default()
            .push_back((queue, Some(ticket)));
        self.proposed.push_back(command);
    }

    pub(crate) fn carry_out(&mut self, actions: &[Action]) {
        for action in actions {
            match action {
                Action::Propose(command) => self.proposed.push_back(command.clone()),
                Action::Answer { ticket } => {
                    self.unanswered.remove(ticket).expect("it was held");
                }
                Action::Log {
                    queue,
                    ticket,
                    producer,
                    command,
                } => self.log_it(*queue, *ticket, producer.as_ref(), command),
                Action::PutBack { queue, command } => {
                    if let Command::PutBack(back) = command {
                        let owed = self.owed.entry(back.message.clone()).or_default();
                        owed.push_back((*queue, None));
                    }
                    self.proposed.push_back(command.clone());
                }
                _ => {}
            }
        }
    }

    pub(crate) fn add(&mut self, consumer: Consumer) -> ConsumerId {
        let id = self.next_consumer;
        self.next_consumer += 1;
        self.dispatcher.add_consumer(id, consumer);
        id
    }

    pub(crate) fn remove(&mut self, id: ConsumerId) {
        let command = self.dispatcher.remove_consumer(id, true);
        self.proposed.extend(command);
    }

    pub(crate) fn acknowledge(&mut self, id: ConsumerId, target: Target) {
        let settled = self.dispatcher.acknowledge(id, target, false);
        self.dispatcher.forget(settled.queue, settled.direct);
        self.proposed.extend(settled.command);
    }

    /// A consumer rejects what it has; or `back` gives it back from an aborted transaction.
    pub(crate) fn reject(&mut self, id: ConsumerId, target: Target) {
        let settled = self.dispatcher.acknowledge(id, target, true);
        self.proposed.extend(settled.command);
        self.bury(settled.queue, settled.direct);
    }

    pub(crate) fn bury(&mut self, queue: QueueId, messages: Vec<Direct>) {
        let letters: Vec<Command> = messages
            .iter()
            .filter_map(|message| self.dispatcher.bury(queue, message))
            .collect();
        assert_eq!(letters.len(), messages.len());
        self.proposed.extend(letters);
        self.dispatcher.forget(queue, messages);
    }

    pub(crate) fn give_back(&mut self, queue: QueueId, seqs: Vec<u64>, direct: Vec<Direct>) {
        let letters = self.dispatcher.take_back(queue, direct);
        self.proposed.extend(letters);
        let command = self.dispatcher.give_back(queue, seqs);
        self.proposed.push_back(command);
    }

    /// The master's housekeeping, now.
    pub(crate) fn tick(&mut self) {
        let commands = self.dispatcher.tick(&self.broker, self.now_ms);
        self.proposed.extend(commands);
        let mut actions = Vec::new();
        self.dispatcher.spill_old(self.now_ms, &mut actions);
        self.carry_out(&actions);
    }

    /// Whether a message of this id is in the replicated state.
    pub(crate) fn has(&self, id: &str) -> bool {
        let queues = self.broker.queues().iter();
        let mut slots = queues.flat_map(|queue| queue.iter_from(0));
        slots.any(|(_, slot)| self.message(slot.place).id == id)
    }

    /// Commits this many proposals in one entry; their effects are told later.
    pub(crate) fn commit(&mut self, count: usize) {
        let count = count.min(self.proposed.len());
        if count == 0 {
            return;
        }
        let mut batch = BatchBuilder::default();
        let mut owed = Vec::new();
        for command in self.proposed.drain(..count) {
            batch.push(&command.encode());
            let message = match &command {
                Command::Enqueue(enqueue) => Some(&enqueue.message),
                Command::EnqueueOnce(enqueue) => Some(&enqueue.message),
                Command::PutBack(back) => Some(&back.message),
                _ => None,
            };
            let same = message.and_then(|message| self.owed.get_mut(message));
            owed.extend(same.and_then(VecDeque::pop_front));
        }
        self.owed_told.push_back(owed);
        let payload = batch.finish();
        self.log.push(payload.clone());
        let applied = self.broker.apply(self.log.len() as u64, &payload).unwrap();
        self.outcomes.extend(applied.outcomes);
        self.told.push_back(applied.effects);
    }

    /// Tells the dispatcher what the oldest untold entry brought about.
    pub(crate) fn tell(&mut self) {
        for effect in self.told.pop_front().unwrap_or_default() {
            self.dispatcher.on_effect(&effect, &self.broker);
        }
        for (queue, ticket) in self.owed_told.pop_front().unwrap_or_default() {
            self.dispatcher.logged(queue);
            if let Some(ticket) = ticket {
                self.unanswered.remove(&ticket);
            }
        }
    }

    pub(crate) fn dispatch(&mut self) -> Vec<Action> {
        let bodies = Reading {
            log: &self.log,
            full: &self.full,
            handed_out: RefCell::new(0),
        };
        let mut actions = Vec::new();
        self.dispatcher
            .dispatch(&self.broker, &bodies, self.now_ms, &mut actions);
        self.carry_out(&actions);
        actions
    }

    /// Commits, tells and dispatches until nothing moves any more; returns what was delivered.
    pub(crate) fn settle(&mut self) -> Vec<Delivered> {
        let mut delivered = Vec::new();
        for _ in 0..1_000 {
            let actions = self.dispatch();
            delivered.extend(self.deliveries(&actions));
            if actions.is_empty() && self.proposed.is_empty() && self.told.is_empty() {
                return delivered;
            }
            self.commit(usize::MAX);
            while !self.told.is_empty() {
                self.tell();
            }
        }
        panic!("it never comes to rest");
    }

    pub(crate) fn deliveries(&self, actions: &[Action]) -> Vec<Delivered> {
        let mut delivered = Vec::new();
        for action in actions {
            if let Action::Deliver {
                consumer,
                tag,
                place,
                redelivered,
                redeliveries,
                ..
            } = action
            {
                delivered.push(Delivered {
                    consumer: *consumer,
                    tag: *tag,
                    id: self.message(*place).id,
                    redelivered: *redelivered,
                    redeliveries: *redeliveries,
                });
            }
            if let Action::DeliverDirect {
                consumer,
                tag,
                message,
                redeliveries,
                ..
            } = action
            {
                delivered.push(Delivered {
                    consumer: *consumer,
                    tag: *tag,
                    id: message.decode().unwrap().id,
                    redelivered: *redeliveries > 0,
                    redeliveries: *redeliveries,
                });
            }
        }
        delivered
    }

    /// The next master begins: of what was proposed only the first `count` make it; nothing of the dispatcher does.
    pub(crate) fn fail_over(&mut self, count: usize) {
        self.commit(count);
        self.proposed.clear();
        self.proposed.push_back(Command::BeginTerm);
        self.commit(1);
        self.told.clear();
        // What was committed is found by its resend (P5).
        self.owed.clear();
        self.owed_told.clear();
        self.dispatcher = Dispatcher::new(limits());
    }
}

/// Whatever way is best.
pub(crate) const WAYS: Ways = Ways {
    direct: true,
    wait: true,
};

pub(crate) fn limits() -> Limits {
    Limits {
        redeliveries_max: 3,
        dead_letter_queue: Destination::queue("DLQ"),
        ..Limits::default()
    }
}

pub(crate) fn wants(consumer: &mut Consumer, selector: &str) {
    consumer.selector = Some(Selector::parse(selector).unwrap());
}

/// The ids of what this consumer got, in order.
pub(crate) fn got(delivered: &[Delivered], consumer: ConsumerId) -> Vec<&str> {
    delivered
        .iter()
        .filter(|d| d.consumer == consumer)
        .map(|d| d.id.as_str())
        .collect()
}

/// The command that stores a client's message, as the master's loop makes it.
pub(crate) fn enqueue(message: &Message) -> Command {
    let stored = message.encode();
    match numbered(message) {
        Some(numbered) => Command::EnqueueOnce(EnqueueOnce {
            user: numbered.user.to_string(),
            digest: numbered.digest,
            duplicate_id: None,
            message: stored,
        }),
        None => Command::Enqueue(Enqueue { message: stored }),
    }
}

/// Its number.
pub(crate) fn numbered(message: &Message) -> Option<Numbered> {
    message.producer.clone().map(|producer| Numbered {
        user: "u".into(),
        producer,
        digest: digest_of(message),
    })
}

/// A message's id stands for its content.
pub(crate) fn digest_of(message: &Message) -> u64 {
    let mut digest = Digest::default();
    digest.add(b"id", message.id.as_bytes());
    digest.finish()
}

/// The message that a command stores.
pub(crate) fn sent(command: &Command) -> Option<Message> {
    let stored = stored_in(&command.encode())?;
    StoredMessage::new(stored).unwrap().decode().ok()
}
