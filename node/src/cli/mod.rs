//! The command line (placeholder while its other commands are written).
pub(crate) mod serve;
use std::process::ExitCode;
use clap::Parser;
#[derive(Parser)]
#[command(name = "ferrymq", version)]
enum Cli { Serve(serve::ServeArgs) }
pub(crate) fn main() -> ExitCode { match Cli::parse() { Cli::Serve(args) => ExitCode::from(serve::run(args)) } }
