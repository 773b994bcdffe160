//! `ferrymq reclaim`: take back what is under offer to a group that is lost for good.

use clap::Args;
use serde_json::json;

use super::{
    Failure,
    admin_client::AdminArgs,
    output::{Format, cell, print, print_json},
};

/// Take back what is under offer to a group that is lost for good
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  ferrymq reclaim --group south
  ferrymq reclaim --admin http://10.0.0.1:8161 --group south

What comes back is marked redelivered. If the group was not lost after all, its copies are delivered there too: be sure.

Exit codes: 0 done, 1 refused, 2 wrong usage, 3 cannot connect")]
pub(crate) struct ReclaimArgs {
    #[command(flatten)]
    admin: AdminArgs,
    /// The lost group's name, as `ferrymq status` shows it under IN DOUBT WITH
    #[arg(long, value_name = "NAME")]
    group: String,
    /// Form of the answer
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

pub(crate) async fn run(args: ReclaimArgs) -> Result<(), Failure> {
    let master = args.admin.client()?.master().await?;
    let body = json!({ "group": args.group });
    let answer = master.change("POST", "/api/reclaim", Some(&body)).await?;
    match args.output {
        Format::Table => print(&format!(
            "{} transfers come back from {}\n",
            cell(&answer["transfers"]),
            args.group
        )),
        Format::Json => print_json(&answer),
    }
}
