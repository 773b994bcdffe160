//! FerryMQ beside other brokers: the same loads in turn on the same machine, each broker with its durability stated, and
//! a table of ratios. `tests/bench/compare/run` installs the others and starts this.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

mod scenario;

mod turns;

mod brokers;
mod drivers;
mod server;

mod conditions;
mod spread;
mod summary;
mod table;

use brokers::{Programs, ferrymq::Client};
use conditions::Conditions;
use summary::Row;
use table::{Form, draw};
use turns::{Plan, take_turns};

/// Compares FerryMQ with RabbitMQ, NATS and ActiveMQ.
#[derive(Debug, Parser)]
struct Options {
    /// Scenarios, or sets of them such as `nats` or `nats-producing`; all where none is named.
    scenarios: Vec<String>,
    /// Shows the scenarios and ends.
    #[arg(long)]
    list: bool,
    /// Shows which other brokers the scenarios need and ends.
    #[arg(long)]
    needs: bool,
    /// Runs of each side.
    #[arg(long, default_value_t = 5)]
    pairs: usize,
    /// Measured seconds of each run.
    #[arg(long, default_value_t = 8.0)]
    seconds: f64,
    /// Seconds before the measured ones.
    #[arg(long, default_value_t = 2.0)]
    warm_up: f64,
    /// One pair of 3 s after 1 s: shows that everything works, and no more.
    #[arg(long)]
    quick: bool,
    /// Writes everything, each run with its course, into a JSON file.
    #[arg(short = 'o', long = "output", value_name = "FILE.json")]
    output: Option<PathBuf>,
    /// Prints Markdown instead of columns.
    #[arg(long)]
    markdown: bool,
    /// With what the load speaks to FerryMQ.
    #[arg(long, value_enum, default_value = "library")]
    ferrymq_client: Client,
    /// Where the brokers' files go, in a folder `brokers` that is removed before and after.
    #[arg(long, default_value = "target/compare")]
    data: PathBuf,
    /// Our program.
    #[arg(long, default_value = "target/release/ferrymq")]
    ferrymq: PathBuf,
    /// The directory of `rabbitmq-server` and `rabbitmqctl`.
    #[arg(long, env = "COMPARE_RABBITMQ_SBIN")]
    rabbitmq_sbin: Option<PathBuf>,
    /// The directory of `erl` and `epmd`.
    #[arg(long, env = "COMPARE_ERLANG_BIN")]
    erlang_bin: Option<PathBuf>,
    /// The program `nats-server`.
    #[arg(long, env = "COMPARE_NATS_SERVER")]
    nats_server: Option<PathBuf>,
    /// ActiveMQ's Java archives, with colons between them.
    #[arg(long, env = "COMPARE_ACTIVEMQ_CLASSPATH", hide_env_values = true)]
    activemq_classpath: Option<String>,
    /// For the table.
    #[arg(long, env = "COMPARE_ACTIVEMQ_VERSION")]
    activemq_version: Option<String>,
}

fn main() -> Result<()> {
    let options = Options::parse();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(run(options))
}

async fn run(options: Options) -> Result<()> {
    let scenarios = scenario::chosen(&options.scenarios)?;
    if options.needs {
        let mut needed: Vec<&str> = scenarios.iter().map(|scenario| scenario.peer.name()).collect();
        needed.dedup();
        needed.iter().for_each(|name| println!("{}", name.to_lowercase()));
        return Ok(());
    }
    if options.list {
        for scenario in scenarios {
            let (ours, peer) = (scenario.ours.durability(), scenario.peer.name());
            println!(
                "{:<26} {:<40} {ours}, beside {peer}",
                scenario.name,
                scenario.shape.words()
            );
        }
        return Ok(());
    }
    let plan = plan(&options)?;
    // Locked until the end, whatever ends this process.
    let _lock = lock(&options.data)?;
    turns::remove(&plan.data)?;
    fs::create_dir_all(&plan.data).with_context(|| format!("cannot make {}", plan.data.display()))?;
    let conditions = Conditions::before(&plan, options.activemq_version.as_deref());
    let (mut interrupted, mut terminated) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let compared = tokio::select! {
        compared = take_turns(&plan, &scenarios) => Some(compared),
        _ = interrupted.recv() => None,
        _ = terminated.recv() => None,
    };
    // All servers have been dropped and so have ended.
    turns::remove(&plan.data)?;
    let Some(compared) = compared else { bail!("interrupted") };
    let rows: Vec<Row> = compared.into_iter().map(Row::of).collect();
    let form = if options.markdown { Form::Markdown } else { Form::Text };
    println!("{}", draw(&rows, &conditions, form));
    if let Some(file) = &options.output {
        let text = serde_json::to_string_pretty(&json!({ "conditions": conditions, "scenarios": rows }))?;
        fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))?;
    }
    let failed = rows
        .iter()
        .filter(|row| row.problem.as_ref().is_some_and(|why| why.starts_with("failed")));
    ensure!(failed.count() == 0, "not every scenario came to its end");
    Ok(())
}

/// Two comparisons at a time would measure each other.
fn lock(data: &Path) -> Result<File> {
    fs::create_dir_all(data).with_context(|| format!("cannot make {}", data.display()))?;
    let file = File::create(data.join("lock"))?;
    file.try_lock()
        .with_context(|| format!("another comparison runs in {}", data.display()))?;
    Ok(file)
}

fn plan(options: &Options) -> Result<Plan> {
    ensure!(options.pairs > 0, "a comparison takes one pair at least");
    let positive = |seconds: f64| Duration::try_from_secs_f64(seconds).context("times are seconds from 0 on");
    let seconds = Duration::from_secs;
    let (pairs, warm_up, duration, first, first_loads_max) = if options.quick {
        (1, seconds(1), seconds(3), seconds(3), 1)
    } else {
        let (warm_up, duration) = (positive(options.warm_up)?, positive(options.seconds)?);
        (options.pairs, warm_up, duration, seconds(6), 10)
    };
    let ferrymq = options.ferrymq.canonicalize().with_context(|| {
        format!(
            "{} is not there; cargo build --release makes it",
            options.ferrymq.display()
        )
    })?;
    Ok(Plan {
        pairs,
        warm_up,
        duration,
        first,
        first_loads_max,
        data: std::path::absolute(&options.data)?.join("brokers"),
        programs: Programs {
            ferrymq,
            ferrymq_client: options.ferrymq_client,
            rabbitmq_sbin: options.rabbitmq_sbin.clone(),
            erlang_bin: options.erlang_bin.clone(),
            nats_server: options.nats_server.clone(),
            activemq_classpath: options.activemq_classpath.clone(),
        },
    })
}
