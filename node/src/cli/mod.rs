//! The command line: one file per command, each with examples in its `--help`.

pub(crate) mod demo;
pub(crate) mod serve;

mod bench;
mod produce;

mod consume;
mod sequence_check;

mod admin_client;
mod group;
mod member;
mod reclaim;
mod status;
mod step_down;

mod config;
mod hash_password;
mod journal;

mod connect;
mod credentials;
mod output;
mod rate;
mod secret_input;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// A federated mesh of highly available message brokers
#[derive(Debug, Parser)]
#[command(
    name = "ferrymq",
    version,
    propagate_version = true,
    after_help = "Exit codes: 0 done, 1 failed, 2 wrong usage or configuration, 3 cannot connect,
            4 a promise was broken, or a deadline has passed"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Serve(serve::ServeArgs),
    Demo(demo::DemoArgs),
    Bench(bench::BenchArgs),
    Produce(produce::ProduceArgs),
    Consume(consume::ConsumeArgs),
    Status(status::StatusArgs),
    StepDown(step_down::StepDownArgs),
    Member(member::MemberArgs),
    Reclaim(reclaim::ReclaimArgs),
    Group(group::GroupArgs),
    Config(config::ConfigArgs),
    HashPassword(hash_password::HashPasswordArgs),
    Journal(journal::JournalArgs),
}

/// Reads the command line and does what it says.
pub(crate) fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Serve(args) => return ExitCode::from(serve::run(args)),
        Command::Demo(args) => return ExitCode::from(demo::run(args)),
        Command::Bench(args) => run(bench::run(args)),
        Command::Produce(args) => run(produce::run(args)),
        Command::Consume(args) => run(consume::run(args)),
        Command::Status(args) => run(status::run(args)),
        Command::StepDown(args) => run(step_down::run(args)),
        Command::Member(args) => run(member::run(args)),
        Command::Reclaim(args) => run(reclaim::run(args)),
        Command::Group(args) => run(group::run(args)),
        Command::Config(args) => config::run(args),
        Command::HashPassword(args) => hash_password::run(args),
        Command::Journal(args) => journal::run(args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if !failure.text.is_empty() {
                eprintln!("ferrymq: {}", failure.text);
            }
            ExitCode::from(failure.exit as u8)
        }
    }
}

/// Why a command did not do what it was asked.
#[derive(Debug)]
pub(crate) struct Failure {
    exit: Exit,
    text: String,
}

/// The documented exit codes, apart from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    Failed = 1,
    Usage = 2,
    Unreachable = 3,
    Broken = 4,
}

impl Failure {
    pub(crate) fn new(exit: Exit, text: impl ToString) -> Self {
        Self {
            exit,
            text: text.to_string(),
        }
    }

    /// For commands that have already told what is wrong.
    pub(crate) fn silent(exit: Exit) -> Self {
        Self {
            exit,
            text: String::new(),
        }
    }
}

fn run(command: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    // One thread: a client and its connection hand over to each other all the time.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(Exit::Failed, format!("the runtime cannot start: {error}")))?;
    runtime.block_on(command)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_has_help_with_examples() {
        fn check(command: &clap::Command) {
            if command.get_subcommands().next().is_none() {
                let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
                assert!(help.contains("Examples:\n"), "{} lacks examples", command.get_name());
                assert!(
                    command.get_about().is_some(),
                    "{} lacks a description",
                    command.get_name()
                );
            }
            command.get_subcommands().for_each(check);
        }
        check(&Cli::command());
    }
}
