//! What the operating system tells of a node's process: memory, processor time, and what its files occupy.

use std::{fs, path::Path, time::Duration};

use anyhow::{Context, Result};
use ferrymq_tests::{GroupOfNodes, NodeProcess};
use serde::Serialize;

/// Memory of a node, in bytes.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(crate) struct Memory {
    /// Resident now (`VmRSS`).
    pub(crate) resident: u64,
    /// Resident at most so far (`VmHWM`).
    pub(crate) peak: u64,
}

/// Memory of each node that runs, in order.
pub(crate) fn memory(group: &GroupOfNodes) -> Result<Vec<Memory>> {
    let running = group.nodes.iter().filter(|node| node.is_running());
    running.map(memory_of).collect()
}

fn memory_of(node: &NodeProcess) -> Result<Memory> {
    let text = read(node, "status")?;
    let field = |name: &str| -> Result<u64> {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        let kib = line.and_then(|line| line.trim().trim_end_matches("kB").trim().parse::<u64>().ok());
        Ok(kib.with_context(|| format!("no {name} in a process's status"))? * 1024)
    };
    Ok(Memory {
        resident: field("VmRSS:")?,
        peak: field("VmHWM:")?,
    })
}

/// Processor time that all nodes together have used.
pub(crate) fn processor_time(group: &GroupOfNodes) -> Result<Duration> {
    // Ticks are of 1/100 s on every Linux (USER_HZ).
    const TICKS_PER_SECOND: f64 = 100.0;
    let mut ticks = 0;
    for node in group.nodes.iter().filter(|node| node.is_running()) {
        let text = read(node, "stat")?;
        // The program's name may hold blanks, so it counts from the parenthesis on: user time is field 14 of proc(5).
        let (_, fields) = text.rsplit_once(')').context("no name in a process's stat")?;
        let fields = fields.split_whitespace().skip(11).take(2);
        ticks += fields.filter_map(|field| field.parse::<u64>().ok()).sum::<u64>();
    }
    Ok(Duration::from_secs_f64(ticks as f64 / TICKS_PER_SECOND))
}

fn read(node: &NodeProcess, file: &str) -> Result<String> {
    let pid = node.pid().with_context(|| format!("{} does not run", node.name))?;
    fs::read_to_string(format!("/proc/{pid}/{file}")).with_context(|| format!("{} has ended", node.name))
}

/// Bytes of all files below a directory; those that vanish meanwhile count nothing.
pub(crate) fn bytes_below(dir: &Path) -> u64 {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let sizes = entries.map(|entry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => bytes_below(&entry.path()),
        Ok(metadata) => metadata.len(),
        Err(_) => 0,
    });
    sizes.sum()
}

/// Bytes that can still be written where `dir` lies.
pub(crate) fn bytes_free(dir: &Path) -> Result<u64> {
    let disk = rustix::fs::statvfs(dir).context("the disk's size")?;
    Ok(disk.f_bavail * disk.f_frsize)
}
