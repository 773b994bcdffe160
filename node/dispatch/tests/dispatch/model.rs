//! Everything at once, at random: competing consumers with selectors, priorities and exclusive ones, browsers, full
//! outboxes, other groups that take and refuse, expiry, transactions, new masters; and commits that come late.
//!
//! At any time no message is with two consumers, and a master that died now would know which messages to mark (P3). At
//! the end every message has gone one way out: acknowledged, dropped as expired, or handed over.

use std::collections::{BTreeMap, BTreeSet};

use ferrymq_broker::{Command, Outcome, QueueId, Refused, Release};
use ferrymq_dispatch::{Action, Bridge, Consumer, ConsumerId, Target};
use ferrymq_message::{Destination, Message, Selector, Value};
use proptest::{collection::vec, prelude::*, sample::Index};

use crate::world::World;

#[derive(Debug, Clone)]
enum Step {
    Send {
        queue: usize,
        x: i32,
        expires: bool,
    },
    Add {
        queue: usize,
        prefetch: u32,
        wants: Option<i32>,
        priority: i8,
        exclusive: bool,
        browser: bool,
    },
    Remove(Index),
    Acknowledge {
        consumer: Index,
        at: Index,
        up_to: bool,
        how: How,
    },
    Abort(Index),
    SetBridges {
        queue: usize,
        available: Vec<u32>,
        wants: Option<i32>,
    },
    Answer {
        at: Index,
        refuse: Option<u32>,
    },
    Outbox {
        connection: u64,
        full: bool,
    },
    Dispatch,
    Commit(usize),
    Tell,
    Tick(i64),
    FailOver(usize),
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum How {
    Plainly,
    Rejected,
    /// The command is held back in a transaction that is aborted later.
    InTransaction,
}

/// Queues 0 and 1 are queues, 2 is a durable subscription.
const QUEUES: usize = 3;

fn step() -> impl Strategy<Value = Step> {
    let index = any::<Index>;
    let wanted = || prop::option::weighted(0.4, 0..2i32);
    prop_oneof![
        8 => (0..QUEUES, 0..2i32, prop::bool::weighted(0.1))
            .prop_map(|(queue, x, expires)| Step::Send { queue, x, expires }),
        3 => (0..QUEUES, 1..5u32, wanted(), 0..2i8, prop::bool::weighted(0.2), prop::bool::weighted(0.1)).prop_map(
            |(queue, prefetch, wants, priority, exclusive, browser)| Step::Add {
                queue, prefetch, wants, priority, exclusive, browser,
            },
        ),
        2 => index().prop_map(Step::Remove),
        8 => (index(), index(), any::<bool>(), prop_oneof![6 => Just(How::Plainly), 1 => Just(How::Rejected),
            2 => Just(How::InTransaction)])
            .prop_map(|(consumer, at, up_to, how)| Step::Acknowledge { consumer, at, up_to, how }),
        1 => index().prop_map(Step::Abort),
        2 => (0..2usize, vec(0..5u32, 0..3), wanted())
            .prop_map(|(queue, available, wants)| Step::SetBridges { queue, available, wants }),
        3 => (index(), prop::option::weighted(0.3, 0..3u32)).prop_map(|(at, refuse)| Step::Answer { at, refuse }),
        2 => (1..4u64, any::<bool>()).prop_map(|(connection, full)| Step::Outbox { connection, full }),
        10 => Just(Step::Dispatch),
        10 => (1..5usize).prop_map(Step::Commit),
        10 => Just(Step::Tell),
        2 => (0..2_500i64).prop_map(Step::Tick),
        1 => (0..5usize).prop_map(Step::FailOver),
    ]
}

/// What the test knows of one consumer.
#[derive(Debug, Clone)]
struct Known {
    consumer: Consumer,
    /// Unacknowledged: (tag, message).
    in_flight: Vec<(u64, String)>,
    seen: BTreeSet<String>,
}

struct Model {
    world: World,
    queues: Vec<QueueId>,
    consumers: BTreeMap<ConsumerId, Known>,
    sent: usize,
    /// Delivered before, or marked by a fail-over.
    ever_delivered: BTreeSet<String>,
    /// Taken in transactions: (queue, messages' numbers).
    held_back: Vec<(QueueId, Vec<u64>)>,
    next_connection: u64,
}

const GROUPS: [u64; 2] = [8, 9];

impl Model {
    fn new() -> Self {
        let mut world = World::new();
        let queues = vec![world.open("A"), world.open("B"), world.subscribe("T")];
        Self {
            world,
            queues,
            consumers: BTreeMap::new(),
            sent: 0,
            ever_delivered: BTreeSet::new(),
            held_back: Vec::new(),
            next_connection: 0,
        }
    }

    fn run(&mut self, step: &Step) {
        match step {
            Step::Send { queue, x, expires } => self.send(*queue, *x, *expires),
            Step::Add {
                queue,
                prefetch,
                wants,
                priority,
                exclusive,
                browser,
            } => {
                let is_subscription = *queue == 2;
                let connection = self.next_connection % 3 + 1;
                let mut consumer = Consumer::new(connection, self.queues[*queue], *prefetch);
                self.next_connection += 1;
                // A subscription's selector belongs to it, and is the same for all of its consumers.
                let wants = if is_subscription { Some(1) } else { *wants };
                consumer.selector = wants.map(selector);
                consumer.priority = *priority;
                consumer.exclusive = *exclusive;
                consumer.browser = *browser && !is_subscription;
                self.add(consumer);
            }
            Step::Remove(at) => {
                let ids: Vec<ConsumerId> = self.consumers.keys().copied().collect();
                if !ids.is_empty() {
                    self.remove(*at.get(&ids));
                }
            }
            Step::Acknowledge {
                consumer,
                at,
                up_to,
                how,
            } => self.acknowledge(consumer, at, *up_to, *how),
            Step::Abort(at) if !self.held_back.is_empty() => {
                let (queue, seqs) = self.held_back.remove(at.index(self.held_back.len()));
                let command = self.world.dispatcher.give_back(queue, seqs);
                self.world.proposed.push_back(command);
            }
            Step::SetBridges {
                queue,
                available,
                wants,
            } => {
                let bridges = GROUPS.iter().zip(available).map(|(&group, &available)| {
                    let mut bridge = Bridge::new(group, format!("g{group}"), available, 1);
                    bridge.selectors = wants.map(selector).into_iter().collect();
                    bridge
                });
                self.world
                    .dispatcher
                    .set_bridges(self.queues[*queue], bridges.collect());
            }
            Step::Answer { at, refuse } => self.answer(Some(at), *refuse),
            Step::Outbox { connection, full: true } => {
                self.world.full.insert(*connection);
            }
            Step::Outbox {
                connection,
                full: false,
            } => {
                self.world.full.remove(connection);
                self.world.dispatcher.poke(*connection);
            }
            Step::Dispatch => self.dispatch(),
            Step::Commit(count) => self.world.commit(*count),
            Step::Tell => self.world.tell(),
            Step::Tick(ms) => {
                self.world.now_ms += ms;
                let commands = self.world.dispatcher.tick(&self.world.broker, self.world.now_ms);
                self.world.proposed.extend(commands);
            }
            Step::FailOver(count) => {
                // What was not committed is sent again to the next master.
                let lost: Vec<Command> = self.world.proposed.iter().skip(*count).cloned().collect();
                self.world.fail_over(*count);
                let sends = lost
                    .into_iter()
                    .filter(|command| matches!(command, Command::Enqueue(_)));
                self.world.proposed.extend(sends);
                self.consumers.clear();
                self.held_back.clear();
                self.world.full.clear();
            }
            Step::Abort(_) => {}
        }
        self.check();
    }

    fn send(&mut self, queue: usize, x: i32, expires: bool) {
        let destination = match queue {
            0 => Destination::queue("A"),
            1 => Destination::queue("B"),
            _ => Destination::topic("T"),
        };
        let mut message = Message::new(format!("m{}", self.sent), destination, "body");
        message.properties.push(("x".into(), Value::Int(x)));
        if expires {
            message.expires_ms = self.world.now_ms + 2_000;
        }
        self.sent += 1;
        self.world.propose_send(&message);
    }

    fn add(&mut self, consumer: Consumer) {
        let id = self.world.add(consumer.clone());
        self.consumers.insert(
            id,
            Known {
                consumer,
                in_flight: Vec::new(),
                seen: BTreeSet::new(),
            },
        );
    }

    fn remove(&mut self, id: ConsumerId) {
        self.world.remove(id);
        self.consumers.remove(&id);
    }

    fn acknowledge(&mut self, consumer: &Index, at: &Index, up_to: bool, how: How) {
        let busy: Vec<ConsumerId> = self
            .consumers
            .iter()
            .filter(|(_, known)| !known.in_flight.is_empty())
            .map(|(&id, _)| id)
            .collect();
        if busy.is_empty() {
            return;
        }
        let id = *consumer.get(&busy);
        let known = self.consumers.get_mut(&id).unwrap();
        let at = at.index(known.in_flight.len());
        let tag = known.in_flight[at].0;
        let target = if up_to {
            known.in_flight.drain(..=at);
            Target::UpTo(tag)
        } else {
            known.in_flight.remove(at);
            Target::One(tag)
        };
        let command = self
            .world
            .dispatcher
            .acknowledge(id, target, how == How::Rejected)
            .expect("it is in flight");
        if let (How::InTransaction, Command::Acknowledge(ack)) = (how, &command) {
            self.held_back.push((ack.queue, ack.seqs.clone()));
        } else {
            self.world.proposed.push_back(command);
        }
    }

    /// Another group answers one of the transfers under way.
    fn answer(&mut self, at: Option<&Index>, refuse: Option<u32>) {
        let outgoing = &self.world.broker.transfers().outgoing;
        let pending: Vec<(u64, u64)> = outgoing
            .iter()
            .flat_map(|(&group, o)| o.pending.keys().map(move |&transfer| (group, transfer)))
            .collect();
        if pending.is_empty() {
            return;
        }
        let (group, transfer) = at.map_or(pending[0], |at| *at.get(&pending));
        let refused = refuse
            .map(|position| Refused { position, reason: 1 })
            .into_iter()
            .collect();
        self.world.proposed.push_back(Command::Release(Release {
            group,
            transfer,
            refused,
        }));
    }

    fn dispatch(&mut self) {
        for action in self.world.dispatch() {
            if let Action::Deliver {
                consumer,
                connection,
                tag,
                place,
                redelivered,
                ..
            } = action
            {
                let message = self.world.message(place);
                assert!(!self.world.full.contains(&connection), "a full outbox");
                self.check_choice(consumer, &message);
                let known = self.consumers.get_mut(&consumer).expect("nobody is there");
                if known.consumer.browser {
                    assert!(known.seen.insert(message.id), "a browser sees a message once");
                    continue;
                }
                let again = !self.ever_delivered.insert(message.id.clone());
                assert!(redelivered || !again, "{} comes again without a mark", message.id);
                known.in_flight.push((tag, message.id));
                assert!(
                    known.in_flight.len() <= known.consumer.prefetch as usize,
                    "more than its credit"
                );
            }
        }
    }

    /// Was it this consumer's turn?
    fn check_choice(&self, id: ConsumerId, message: &Message) {
        let chosen = &self.consumers[&id].consumer;
        let matches = |consumer: &Consumer| {
            consumer
                .selector
                .as_ref()
                .is_none_or(|selector| selector.matches(message))
        };
        assert!(matches(chosen), "it does not want {}", message.id);
        if chosen.browser {
            return;
        }
        let rivals = self
            .consumers
            .iter()
            .filter(|(other, known)| **other != id && known.consumer.queue == chosen.queue && !known.consumer.browser);
        for (_, rival) in rivals {
            let has_room = rival.in_flight.len() < rival.consumer.prefetch as usize
                && !self.world.full.contains(&rival.consumer.connection);
            assert!(
                !rival.consumer.exclusive || chosen.exclusive,
                "an exclusive consumer is there"
            );
            let equal = rival.consumer.exclusive == chosen.exclusive;
            if equal && !chosen.exclusive && has_room && matches(&rival.consumer) {
                assert!(
                    rival.consumer.priority <= chosen.priority,
                    "a higher priority was passed over"
                );
            }
        }
    }

    fn check(&self) {
        let mut held: BTreeMap<&str, usize> = BTreeMap::new();
        for known in self.consumers.values() {
            for (_, id) in &known.in_flight {
                *held.entry(id).or_default() += 1;
            }
            if !known.in_flight.is_empty() {
                let queue = self.world.broker.queues().get(known.consumer.queue).unwrap();
                assert!(queue.consuming, "a master that dies now leaves no mark (P3)");
            }
        }
        assert!(
            held.values().all(|&holders| holders == 1),
            "with two consumers: {held:?}"
        );
        for queue in self.world.broker.queues().iter() {
            for (_, slot) in queue.iter_from(0).filter(|(_, slot)| slot.offered()) {
                let id = self.world.message(slot.place).id;
                assert!(
                    !held.contains_key(id.as_str()),
                    "{id} is with a consumer and with another group"
                );
            }
        }
    }

    /// Everybody acknowledges everything until the queues are empty.
    fn drain(&mut self) {
        self.world.full.clear();
        for connection in 1..4 {
            self.world.dispatcher.poke(connection);
        }
        for (queue, seqs) in std::mem::take(&mut self.held_back) {
            let command = self.world.dispatcher.give_back(queue, seqs);
            self.world.proposed.push_back(command);
        }
        let ids: Vec<ConsumerId> = self.consumers.keys().copied().collect();
        for id in ids {
            self.remove(id);
        }
        let all = self
            .world
            .broker
            .queues()
            .iter()
            .map(|queue| queue.id)
            .collect::<Vec<_>>();
        for queue in all {
            self.world.dispatcher.set_bridges(queue, Vec::new());
        }
        for _ in 0..self.sent * 4 + 20 {
            self.consume_everywhere();
            self.dispatch();
            self.world.commit(usize::MAX);
            while !self.world.told.is_empty() {
                self.world.tell();
            }
            self.answer(None, None);
            let busy: Vec<ConsumerId> = self.consumers.keys().copied().collect();
            for id in busy {
                let known = self.consumers.get_mut(&id).unwrap();
                known.in_flight.clear();
                self.world.acknowledge(id, Target::UpTo(u64::MAX));
            }
        }
    }

    /// One consumer for each queue that has none, the dead letters' too.
    fn consume_everywhere(&mut self) {
        let queues: Vec<QueueId> = self.world.broker.queues().iter().map(|queue| queue.id).collect();
        for queue in queues {
            if self.consumers.values().all(|known| known.consumer.queue != queue) {
                let mut consumer = Consumer::new(1, queue, 10);
                consumer.selector = (queue == self.queues[2]).then(|| selector(1));
                self.add(consumer);
            }
        }
    }
}

fn selector(x: i32) -> Selector {
    Selector::parse(&format!("x = {x}")).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn nothing_is_delivered_twice_at_a_time_and_nothing_is_forgotten(steps in vec(step(), 1..200)) {
        let mut model = Model::new();
        for step in &steps {
            model.run(step);
        }
        model.drain();
        for queue in model.world.broker.queues().iter() {
            let left: Vec<String> = queue.iter_from(0).map(|(_, slot)| model.world.message(slot.place).id).collect();
            prop_assert!(left.is_empty(), "forgotten in {:?}: {left:?}", queue.kind);
            let (_, in_flight) = model.world.dispatcher.counts(queue.id);
            prop_assert_eq!(in_flight, 0);
        }
        let stored = model.world.outcomes.iter().filter(|outcome| **outcome != Outcome::NotFound).count();
        prop_assert!(stored >= model.sent);
    }
}
