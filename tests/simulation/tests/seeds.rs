//! Seeds by the hundred, none of which may break a promise; and deliberate faults, each of which some seed must notice.
//!
//! `FERRYMQ_SIMULATION_SEEDS` says how many seeds are run (see docs/RELIABILITY.md); `cargo run -p ferrymq-simulation`
//! runs as many as one likes.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    thread,
};

use ferrymq_simulation::{
    run::{Options, Report, run},
    sabotage::Sabotage,
    seeds::THAT_FAILED,
};

/// Seeds of the test run, unless the environment says otherwise.
const SEEDS: u64 = 3_000;
/// A deliberate fault must be noticed by one of so many seeds.
const SEEDS_OF_A_SABOTAGE: u64 = 2_000;

fn count() -> u64 {
    let chosen = std::env::var("FERRYMQ_SIMULATION_SEEDS").ok();
    chosen.map_or(SEEDS, |text| {
        text.parse().expect("FERRYMQ_SIMULATION_SEEDS is a number")
    })
}

/// Runs seeds on all cores until `found` says that it is enough; returns the first that it said so of.
fn search(seeds: u64, options: Options, found: impl Fn(&Report) -> bool + Sync) -> Option<(u64, Report)> {
    let (next, first) = (AtomicU64::new(0), std::sync::Mutex::new(None));
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds || first.lock().expect("no test panics under this lock").is_some() {
                return;
            }
            let report = run(seed, options);
            if found(&report) {
                first
                    .lock()
                    .expect("no test panics under this lock")
                    .get_or_insert((seed, report));
            }
        }
    };
    let jobs = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| (0..jobs).for_each(|_| _ = scope.spawn(work)));
    first.into_inner().expect("no test panics under this lock")
}

#[test]
fn no_seed_breaks_a_promise() {
    for (seed, found) in THAT_FAILED {
        let report = run(*seed, Options::default());
        assert_eq!(report.violations, [], "seed {seed}, which once found: {found}");
    }
    let failed = search(count(), Options::default(), |report| !report.violations.is_empty());
    if let Some((seed, report)) = failed {
        panic!(
            "seed {seed} breaks a promise: {:#?}\nreplay: cargo run -p ferrymq-simulation -- --seed {seed} --trace",
            report.violations
        );
    }
}

#[test]
fn the_same_seed_is_the_same_run() {
    for seed in [1, 7, 30, 50] {
        let (one, other) = (run(seed, Options::default()), run(seed, Options::default()));
        assert_eq!(one, other, "seed {seed}");
        assert!(one.events > 1_000 && one.sent > 10, "seed {seed} does nothing: {one:?}");
    }
    let hash = |seed| run(seed, Options::default()).hash;
    assert_ne!(hash(1), hash(2));
}

/// Each deliberate fault breaks a promise, and that promise's own invariant notices it.
#[test]
fn every_deliberate_fault_is_noticed() {
    let mut unnoticed = Vec::new();
    for sabotage in Sabotage::ALL {
        let options = Options {
            sabotage: Some(sabotage),
            trace: false,
        };
        let noticed = search(SEEDS_OF_A_SABOTAGE, options, |report| {
            let mut broken = report.violations.iter().map(|violation| violation.promise);
            broken.any(|promise| sabotage.breaks().contains(&promise))
        });
        match noticed {
            Some((seed, report)) => println!("{sabotage:?}: seed {seed}: {}", report.violations[0].text),
            None => unnoticed.push(sabotage),
        }
    }
    assert!(
        unnoticed.is_empty(),
        "noticed by none of {SEEDS_OF_A_SABOTAGE} seeds: {unnoticed:?}"
    );
}
