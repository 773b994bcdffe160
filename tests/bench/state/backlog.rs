//! A long backlog: its memory, how fast one works on top of it, and how long a restart and a new replica take.

use std::{path::Path, time::Duration};

use anyhow::{Result, ensure};
use ferrymq_bench::{FerryDriver, Load, Report};
use ferrymq_tests::{GroupOfNodes, MeshBuilder, wait_until};
use serde::Serialize;

use crate::{
    Args,
    prober::Prober,
    process::{bytes_below, bytes_free, memory},
};

/// What a backlog costs. Speeds are messages per second.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Backlog {
    pub(crate) messages: u64,
    /// Bytes of each body.
    pub(crate) size: usize,
    pub(crate) fill_per_s: f64,
    /// Of the node for which it is most.
    pub(crate) resident_bytes: u64,
    pub(crate) peak_bytes: u64,
    /// What memory has grown by, divided by the messages; the caches that are filled once are part of it.
    pub(crate) bytes_per_message: f64,
    pub(crate) disk_bytes: u64,
    pub(crate) produce_empty_per_s: f64,
    pub(crate) produce_on_top_per_s: f64,
    pub(crate) consume_empty_per_s: f64,
    pub(crate) consume_on_top_per_s: f64,
    /// All nodes killed and started: until a send is acknowledged, and until an old message is delivered.
    pub(crate) restart_send_s: f64,
    pub(crate) restart_delivery_s: f64,
    /// A slave without data started: until it votes and has all.
    pub(crate) install_s: f64,
    pub(crate) install_messages_per_s: f64,
    pub(crate) install_bytes_per_s: f64,
    /// Most that a node occupied at any time, the installation included.
    pub(crate) peak_bytes_after_install: u64,
}

const PRODUCERS: usize = 8;
const WINDOW: usize = 100;
/// What a record adds to a body, on each replica.
const OVERHEAD: f64 = 1.1;
/// Longest time for any step of a large backlog.
const STEP_MAX: Duration = Duration::from_secs(3_600);
const QUEUE: &str = "backlog";

/// Measures with so many messages, in a group of its own.
pub(crate) fn measure(args: &Args, messages: u64) -> Result<Backlog> {
    let size = fitting(args, messages)?;
    let mut mesh = MeshBuilder::new("state-size")
        .group("north", args.nodes)
        .more(&args.sections())
        .data(&args.data)
        .start();
    let group = &mut mesh.groups[0];
    let mut found = Backlog {
        messages,
        size,
        ..Backlog::default()
    };
    let speed = |group: &GroupOfNodes, load: Load| run(group, Load { size, ..load });
    let seconds = Duration::from_secs(args.seconds);
    // The nodes' caches and allocators are warm afterwards.
    let sent = speed(group, producing("empty", seconds))?;
    found.produce_empty_per_s = sent.confirmed.per_second;
    let waiting = group.messages("queue://empty.0");
    found.consume_empty_per_s = speed(group, consuming("empty", STEP_MAX, Some(waiting)))?
        .received
        .per_second;
    group.settle(STEP_MAX);

    let before = memory(group)?;
    let load = Load {
        messages_max: Some(messages),
        ..producing(QUEUE, STEP_MAX)
    };
    found.fill_per_s = speed(group, load)?.confirmed.per_second;
    let name = format!("queue://{QUEUE}.0");
    ensure!(
        group.messages(&name) == messages,
        "{} messages lie there",
        group.messages(&name)
    );
    group.settle(STEP_MAX);
    let after = memory(group)?;
    found.resident_bytes = after.iter().map(|memory| memory.resident).max().unwrap_or(0);
    found.peak_bytes = after.iter().map(|memory| memory.peak).max().unwrap_or(0);
    let grown = before
        .iter()
        .zip(&after)
        .map(|(before, after)| after.resident.saturating_sub(before.resident));
    found.bytes_per_message = grown.max().unwrap_or(0) as f64 / messages as f64;
    found.disk_bytes = group
        .nodes
        .iter()
        .map(|node| bytes_below(node.data()))
        .max()
        .unwrap_or(0);

    found.produce_on_top_per_s = speed(group, producing(QUEUE, seconds))?.confirmed.per_second;
    let consumed = speed(group, consuming(QUEUE, seconds, None))?;
    found.consume_on_top_per_s = consumed.received.per_second;

    restart(group, &mut found)?;
    install(group, &mut found)?;
    Ok(found)
}

/// The size of bodies that the disk has room for.
fn fitting(args: &Args, messages: u64) -> Result<usize> {
    let needed = |size: usize| (messages as f64 * size as f64 * args.nodes as f64 * OVERHEAD) as u64 + (4 << 30);
    let free = bytes_free(Path::new(&args.data))?;
    let small = 256.min(args.size);
    let size = if needed(args.size) < free { args.size } else { small };
    ensure!(
        needed(size) < free,
        "{messages} messages need {} MiB of disk, {} MiB are free",
        needed(size) >> 20,
        free >> 20
    );
    if size < args.size {
        eprintln!(
            "{messages} messages of {} bytes do not fit on the disk: {size} bytes instead",
            args.size
        );
    }
    Ok(size)
}

fn producing(queue: &str, time: Duration) -> Load {
    Load {
        producers: PRODUCERS,
        consumers: 0,
        window: WINDOW,
        warm_up: Duration::ZERO,
        duration: time,
        prefix: queue.to_owned(),
        drain_max: STEP_MAX,
        ..Load::default()
    }
}

fn consuming(queue: &str, time: Duration, messages_max: Option<u64>) -> Load {
    Load {
        producers: 0,
        consumers: PRODUCERS,
        warm_up: Duration::ZERO,
        duration: time,
        prefix: queue.to_owned(),
        drain: false,
        messages_max,
        ..Load::default()
    }
}

fn run(group: &GroupOfNodes, load: Load) -> Result<Report> {
    let driver = FerryDriver::new(group.uri(), ferrymq_client::Options::default());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(ferrymq_bench::run(&load, &driver, &driver, |_| {}))
}

fn restart(group: &mut GroupOfNodes, found: &mut Backlog) -> Result<()> {
    for node in &mut group.nodes {
        node.kill();
    }
    let begun = std::time::Instant::now();
    group.start();
    let mut prober = Prober::connect(group)?;
    prober.send("/queue/prober")?;
    found.restart_send_s = begun.elapsed().as_secs_f64();
    prober.first_of(&format!("/queue/{QUEUE}.0"))?;
    found.restart_delivery_s = begun.elapsed().as_secs_f64();
    Ok(())
}

/// A slave loses its data and gets all of it again.
fn install(group: &mut GroupOfNodes, found: &mut Backlog) -> Result<()> {
    if group.nodes.len() == 1 {
        return Ok(());
    }
    group.settle(STEP_MAX);
    let messages = group.messages(&format!("queue://{QUEUE}.0"));
    let slave = group.slave();
    group.nodes[slave].kill();
    group.nodes[slave].wipe();
    let begun = std::time::Instant::now();
    group.nodes[slave].spawn();
    let number = slave as u64 + 1;
    wait_until("the slave has all again and votes", STEP_MAX, || {
        caught_up(group, number)
    });
    let seconds = begun.elapsed().as_secs_f64();
    found.install_s = seconds;
    found.install_messages_per_s = messages as f64 / seconds;
    found.install_bytes_per_s = messages as f64 * found.size as f64 / seconds;
    found.peak_bytes_after_install = memory(group)?.iter().map(|memory| memory.peak).max().unwrap_or(0);
    Ok(())
}

fn caught_up(group: &GroupOfNodes, number: u64) -> bool {
    let status = group.status();
    let members = status["group"]["members"].as_array().cloned().unwrap_or_default();
    let applied = group.nodes[number as usize - 1]
        .status()
        .and_then(|status| status["group"]["applied_index"].as_u64());
    members
        .iter()
        .any(|member| member["node"] == number && member["is_voter"] == true)
        && applied.is_some()
        && applied >= status["group"]["applied_index"].as_u64()
}
