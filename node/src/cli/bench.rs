//! `ferrymq bench`: puts a load on a group, measures it from outside, and says what it cost the nodes.

mod account;
mod nodes;
mod place;
mod screen;

use std::{path::PathBuf, time::Duration};

use clap::{ArgAction, Args};
use ferrymq_bench::{FerryDriver, Load, Phase, Report, STAMP_BYTES, plot};
use ferrymq_client::{ConnectError, Options};
use tokio::sync::watch;

use super::{
    Exit, Failure,
    connect::TlsArgs,
    credentials::CredentialArgs,
    demo::interrupted,
    output::{Format, print, print_json},
};
use account::Account;
use nodes::{Nodes, Readings};
use place::{Place, Through, WantedSync};
use screen::Screen;

/// Measure throughput and latency, of a group that runs or of one that is started for it
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  ferrymq bench                                   start three nodes, measure, throw them away
  ferrymq bench --producers 32 --consumers 32 --window 1
  ferrymq bench --rate 1000 --plot latency.svg
  ferrymq bench --groups 2 --rate 1000            produce on one group, consume on the other
  ferrymq bench --sync quorum_mem --consumers 0 -o json
  ferrymq bench --url 'failover:(tcp://a:61613,tcp://b:61613)' --admin http://a:8161 --admin http://b:8161

Latency counts from the moment when a message was to be sent: with --rate that is its place in the schedule, so a broker
that stands still is charged for every message it kept back.

Exit codes: 0 done, 1 failed or interrupted, 2 wrong usage, 3 cannot connect,
            4 a persistent message was lost, or not confirmed in time")]
pub(crate) struct BenchArgs {
    /// The group to produce on; without it, a group is started on this machine and removed afterwards
    #[arg(short, long)]
    url: Option<String>,
    /// Another group, to consume on
    #[arg(long, requires = "url")]
    consume_url: Option<String>,
    #[command(flatten)]
    credentials: CredentialArgs,
    #[command(flatten)]
    tls: TlsArgs,
    /// A node's admin port, to show what the load costs it; once for each node
    #[arg(short, long, value_name = "URL", requires = "url")]
    admin: Vec<String>,

    /// Producers, each with its own connection
    #[arg(short, long, default_value_t = 8)]
    producers: usize,
    /// Consumers, each with its own connection
    #[arg(short, long, default_value_t = 8)]
    consumers: usize,
    /// Bytes of each message's body
    #[arg(short, long, default_value_t = 1024, value_parser = body_size)]
    size: usize,
    /// Messages of one producer that may await confirmation; 1: each waits for the one before
    #[arg(short, long, default_value_t = 100, value_parser = at_least_one)]
    window: usize,
    /// Messages per second, all producers together; without it, as fast as the windows allow
    #[arg(short, long, value_name = "PER_SECOND")]
    rate: Option<f64>,
    /// Seconds before the measurement begins; by default 2, with --messages 0
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    warm_up: Option<Duration>,
    /// Seconds of the measurement; by default 10, with --messages as long as they take
    #[arg(short, long, value_name = "SECONDS", value_parser = seconds)]
    duration: Option<Duration>,
    /// End after so many messages, all producers together; without producers, so many received
    #[arg(short, long)]
    messages: Option<u64>,
    /// Whether messages survive the loss of any minority of the nodes
    #[arg(long, default_value_t = true, action = ArgAction::Set, value_name = "true|false")]
    persistent: bool,
    /// A topic instead of a queue: each consumer gets every message
    #[arg(long)]
    topic: bool,
    /// Messages per transaction of a producer; 0: no transactions
    #[arg(long, default_value_t = 0, value_name = "MESSAGES")]
    transaction: usize,
    /// Destinations that producers and consumers are dealt out to
    #[arg(long, default_value_t = 1, value_parser = at_least_one)]
    destinations: usize,
    /// What the destinations' names begin with
    #[arg(long, default_value = "bench")]
    prefix: String,
    /// Messages of one consumer without acknowledgement
    #[arg(long, default_value_t = 1000, value_parser = at_least_one)]
    prefetch: usize,
    /// Leave in the queues what was not received in time
    #[arg(long)]
    no_drain: bool,

    /// Nodes of each group that is started
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=9), conflicts_with = "url")]
    nodes: u8,
    /// Groups that are started; with two, messages cross from one to the other
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=2), conflicts_with = "url")]
    groups: u8,
    /// When the started nodes acknowledge; by default on a majority's disks
    #[arg(long, value_enum, default_value_t, conflicts_with = "url")]
    sync: WantedSync,
    /// Which of the started nodes the connections go to
    #[arg(long, value_enum, default_value_t, conflicts_with = "url")]
    through: Through,
    /// Where the started nodes keep their data; by default with the system's temporary files
    #[arg(long, value_name = "DIR", conflicts_with = "url")]
    data: Option<PathBuf>,

    /// Draw throughput and latency over the run
    #[arg(long, value_name = "FILE.svg")]
    plot: Option<PathBuf>,
    /// Form of the result
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

/// Longer than anybody waits: where numbers alone end the load.
const ENDLESS: Duration = Duration::from_secs(7 * 24 * 3600);

pub(crate) async fn run(args: BenchArgs) -> Result<(), Failure> {
    let load = args.load();
    load.check().map_err(|error| Failure::new(Exit::Usage, error))?;
    // What is started belongs to the future that is dropped here: whatever ends it also ends the nodes.
    tokio::select! {
        result = measure(&args, &load) => result,
        signal = interrupted() => Err(Failure::new(Exit::Failed, signal)),
    }
}

async fn measure(args: &BenchArgs, load: &Load) -> Result<(), Failure> {
    let place = Place::prepare(args).await?;
    // What is started here asks nobody.
    let credentials = if args.url.is_some() {
        args.credentials.read()?
    } else {
        None
    };
    let options = Options {
        login: credentials.as_ref().map(|credentials| credentials.user.clone()),
        passcode: credentials.as_ref().map(|credentials| credentials.password.clone()),
        tls: args.tls.read(),
        startup_timeout: Duration::from_secs(10),
        follow_master: args.through != Through::Any,
        ..Options::default()
    };
    let senders = FerryDriver::new(&place.produce_url, options.clone());
    let receivers = FerryDriver::new(&place.consume_url, options);
    let nodes = Nodes::new(&place.admins, credentials.as_ref())?;

    let screen = Screen::new(load);
    let (phase, ended) = watch::channel(None);
    let first = if load.warm_up.is_zero() {
        Some(nodes.read().await)
    } else {
        None
    };
    let work = ferrymq_bench::run(load, &senders, &receivers, |sample| {
        screen.show(sample);
        if sample.ends_phase {
            phase.send_replace(Some(sample.phase));
        }
    });
    let (report, readings) = tokio::join!(
        async {
            let report = work.await;
            // Whatever has not come now does not come any more.
            phase.send_replace(Some(Phase::Draining));
            report
        },
        readings(&nodes, first, ended)
    );
    screen.finish();
    let report = report.map_err(|error| {
        let exit = match error.downcast_ref() {
            Some(ConnectError::Uri(_)) => Exit::Usage,
            Some(_) => Exit::Unreachable,
            None => Exit::Failed,
        };
        Failure::new(exit, format!("{error:#}"))
    })?;

    let account = Account::new(&place, &report, &readings);
    match args.output {
        Format::Table => print(&account.table())?,
        Format::Json => print_json(&account.json())?,
    }
    if let Some(path) = &args.plot {
        std::fs::write(path, plot::svg(&report))
            .map_err(|error| Failure::new(Exit::Failed, format!("cannot write {}: {error}", path.display())))?;
    }
    judge(&report)
}

/// Reads the nodes' counters when the measurement begins and when it ends.
async fn readings(nodes: &Nodes, first: Option<Readings>, mut ended: watch::Receiver<Option<Phase>>) -> [Readings; 2] {
    let first = match first {
        Some(first) => first,
        None => {
            // The sender lives as long as the load, which tells the last phase in any case.
            let _ = ended.wait_for(Option::is_some).await;
            nodes.read().await
        }
    };
    let over = |phase: &Option<Phase>| matches!(phase, Some(Phase::Measuring | Phase::Draining));
    let _ = ended.wait_for(over).await;
    [first, nodes.read().await]
}

/// What the broker owes: each confirmed persistent message, and an answer to each.
fn judge(report: &Report) -> Result<(), Failure> {
    let lost = report.lost.unwrap_or(0);
    if report.load.persistent && lost > 0 {
        let waited = report.load.drain_max.as_secs();
        return Err(Failure::new(
            Exit::Broken,
            format!("{lost} confirmed messages had not been received {waited} s after the end"),
        ));
    }
    if report.unconfirmed > 0 {
        return Err(Failure::new(
            Exit::Broken,
            format!("{} messages were never confirmed", report.unconfirmed),
        ));
    }
    Ok(())
}

impl BenchArgs {
    fn load(&self) -> Load {
        let counted = self.messages.is_some();
        let warm_up = if counted { 0 } else { 2 };
        let duration = if counted { ENDLESS } else { Duration::from_secs(10) };
        Load {
            producers: self.producers,
            consumers: self.consumers,
            size: self.size,
            window: self.window,
            rate: self.rate,
            warm_up: self.warm_up.unwrap_or(Duration::from_secs(warm_up)),
            duration: self.duration.unwrap_or(duration),
            destinations: self.destinations,
            topic: self.topic,
            persistent: self.persistent,
            transaction: self.transaction,
            prefetch: self.prefetch,
            prefix: self.prefix.clone(),
            messages_max: self.messages,
            drain: !self.no_drain,
            ..Load::default()
        }
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "write it as a number of seconds")?;
    Duration::try_from_secs_f64(seconds).map_err(|_| "this is no span of time".to_owned())
}

fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) | Err(_) => Err("write it as a number from 1 on".to_owned()),
        Ok(number) => Ok(number),
    }
}

fn body_size(text: &str) -> Result<usize, String> {
    let size: usize = text.parse().map_err(|_| "write it as a number of bytes")?;
    if size < STAMP_BYTES {
        return Err(format!(
            "{STAMP_BYTES} bytes at least are needed to tell messages apart"
        ));
    }
    Ok(size)
}
