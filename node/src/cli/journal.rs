//! `ferrymq journal check`: every record of a stopped node's journal, against its checksum (P9). `ferrymq journal renew`: the
//! data directory of a stopped node is an older copy, and its group shall begin a new life (P4).

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use indicatif::ProgressBar;
use serde_json::{Value, json};

use super::{
    Exit, Failure,
    output::{Format, print, print_json, size},
};
use crate::renewal;

/// Check a stopped node's journal, or say that it was put back
#[derive(Debug, Args)]
pub(crate) struct JournalArgs {
    #[command(subcommand)]
    command: JournalCommand,
}

#[derive(Debug, Subcommand)]
enum JournalCommand {
    /// Read every record and compare it with its checksum; nothing is changed
    #[command(after_help = "Examples:
  ferrymq journal check /var/lib/ferrymq
  ferrymq journal check ./data/north1/journal --output json

The node must be stopped. DIR is its data directory, or the journal within.

Exit codes: 0 whole, 1 cannot be read or is in use, 4 damaged: file, offset and cure are told")]
    Check {
        /// The directory
        #[arg(value_name = "DIR")]
        dir: PathBuf,
        /// Form of the report
        #[arg(short, long, value_enum, default_value_t)]
        output: Format,
    },
    /// Say that this is an older copy that was put back: its group begins a new incarnation
    #[command(after_help = "Examples:
  ferrymq journal renew /var/lib/ferrymq

To be run on the stopped node before it starts with a copy of its data that was put back. The groups that it is linked
with see by themselves that its log went back, and tell it; this is for what they do not remember. Run it on one member of
a group. What is in the copy and was consumed since may be delivered again.

Exit codes: 0 noted, 1 cannot be written")]
    Renew {
        /// The data directory
        #[arg(value_name = "DIR")]
        dir: PathBuf,
    },
}

pub(crate) fn run(args: JournalArgs) -> Result<(), Failure> {
    match args.command {
        JournalCommand::Check { dir, output } => check(dir, output),
        JournalCommand::Renew { dir } => renew(&dir),
    }
}

fn renew(dir: &Path) -> Result<(), Failure> {
    if !dir.join("journal").is_dir() {
        let text = format!(
            "{} is not a node's data directory: there is no journal in it",
            dir.display()
        );
        return Err(Failure::new(Exit::Failed, text));
    }
    renewal::ask(dir).map_err(|error| Failure::new(Exit::Failed, format!("{}: {error}", dir.display())))?;
    print("the group begins a new incarnation when this node is its master\n")
}

fn check(dir: PathBuf, output: Format) -> Result<(), Failure> {
    let within = dir.join("journal");
    let dir = if within.is_dir() { within } else { dir };
    if !dir.is_dir() {
        return Err(Failure::new(
            Exit::Failed,
            format!("{} is not a directory", dir.display()),
        ));
    }
    let bar = if output == Format::Table {
        ProgressBar::new_spinner()
    } else {
        ProgressBar::hidden()
    };
    let mut segments = Vec::new();
    let report = ferrymq_journal::check(&dir, |segment| {
        bar.set_message(segment.file.display().to_string());
        bar.tick();
        segments.push(json!({
            "file": segment.file.display().to_string(),
            "records": segment.records,
            "bytes": segment.bytes,
            "sealed": segment.sealed,
            "problem": segment.problem.as_ref().map(ToString::to_string),
        }));
    });
    bar.finish_and_clear();
    let report = report.map_err(|error| Failure::new(Exit::Failed, error))?;
    let problems: Vec<String> = report.problems.iter().map(ToString::to_string).collect();
    match output {
        Format::Table => {
            problems.iter().try_for_each(|problem| print(&format!("{problem}\n")))?;
            let found = format!(
                "{} segments, {} records, {}",
                report.segments,
                report.records,
                size(report.bytes)
            );
            print(&format!(
                "{found}: {}\n",
                if problems.is_empty() { "whole" } else { "DAMAGED" }
            ))?;
        }
        Format::Json => print_json(&json!({
            "dir": dir.display().to_string(),
            "whole": problems.is_empty(),
            "records": report.records,
            "bytes": report.bytes,
            "problems": problems,
            "segments": Value::from(segments),
        }))?,
    }
    if problems.is_empty() {
        Ok(())
    } else {
        Err(Failure::silent(Exit::Broken))
    }
}
