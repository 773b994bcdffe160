//! `ferrymq group`: the other groups of the mesh, as this group knows them.

use clap::{Args, Subcommand};
use serde_json::json;

use super::{
    Failure,
    admin_client::AdminArgs,
    output::{Format, cell, print, print_json, size},
};

/// Forget another group that is lost for good
#[derive(Debug, Args)]
pub(crate) struct GroupArgs {
    #[command(subcommand)]
    command: GroupCommand,
}

#[derive(Debug, Subcommand)]
enum GroupCommand {
    /// Forget another group that is lost for good: what is kept for it, what it was offered, what it wanted
    #[command(after_help = "Examples:
  ferrymq group forget south --dry-run
  ferrymq group forget south
  ferrymq group forget 5f3a0c6e91d2b874

What is kept for its subscribers goes for ever. What it was offered of queues comes back, marked redelivered: if the group was
not lost after all, its copies are delivered there too. A group that is linked is not forgotten. Do this in each group that
kept something for the lost one: `ferrymq status` shows it under KEPT FOR.

Exit codes: 0 done, 1 refused, 2 wrong usage, 3 cannot connect")]
    Forget {
        /// The lost group's name, or its id where several have had that name
        #[arg(value_name = "NAME|ID")]
        group: String,
        /// Tell what would go, and do nothing
        #[arg(long)]
        dry_run: bool,
        #[command(flatten)]
        admin: AdminArgs,
        /// Form of the answer
        #[arg(short, long, value_enum, default_value_t)]
        output: Format,
    },
}

pub(crate) async fn run(args: GroupArgs) -> Result<(), Failure> {
    let GroupCommand::Forget {
        group,
        dry_run,
        admin,
        output,
    } = args.command;
    let master = admin.client()?.master().await?;
    let body = json!({ "group": group, "dry_run": dry_run });
    let answer = master.change("POST", "/api/forget-group", Some(&body)).await?;
    match output {
        Format::Json => print_json(&answer),
        Format::Table => print(&format!(
            "{} {} ({}): {} messages of {} in {} topics; {} transfers, of which {} messages {}\n",
            if dry_run { "would forget" } else { "forgot" },
            cell(&answer["forgotten"]),
            cell(&answer["id"]),
            cell(&answer["messages"]),
            size(answer["bytes"].as_u64().unwrap_or(0)),
            cell(&answer["backlogs"]),
            cell(&answer["transfers"]),
            cell(&answer["returned"]),
            if dry_run { "would come back" } else { "came back" },
        )),
    }
}
