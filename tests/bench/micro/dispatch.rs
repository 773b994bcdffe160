//! Rounds of the dispatcher: 512 messages become available and are handed out to 1, 8 or 1,000 consumers, these
//! acknowledge, and the acknowledgements take effect. And as many non-persistent messages that do without the log.

#[path = "entries.rs"]
mod entries;

use std::{
    cell::Cell,
    hint::black_box,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use criterion::{BenchmarkId, Criterion, Throughput};
use ferrymq_broker::{Command, EnqueueOnce, Numbered, Place, QueueId, stored_in};
use ferrymq_dispatch::{
    Action, Arrival, Arrived, Bodies, ConnectionId, Consumer, ConsumerId, Dispatcher, Limits, Target, Ways,
};
use ferrymq_message::{Destination, Message, Producer, StoredMessage};

use entries::Group;

const QUEUE: &str = "ORDERS";
const BATCH: usize = 512;
const CONSUMERS: [u64; 3] = [1, 8, 1_000];
const PREFETCH: u32 = 1_000;
const WAYS: Ways = Ways {
    direct: true,
    wait: true,
};

/// No body is needed where there are no selectors; outboxes always have room.
struct Everything(Cell<usize>);

impl Bodies for Everything {
    fn read(&self, _: Place) -> Option<Bytes> {
        None
    }

    fn has_room(&self, _: ConnectionId) -> bool {
        true
    }

    fn hand_out(&self, _: ConnectionId, bytes: usize) {
        self.0.set(self.0.get() + bytes);
    }
}

/// How long the three parts of a round took.
#[derive(Default)]
struct Round {
    deliver: Duration,
    acknowledge: Duration,
    demand: Duration,
}

struct Bench {
    group: Group,
    queue: QueueId,
    dispatcher: Dispatcher,
    bodies: Everything,
    sequence: u64,
    user: Arc<str>,
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let mut bench = criterion.benchmark_group("dispatch");
    bench
        .throughput(Throughput::Elements(BATCH as u64))
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(3))
        .sample_size(20);
    for consumers in CONSUMERS {
        let mut world = Bench::new(consumers);
        bench.bench_function(BenchmarkId::new("deliver", consumers), |bencher| {
            bencher.iter_custom(|count| (0..count).map(|_| world.round().deliver).sum());
        });
        bench.bench_function(BenchmarkId::new("acknowledge", consumers), |bencher| {
            bencher.iter_custom(|count| (0..count).map(|_| world.round().acknowledge).sum());
        });
        bench.bench_function(BenchmarkId::new("demand", consumers), |bencher| {
            bencher.iter_custom(|count| (0..count).map(|_| world.round().demand).sum());
        });
        bench.bench_function(BenchmarkId::new("one at a time", consumers), |bencher| {
            bencher.iter_custom(|count| (0..count).map(|_| world.one_at_a_time()).sum());
        });
        bench.bench_function(BenchmarkId::new("without the log", consumers), |bencher| {
            bencher.iter_custom(|count| (0..count).map(|_| world.direct()).sum());
        });
    }
    bench.finish();
    criterion.final_summary();
}

impl Bench {
    fn new(consumers: u64) -> Self {
        let group = Group::new(&[QUEUE]);
        let queue = group.queue(QUEUE);
        let mut world = Self {
            group,
            queue,
            dispatcher: Dispatcher::new(Limits::default()),
            bodies: Everything(Cell::new(0)),
            sequence: 0,
            user: "anonymous".into(),
        };
        for id in 1..=consumers {
            world.dispatcher.add_consumer(id, Consumer::new(id, queue, PREFETCH));
        }
        // The log has to know of the consumers before the first message goes out.
        for action in world.dispatch() {
            if let Action::Propose(command) = action {
                world.commit(&[command]);
            }
        }
        world
    }

    fn dispatch(&mut self) -> Vec<Action> {
        let mut actions = Vec::new();
        while self.dispatcher.is_dirty() {
            self.dispatcher
                .dispatch(&self.group.broker, &self.bodies, 1_000, &mut actions);
        }
        actions
    }

    /// Commits commands and tells the dispatcher, which takes so long.
    fn commit(&mut self, commands: &[Command]) -> Duration {
        let applied = self.group.commit(commands);
        let began = Instant::now();
        for effect in &applied.effects {
            self.dispatcher.on_effect(effect, &self.group.broker);
        }
        began.elapsed()
    }

    fn round(&mut self) -> Round {
        let mut round = Round::default();
        let payload = self.group.enqueues(QUEUE, BATCH);
        let applied = self.group.apply(&payload);
        let began = Instant::now();
        for effect in &applied.effects {
            self.dispatcher.on_effect(effect, &self.group.broker);
        }
        let actions = self.dispatch();
        round.deliver = began.elapsed();
        let last = last_tags(&actions);
        let began = Instant::now();
        let commands = self.acknowledge(&last);
        round.acknowledge = began.elapsed() + self.commit(&commands);
        let began = Instant::now();
        black_box(self.dispatcher.changed_demand(&self.group.broker, 1_000));
        round.demand = began.elapsed();
        assert_eq!(self.dispatcher.counts(self.queue).1, 0, "all are acknowledged");
        round
    }

    fn acknowledge(&mut self, last: &[(ConsumerId, u64)]) -> Vec<Command> {
        let dispatcher = &mut self.dispatcher;
        let acknowledge = |&(id, tag): &(ConsumerId, u64)| dispatcher.acknowledge(id, Target::UpTo(tag), false).command;
        last.iter().filter_map(acknowledge).collect()
    }

    /// The same number of non-persistent messages that do without the log, acknowledged all at once.
    fn direct(&mut self) -> Duration {
        let arrivals: Vec<Arrival> = (0..BATCH).map(|_| self.arrival()).collect();
        let mut actions = Vec::new();
        let began = Instant::now();
        for arrival in arrivals {
            let (broker, bodies) = (&self.group.broker, &self.bodies);
            let arrived = self
                .dispatcher
                .arrive(self.queue, arrival, WAYS, broker, bodies, 1_000, &mut actions);
            assert!(matches!(arrived, Arrived::Done), "{arrived:?}");
        }
        for (id, tag) in last_tags(&actions) {
            let settled = self.dispatcher.acknowledge(id, Target::UpTo(tag), false);
            self.dispatcher.forget(settled.queue, settled.direct);
        }
        self.dispatch();
        black_box(self.dispatcher.changed_demand(&self.group.broker, 1_000));
        began.elapsed()
    }

    fn arrival(&mut self) -> Arrival {
        self.sequence += 1;
        let mut message = Message::new(format!("m{}", self.sequence), Destination::queue(QUEUE), vec![7; 1024]);
        message.persistent = false;
        message.producer = Some(Producer {
            id: "north-1-19a-7".into(),
            sequence: self.sequence,
        });
        let mut command = BytesMut::new();
        EnqueueOnce::encode_with(&mut command, "anonymous", self.sequence, None, |out| {
            message.encode_into(out)
        });
        let command = command.freeze();
        let stored = stored_in(&command).expect("it was just encoded");
        Arrival {
            connection: 1,
            producer: message.producer.map(|producer| Numbered {
                user: self.user.clone(),
                digest: producer.sequence,
                producer,
            }),
            message: StoredMessage::new(stored).expect("it was just encoded"),
            command,
        }
    }

    /// The same number of messages, each in a round of its own, as it is with producers that wait for each answer.
    fn one_at_a_time(&mut self) -> Duration {
        let mut took = Duration::ZERO;
        for _ in 0..BATCH {
            let payload = self.group.enqueues(QUEUE, 1);
            let applied = self.group.apply(&payload);
            let began = Instant::now();
            for effect in &applied.effects {
                self.dispatcher.on_effect(effect, &self.group.broker);
            }
            let actions = self.dispatch();
            let last = last_tags(&actions);
            let commands = self.acknowledge(&last);
            took += began.elapsed();
            took += self.commit(&commands);
            let began = Instant::now();
            self.dispatch();
            black_box(self.dispatcher.changed_demand(&self.group.broker, 1_000));
            took += began.elapsed();
        }
        took
    }
}

/// The newest delivery of each consumer.
fn last_tags(actions: &[Action]) -> Vec<(ConsumerId, u64)> {
    let mut last = std::collections::BTreeMap::new();
    for action in actions {
        if let Action::Deliver { consumer, tag, .. } | Action::DeliverDirect { consumer, tag, .. } = action {
            last.insert(*consumer, *tag);
        }
    }
    last.into_iter().collect()
}
