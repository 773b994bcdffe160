//! The brokers that are compared: each starts its servers on loopback, says when they are ready, and makes a load with
//! its own driver.

use std::{
    cell::Cell,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use ferrymq_bench::{Load, Phase, Report};
use serde::Serialize;
use tokio::time::timeout;

use crate::server::{MachineTime, Server, cpu_seconds_of};

mod probe;

pub(crate) mod activemq;
pub(crate) mod ferrymq;
pub(crate) mod nats;
pub(crate) mod rabbitmq;

use activemq::ActiveMq;
use ferrymq::FerryMq;
use nats::Nats;
use rabbitmq::RabbitMq;

/// How long servers may take to start, or to be ready again after a pause.
const READY_MAX: Duration = Duration::from_secs(240);
/// How long one question whether they are may take.
const ANSWER_MAX: Duration = Duration::from_secs(15);
/// How long what comes before and after the measurement of a load may take.
const AROUND_MAX: Duration = Duration::from_secs(60);
/// How long it may take to consume what a load has left behind.
const EMPTY_MAX: Duration = Duration::from_secs(300);
/// After so long no node mistakes the pause for the loss of another one any more.
const SETTLE: Duration = Duration::from_secs(2);
/// How often they are asked.
const ASK_EVERY: Duration = Duration::from_millis(50);

/// One side of a comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// Three nodes, synced on a majority.
    FerryDisk,
    /// Three nodes, in memory of a majority.
    FerryMem,
    /// A group of one.
    FerryOne,
    /// Two groups of three.
    FerryMesh,
    /// Three nodes with quorum queues.
    RabbitMq,
    /// Three servers with JetStream.
    Nats,
    /// One broker with KahaDB.
    ActiveMq,
    /// Two brokers with a network connector.
    ActiveMqNetwork,
}

impl Kind {
    /// What a table calls it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::FerryDisk | Self::FerryMem | Self::FerryOne | Self::FerryMesh => "FerryMQ",
            Self::RabbitMq => "RabbitMQ",
            Self::Nats => "NATS",
            Self::ActiveMq | Self::ActiveMqNetwork => "ActiveMQ",
        }
    }

    /// What has happened to a persistent message when it is confirmed.
    pub(crate) fn durability(self) -> &'static str {
        match self {
            Self::FerryDisk => "3 nodes, synced to disk on a majority (quorum_disk)",
            Self::FerryMem => "3 nodes, in the memory of a majority (quorum_mem)",
            Self::FerryOne => "1 node, synced to disk",
            Self::FerryMesh => "2 linked groups of 3 nodes, each synced to disk on a majority (quorum_disk)",
            Self::RabbitMq => "3-node quorum queue, synced to disk on a majority",
            Self::Nats => "JetStream work queue of 3 replicas, written on a majority, no sync per write",
            Self::ActiveMq => "1 broker, KahaDB synced to disk; what is consumed at once may skip the disk",
            Self::ActiveMqNetwork => "2 brokers with a network connector, KahaDB synced to disk, no replicas",
        }
    }
}

/// Where programs are, and which of them cannot be had.
#[derive(Debug, Clone)]
pub(crate) struct Programs {
    pub(crate) ferrymq: PathBuf,
    pub(crate) ferrymq_client: ferrymq::Client,
    pub(crate) rabbitmq_sbin: Option<PathBuf>,
    pub(crate) erlang_bin: Option<PathBuf>,
    pub(crate) nats_server: Option<PathBuf>,
    pub(crate) activemq_classpath: Option<String>,
}

impl Programs {
    /// What this side needs and is not there.
    pub(crate) fn missing(&self, kind: Kind) -> Option<&'static str> {
        let is_there = match kind {
            Kind::FerryDisk | Kind::FerryMem | Kind::FerryOne | Kind::FerryMesh => true,
            Kind::RabbitMq => self.rabbitmq_sbin.is_some() && self.erlang_bin.is_some(),
            Kind::Nats => self.nats_server.is_some(),
            Kind::ActiveMq | Kind::ActiveMqNetwork => self.activemq_classpath.is_some(),
        };
        (!is_there).then(|| kind.name())
    }
}

/// Servers that run.
#[derive(Debug)]
pub(crate) enum Broker {
    FerryMq(FerryMq),
    RabbitMq(RabbitMq),
    Nats(Nats),
    ActiveMq(ActiveMq),
}

/// One measurement.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Run {
    pub(crate) report: Report,
    /// Processor time of all servers in the measured time, in seconds.
    pub(crate) cpu_seconds: f64,
    /// The same of the load itself.
    pub(crate) load_cpu_seconds: f64,
    /// The part of the machine's processors that neither of both used and that was busy all the same: other programs, and
    /// the kernel's own work.
    pub(crate) others_share: f64,
}

impl Broker {
    /// Starts the servers of `kind` with all their files below `dir`, and waits until they are ready.
    ///
    /// # Errors
    /// Where a program is not there, or they do not become ready.
    pub(crate) async fn start(kind: Kind, programs: &Programs, dir: &Path) -> Result<Self> {
        std::fs::create_dir_all(dir)?;
        let mut broker = match kind {
            Kind::FerryDisk | Kind::FerryMem | Kind::FerryOne | Kind::FerryMesh => {
                Self::FerryMq(FerryMq::start(kind, programs, dir)?)
            }
            Kind::RabbitMq => Self::RabbitMq(RabbitMq::start(programs, dir)?),
            Kind::Nats => Self::Nats(Nats::start(programs, dir)?),
            Kind::ActiveMq => Self::ActiveMq(ActiveMq::start(1, programs, dir)?),
            Kind::ActiveMqNetwork => Self::ActiveMq(ActiveMq::start(2, programs, dir)?),
        };
        broker.wait_ready().await?;
        Ok(broker)
    }

    /// Freezes all servers.
    pub(crate) fn pause(&mut self) -> Result<()> {
        self.servers().iter().try_for_each(Server::pause)
    }

    /// Lets them go on, and waits until they serve again. To each node the others seem to have been silent, so they may
    /// elect anew although they serve at once.
    pub(crate) async fn resume(&mut self) -> Result<()> {
        self.servers().iter().try_for_each(Server::resume)?;
        self.wait_ready().await?;
        tokio::time::sleep(SETTLE).await;
        self.wait_ready().await
    }

    /// Makes the load on destinations that nobody has used, and leaves none of its messages behind.
    pub(crate) async fn run(&mut self, load: &Load) -> Result<Run> {
        timeout(AROUND_MAX, self.prepare(load))
            .await
            .context("no preparation in time")??;
        let measured = timeout(
            load.warm_up + load.duration + load.drain_max + AROUND_MAX,
            self.measure(load),
        );
        let measured = measured.await.context("the load does not end").flatten();
        self.servers().iter_mut().try_for_each(Server::check_alive)?;
        let run = measured?;
        timeout(EMPTY_MAX, self.clean(load, &run.report))
            .await
            .context("what is left over is not emptied in time")??;
        Ok(run)
    }

    fn servers(&mut self) -> &mut Vec<Server> {
        match self {
            Self::FerryMq(broker) => &mut broker.servers,
            Self::RabbitMq(broker) => &mut broker.servers,
            Self::Nats(broker) => &mut broker.servers,
            Self::ActiveMq(broker) => &mut broker.servers,
        }
    }

    async fn wait_ready(&mut self) -> Result<()> {
        let begun = Instant::now();
        loop {
            // Servers that are just starting may take a question and never answer it.
            let answer = timeout(ANSWER_MAX, self.check_ready()).await;
            let Err(why) = answer.context("no answer").flatten() else {
                return Ok(());
            };
            self.servers().iter_mut().try_for_each(Server::check_alive)?;
            if begun.elapsed() > READY_MAX {
                bail!("not ready within {READY_MAX:?}: {why:#}");
            }
            tokio::time::sleep(ASK_EVERY).await;
        }
    }

    async fn check_ready(&mut self) -> Result<()> {
        match self {
            Self::FerryMq(broker) => broker.check_ready().await,
            Self::RabbitMq(broker) => broker.check_ready().await,
            Self::Nats(broker) => broker.check_ready().await,
            Self::ActiveMq(broker) => broker.check_ready().await,
        }
    }

    async fn prepare(&mut self, load: &Load) -> Result<()> {
        match self {
            Self::RabbitMq(broker) => broker.prepare(load).await,
            Self::Nats(broker) => broker.prepare(load).await,
            Self::FerryMq(_) | Self::ActiveMq(_) => Ok(()),
        }
    }

    async fn measure(&mut self, load: &Load) -> Result<Run> {
        let cpu = Cpu::default();
        let report = {
            let pids = self.servers().iter().map(Server::pid).collect::<Vec<_>>();
            let watch = |sample: &ferrymq_bench::Sample| {
                if sample.ends_phase {
                    cpu.note(sample.phase, &pids);
                }
            };
            let report = match self {
                Self::FerryMq(broker) => broker.run(load, watch).await,
                Self::RabbitMq(broker) => {
                    let driver = broker.driver();
                    ferrymq_bench::run(load, &driver, &driver, watch).await
                }
                Self::Nats(broker) => {
                    let driver = broker.driver();
                    ferrymq_bench::run(load, &driver, &driver, watch).await
                }
                Self::ActiveMq(broker) => {
                    let (senders, receivers) = broker.drivers();
                    ferrymq_bench::run(load, &senders, &receivers, watch).await
                }
            };
            report?
        };
        Ok(Run {
            report,
            cpu_seconds: cpu.servers.get(),
            load_cpu_seconds: cpu.load.get(),
            others_share: cpu.others_share.get(),
        })
    }

    async fn clean(&mut self, load: &Load, report: &Report) -> Result<()> {
        if let Self::FerryMq(broker) = self
            && report.lost.unwrap_or(0) > 0
        {
            broker.explain(load);
        }
        let left_over = !load.topic && (load.consumers == 0 || report.lost.unwrap_or(0) > 0);
        match self {
            Self::RabbitMq(broker) => broker.clean(load).await,
            Self::Nats(broker) => broker.clean(load).await,
            Self::FerryMq(broker) if left_over => broker.clean(load).await,
            Self::ActiveMq(broker) if left_over => probe::empty(&broker.drivers().1, load).await,
            Self::FerryMq(_) | Self::ActiveMq(_) => Ok(()),
        }
    }
}

/// The names of a load's destinations.
fn destinations(load: &Load) -> impl Iterator<Item = String> {
    (0..load.destinations).map(|at| format!("{}.{at}", load.prefix))
}

/// Processor time of the measured part of a run: the meters at its end less those at its beginning.
#[derive(Debug, Default)]
struct Cpu {
    begin: Cell<Meters>,
    servers: Cell<f64>,
    load: Cell<f64>,
    others_share: Cell<f64>,
}

/// In seconds.
#[derive(Debug, Default, Clone, Copy)]
struct Meters {
    servers: f64,
    load: f64,
    machine: MachineTime,
}

impl Cpu {
    fn note(&self, phase: Phase, servers: &[String]) {
        // A server that has just died makes the run fail by itself.
        let used = |process: &str| cpu_seconds_of(process).unwrap_or_default();
        let now = Meters {
            servers: servers.iter().map(|server| used(server)).sum(),
            load: used("self"),
            machine: MachineTime::now().unwrap_or_default(),
        };
        match phase {
            Phase::WarmUp => self.begin.set(now),
            Phase::Measuring => {
                let begin = self.begin.get();
                let (servers, load) = (now.servers - begin.servers, now.load - begin.load);
                self.servers.set(servers);
                self.load.set(load);
                let busy = now.machine.busy - begin.machine.busy;
                let others = (busy - servers - load) / (now.machine.total - begin.machine.total);
                self.others_share.set(others.clamp(0.0, 1.0));
            }
            Phase::Draining => {}
        }
    }
}
