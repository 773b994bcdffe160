//! `ferrymq step-down`: hand mastership to another node, as before maintenance.

use clap::Args;
use serde_json::json;

use super::{
    Failure,
    admin_client::AdminArgs,
    output::{Format, cell, print, print_json},
};

/// Hand mastership to another node of the group
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  ferrymq step-down
  ferrymq step-down --admin http://10.0.0.2:8161 --to 3

Any node of the group may be asked: the request goes to the master.

Exit codes: 0 done, 1 refused, 2 wrong usage, 3 cannot connect")]
pub(crate) struct StepDownArgs {
    #[command(flatten)]
    admin: AdminArgs,
    /// The node that shall be master; by default the slave that is furthest along
    #[arg(long, value_name = "NODE")]
    to: Option<u64>,
    /// Form of the answer
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

pub(crate) async fn run(args: StepDownArgs) -> Result<(), Failure> {
    let master = args.admin.client()?.master().await?;
    let body = json!({ "to": args.to });
    let answer = master.change("POST", "/api/step-down", Some(&body)).await?;
    match args.output {
        Format::Table => print(&format!("node {} is master now\n", cell(&answer["master"]))),
        Format::Json => print_json(&answer),
    }
}
