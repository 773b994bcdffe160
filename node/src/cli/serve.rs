//! `ferrymq serve`: run one node until it is told to stop.

use std::path::PathBuf;

use clap::Args;

/// Run one node
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  ferrymq serve --config conf/samples/single.toml
  ferrymq serve --config /etc/ferrymq/north1.toml

Exit codes: 0 stopped as told, 1 could not start or go on, 2 wrong usage or configuration.")]
pub(crate) struct ServeArgs {
    /// The node's configuration file
    #[arg(short, long, value_name = "FILE")]
    config: PathBuf,
}

/// Runs the node; the exit code tells how it ended.
pub(crate) fn run(args: ServeArgs) -> u8 {
    let loaded = match ferrymq_conf::load(&args.config, std::env::vars()) {
        Ok(loaded) => loaded,
        Err(problems) => {
            eprintln!("{problems}");
            return 2;
        }
    };
    let level = loaded.node.log.level.clone();
    // The replication library tells every step of its own at this level; its warnings are enough.
    let directives = if level.contains('=') {
        level
    } else {
        format!("{level},openraft=warn")
    };
    let filter = tracing_subscriber::EnvFilter::try_new(&directives)
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    let to_terminal = std::io::IsTerminal::is_terminal(&std::io::stderr());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(to_terminal)
        .init();
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    // One thread drives the node and the journal's thread syncs: hand-overs between cores cost more than they bring.
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "the runtime cannot start");
            return 1;
        }
    };
    match runtime.block_on(crate::boot::run(loaded.node)) {
        Ok(()) => 0,
        Err(error) => {
            tracing::error!("{error:#}");
            eprintln!("ferrymq: {error:#}");
            1
        }
    }
}
