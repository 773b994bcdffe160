//! `ferrymq demo`: a whole mesh on this machine, with load, with its masters killed, and with an honest account.
//!
//! Two groups of three nodes, each node a process of this very program. Messages are sent to one group and consumed at
//! the other while the master of each is killed with `kill -9`; at the end every message is accounted for.

pub(super) mod mesh;
mod ports;
mod status;

mod faults;
mod ledger;
mod traffic;

mod report;

use std::{
    io::{IsTerminal, Write, stderr},
    time::{Duration, Instant},
};

use anyhow::bail;
use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use tokio::time::timeout;

use super::output::{self, Format};
use mesh::{GROUPS, Mesh, Shape};
use report::Report;
use traffic::Traffic;

/// Run a whole mesh on this machine, kill its masters under load, and account for every message
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:
  ferrymq demo
  ferrymq demo --messages 1000000 --size 256
  ferrymq demo --discovery multicast
  ferrymq demo --keep                 leave the mesh running, to try things by hand
  ferrymq demo --no-kill -o json

Exit codes: 0 every promise was kept, 1 failed to run or was interrupted, 2 wrong usage,
4 a promise was broken or the time was up.")]
pub(crate) struct DemoArgs {
    /// Messages to send
    #[arg(short, long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    messages: u64,
    /// Bytes of each message's body
    #[arg(short, long, default_value_t = 1024, value_parser = clap::value_parser!(u32).range(0..=16_777_216))]
    size: u32,
    /// How the two groups find each other
    #[arg(short, long, value_enum, default_value_t = Discovery::Static)]
    discovery: Discovery,
    /// Kill nobody
    #[arg(long)]
    no_kill: bool,
    /// Leave the mesh running at the end
    #[arg(long)]
    keep: bool,
    /// Seconds after which the demo gives up, once the mesh is up
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    timeout: u64,
    /// Form of the account on standard output
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Discovery {
    /// Each group lists the other's nodes
    Static,
    /// By announcements on the local network
    Multicast,
    /// By mDNS
    Mdns,
}

/// The queue that the messages cross the mesh in.
const QUEUE: &str = "queue://DEMO";

/// How long the groups may take to elect masters and to link.
const START_MAX: Duration = Duration::from_secs(60);

/// Runs the demo; the exit code tells whether every promise was kept.
pub(crate) fn run(args: DemoArgs) -> u8 {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            tell(&format!("ferrymq: the runtime cannot start: {error}"));
            return 1;
        }
    };
    runtime.block_on(async {
        // The mesh belongs to the future that is dropped here: whatever ends it also ends the processes.
        tokio::select! {
            result = show(&args) => match result {
                Ok(true) => 0,
                Ok(false) => 4,
                Err(error) => {
                    tell(&format!("ferrymq: {error:#}"));
                    1
                }
            },
            signal = interrupted() => {
                tell(&format!("ferrymq: {signal}: the demo's processes and files are removed"));
                1
            }
        }
    })
}

/// Waits for the signal that ends this process; its name.
pub(super) async fn interrupted() -> &'static str {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut terminate), Ok(mut interrupt)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => "terminated",
        _ = interrupt.recv() => "interrupted",
    }
}

/// Six processes, two masters, one link.
async fn bring_up(args: &DemoArgs, narrator: &Narrator) -> anyhow::Result<Mesh> {
    let begun = Instant::now();
    let mut mesh = Mesh::start(Shape {
        groups: 2,
        nodes: 3,
        discovery: args.discovery,
        sync: None,
        within: None,
        prefix: "ferrymq-demo-",
    })?;
    narrator.say(format!("six nodes are starting in {}", mesh.dir().display()));
    let starting = async {
        for group in &GROUPS {
            let master = mesh.wait_master(group).await;
            narrator.say(format!("{}: node {master} is the master", group.name));
        }
        mesh.wait_linked().await;
    };
    if timeout(START_MAX, starting).await.is_err() {
        let dir = mesh.keep_files().display().to_string();
        bail!("the mesh is not up within {START_MAX:?}; its logs are left for you in {dir}");
    }
    let took = begun.elapsed().as_secs_f64();
    narrator.say(format!("the groups are linked, {took:.1} s after the start"));
    Ok(mesh)
}

/// The whole show. `true` where every promise was kept.
async fn show(args: &DemoArgs) -> anyhow::Result<bool> {
    let narrator = Narrator::new(args.messages);
    let mut mesh = bring_up(args, &narrator).await?;

    let traffic = Traffic::new(args.messages, args.size as usize);
    let (north, south) = (mesh.uri(&GROUPS[0]), mesh.uri(&GROUPS[1]));
    narrator.say(format!(
        "sending {} messages of {} bytes to north, consuming at south",
        args.messages, args.size
    ));
    let begun = Instant::now();
    let mut kills = Vec::new();
    let work = async {
        let faults = async {
            if !args.no_kill {
                faults::kill_masters(&mut mesh, &traffic, &narrator, &mut kills).await?;
            }
            faults::drain(&mesh, &traffic).await;
            anyhow::Ok(())
        };
        tokio::try_join!(
            traffic.produce(&north),
            traffic.consume(&south),
            faults,
            narrator.follow(&traffic)
        )
    };
    let finished = match timeout(Duration::from_secs(args.timeout), work).await {
        Ok(Ok(_)) => true,
        Ok(Err(error)) => {
            narrator.end();
            let dir = mesh.keep_files();
            return Err(error.context(format!("the demo could not go on; its logs are in {}", dir.display())));
        }
        Err(_) => false,
    };
    narrator.end();

    let report = Report::new(args, &traffic, kills, begun.elapsed(), finished);
    match args.output {
        Format::Table => output::print(&report.table()),
        Format::Json => output::print_json(&report.json()),
    }
    .map_err(|failure| anyhow::anyhow!("{}", failure.text))?;
    let kept = report.kept();
    if args.keep {
        tell(&mesh.how_to_reach());
        mesh.keep();
    } else if !kept {
        let dir = mesh.keep_files();
        tell(&format!("the logs are left for you in {}", dir.display()));
    }
    Ok(kept)
}

/// Writes a line to standard error. That nobody reads it any more is no reason to stop.
fn tell(text: &str) {
    let _ = writeln!(stderr(), "{text}");
}

/// Tells on standard error what goes on, with a bar where a person is looking.
pub(crate) struct Narrator {
    bar: Option<ProgressBar>,
}

impl Narrator {
    fn new(messages: u64) -> Self {
        let bar = stderr().is_terminal().then(|| {
            let style = "{elapsed_precise} {bar:40} {pos}/{len} received, {per_sec} {msg}";
            ProgressBar::new(messages)
                .with_style(ProgressStyle::with_template(style).expect("the template is a good one"))
        });
        Self { bar }
    }

    fn say(&self, text: String) {
        match &self.bar {
            Some(bar) => bar.println(text),
            None => tell(&text),
        }
    }

    async fn follow(&self, traffic: &Traffic) -> anyhow::Result<()> {
        let Some(bar) = &self.bar else { return Ok(()) };
        let mut tick = tokio::time::interval(Duration::from_millis(100));
        while !traffic.is_complete() {
            tick.tick().await;
            bar.set_position(traffic.received());
        }
        Ok(())
    }

    fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
