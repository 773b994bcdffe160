//! P6: what one producer sends to one queue reaches a sole consumer in order, also when the sole consumer is always
//! another one and the log is always late; and each message that comes again is marked (P3).

use std::collections::BTreeSet;

use ferrymq_dispatch::{Consumer, ConsumerId, Target};
use ferrymq_message::Destination;
use proptest::{collection::vec, prelude::*};

use crate::world::World;

#[derive(Debug, Clone)]
enum Step {
    Send(usize),
    Dispatch,
    Commit(usize),
    Tell,
    Acknowledge(u64),
    /// The sole consumer goes and the next one comes.
    Replace(u32),
    Tick(i64),
    FailOver(usize, u32),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1..5usize).prop_map(Step::Send),
        6 => Just(Step::Dispatch),
        6 => (1..4usize).prop_map(Step::Commit),
        6 => Just(Step::Tell),
        4 => (1..5u64).prop_map(Step::Acknowledge),
        2 => (1..6u32).prop_map(Step::Replace),
        1 => (0..3_000i64).prop_map(Step::Tick),
        1 => (0..4usize, 1..6u32).prop_map(|(count, prefetch)| Step::FailOver(count, prefetch)),
    ]
}

struct Sole {
    world: World,
    consumer: ConsumerId,
    sent: usize,
    /// Deliveries to the present consumer: (tag, number).
    delivered: Vec<(u64, usize)>,
    ever_delivered: BTreeSet<usize>,
}

impl Sole {
    fn new() -> Self {
        let mut world = World::new();
        let queue = world.open("Q");
        let consumer = world.add(Consumer::new(1, queue, 3));
        Self {
            world,
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
        for delivery in self.world.deliveries(&actions) {
            assert_eq!(delivery.consumer, self.consumer);
            let number: usize = delivery.id.parse().unwrap();
            if let Some(&(tag, before)) = self.delivered.last() {
                assert!(before < number, "{number} after {before}");
                assert_eq!(delivery.tag, tag + 1);
            }
            let again = !self.ever_delivered.insert(number);
            assert!(delivery.redelivered || !again, "{number} comes again without a mark");
            self.delivered.push((delivery.tag, number));
        }
    }

    fn run(&mut self, step: &Step) {
        match *step {
            Step::Send(count) => {
                for _ in 0..count {
                    self.world.send(&Destination::queue("Q"), &[&self.sent.to_string()]);
                    self.sent += 1;
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
            Step::Replace(prefetch) => {
                self.world.remove(self.consumer);
                self.come(prefetch);
            }
            Step::Tick(ms) => {
                self.world.now_ms += ms;
                let commands = self.world.dispatcher.tick(&self.world.broker, self.world.now_ms);
                self.world.proposed.extend(commands);
            }
            Step::FailOver(count, prefetch) => {
                self.sends_survive(count);
                self.come(prefetch);
            }
        }
    }

    /// The producer resends what was not committed, in order and before anything else.
    fn sends_survive(&mut self, count: usize) {
        let before = self.world.proposed.clone();
        self.world.fail_over(count);
        let lost = before.into_iter().skip(count);
        let lost_sends = lost.filter(|command| matches!(command, ferrymq_broker::Command::Enqueue(_)));
        self.world.proposed.extend(lost_sends.collect::<Vec<_>>());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn a_sole_consumer_sees_the_order(steps in vec(step(), 1..150)) {
        let mut sole = Sole::new();
        for step in &steps {
            sole.run(step);
        }
        let left = |sole: &Sole| sole.world.broker.queues().get(sole.world.queue("Q")).unwrap().len();
        for _ in 0..sole.sent + 5 {
            sole.dispatch();
            sole.run(&Step::Acknowledge(1));
            sole.world.commit(usize::MAX);
            while !sole.world.told.is_empty() {
                sole.world.tell();
            }
        }
        prop_assert_eq!(sole.ever_delivered.len(), sole.sent, "a message was never delivered");
        prop_assert_eq!(left(&sole), 0);
    }
}
