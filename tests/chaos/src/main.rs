//! `chaos`: breaks things on three groups under load and tells whether the promises held; see `tests/chaos/run`.

use std::{
    env,
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

use anyhow::Context;
use clap::{Parser, ValueEnum};
use ferrymq_chaos::{
    field::{Field, Options},
    figures, netem,
    outcome::Outcome,
    random::{self, Dice},
    run::{self, Ground},
    scenarios,
};
use ferrymq_tests::{Discovery, wait};
use tokio::signal::unix::{SignalKind, signal};

/// Breaks things on three groups in a line under load. Without --minutes: the scenarios, one after the other.
#[derive(Debug, Parser)]
#[command(name = "tests/chaos/run")]
struct Arguments {
    /// Scenarios or families (see --list); all where none is named
    names: Vec<String>,
    /// Tell all scenarios and end
    #[arg(long)]
    list: bool,
    /// Play all of them so many times
    #[arg(long, default_value_t = 1)]
    repeat: usize,
    /// Random faults for so long instead
    #[arg(long)]
    minutes: Option<f64>,
    /// What decides all that is chosen at random; the same seed chooses the same
    #[arg(long)]
    seed: Option<u64>,
    /// The first round to be played, of those that the seed decides
    #[arg(long, default_value_t = 1)]
    from_round: usize,
    /// How the groups find each other
    #[arg(long, value_enum, default_value_t = Finding::Static)]
    discovery: Finding,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Finding {
    Static,
    Multicast,
    Mdns,
}

fn main() -> ExitCode {
    match begin() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::from(2)
        }
    }
}

fn begin() -> anyhow::Result<ExitCode> {
    let words: Vec<String> = env::args().collect();
    if let [_, word, queue, delay_ms, jitter_ms] = &words[..]
        && word == "delay"
    {
        // Started by ourselves on a machine of the field.
        let ms = |text: &str| text.parse().map(Duration::from_millis);
        netem::delay(queue.parse()?, ms(delay_ms)?, ms(jitter_ms)?)?;
        return Ok(ExitCode::SUCCESS);
    }
    let arguments = Arguments::parse();
    if arguments.list {
        for (family, scenarios) in scenarios::FAMILIES {
            for scenario in *scenarios {
                let awaited = scenarios::AWAITED.iter().find(|(name, _)| *name == scenario.name);
                let why = awaited.map_or(String::new(), |(_, why)| format!(" (only where it is named: {why})"));
                println!("{family:10} {}{why}", scenario.name);
            }
        }
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(why) = Field::missing() {
        anyhow::bail!("nothing can be played here: {why}");
    }
    anyhow::ensure!(
        env::var_os("FERRYMQ_BIN").is_some(),
        "FERRYMQ_BIN shall name the program under test; tests/chaos/run builds one and does that"
    );
    end_in_good_order()?;
    let options = Options {
        discovery: match arguments.discovery {
            Finding::Static => Discovery::Static,
            Finding::Multicast => Discovery::Multicast,
            Finding::Mdns => Discovery::Mdns,
        },
        program: env::current_exe().context("a program knows its own path")?,
    };
    let outcomes = match arguments.minutes {
        Some(minutes) => at_random(&arguments, options, Duration::from_secs_f64(minutes * 60.0))?,
        None => in_turn(&arguments, options)?,
    };
    println!("\n{}", figures::table(&outcomes));
    let is_good = figures::broken(&outcomes) == 0 && !wait::is_interrupted();
    Ok(if is_good { ExitCode::SUCCESS } else { ExitCode::from(4) })
}

/// Each of the named scenarios, as often as wanted; a field of its own for each time.
fn in_turn(arguments: &Arguments, options: Options) -> anyhow::Result<Vec<Outcome>> {
    let scenarios = scenarios::named(&arguments.names).map_err(anyhow::Error::msg)?;
    let seed = arguments.seed.unwrap_or_else(random::any_seed);
    let mut outcomes = Vec::new();
    for time in 1..=arguments.repeat {
        let seed = seed.wrapping_add(time as u64 - 1);
        println!(
            "-- time {time} of {}; the same bytes are damaged with: --seed {seed}",
            arguments.repeat
        );
        outcomes.extend(run::each(&mut Ground::new(options.clone()), &scenarios, seed, false));
    }
    Ok(outcomes)
}

/// Rounds of random faults until the time is over or a promise is broken.
fn at_random(arguments: &Arguments, options: Options, time: Duration) -> anyhow::Result<Vec<Outcome>> {
    let mut scenarios = scenarios::named(&arguments.names).map_err(anyhow::Error::msg)?;
    // What this machine cannot do is told, and left out for good: the seed decides among the rest.
    let mut outcomes = Vec::new();
    scenarios.retain(|scenario| match scenario.fault.missing() {
        Some(why) => {
            outcomes.push(Outcome::skipped(scenario.name, why));
            false
        }
        None => true,
    });
    outcomes.iter().for_each(figures::tell);
    anyhow::ensure!(!scenarios.is_empty(), "nothing is left to be played");
    let seed = arguments.seed.unwrap_or_else(random::any_seed);
    println!("-- random faults for {time:?}; again with: --minutes … --seed {seed}");
    let (mut dice, mut ground) = (Dice::new(seed), Ground::new(options));
    let begun = Instant::now();
    let mut round = 0;
    while begun.elapsed() < time && !wait::is_interrupted() {
        round += 1;
        let strikes = dice.round(&scenarios);
        if round < arguments.from_round {
            continue;
        }
        println!(
            "-- {:.0} s, round {round}: {}",
            begun.elapsed().as_secs_f64(),
            random::tell(&strikes)
        );
        let outcome = ground.play(&strikes);
        figures::tell(&outcome);
        let is_good = outcome.is_good();
        outcomes.push(outcome);
        if !is_good {
            println!("-- broken in round {round}; again with: --seed {seed} --from-round {round}");
            break;
        }
    }
    Ok(outcomes)
}

/// SIGINT and SIGTERM take everything down in good order; one that comes much later ends the program as it is. (Whoever
/// ends a process and its group sends the first one twice.)
fn end_in_good_order() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let entered = runtime.enter();
    let (mut interrupted, mut terminated) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    drop(entered);
    thread::spawn(move || {
        let mut first = None;
        loop {
            runtime.block_on(async {
                tokio::select! {
                    _ = interrupted.recv() => {}
                    _ = terminated.recv() => {}
                }
            });
            if first.get_or_insert_with(Instant::now).elapsed() > PATIENCE {
                std::process::exit(130);
            }
            eprintln!("-- taking everything down");
            wait::interrupt();
        }
    });
    Ok(())
}

/// How long the program has to take everything down before another signal ends it.
const PATIENCE: Duration = Duration::from_secs(10);
