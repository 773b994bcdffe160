//! Everything at once, at random: competing consumers with selectors, priorities and exclusive ones, browsers, full
//! outboxes, other groups that take and refuse, expiry, transactions, resends, new masters; messages that do without the
//! log; and commits that come late.
//!
//! At any time no message is with two consumers, nor comes again once it is acknowledged, and a master that died now
//! would know which messages to mark (P3). At the end every message has gone one way out: acknowledged, dropped as
//! expired, handed over, or, if it did without the log, lost with its master after it was delivered.

use std::collections::{BTreeMap, BTreeSet};

use ferrymq_broker::{Acknowledge, Command, Outcome, QueueId, Refused, Release};
use ferrymq_dispatch::{Action, Bridge, Consumer, ConsumerId, Direct, Target, Ways};
use ferrymq_message::{Destination, Message, Producer, Selector, Value};
use proptest::{collection::vec, prelude::*, sample::Index};

use crate::world::{Delivered, WAYS, World, sent};

#[derive(Debug, Clone)]
enum Step {
    Send {
        queue: usize,
        x: i32,
        expires: bool,
    },
    /// A non-persistent one to a queue.
    Direct {
        queue: usize,
        x: i32,
        expires: bool,
        ways: Ways,
    },
    /// A non-persistent one comes again, because its producer did not hear of the answer.
    Resend(Index),
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
    CommitTransaction(Index),
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
    /// The command is held back in a transaction that is aborted or committed later.
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
        8 => (0..2usize, 0..2i32, prop::bool::weighted(0.1), prop::bool::weighted(0.9), prop::bool::weighted(0.8))
            .prop_map(|(queue, x, expires, direct, wait)| Step::Direct {
                queue, x, expires, ways: Ways { direct, wait },
            }),
        1 => index().prop_map(Step::Resend),
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
        1 => index().prop_map(Step::CommitTransaction),
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
    held_back: Vec<HeldBack>,
    next_connection: u64,
    /// Non-persistent messages of queues that never expire.
    without_log: BTreeSet<String>,
    acknowledged: BTreeSet<String>,
    /// To other groups.
    handed_over: BTreeSet<String>,
    /// Sent to the present master.
    resendable: Vec<(Message, Ways)>,
}

/// Taken in a transaction.
#[derive(Debug)]
struct HeldBack {
    queue: QueueId,
    seqs: Vec<u64>,
    direct: Vec<Direct>,
    ids: Vec<String>,
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
            without_log: BTreeSet::new(),
            acknowledged: BTreeSet::new(),
            handed_over: BTreeSet::new(),
            resendable: Vec::new(),
        }
    }

    fn run(&mut self, step: &Step) {
        match step {
            Step::Send { queue, x, expires } => self.send(*queue, *x, *expires),
            Step::Direct {
                queue,
                x,
                expires,
                ways,
            } => self.send_direct(*queue, *x, *expires, *ways),
            Step::Resend(at) if !self.resendable.is_empty() => {
                let (message, ways) = at.get(&self.resendable).clone();
                self.arrive(&message, ways);
            }
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
                let held = self.held_back.remove(at.index(self.held_back.len()));
                self.world.give_back(held.queue, held.seqs, held.direct);
            }
            Step::CommitTransaction(at) if !self.held_back.is_empty() => {
                let held = self.held_back.remove(at.index(self.held_back.len()));
                let (queue, seqs) = (held.queue, held.seqs);
                self.world.dispatcher.forget(queue, held.direct);
                self.world
                    .proposed
                    .push_back(Command::Acknowledge(Acknowledge { queue, seqs }));
                self.acknowledged.extend(held.ids);
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
                self.world.tick();
            }
            Step::FailOver(count) => self.fail_over(*count),
            Step::Abort(_) | Step::CommitTransaction(_) | Step::Resend(_) => {}
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

    fn send_direct(&mut self, queue: usize, x: i32, expires: bool, ways: Ways) {
        let id = format!("m{}", self.sent);
        let mut message = Message::new(id.clone(), Destination::queue(["A", "B"][queue]), "body");
        message.persistent = false;
        message.properties.push(("x".into(), Value::Int(x)));
        message.producer = Some(Producer {
            id: format!("p{queue}"),
            sequence: self.sent as u64,
        });
        if expires {
            message.expires_ms = self.world.now_ms + 2_000;
        } else {
            self.without_log.insert(id);
        }
        self.resendable.push((message.clone(), ways));
        self.arrive(&message, ways);
        self.sent += 1;
    }

    fn arrive(&mut self, message: &Message, ways: Ways) {
        let actions = self.world.arrive(message, ways);
        self.take(&actions);
    }

    /// What was not committed is sent again to the next master, and so is what has no answer.
    fn fail_over(&mut self, count: usize) {
        let lost: Vec<Command> = self.world.proposed.iter().skip(count).cloned().collect();
        let unanswered = std::mem::take(&mut self.world.unanswered);
        self.world.fail_over(count);
        self.consumers.clear();
        self.held_back.clear();
        self.resendable.clear();
        self.world.full.clear();
        let is_persistent = |command: &Command| sent(command).is_some_and(|message| message.persistent);
        self.world.proposed.extend(lost.into_iter().filter(is_persistent));
        for message in unanswered.into_values() {
            // A resend of what the earlier master had handed out would be delivered twice: the next one cannot know.
            if !self.ever_delivered.contains(&message.id) {
                self.arrive(&message, WAYS);
            }
        }
        // Whoever had it without the log may have it again, or not.
        let world = &self.world;
        let delivered = &self.ever_delivered;
        self.without_log.retain(|id| !delivered.contains(id) || world.has(id));
        // Their acknowledgements were lost.
        self.acknowledged.retain(|id| !world.has(id));
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
        let (target, taken): (Target, Vec<(u64, String)>) = if up_to {
            (Target::UpTo(tag), known.in_flight.drain(..=at).collect())
        } else {
            (Target::One(tag), vec![known.in_flight.remove(at)])
        };
        let ids: Vec<String> = taken.into_iter().map(|(_, id)| id).collect();
        let settled = self.world.dispatcher.acknowledge(id, target, how == How::Rejected);
        let (queue, direct) = (settled.queue, settled.direct);
        let seqs = match &settled.command {
            Some(Command::Acknowledge(ack)) => ack.seqs.len(),
            Some(Command::Return(back)) => back.seqs.len(),
            _ => 0,
        };
        assert_eq!(seqs + direct.len(), ids.len(), "it is in flight");
        match how {
            How::Plainly => {
                self.world.proposed.extend(settled.command);
                self.world.dispatcher.forget(queue, direct);
                self.acknowledged.extend(ids);
            }
            How::Rejected => {
                self.world.proposed.extend(settled.command);
                self.world.bury(queue, direct);
            }
            How::InTransaction => {
                let seqs = match settled.command {
                    Some(Command::Acknowledge(ack)) => ack.seqs,
                    _ => Vec::new(),
                };
                self.held_back.push(HeldBack {
                    queue,
                    seqs,
                    direct,
                    ids,
                });
            }
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
        let offer = &outgoing[&group].pending[&transfer];
        let queue = self.world.broker.queues().get(offer.queue).unwrap();
        let slots = offer.seqs.iter().filter_map(|&seq| queue.get(seq));
        let ids = slots.map(|slot| self.world.message(slot.place).id);
        self.handed_over.extend(ids);
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
        let actions = self.world.dispatch();
        self.take(&actions);
    }

    /// Consumers get what was handed out.
    fn take(&mut self, actions: &[Action]) {
        for action in actions {
            let (connection, message) = match action {
                Action::Deliver { connection, place, .. } => (connection, self.world.message(*place)),
                Action::DeliverDirect {
                    connection, message, ..
                } => (connection, message.decode().unwrap()),
                _ => continue,
            };
            assert!(!self.world.full.contains(connection), "a full outbox");
            let delivered = self.world.deliveries(std::slice::from_ref(action)).remove(0);
            self.take_one(delivered, &message);
        }
    }

    fn take_one(&mut self, delivered: Delivered, message: &Message) {
        let Delivered {
            consumer,
            tag,
            id,
            redelivered,
            ..
        } = delivered;
        self.check_choice(consumer, message);
        let known = self.consumers.get_mut(&consumer).expect("nobody is there");
        if known.consumer.browser {
            assert!(known.seen.insert(id), "a browser sees a message once");
            return;
        }
        let again = !self.ever_delivered.insert(id.clone());
        assert!(redelivered || !again, "{id} comes again without a mark");
        assert!(
            !self.acknowledged.contains(&id),
            "{id} comes again although it was acknowledged"
        );
        known.in_flight.push((tag, id));
        assert!(
            known.in_flight.len() <= known.consumer.prefetch as usize,
            "more than its credit"
        );
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
        for queue in &self.queues {
            let counts = self.world.dispatcher.direct_counts(*queue);
            let gone = counts.enqueued - counts.dequeued;
            assert_eq!(counts.messages, gone, "what came and did not go is there");
        }
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
        for held in std::mem::take(&mut self.held_back) {
            self.world.give_back(held.queue, held.seqs, held.direct);
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
                let ids = known.in_flight.drain(..).map(|(_, id)| id);
                self.acknowledged.extend(ids);
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
            prop_assert_eq!(model.world.dispatcher.direct_counts(queue.id).messages, 0);
        }
        prop_assert_eq!(model.world.dispatcher.direct_bytes(), 0);
        prop_assert!(model.world.unanswered.is_empty(), "never answered: {:?}", model.world.unanswered);
        let handed_over = &model.handed_over;
        for id in model.without_log.iter().filter(|id| !handed_over.contains(*id)) {
            prop_assert!(model.acknowledged.contains(id), "{id} was dropped silently");
        }
        let stored = model.world.outcomes.iter().filter(|outcome| **outcome != Outcome::NotFound).count();
        prop_assert!(stored >= model.sent);
    }
}
