//! Where a load goes: to groups that run, or to ones that are started for it.

use std::{path::Path, time::Duration};

use clap::ValueEnum;
use tokio::time::timeout;

use super::BenchArgs;
use crate::cli::{
    Exit, Failure,
    demo::{
        Discovery,
        mesh::{GROUPS, Group, Mesh, Shape},
    },
};

/// When the started nodes acknowledge a persistent message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
#[value(rename_all = "snake_case")]
pub(super) enum WantedSync {
    /// A majority has synced it to disk
    #[default]
    QuorumDisk,
    /// A majority has it in memory
    QuorumMem,
}

impl WantedSync {
    fn as_str(self) -> &'static str {
        match self {
            Self::QuorumDisk => "quorum_disk",
            Self::QuorumMem => "quorum_mem",
        }
    }
}

/// Which nodes the connections go to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(super) enum Through {
    /// As the client library does by itself: it begins anywhere and goes to the master
    #[default]
    Follow,
    /// Any node, as with clients that stay where they begin; slaves carry the connection to the master
    Any,
    /// The master
    Master,
}

/// The groups of one load.
pub(super) struct Place {
    pub(super) produce_url: String,
    pub(super) consume_url: String,
    /// Names and admin ports of the nodes.
    pub(super) admins: Vec<(String, String)>,
    /// For people.
    pub(super) told: String,
    /// Dropped, the started nodes end.
    _mesh: Option<Mesh>,
}

/// How long the started groups may take to elect masters and to link.
const START_MAX: Duration = Duration::from_secs(60);

impl Place {
    /// Starts what is to be started.
    ///
    /// # Errors
    /// Where it does not start, with the place of its logs.
    pub(super) async fn prepare(args: &BenchArgs) -> Result<Self, Failure> {
        if let Some(url) = &args.url {
            let consume_url = args.consume_url.as_ref().unwrap_or(url).clone();
            let told = match args.consume_url {
                Some(_) => format!("{url}, consumed at {consume_url}"),
                None => url.clone(),
            };
            return Ok(Self {
                produce_url: url.clone(),
                consume_url,
                admins: args.admin.iter().map(|url| (url.clone(), url.clone())).collect(),
                told,
                _mesh: None,
            });
        }
        let shape = Shape {
            groups: args.groups.into(),
            nodes: args.nodes.into(),
            discovery: Discovery::Static,
            sync: Some(args.sync.as_str()),
            within: args.data.clone(),
            prefix: "ferrymq-bench-",
        };
        let failed = |error: anyhow::Error| Failure::new(Exit::Failed, format!("{error:#}"));
        let mut mesh = Mesh::start(shape).map_err(failed)?;
        let groups = &GROUPS[..usize::from(args.groups)];
        let starting = async {
            let mut urls = Vec::new();
            for group in groups {
                urls.push(url(&mesh, group, args.through).await);
            }
            if groups.len() > 1 {
                mesh.wait_linked().await;
            }
            urls
        };
        let Ok(urls) = timeout(START_MAX, starting).await else {
            let dir = mesh.keep_files();
            let text = format!("no master within {START_MAX:?}; the logs are in {}", dir.display());
            return Err(Failure::new(Exit::Failed, text));
        };
        let nodes = match args.nodes {
            1 => "one node".to_owned(),
            nodes => format!("{nodes} nodes"),
        };
        let told = format!(
            "{} of {nodes} on this machine, {}, data in {}{}",
            if groups.len() > 1 { "two groups" } else { "a group" },
            args.sync.as_str(),
            mesh.dir().display(),
            if is_memory(mesh.dir()) {
                ", WHICH IS MEMORY AND NO DISK"
            } else {
                ""
            },
        );
        Ok(Self {
            produce_url: urls[0].clone(),
            consume_url: urls[urls.len() - 1].clone(),
            admins: mesh.admins().map(|(name, url)| (name.to_owned(), url)).collect(),
            told,
            _mesh: Some(mesh),
        })
    }
}

/// Waits for the group's master.
async fn url(mesh: &Mesh, group: &Group, through: Through) -> String {
    let master = mesh.wait_master(group).await;
    match through {
        Through::Follow | Through::Any => mesh.uri(group),
        Through::Master => mesh.uri_of(group, master),
    }
}

/// Whether files there never reach a disk, so that a sync costs nothing and proves nothing.
fn is_memory(path: &Path) -> bool {
    const TMPFS_MAGIC: u64 = 0x0102_1994; // statfs(2)
    rustix::fs::statfs(path).is_ok_and(|stat| stat.f_type as u64 == TMPFS_MAGIC)
}
