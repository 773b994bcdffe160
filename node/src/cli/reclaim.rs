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
  ferrymq reclaim --admin http://10.0.0.1:8161 --group 5f3a0c6e91d2b874

What comes back is marked redelivered. What is kept for the group's subscribers of topics stays: see `ferrymq group forget`. If the group was not lost after all, its copies are delivered there too: be sure.

Exit codes: 0 done, 1 refused, 2 wrong usage, 3 cannot connect")]
pub(crate) struct ReclaimArgs {
    #[command(flatten)]
    admin: AdminArgs,
    /// The lost group's name, as `ferrymq status` shows it under KEPT FOR, or its id where several have had that name
    #[arg(long, value_name = "NAME|ID")]
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
            "{} messages of {} transfers came back from {} ({}); {} messages are kept for it\n",
            cell(&answer["messages"]),
            cell(&answer["transfers"]),
            cell(&answer["reclaimed"]),
            cell(&answer["id"]),
            cell(&answer["kept_messages"]),
        )),
        Format::Json => print_json(&answer),
    }
}
