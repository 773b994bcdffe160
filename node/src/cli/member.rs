//! `ferrymq member`: the nodes of a group: list, add, remove.

mod adding;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::{
    Failure,
    admin_client::AdminArgs,
    output::{Format, print, print_json},
    status::members_table,
};

/// List, add and remove the nodes of a group
#[derive(Debug, Args)]
pub(crate) struct MemberArgs {
    #[command(subcommand)]
    command: MemberCommand,
}

#[derive(Debug, Subcommand)]
enum MemberCommand {
    /// List the nodes of the group
    #[command(after_help = "Examples:
  ferrymq member list
  ferrymq member list --admin http://10.0.0.2:8161 --output json

Exit codes: 0 done, 1 refused, 2 wrong usage, 3 cannot connect")]
    List {
        #[command(flatten)]
        admin: AdminArgs,
        /// Form of the list
        #[arg(short, long, value_enum, default_value_t)]
        output: Format,
    },
    /// Add a node: it is reached, catches up, then votes
    #[command(after_help = "Examples:
  ferrymq member add 4 --peer 10.0.0.4:61617
  ferrymq member add 4 --peer 10.0.0.4:61617 --stomp broker4.example:61613

Start the node first, with the same [members] and a line for itself. A number is never used twice, not even for a new
machine in the place of a lost one. Where nobody answers at its address, or somebody else, nothing is changed. While it
catches up it does not count for a majority; the command tells how far it is, and returns once it votes. A node that gives
no sign of life for 10 s meanwhile is taken out again, and so it is where the master changes, or by `ferrymq member remove`.

Exit codes: 0 done, 1 refused, 2 wrong usage, 3 cannot connect")]
    Add {
        /// The node's number, never used before in this group
        #[arg(value_parser = clap::value_parser!(u64).range(1..))]
        node: u64,
        /// Its address for the other nodes, host:port
        #[arg(long)]
        peer: String,
        /// Its address for STOMP clients, host:port
        #[arg(long)]
        stomp: Option<String>,
        /// Its address for other groups, host:port
        #[arg(long)]
        link: Option<String>,
        /// Its address for administration, host:port
        #[arg(long)]
        admin_address: Option<String>,
        #[command(flatten)]
        admin: AdminArgs,
        /// Form of the answer
        #[arg(short, long, value_enum, default_value_t)]
        output: Format,
    },
    /// Remove a node for ever
    #[command(after_help = "Examples:
  ferrymq member remove 2

Exit codes: 0 done, 1 refused, 2 wrong usage, 3 cannot connect")]
    Remove {
        /// The node's number
        node: u64,
        #[command(flatten)]
        admin: AdminArgs,
        /// Form of the answer
        #[arg(short, long, value_enum, default_value_t)]
        output: Format,
    },
}

pub(crate) async fn run(args: MemberArgs) -> Result<(), Failure> {
    match args.command {
        MemberCommand::List { admin, output } => {
            // The master knows how far each node has got; the others only who there is.
            let status = admin.client()?.master().await?.get("/api/status").await?;
            match output {
                Format::Table => print(&members_table(&status["group"]).to_string()),
                Format::Json => print_json(&status["group"]["members"]),
            }
        }
        MemberCommand::Add {
            node,
            peer,
            stomp,
            link,
            admin_address,
            admin,
            output,
        } => {
            let mut body = json!({ "node": node, "peer": peer });
            for (name, address) in [("stomp", stomp), ("link", link), ("admin", admin_address)] {
                if let Some(address) = address {
                    body[name] = Value::from(address);
                }
            }
            let master = admin.client()?.master().await?;
            master.change("POST", "/api/members", Some(&body)).await?;
            adding::follow(&admin, master, node).await?;
            tell(
                output,
                &json!({ "added": node }),
                &format!("node {node} is a member now"),
            )
        }
        MemberCommand::Remove { node, admin, output } => {
            let master = admin.client()?.master().await?;
            let answer = master.change("DELETE", &format!("/api/members/{node}"), None).await?;
            tell(output, &answer, &format!("node {node} is no member any more"))
        }
    }
}

fn tell(output: Format, answer: &Value, text: &str) -> Result<(), Failure> {
    match output {
        Format::Table => print(&format!("{text}\n")),
        Format::Json => print_json(answer),
    }
}
