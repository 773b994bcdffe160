//! The engine against a broker in memory: what it counts, what it finds wrong, and that a stall cannot hide.

#![allow(clippy::unwrap_used)] // Also in what the tests share, where the lint does not see that it is one.

mod memory;

use std::time::Duration;

use ferrymq_bench::{Load, Phase, Report, Sample, plot, run};
use memory::{Faults, Memory};

/// A load that ends by its numbers, without a warm-up.
fn counted(messages: u64) -> Load {
    Load {
        warm_up: Duration::ZERO,
        duration: Duration::from_secs(30),
        messages_max: Some(messages),
        window: 10,
        size: 100,
        ..Load::default()
    }
}

#[track_caller]
fn measure(load: &Load, memory: &Memory) -> Report {
    block_on(run(load, memory, memory, |_| {})).unwrap()
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.unwrap().block_on(future)
}

#[test]
fn a_good_broker_has_nothing_lost_doubled_or_mixed_up() {
    let load = Load {
        producers: 3,
        consumers: 4,
        destinations: 2,
        ..counted(1000)
    };
    let memory = Memory::default();
    let report = measure(&load, &memory);
    let messages = [report.sent, report.confirmed, report.received].map(|count| count.messages);
    assert_eq!(messages, [1000; 3]);
    let flaws = [report.duplicates, report.out_of_order, report.foreign];
    assert_eq!((flaws, report.lost), ([0; 3], Some(0)));
    assert_eq!((report.unsent, report.unconfirmed), (0, 0));
    for latency in [report.confirm_latency, report.end_to_end_latency] {
        let latency = latency.unwrap();
        assert_eq!(latency.messages, 1000);
        assert!(latency.p50_us <= latency.p99_us && latency.p99_us <= latency.max_us);
    }
    let expected = 1000.0 / report.measured_seconds;
    assert!((report.received.per_second - expected).abs() < 1e-6);

    // Receivers are there before senders; each destination has its share of both.
    let endpoints: Vec<_> = memory.endpoints().into_iter().map(|e| e.destination).collect();
    assert_eq!(
        endpoints,
        [
            "bench.0", "bench.1", "bench.0", "bench.1", "bench.0", "bench.1", "bench.0"
        ]
    );
}

#[test]
fn what_is_lost_doubled_or_mixed_up_is_found() {
    let load = Load {
        drain_max: Duration::from_millis(50),
        duration: Duration::from_millis(500),
        ..counted(1000)
    };
    let each = Some(10);
    let lossy = Faults {
        loses_each: each,
        ..Faults::default()
    };
    let report = measure(&load, &Memory::with(lossy));
    assert_eq!((report.lost, report.received.messages), (Some(100), 900));
    let doubling = Faults {
        doubles_each: each,
        ..Faults::default()
    };
    let report = measure(&load, &Memory::with(doubling));
    assert_eq!((report.duplicates, report.lost), (100, Some(0)));
    let swapping = Faults {
        swaps_each: each,
        ..Faults::default()
    };
    // The last one has no successor and stays away.
    let report = measure(&load, &Memory::with(swapping));
    assert_eq!((report.out_of_order, report.lost), (99, Some(1)));
}

#[test]
fn each_consumer_of_a_topic_gets_everything() {
    let load = Load {
        consumers: 4,
        topic: true,
        ..counted(500)
    };
    let report = measure(&load, &Memory::default());
    assert_eq!((report.confirmed.messages, report.received.messages), (500, 2000));
    assert_eq!((report.lost, report.duplicates), (Some(0), 0));
}

#[test]
fn transactions_are_whole_whatever_the_window_and_the_time() {
    let load = Load {
        transaction: 7,
        window: 3,
        ..counted(100)
    };
    let report = measure(&load, &Memory::default());
    // 100 is no multiple of 7: the last one is filled up.
    assert_eq!((report.confirmed.messages, report.unconfirmed), (105, 0));
}

#[test]
fn what_lies_there_can_be_consumed_alone() {
    let memory = Memory::default();
    let fill = Load {
        consumers: 0,
        ..counted(300)
    };
    let report = measure(&fill, &memory);
    assert_eq!((report.lost, report.received.messages), (None, 0));
    assert_eq!(memory.left("bench.0"), 300);

    let empty = Load {
        producers: 0,
        ..counted(300)
    };
    let report = measure(&empty, &memory);
    assert_eq!((report.received.messages, report.foreign), (300, 300));
    assert_eq!(memory.left("bench.0"), 0);
}

#[test]
fn what_comes_twice_of_a_backlog_counts_once() {
    let memory = Memory::with(Faults {
        doubles_each: Some(10),
        ..Faults::default()
    });
    let fill = Load {
        consumers: 0,
        ..counted(300)
    };
    measure(&fill, &memory);
    assert_eq!(memory.left("bench.0"), 330);
    let empty = Load {
        producers: 0,
        ..counted(300)
    };
    let report = measure(&empty, &memory);
    assert_eq!((report.received.messages, report.duplicates), (330, 30));
}

/// 1,000 messages a second for a second; the broker stands still for 400 ms of it.
fn stalled(rate: Option<f64>) -> Report {
    let load = Load {
        rate,
        warm_up: Duration::ZERO,
        duration: Duration::from_secs(1),
        ..Load::default()
    };
    let stalling = Faults {
        stalls: Some((300, Duration::from_millis(400))),
        ..Faults::default()
    };
    measure(&load, &Memory::with(stalling))
}

#[test]
fn a_stall_counts_for_every_message_that_it_kept_back() {
    // Lock-step: a single message was slow, and 99 % know nothing of it.
    let report = stalled(None);
    let latency = report.confirm_latency.unwrap();
    assert!(latency.max_us >= 400_000, "{latency:?}");
    assert!(latency.p90_us < 100_000, "{latency:?}");

    // With a rate, 400 messages came due meanwhile. They waited 200 ms on average.
    let report = stalled(Some(1000.0));
    let latency = report.confirm_latency.unwrap();
    assert_eq!(latency.messages, 1000);
    assert!(latency.p99_us >= 350_000 && latency.p90_us >= 200_000, "{latency:?}");
    assert!(latency.mean_us > 40_000.0, "{latency:?}");
    let end_to_end = report.end_to_end_latency.unwrap();
    assert!(end_to_end.p90_us >= 200_000, "{end_to_end:?}");
}

#[test]
fn a_stall_at_the_end_counts_for_what_could_not_be_sent() {
    let load = Load {
        rate: Some(1000.0),
        warm_up: Duration::ZERO,
        duration: Duration::from_millis(500),
        drain_max: Duration::from_millis(100),
        ..Load::default()
    };
    let stalling = Faults {
        stalls: Some((300, Duration::from_millis(250))),
        ..Faults::default()
    };
    let report = measure(&load, &Memory::with(stalling));
    assert_eq!(report.confirm_latency.unwrap().messages, 500);
    assert_eq!(report.unsent, 199);
    let p90_us = report.confirm_latency.unwrap().p90_us;
    assert!(p90_us >= 150_000, "{p90_us}");
}

#[test]
fn what_a_dead_broker_kept_back_counts_too() {
    let load = Load {
        rate: Some(1000.0),
        warm_up: Duration::ZERO,
        duration: Duration::from_millis(300),
        drain_max: Duration::from_millis(100),
        ..Load::default()
    };
    let dead = Faults {
        confirms_below: Some(100),
        ..Faults::default()
    };
    let report = measure(&load, &Memory::with(dead));
    // One waits for ever, and the other 199 are behind it.
    assert_eq!((report.unconfirmed, report.unsent), (1, 199));
    let latency = report.confirm_latency.unwrap();
    assert_eq!(latency.messages, 300);
    // The last was due 100 ms before the wait was given up, the first that was kept back 300 ms.
    assert!(latency.max_us >= 300_000 && latency.p50_us >= 100_000, "{latency:?}");
}

#[test]
fn a_load_that_ends_before_it_is_measured_is_an_error() {
    let load = Load {
        warm_up: Duration::from_secs(30),
        ..counted(100)
    };
    let memory = Memory::default();
    assert!(block_on(run(&load, &memory, &memory, |_| {})).is_err());
}

#[test]
fn messages_without_confirmation_are_told() {
    let load = Load {
        duration: Duration::from_millis(500),
        drain_max: Duration::from_millis(50),
        ..counted(1000)
    };
    let deaf = Faults {
        confirms_below: Some(500),
        ..Faults::default()
    };
    let report = measure(&load, &Memory::with(deaf));
    assert_eq!((report.confirmed.messages, report.unconfirmed), (500, 10));
    let latency = report.confirm_latency.unwrap();
    assert_eq!(latency.messages, 510);
    assert!(latency.max_us >= 100_000, "{latency:?}");
}

#[test]
fn samples_follow_each_other_through_the_phases_and_can_be_drawn() {
    let load = Load {
        rate: Some(2000.0),
        producers: 2,
        window: 100,
        warm_up: Duration::from_millis(70),
        duration: Duration::from_millis(130),
        sample_every: Duration::from_millis(20),
        ..Load::default()
    };
    let memory = Memory::with(Faults {
        confirms_after: Duration::from_millis(1),
        ..Faults::default()
    });
    let mut told: Vec<Sample> = Vec::new();
    let report = block_on(run(&load, &memory, &memory, |sample| told.push(sample.clone()))).unwrap();
    assert_eq!(report.samples, told);
    let ends: Vec<Phase> = told.iter().filter(|s| s.ends_phase).map(|s| s.phase).collect();
    assert_eq!(ends, [Phase::WarmUp, Phase::Measuring, Phase::Draining]);
    assert!(told.is_sorted_by(|a, b| a.to_seconds == b.from_seconds));
    assert_eq!(report.measured_seconds, 0.13);
    // Whatever the machine does meanwhile: latency is told of all that were due between 70 and 200 ms, and of no other.
    assert_eq!(report.confirm_latency.unwrap().messages, 260);
    assert_eq!(report.end_to_end_latency.unwrap().messages, 260);
    let json = serde_json::to_string(&report).unwrap();
    assert_eq!(serde_json::from_str::<Report>(&json).unwrap().samples.len(), told.len());
    assert!(plot::svg(&report).ends_with("</svg>\n"));
}

#[test]
fn a_load_that_makes_no_sense_is_refused() {
    let wrong = [
        Load {
            producers: 0,
            consumers: 0,
            ..Load::default()
        },
        Load {
            size: 23,
            ..Load::default()
        },
        Load {
            producers: 4,
            destinations: 3,
            consumers: 2,
            ..Load::default()
        },
        Load {
            rate: Some(0.0),
            ..Load::default()
        },
    ];
    for load in wrong {
        let memory = Memory::default();
        let refused = block_on(run(&load, &memory, &memory, |_| {}));
        assert!(refused.is_err(), "{load:?}");
        assert!(memory.endpoints().is_empty());
    }
}
