//! `ferrymq config check`: everything that is wrong with configuration files, before a node trips over it.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use ferrymq_conf::Problem;
use serde_json::{Value, json};

use super::{
    Exit, Failure,
    output::{Format, print, print_json},
};

/// Check configuration files
#[derive(Debug, Args)]
pub(crate) struct ConfigArgs {
    #[command(subcommand)]
    command: ConfigCommand,
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Report everything that is wrong with configuration files
    #[command(after_help = "Examples:
  ferrymq config check /etc/ferrymq/north1.toml
  ferrymq config check conf/samples/*/*.toml --output json

As when a node starts, environment variables such as FERRYMQ_LISTEN_STOMP go before the file.

Exit codes: 0 all are good, perhaps with warnings, 2 some are not")]
    Check {
        /// The files
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
        /// Form of the report
        #[arg(short, long, value_enum, default_value_t)]
        output: Format,
    },
}

pub(crate) fn run(args: ConfigArgs) -> Result<(), Failure> {
    let ConfigCommand::Check { files, output } = args.command;
    let mut reports = Vec::new();
    let mut all_good = true;
    for file in &files {
        let (errors, warnings) = match ferrymq_conf::load(file, std::env::vars()) {
            Ok(loaded) => (Vec::new(), loaded.warnings),
            Err(problems) => (problems.0, Vec::new()),
        };
        all_good &= errors.is_empty();
        if output == Format::Table {
            let lines = errors.iter().map(|error| format!("{error}\n"));
            let lines = lines.chain(warnings.iter().map(|warning| format!("warning: {warning}\n")));
            print(&lines.collect::<String>())?;
            if errors.is_empty() {
                print(&format!("{}: good\n", file.display()))?;
            }
        }
        reports.push(json!({
            "file": file.display().to_string(),
            "good": errors.is_empty(),
            "errors": problems_json(&errors),
            "warnings": problems_json(&warnings),
        }));
    }
    if output == Format::Json {
        print_json(&Value::from(reports))?;
    }
    if all_good {
        Ok(())
    } else {
        Err(Failure::silent(Exit::Usage))
    }
}

fn problems_json(problems: &[Problem]) -> Value {
    problems
        .iter()
        .map(|problem| json!({ "place": problem.place, "text": problem.text }))
        .collect()
}
