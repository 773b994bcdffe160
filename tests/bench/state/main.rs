//! `state-size`: what a group's state costs. A backlog's memory, restart and replica; many destinations; many connections.
//! Starts real groups of the program that `FERRYMQ_BIN` names, which should be a release build.

mod backlog;
mod crowd;
mod prober;
mod process;
mod snapshot;

use std::{env, path::PathBuf};

use anyhow::{Context, Result, ensure};
use clap::{Parser, ValueEnum};
use serde_json::json;

use backlog::Backlog;
use crowd::Crowd;
use snapshot::Snapshot;

/// What a group's state costs.
#[derive(Debug, Parser)]
pub(crate) struct Args {
    /// What is measured.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Part::Snapshot, Part::Backlog, Part::Destinations, Part::Connections])]
    parts: Vec<Part>,
    /// Backlogs, in messages.
    #[arg(long, value_delimiter = ',', default_values_t = [1_000_000])]
    messages: Vec<u64>,
    /// Bytes of each message of a backlog; 256 where the disk has no room for so many.
    #[arg(long, default_value_t = 1024)]
    size: usize,
    /// Numbers of queues.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 1_000, 100_000])]
    destinations: Vec<usize>,
    /// Numbers of connections.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 5_000])]
    connections: Vec<usize>,
    /// Nodes of the group.
    #[arg(long, default_value_t = 3)]
    nodes: usize,
    /// Seconds for each measurement of speed.
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// `quorum_disk` or `quorum_mem`.
    #[arg(long, default_value = "quorum_disk")]
    sync: String,
    /// Where the nodes' data goes: the disk that is measured. A directory is made there and removed.
    #[arg(long, default_value = "target")]
    data: PathBuf,
    /// How to tell it.
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    output: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    Snapshot,
    Backlog,
    Destinations,
    Connections,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Table,
    Json,
}

impl Args {
    /// Sections for every node: the defaults, as operators get them. (The harness has smaller ones of its own.)
    pub(crate) fn sections(&self) -> String {
        format!(
            "\n[store]\nsync = \"{}\"\n[limits]\n[log]\nlevel = \"warn\"\n",
            self.sync
        )
    }
}

fn main() -> Result<()> {
    let mut args = Args::parse();
    let binary = env::var_os("FERRYMQ_BIN").is_some();
    ensure!(
        binary || args.parts == [Part::Snapshot],
        "set FERRYMQ_BIN to a release build: FERRYMQ_BIN=target/release/ferrymq"
    );
    let scratch = tempfile::Builder::new()
        .prefix("state-size-")
        .tempdir_in(&args.data)
        .with_context(|| format!("{} cannot be written", args.data.display()))?;
    let root = scratch.path().canonicalize()?;
    let (mut snapshots, mut backlogs, mut destinations, mut connections) = (vec![], vec![], vec![], vec![]);
    let mut group = 0;
    let mut fresh = |args: &mut Args| -> Result<PathBuf> {
        group += 1;
        let used = std::mem::replace(&mut args.data, root.join(group.to_string()));
        std::fs::create_dir(&args.data)?;
        Ok(used)
    };
    for part in args.parts.clone() {
        match part {
            Part::Snapshot => {
                for messages in args.messages.clone() {
                    snapshots.push(snapshot::measure(messages)?);
                }
            }
            Part::Backlog => {
                for messages in args.messages.clone() {
                    fresh(&mut args)?;
                    backlogs.push(backlog::measure(&args, messages)?);
                    std::fs::remove_dir_all(&args.data)?;
                }
            }
            Part::Destinations => {
                for count in args.destinations.clone() {
                    fresh(&mut args)?;
                    destinations.push(crowd::destinations(&args, count)?);
                    std::fs::remove_dir_all(&args.data)?;
                }
            }
            Part::Connections => {
                for count in args.connections.clone() {
                    fresh(&mut args)?;
                    connections.push(crowd::connections(&args, count)?);
                    std::fs::remove_dir_all(&args.data)?;
                }
            }
        }
    }
    match args.output {
        Format::Json => {
            let all = json!({
                "snapshots": snapshots, "backlogs": backlogs, "destinations": destinations, "connections": connections,
            });
            println!("{all:#}");
        }
        Format::Table => {
            print_snapshots(&snapshots);
            backlogs.iter().for_each(print_backlog);
            print_crowd("destinations", &destinations);
            print_crowd("connections", &connections);
        }
    }
    Ok(())
}

const MIB: f64 = 1_048_576.0;

fn print_snapshots(all: &[Snapshot]) {
    for found in all {
        println!(
            "state of {} messages: applied in {:.0} ns each, {:.1} bytes of memory each; a snapshot has {:.1} MiB, is written \
             in {:.0} ms and read in {:.0} ms",
            found.messages,
            found.apply_ns,
            found.memory_bytes_per_message,
            found.bytes as f64 / MIB,
            found.write_ms,
            found.read_ms
        );
    }
}

fn print_backlog(found: &Backlog) {
    let mib = |bytes: u64| bytes as f64 / MIB;
    println!("backlog of {} messages of {} bytes", found.messages, found.size);
    println!("  filled with {:.0} messages/s", found.fill_per_s);
    println!(
        "  {:.0} MiB resident ({:.0} at most), {:.1} bytes for each message, {:.0} MiB on disk",
        mib(found.resident_bytes),
        mib(found.peak_bytes),
        found.bytes_per_message,
        mib(found.disk_bytes)
    );
    let ratio = |on_top: f64, empty: f64| if empty > 0.0 { on_top / empty } else { 0.0 };
    println!(
        "  produced {:.0}/s on an empty queue, {:.0}/s on top: {:.2} ×",
        found.produce_empty_per_s,
        found.produce_on_top_per_s,
        ratio(found.produce_on_top_per_s, found.produce_empty_per_s)
    );
    println!(
        "  consumed {:.0}/s of a short queue, {:.0}/s of the backlog: {:.2} ×",
        found.consume_empty_per_s,
        found.consume_on_top_per_s,
        ratio(found.consume_on_top_per_s, found.consume_empty_per_s)
    );
    println!(
        "  all killed and started: a send is acknowledged after {:.2} s, an old message delivered after {:.2} s",
        found.restart_send_s, found.restart_delivery_s
    );
    println!(
        "  an empty replica has all after {:.1} s: {:.0} messages/s, {:.0} MiB/s; {:.0} MiB resident at most",
        found.install_s,
        found.install_messages_per_s,
        found.install_bytes_per_s / MIB,
        mib(found.peak_bytes_after_install)
    );
}

fn print_crowd(what: &str, all: &[Crowd]) {
    if all.is_empty() {
        return;
    }
    println!(
        "{what:>12} {:>9} {:>9} {:>9} {:>10} {:>9} {:>9} {:>9} {:>9} {:>9}",
        "made/s", "MiB", "bytes", "first ms", "max", "send ms", "max", "status ms", "idle cpu"
    );
    for found in all {
        println!(
            "{:>12} {:>9.0} {:>9.0} {:>9.0} {:>10.2} {:>9.2} {:>9.2} {:>9.2} {:>9.1} {:>9.3}",
            found.count,
            found.made_per_s,
            found.resident_bytes as f64 / MIB,
            found.bytes_each,
            found.first_delivery_ms,
            found.first_delivery_ms_max,
            found.send_ms,
            found.send_ms_max,
            found.status_ms,
            found.idle_cpu_s
        );
    }
}
