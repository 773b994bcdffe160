//! `ferrymq journal check`: every record of a stopped node's journal, against its checksum (P9).

use std::path::PathBuf;

use clap::{Args, Subcommand};
use indicatif::ProgressBar;
use serde_json::{Value, json};

use super::{
    Exit, Failure,
    output::{Format, print, print_json, size},
};

/// Check a stopped node's journal
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
}

pub(crate) fn run(args: JournalArgs) -> Result<(), Failure> {
    let JournalCommand::Check { dir, output } = args.command;
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
