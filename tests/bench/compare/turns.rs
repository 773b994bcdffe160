//! The order of the runs: A B A B …, one side frozen while the other one runs.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result};
use ferrymq_bench::Load;

use crate::{
    brokers::{Broker, Kind, Programs, Run},
    scenario::{Scenario, Shape},
    summary::headline,
};

/// How the comparison is made.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) pairs: usize,
    pub(crate) warm_up: Duration,
    pub(crate) duration: Duration,
    /// How long each load takes by which a new side is warmed up, and how many of them there are at most.
    pub(crate) first: Duration,
    pub(crate) first_loads_max: usize,
    /// Where all brokers have their files.
    pub(crate) data: PathBuf,
    pub(crate) programs: Programs,
}

/// What a scenario came to.
#[derive(Debug)]
pub(crate) struct Compared {
    pub(crate) scenario: Scenario,
    /// Ours and the peer's, in the order in which they ran.
    pub(crate) pairs: Vec<(Run, Run)>,
    /// Why there are fewer pairs than asked for, or none.
    pub(crate) problem: Option<String>,
}

/// Both sides; each frozen while it does not run.
struct Sides {
    ours: Broker,
    peer: Broker,
}

/// Runs all scenarios, those with the same sides on the same servers. What fails is told in the result, and the next
/// scenario begins with new servers.
pub(crate) async fn take_turns(plan: &Plan, scenarios: &[Scenario]) -> Vec<Compared> {
    let mut all = Vec::new();
    let mut sides: Option<((Kind, Kind), Sides)> = None;
    for (at, &scenario) in scenarios.iter().enumerate() {
        let kinds = (scenario.ours, scenario.peer);
        let mut compared = Compared {
            scenario,
            pairs: Vec::new(),
            problem: None,
        };
        if sides.as_ref().is_none_or(|(running, _)| *running != kinds) {
            // The former ones go before others come.
            sides = None;
            match plan.programs.missing(scenario.peer) {
                Some(missing) => compared.problem = Some(format!("skipped: {missing} is not installed")),
                None => match Sides::start(plan, scenario, at).await {
                    Ok(started) => sides = Some((kinds, started)),
                    Err(error) => compared.problem = Some(format!("failed to start: {error:#}")),
                },
            }
            if let Some(problem) = &compared.problem {
                eprintln!("{}: {problem}", scenario.name);
            }
        }
        if let Some((_, running)) = &mut sides
            && let Err(error) = running.pairs(plan, &mut compared).await
        {
            let why = format!("failed after {} pairs: {error:#}", compared.pairs.len());
            eprintln!("{}: {why}", scenario.name);
            compared.problem = Some(why);
            sides = None;
        }
        all.push(compared);
    }
    all
}

impl Sides {
    async fn start(plan: &Plan, scenario: Scenario, at: usize) -> Result<Self> {
        let dir = plan.data.join(at.to_string());
        let mut ours = Self::start_one(scenario.ours, plan, &dir.join("ours"), scenario).await?;
        ours.pause()?;
        let mut peer = Self::start_one(scenario.peer, plan, &dir.join("peer"), scenario).await?;
        peer.pause()?;
        Ok(Self { ours, peer })
    }

    async fn start_one(kind: Kind, plan: &Plan, dir: &Path, scenario: Scenario) -> Result<Broker> {
        eprintln!("{}: starting {}, {}", scenario.name, kind.name(), kind.durability());
        let started = async {
            let mut broker = Broker::start(kind, &plan.programs, dir).await?;
            warm_up(&mut broker, plan).await?;
            Ok::<_, anyhow::Error>(broker)
        };
        started.await.with_context(|| kind.name().to_owned())
    }

    async fn pairs(&mut self, plan: &Plan, compared: &mut Compared) -> Result<()> {
        let scenario = compared.scenario;
        for pair in 1..=plan.pairs {
            let prefix = format!("{}.{pair}", scenario.name);
            let load = scenario.shape.load(prefix, plan.warm_up, plan.duration);
            let ours = turn(&mut self.ours, &load, scenario, scenario.ours, pair).await?;
            let peer = turn(&mut self.peer, &load, scenario, scenario.peer, pair).await?;
            compared.pairs.push((ours, peer));
        }
        Ok(())
    }
}

/// Loads that are not measured, until they get no faster: Java programs are compiled while they run, which takes a
/// minute on a small machine, and must not be measured before.
async fn warm_up(broker: &mut Broker, plan: &Plan) -> Result<()> {
    let mut best = 0.0;
    for at in 0..plan.first_loads_max {
        let load = Shape::lock_step(32).load(format!("first.{at}"), Duration::ZERO, plan.first);
        let rate = broker.run(&load).await?.report.received.per_second;
        if at + 1 >= FIRST_LOADS_MIN && rate < best * FASTER {
            break;
        }
        best = rate.max(best);
    }
    Ok(())
}

/// So many times as fast as the one before a load must be for another one to follow.
const FASTER: f64 = 1.05;

/// One load alone may be slow by chance.
const FIRST_LOADS_MIN: usize = 3;

/// Lets one side go on, makes the load, and freezes it again.
async fn turn(broker: &mut Broker, load: &Load, scenario: Scenario, kind: Kind, pair: usize) -> Result<Run> {
    // What one broker has left to the kernel to write must not slow down the other one.
    rustix::fs::sync();
    let run = async {
        broker.resume().await?;
        let run = broker.run(load).await?;
        broker.pause()?;
        Ok::<_, anyhow::Error>(run)
    };
    let run = run.await.with_context(|| kind.name().to_owned())?;
    eprintln!(
        "{} {pair}: {:<8} {}",
        scenario.name,
        kind.name(),
        headline(&run, scenario.measure)
    );
    Ok(run)
}

/// Removes what brokers have stored.
pub(crate) fn remove(data: &Path) -> Result<()> {
    match fs::remove_dir_all(data) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", data.display()))
        }
        _ => Ok(()),
    }
}
