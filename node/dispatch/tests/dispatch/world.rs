//! A dispatcher, the state that it dispatches from, and all that is on the way between the two. Proposals are committed,
//! and their effects told, only when a test says so: until then the one does not know of the other, as in the node.

use std::{
    cell::RefCell,
    collections::{BTreeSet, VecDeque},
};

use bytes::Bytes;
use ferrymq_broker::{
    BatchBuilder, Broker, Command, Effect, Enqueue, Outcome, Owner, Place, QueueId, Settings, Subscribe,
};
use ferrymq_dispatch::{Action, Bodies, ConnectionId, Consumer, ConsumerId, Dispatcher, Limits, Target};
use ferrymq_message::{Destination, Message, Selector, StoredMessage, Value};

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
        self.proposed.push_back(Command::Enqueue(Enqueue {
            message: message.encode(),
        }));
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
        let command = self.dispatcher.acknowledge(id, target, false);
        self.proposed.extend(command);
    }

    /// Commits this many proposals in one entry; their effects are told later.
    pub(crate) fn commit(&mut self, count: usize) {
        let count = count.min(self.proposed.len());
        if count == 0 {
            return;
        }
        let mut batch = BatchBuilder::default();
        for command in self.proposed.drain(..count) {
            batch.push(&command.encode());
        }
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
        for action in &actions {
            if let Action::Propose(command) = action {
                self.proposed.push_back(command.clone());
            }
        }
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
        self.dispatcher = Dispatcher::new(limits());
    }
}

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
