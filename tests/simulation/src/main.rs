//! `ferrymq-simulation`: runs seeds until one breaks a promise, or for ever, or one with its event log.

use std::{
    process::ExitCode,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::Instant,
};

use clap::Parser;
use ferrymq_simulation::{
    run::{Options, Report, run},
    sabotage::Sabotage,
    seeds::THAT_FAILED,
};

/// Several groups in one process, from a seed.
#[derive(Debug, Parser)]
struct Arguments {
    /// Seeds to run, as `from..to`.
    #[arg(long, default_value = "0..1000")]
    seeds: String,
    /// This seed alone.
    #[arg(long)]
    seed: Option<u64>,
    /// Prints the event log (with --seed).
    #[arg(long)]
    trace: bool,
    /// Goes on from the end of --seeds until it is stopped or something fails.
    #[arg(long)]
    forever: bool,
    /// A deliberate fault, by its name in `sabotage.rs`.
    #[arg(long)]
    sabotage: Option<String>,
    /// Goes on after a failure, and lists them all.
    #[arg(long)]
    keep_going: bool,
    /// Threads, each with seeds of its own.
    #[arg(long)]
    jobs: Option<usize>,
}

fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    let sabotage = match &arguments.sabotage {
        Some(name) => Some(Sabotage::named(name).ok_or_else(|| anyhow::anyhow!("no deliberate fault {name:?}"))?),
        None => None,
    };
    if let Some(seed) = arguments.seed {
        let trace = arguments.trace;
        let report = run(seed, Options { sabotage, trace });
        println!("{report:#?}");
        return Ok(ExitCode::from(u8::from(!report.violations.is_empty())));
    }
    let (from, to) = arguments
        .seeds
        .split_once("..")
        .ok_or_else(|| anyhow::anyhow!("--seeds is written from..to"))?;
    let (from, to): (u64, u64) = (from.parse()?, if arguments.forever { u64::MAX } else { to.parse()? });
    let options = Options { sabotage, trace: false };
    if sabotage.is_none() {
        for (seed, found) in THAT_FAILED {
            let report = run(*seed, options);
            if !report.violations.is_empty() {
                println!("seed {seed}, which once found {found:?}: {:?}", report.violations);
                return Ok(ExitCode::FAILURE);
            }
        }
    }
    Ok(search(&arguments, options, from, to))
}

fn search(arguments: &Arguments, options: Options, from: u64, to: u64) -> ExitCode {
    let (next, failed, done) = (AtomicU64::new(from), AtomicU64::new(0), AtomicU64::new(0));
    let (events, deliveries, stop) = (AtomicU64::new(0), AtomicU64::new(0), AtomicBool::new(false));
    let begin = Instant::now();
    let jobs = arguments
        .jobs
        .unwrap_or_else(|| thread::available_parallelism().map_or(1, usize::from));
    let work = || {
        while !stop.load(Ordering::Relaxed) {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= to {
                return;
            }
            let report = run(seed, options);
            events.fetch_add(report.events, Ordering::Relaxed);
            deliveries.fetch_add(report.deliveries, Ordering::Relaxed);
            if done.fetch_add(1, Ordering::Relaxed) % 1_000 == 999 {
                eprintln!("… seed {seed}, {:.0} s", begin.elapsed().as_secs_f64());
            }
            if !report.violations.is_empty() {
                failed.fetch_add(1, Ordering::Relaxed);
                tell(seed, &report);
                if !arguments.keep_going {
                    stop.store(true, Ordering::Relaxed);
                }
            }
        }
    };
    thread::scope(|scope| (0..jobs).for_each(|_| _ = scope.spawn(work)));
    let count = |number: &AtomicU64| number.load(Ordering::Relaxed);
    println!(
        "{} seeds in {:.1} s: {} failed; {} events, {} deliveries",
        count(&done),
        begin.elapsed().as_secs_f64(),
        count(&failed),
        count(&events),
        count(&deliveries),
    );
    ExitCode::from(u8::from(count(&failed) > 0))
}

fn tell(seed: u64, report: &Report) {
    for violation in report.violations.iter().take(3) {
        println!("seed {seed}: P{}: {}", violation.promise, violation.text);
    }
}
