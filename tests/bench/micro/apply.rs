//! The replicated state: applying entries of 512 sends and of 512 acknowledgements, on an empty queue and on top of a
//! backlog; and what a snapshot of that backlog takes.

#[path = "entries.rs"]
mod entries;

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use criterion::{BenchmarkId, Criterion, Throughput};
use ferrymq_broker::{Acknowledge, Broker, Command, Settings};

use entries::{Group, entry};

const QUEUE: &str = "ORDERS";
const BATCH: usize = 512;
const BACKLOGS: [usize; 2] = [0, 1_000_000];

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    for backlog in BACKLOGS {
        apply(&mut criterion, backlog);
    }
    criterion.final_summary();
}

fn apply(criterion: &mut Criterion, backlog: usize) {
    let mut group = Group::new(&[QUEUE]);
    let queue = group.queue(QUEUE);
    let mut oldest = 0;
    for _ in 0..backlog / BATCH {
        let payload = group.enqueues(QUEUE, BATCH);
        group.apply(&payload);
    }
    let mut bench = criterion.benchmark_group("apply");
    bench
        .throughput(Throughput::Elements(BATCH as u64))
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(3))
        .sample_size(20);
    // Each send is followed by an acknowledgement of the oldest, so that the backlog keeps its length.
    let mut turn = |together: bool| {
        let sends = group.enqueues(QUEUE, BATCH);
        let seqs: Vec<u64> = (oldest..oldest + BATCH as u64).collect();
        oldest += BATCH as u64;
        let acknowledgements: Vec<Command> = if together {
            vec![Command::Acknowledge(Acknowledge { queue, seqs })]
        } else {
            let one = |seq| Command::Acknowledge(Acknowledge { queue, seqs: vec![seq] });
            seqs.into_iter().map(one).collect()
        };
        let acknowledgements = entry(acknowledgements.into_iter());
        let began = Instant::now();
        black_box(group.apply(&sends));
        let sent = began.elapsed();
        let began = Instant::now();
        black_box(group.apply(&acknowledgements));
        (sent, began.elapsed())
    };
    bench.bench_function(BenchmarkId::new("send", backlog), |bencher| {
        bencher.iter_custom(|count| (0..count).map(|_| turn(true).0).sum());
    });
    bench.bench_function(BenchmarkId::new("acknowledge together", backlog), |bencher| {
        bencher.iter_custom(|count| (0..count).map(|_| turn(true).1).sum());
    });
    bench.bench_function(BenchmarkId::new("acknowledge one by one", backlog), |bencher| {
        bencher.iter_custom(|count| (0..count).map(|_| turn(false).1).sum());
    });
    if backlog > 0 {
        bench.throughput(Throughput::Elements(backlog as u64)).sample_size(10);
        snapshot(&mut bench, &group.broker, backlog);
    }
    bench.finish();
}

fn snapshot(
    bench: &mut criterion::BenchmarkGroup<'_, criterion::measurement::WallTime>,
    broker: &Broker,
    backlog: usize,
) {
    let bytes = broker.encode();
    bench.bench_function(BenchmarkId::new("write a snapshot", backlog), |bencher| {
        bencher.iter(|| broker.encode());
    });
    bench.bench_function(BenchmarkId::new("read a snapshot", backlog), |bencher| {
        bencher.iter(|| Broker::decode(&bytes, Settings::default()));
    });
    bench.bench_function(BenchmarkId::new("clone", backlog), |bencher| {
        bencher.iter(|| broker.clone());
    });
}
