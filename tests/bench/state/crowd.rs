//! Many destinations, and many connections: what each costs in memory, and what all cost the others.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use ferrymq_tests::{GroupOfNodes, Mesh, MeshBuilder, NodeProcess, Stomp, wait::holds_for};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde::Serialize;

use crate::{
    Args,
    prober::{Prober, middle_and_longest},
    process::{memory, processor_time},
};

/// What a number of destinations or connections costs. Times are milliseconds.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Crowd {
    pub(crate) count: usize,
    /// How many are made in a second.
    pub(crate) made_per_s: f64,
    /// Of the node for which it is most.
    pub(crate) resident_bytes: u64,
    /// What memory has grown by for each, all nodes together.
    pub(crate) bytes_each: f64,
    /// From a subscription to its first message, which waits already.
    pub(crate) first_delivery_ms: f64,
    pub(crate) first_delivery_ms_max: f64,
    /// From a send to its receipt.
    pub(crate) send_ms: f64,
    pub(crate) send_ms_max: f64,
    /// The master's answer to a question for its status.
    pub(crate) status_ms: f64,
    /// Processor time that all nodes together use in a second while nothing happens.
    pub(crate) idle_cpu_s: f64,
}

const PROBES: usize = 30;
const IDLE: Duration = Duration::from_secs(3);
const START_MAX: Duration = Duration::from_secs(60);
/// Descriptors beside those of connections.
const FILES_SPARE: u64 = 512;

/// So many queues with a message in each.
pub(crate) fn destinations(args: &Args, count: usize) -> Result<Crowd> {
    let mesh = group(args);
    let group = &mesh.groups[0];
    let mut prober = Prober::connect(group)?;
    warm_up(&mut prober)?;
    let before = resident(group)?;
    let name = |at: usize| format!("/queue/crowd.{at:06}");
    let begun = Instant::now();
    prober.send_all((0..count).map(name))?;
    let made = begun.elapsed();
    group.settle(START_MAX);
    let mut crowd = measure(group, &mut prober, count, &before, |probe| name(probe * 7_919 % count))?;
    crowd.made_per_s = count as f64 / made.as_secs_f64();
    Ok(crowd)
}

/// So many connections over all nodes, each with a consumer of a queue that gets nothing.
pub(crate) fn connections(args: &Args, count: usize) -> Result<Crowd> {
    raise_file_limit(2 * count as u64 + FILES_SPARE)?;
    let mesh = group(args);
    let group = &mesh.groups[0];
    let mut prober = Prober::connect(group)?;
    warm_up(&mut prober)?;
    prober.send_all((0..PROBES).map(|at| format!("/queue/waiting.{at}")))?;
    let before = resident(group)?;
    let addresses = group.addresses();
    let begun = Instant::now();
    let mut connected = Vec::with_capacity(count);
    for at in 0..count {
        let address = &addresses[at % addresses.len()];
        let connection = Stomp::connect(address);
        connected.push(connection.with_context(|| format!("connection {at} of {count}"))?);
    }
    let made = begun.elapsed();
    let mut crowd = measure(group, &mut prober, count, &before, |probe| {
        format!("/queue/waiting.{probe}")
    })?;
    crowd.made_per_s = count as f64 / made.as_secs_f64();
    drop(connected);
    Ok(crowd)
}

fn group(args: &Args) -> Mesh {
    MeshBuilder::new("state-size")
        .group("north", args.nodes)
        .more(&args.sections())
        .data(&args.data)
        .start()
}

/// Allocators and caches have what they need afterwards.
fn warm_up(prober: &mut Prober<'_>) -> Result<()> {
    for _ in 0..PROBES {
        prober.send("/queue/warm")?;
    }
    prober.first_of("/queue/warm").map(drop)
}

fn resident(group: &GroupOfNodes) -> Result<Vec<u64>> {
    Ok(memory(group)?.iter().map(|memory| memory.resident).collect())
}

fn measure(
    group: &GroupOfNodes,
    prober: &mut Prober<'_>,
    count: usize,
    before: &[u64],
    waiting: impl Fn(usize) -> String,
) -> Result<Crowd> {
    let after = resident(group)?;
    let grown: u64 = before
        .iter()
        .zip(&after)
        .map(|(before, after)| after.saturating_sub(*before))
        .sum();
    let cpu_before = processor_time(group)?;
    let begun = Instant::now();
    holds_for("the nodes idle", IDLE, || {
        group.nodes.iter().for_each(NodeProcess::assert_alive);
        true
    });
    let idle = (processor_time(group)? - cpu_before).as_secs_f64() / begun.elapsed().as_secs_f64();
    let probes = 0..PROBES.min(count.max(1));
    let firsts: Result<Vec<Duration>> = probes.clone().map(|probe| prober.first_of(&waiting(probe))).collect();
    let sends: Result<Vec<Duration>> = (0..PROBES).map(|_| prober.send("/queue/warm")).collect();
    let (first, first_max) = middle_and_longest(firsts?);
    let (send, send_max) = middle_and_longest(sends?);
    let begun = Instant::now();
    group.nodes[group.master()]
        .status()
        .context("the master tells its status")?;
    // The first question was for the master.
    let status = begun.elapsed() / 2;
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    Ok(Crowd {
        count,
        resident_bytes: after.iter().copied().max().unwrap_or(0),
        bytes_each: grown as f64 / count.max(1) as f64,
        first_delivery_ms: ms(first),
        first_delivery_ms_max: ms(first_max),
        send_ms: ms(send),
        send_ms_max: ms(send_max),
        status_ms: ms(status),
        idle_cpu_s: idle,
        ..Crowd::default()
    })
}

/// The nodes inherit it.
fn raise_file_limit(files: u64) -> Result<()> {
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| current >= files) {
        return Ok(());
    }
    let maximum = limit.maximum.map(|maximum| maximum.max(files));
    let raised = Rlimit {
        current: Some(files),
        maximum,
    };
    setrlimit(Resource::Nofile, raised).with_context(|| format!("{files} open files are not allowed"))
}
