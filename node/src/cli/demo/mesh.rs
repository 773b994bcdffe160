//! The demo's processes and files: two groups of three nodes of this very program.

use std::{
    fmt::Write,
    fs::{self, OpenOptions},
    hash::{BuildHasher, RandomState},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::Context;
use tempfile::TempDir;

use super::{Discovery, QUEUE, ports, status};

/// One of the two groups.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) name: &'static str,
    /// Position of its first node among all.
    first: usize,
}

/// Messages are sent to the first and consumed at the second.
pub(super) const GROUPS: [Group; 2] = [
    Group {
        name: "north",
        first: 0,
    },
    Group {
        name: "south",
        first: NODES,
    },
];

/// Nodes of each group.
const NODES: usize = 3;
/// Ports of each node.
const PORTS: usize = 4;
/// How often a condition is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// See the module. Dropped, its processes are killed and its files removed.
#[derive(Debug)]
pub(super) struct Mesh {
    nodes: Vec<Node>,
    /// None once the files are to stay.
    dir: Option<TempDir>,
    path: PathBuf,
}

#[derive(Debug)]
struct Node {
    name: String,
    config: PathBuf,
    log: PathBuf,
    ports: NodePorts,
    process: Option<Child>,
}

#[derive(Debug, Clone, Copy)]
struct NodePorts {
    stomp: u16,
    peer: u16,
    link: u16,
    admin: u16,
}

impl Mesh {
    /// Writes the six configurations and starts the six processes.
    pub(super) fn start(discovery: Discovery) -> anyhow::Result<Self> {
        let dir = tempfile::Builder::new()
            .prefix("ferrymq-demo-")
            .tempdir()
            .context("no temporary directory")?;
        let path = dir.path().to_owned();
        let all = ports::free(GROUPS.len() * NODES * PORTS)?;
        let ports: Vec<NodePorts> = all
            .chunks_exact(PORTS)
            .map(|four| NodePorts {
                stomp: four[0],
                peer: four[1],
                link: four[2],
                admin: four[3],
            })
            .collect();
        let secret = random_text();
        let mut nodes = Vec::new();
        for (group, other) in [(&GROUPS[0], &GROUPS[1]), (&GROUPS[1], &GROUPS[0])] {
            let connector = connector(discovery, &ports[other.first..][..NODES]);
            for number in 1..=NODES {
                let name = format!("{}{number}", group.name);
                let config = path.join(format!("{name}.toml"));
                let data = path.join(&name);
                let text = config_text(
                    group.name,
                    number,
                    &ports[group.first..][..NODES],
                    &data,
                    &secret,
                    &connector,
                );
                fs::write(&config, text).with_context(|| format!("cannot write {}", config.display()))?;
                let log = path.join(format!("{name}.log"));
                nodes.push(Node {
                    name,
                    config,
                    log,
                    ports: ports[group.first + number - 1],
                    process: None,
                });
            }
        }
        let mut mesh = Self {
            nodes,
            dir: Some(dir),
            path,
        };
        for node in &mut mesh.nodes {
            node.start()?;
        }
        Ok(mesh)
    }

    /// Where configurations, logs and data are.
    pub(super) fn dir(&self) -> &Path {
        &self.path
    }

    /// The number of the group's master; waits until there is one.
    pub(super) async fn wait_master(&self, group: &Group) -> usize {
        loop {
            for (at, node) in self.of(group).iter().enumerate() {
                if node.process.is_some()
                    && status::of(node.ports.admin)
                        .await
                        .as_ref()
                        .is_some_and(status::is_master)
                {
                    return at + 1;
                }
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Waits until both masters say that the link is up.
    pub(super) async fn wait_linked(&self) {
        for (group, other) in [(&GROUPS[0], &GROUPS[1]), (&GROUPS[1], &GROUPS[0])] {
            while !self
                .master_says(group, |status| status::is_linked(status, other.name))
                .await
            {
                tokio::time::sleep(LOOK_EVERY).await;
            }
        }
    }

    /// Waits until the queue is empty in both groups, and nothing is on its way between them.
    pub(super) async fn wait_empty(&self) {
        for group in &GROUPS {
            while !self
                .master_says(group, |status| status::unfinished(status, QUEUE) == 0)
                .await
            {
                tokio::time::sleep(LOOK_EVERY).await;
            }
        }
    }

    async fn master_says(&self, group: &Group, what: impl Fn(&serde_json::Value) -> bool) -> bool {
        for node in self.of(group) {
            let status = if node.process.is_some() {
                status::of(node.ports.admin).await
            } else {
                None
            };
            if let Some(status) = status
                && status::is_master(&status)
            {
                return what(&status);
            }
        }
        false
    }

    /// `kill -9`.
    pub(super) fn kill(&mut self, group: &Group, number: usize) {
        self.nodes[group.first + number - 1].kill();
    }

    /// Starts a killed node again, with the data that it had.
    pub(super) fn restart(&mut self, group: &Group, number: usize) -> anyhow::Result<()> {
        self.nodes[group.first + number - 1].start()
    }

    /// All nodes of a group, for clients.
    pub(super) fn uri(&self, group: &Group) -> String {
        let all: Vec<String> = self
            .of(group)
            .iter()
            .map(|node| format!("tcp://127.0.0.1:{}", node.ports.stomp))
            .collect();
        format!("failover:({})", all.join(","))
    }

    fn of(&self, group: &Group) -> &[Node] {
        &self.nodes[group.first..][..NODES]
    }

    /// The files stay; the processes do not.
    pub(super) fn keep_files(&mut self) -> PathBuf {
        self.path = self.dir.take().map_or_else(|| self.path.clone(), TempDir::keep);
        self.path.clone()
    }

    /// Files and processes stay.
    pub(super) fn keep(mut self) -> PathBuf {
        for node in &mut self.nodes {
            // Dropping the handle of a child does not end it.
            node.process = None;
        }
        self.keep_files()
    }

    /// For `--keep`: addresses, what to try, how to stop.
    pub(super) fn how_to_reach(&self) -> String {
        let program = std::env::current_exe().map_or_else(|_| "ferrymq".into(), |path| path.display().to_string());
        let pids: Vec<String> = self
            .nodes
            .iter()
            .filter_map(|node| Some(node.process.as_ref()?.id().to_string()))
            .collect();
        let mut text = "\nThe mesh goes on running.\n".to_owned();
        for group in &GROUPS {
            text += &format!("  {:5}  {}\n", group.name, self.uri(group));
            for node in self.of(group) {
                text += &format!("         {} admin http://127.0.0.1:{}\n", node.name, node.ports.admin);
            }
        }
        let (north, south) = (self.uri(&GROUPS[0]), self.uri(&GROUPS[1]));
        text += &format!(
            "Try in two terminals:\n  \
             {program} consume --url '{south}' --destination queue://TRY --forever\n  \
             {program} produce --url '{north}' --destination queue://TRY --count 10000\n  \
             {program} status --admin http://127.0.0.1:{}\n\
             Stop it with:\n  kill {} && rm -r {}",
            self.nodes[0].ports.admin,
            pids.join(" "),
            self.path.display()
        );
        text
    }
}

impl Drop for Mesh {
    fn drop(&mut self) {
        for node in &mut self.nodes {
            node.kill();
        }
    }
}

impl Node {
    fn start(&mut self) -> anyhow::Result<()> {
        let program = std::env::current_exe().context("the path of this program is not known")?;
        let log = OpenOptions::new().create(true).append(true).open(&self.log);
        let log = log.with_context(|| format!("cannot write {}", self.log.display()))?;
        let child = Command::new(program)
            .args(["serve", "--config"])
            .arg(&self.config)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            // Ctrl-C is for the demo, which then ends its nodes itself.
            .process_group(0)
            .spawn();
        self.process = Some(child.with_context(|| format!("{} cannot be started", self.name))?);
        Ok(())
    }

    fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            // It may have ended by itself, which its log tells.
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

fn connector(discovery: Discovery, other: &[NodePorts]) -> String {
    // Two demos at a time must not find each other; the secret would part them, but only with noise.
    let name = format!("demo-{}", std::process::id());
    match discovery {
        Discovery::Static => {
            let all: Vec<String> = other
                .iter()
                .map(|node| format!("tcp://127.0.0.1:{}", node.link))
                .collect();
            format!("static:({})", all.join(","))
        }
        Discovery::Multicast => format!("multicast://default?group={name}"),
        Discovery::Mdns => format!("mdns://?group={name}"),
    }
}

fn config_text(group: &str, number: usize, nodes: &[NodePorts], data: &Path, secret: &str, connector: &str) -> String {
    let mut members = String::new();
    for (
        at,
        NodePorts {
            stomp,
            peer,
            link,
            admin,
        },
    ) in nodes.iter().enumerate()
    {
        // Writing to a String does not fail.
        let _ = writeln!(
            members,
            "{} = {{ peer = \"127.0.0.1:{peer}\", stomp = \"127.0.0.1:{stomp}\", link = \"127.0.0.1:{link}\", \
             admin = \"127.0.0.1:{admin}\" }}",
            at + 1
        );
    }
    let NodePorts {
        stomp,
        peer,
        link,
        admin,
    } = nodes[number - 1];
    format!(
        "# Node {number} of group {group}, written by `ferrymq demo`.\n\
         node = {number}\n\
         group = {group:?}\n\
         data = {data:?}\n\
         \n[members]\n{members}\
         \n[listen]\n\
         stomp = \"127.0.0.1:{stomp}\"\n\
         peer = \"127.0.0.1:{peer}\"\n\
         link = \"127.0.0.1:{link}\"\n\
         admin = \"127.0.0.1:{admin}\"\n\
         \n[mesh]\n\
         secret = {secret:?}\n\
         connectors = [{connector:?}]\n"
    )
}

/// 256 bits that nobody can guess: the hasher's keys come from the system's randomness.
fn random_text() -> String {
    (0..4)
        .map(|n| format!("{:016x}", RandomState::new().hash_one(n)))
        .collect()
}
