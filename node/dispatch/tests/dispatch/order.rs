//! P6: what one producer sends to one queue reaches a sole consumer in order, also when the sole consumer is always
//! another one and the log is always late; and each message that comes again is marked (P3).
//!
//! Where the producer sends non-persistent messages, some take the log and some do not, and the order is the same. It may
//! send persistent ones among them; then both kinds keep their own order (JMS 2.0, 6.2.9: one kind may overtake the
//! other).

use std::collections::{BTreeMap, BTreeSet};

use ferrymq_broker::Command;
use ferrymq_dispatch::{Consumer, ConsumerId, Target, Ways};
use ferrymq_message::{Destination, Message, Producer};
use proptest::{collection::vec, prelude::*};

use crate::world::{Delivered, World, sent};

#[derive(Debug, Clone)]
enum Step {
    Send(usize, bool),
    Dispatch,
    Commit(usize),
    Tell,
    Acknowledge(u64),
    /// The sole consumer goes.
    Leave,
    /// The sole consumer goes, if it has not gone, and the next one comes.
    Replace(u32),
    Tick(i64),
    FailOver(usize, u32),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1..5usize, prop::bool::weighted(0.2)).prop_map(|(count, other)| Step::Send(count, other)),
        6 => Just(Step::Dispatch),
        6 => (1..4usize).prop_map(Step::Commit),
        6 => Just(Step::Tell),
        4 => (1..5u64).prop_map(Step::Acknowledge),
        1 => Just(Step::Leave),
        2 => (1..6u32).prop_map(Step::Replace),
        1 => (0..3_000i64).prop_map(Step::Tick),
        1 => (0..4usize, 1..6u32).prop_map(|(count, prefetch)| Step::FailOver(count, prefetch)),
    ]
}

/// What the producer sends.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    Persistent,
    NonPersistent,
    Mixed,
}

struct Sole {
    world: World,
    kind: Kind,
    /// Numbers of the persistent messages.
    persistent: BTreeSet<usize>,
    consumer: ConsumerId,
    sent: usize,
    /// Deliveries to the present consumer: (tag, number).
    delivered: Vec<(u64, usize)>,
    ever_delivered: BTreeSet<usize>,
}

impl Sole {
    fn new(kind: Kind) -> Self {
        let mut world = World::new();
        let queue = world.open("Q");
        let consumer = world.add(Consumer::new(1, queue, 3));
        Self {
            world,
            kind,
            persistent: BTreeSet::new(),
            consumer,
            sent: 0,
            delivered: Vec::new(),
            ever_delivered: BTreeSet::new(),
        }
    }

    fn come(&mut self, prefetch: u32) {
        let queue = self.world.queue("Q");
        self.consumer = self.world.add(Consumer::new(1, queue, prefetch));
        self.delivered.clear();
    }

    fn dispatch(&mut self) {
        let actions = self.world.dispatch();
        let delivered = self.world.deliveries(&actions);
        self.take(delivered);
    }

    fn take(&mut self, delivered: Vec<Delivered>) {
        for delivery in delivered {
            assert_eq!(delivery.consumer, self.consumer);
            let number: usize = delivery.id.parse().unwrap();
            let is_persistent = self.persistent.contains(&number);
            let of_its_kind = |&&(_, other): &&(u64, usize)| self.persistent.contains(&other) == is_persistent;
            if let Some(&(_, before)) = self.delivered.iter().rev().find(of_its_kind) {
                assert!(before < number, "{number} after {before}");
            }
            if let Some(&(tag, _)) = self.delivered.last() {
                assert_eq!(delivery.tag, tag + 1);
            }
            let again = !self.ever_delivered.insert(number);
            assert!(delivery.redelivered || !again, "{number} comes again without a mark");
            self.delivered.push((delivery.tag, number));
        }
    }

    fn send(&mut self, persistent: bool) {
        let id = self.sent.to_string();
        self.sent += 1;
        if persistent {
            self.persistent.insert(self.sent - 1);
            let mut out = Vec::new();
            self.world.dispatcher.spill_of(PRODUCER, &mut out);
            self.world.carry_out(&out);
            self.world.send(&Destination::queue("Q"), &[&id]);
        } else {
            let mut message = Message::new(id, Destination::queue("Q"), "");
            message.persistent = false;
            message.producer = Some(Producer {
                id: "p".into(),
                sequence: self.sent as u64,
            });
            self.arrive(&message);
        }
    }

    fn arrive(&mut self, message: &Message) {
        // Not before the persistent messages of this producer that are on their way through the log.
        let is_logging = |command: &Command| sent(command).is_some_and(|message| message.persistent);
        let ways = Ways {
            direct: !self.world.proposed.iter().any(is_logging) && self.world.told.is_empty(),
            wait: true,
        };
        let actions = self.world.arrive(message, ways);
        let delivered = self.world.deliveries(&actions);
        self.take(delivered);
    }

    fn run(&mut self, step: &Step) {
        match *step {
            Step::Send(count, other) => {
                for _ in 0..count {
                    self.send(self.kind == Kind::Persistent || (self.kind == Kind::Mixed && other));
                }
            }
            Step::Dispatch => self.dispatch(),
            Step::Commit(count) => self.world.commit(count),
            Step::Tell => self.world.tell(),
            Step::Acknowledge(tag) => {
                let last = self.delivered.last().map_or(0, |&(tag, _)| tag);
                self.world
                    .acknowledge(self.consumer, Target::UpTo(last.saturating_sub(tag - 1)));
            }
            Step::Leave => self.world.remove(self.consumer),
            Step::Replace(prefetch) => {
                self.world.remove(self.consumer);
                self.come(prefetch);
            }
            Step::Tick(ms) => {
                self.world.now_ms += ms;
                self.world.tick();
            }
            Step::FailOver(count, prefetch) => {
                self.sends_survive(count);
                self.come(prefetch);
            }
        }
    }

    /// The producer resends what has no answer, in order and before anything else. A master takes what it handed out
    /// without the log with it, and what of that came back: the producer has its answer.
    fn sends_survive(&mut self, count: usize) {
        let before = self.world.proposed.clone();
        let unanswered = std::mem::take(&mut self.world.unanswered);
        self.world.fail_over(count);
        let mut resent: BTreeMap<usize, Message> = BTreeMap::new();
        let lost = before.into_iter().skip(count).filter_map(|command| sent(&command));
        resent.extend(lost.map(|message| (message.id.parse().unwrap(), message)));
        // What is stored already is recognised (P5).
        let unanswered = unanswered.into_values();
        resent.extend(unanswered.map(|message| (message.id.parse().unwrap(), message)));
        for message in resent.into_values() {
            if message.persistent {
                self.world.propose_send(&message);
            } else {
                self.arrive(&message);
            }
        }
    }

    /// Everything is delivered to a consumer that acknowledges it all.
    fn drain(mut self) {
        self.run(&Step::Replace(5));
        for _ in 0..self.sent * 2 + 5 {
            self.dispatch();
            self.run(&Step::Acknowledge(1));
            self.run(&Step::Tick(100));
            self.world.commit(usize::MAX);
            while !self.world.told.is_empty() {
                self.world.tell();
            }
        }
        assert_eq!(self.ever_delivered.len(), self.sent, "a message was never delivered");
        let queue = self.world.queue("Q");
        assert_eq!(self.world.broker.queues().get(queue).unwrap().len(), 0);
        assert_eq!(self.world.dispatcher.direct_counts(queue).messages, 0);
        assert_eq!(
            self.world.dispatcher.direct_bytes(),
            0,
            "memory is counted that is free"
        );
        assert!(self.world.unanswered.is_empty(), "{:?}", self.world.unanswered);
    }
}

/// The producer's connection.
const PRODUCER: u64 = 77;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_024))]

    #[test]
    fn a_sole_consumer_sees_the_order(steps in vec(step(), 1..150), kind in kind()) {
        let mut sole = Sole::new(kind);
        for step in &steps {
            sole.run(step);
        }
        sole.drain();
    }
}

fn kind() -> impl Strategy<Value = Kind> {
    prop_oneof![Just(Kind::Persistent), Just(Kind::NonPersistent), Just(Kind::Mixed)]
}
