//! A mesh for a while, on this machine: the processes and files of one or two groups of this very program.

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
pub(in crate::cli) struct Group {
    pub(in crate::cli) name: &'static str,
    /// Its position among the groups.
    at: usize,
}

/// What kind of mesh.
#[derive(Debug, Clone)]
pub(in crate::cli) struct Shape {
    /// Groups, at most [`GROUPS`].
    pub(in crate::cli) groups: usize,
    /// Nodes of each group.
    pub(in crate::cli) nodes: usize,
    /// How the groups find each other.
    pub(in crate::cli) discovery: Discovery,
    /// `store.sync`; none for the default.
    pub(in crate::cli) sync: Option<&'static str>,
    /// Where its files are; none for the system's directory of temporary files.
    pub(in crate::cli) within: Option<PathBuf>,
    /// What the directory's name begins with.
    pub(in crate::cli) prefix: &'static str,
}

/// Messages are sent to the first and consumed at the second.
pub(in crate::cli) const GROUPS: [Group; 2] = [Group { name: "north", at: 0 }, Group { name: "south", at: 1 }];

/// Ports of each node.
const PORTS: usize = 4;
/// How often a condition is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// See the module. Dropped, its processes are killed and its files removed.
#[derive(Debug)]
pub(in crate::cli) struct Mesh {
    shape: Shape,
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
    /// Writes the configurations and starts the processes.
    pub(in crate::cli) fn start(shape: Shape) -> anyhow::Result<Self> {
        let within = shape.within.clone().unwrap_or_else(std::env::temp_dir);
        let dir = tempfile::Builder::new()
            .prefix(shape.prefix)
            .tempdir_in(&within)
            .with_context(|| format!("no temporary directory in {}", within.display()))?;
        let path = dir.path().to_owned();
        let all = ports::free(shape.groups * shape.nodes * PORTS)?;
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
        for group in &GROUPS[..shape.groups] {
            let of = |group: &Group| &ports[group.at * shape.nodes..][..shape.nodes];
            let other = GROUPS[..shape.groups].iter().find(|other| other.at != group.at);
            let connector = other.map(|other| connector(shape.discovery, of(other)));
            for number in 1..=shape.nodes {
                let name = format!("{}{number}", group.name);
                let config = path.join(format!("{name}.toml"));
                let data = path.join(&name);
                let text = config_text(
                    group.name,
                    number,
                    of(group),
                    &data,
                    &secret,
                    connector.as_deref(),
                    shape.sync,
                );
                fs::write(&config, text).with_context(|| format!("cannot write {}", config.display()))?;
                let log = path.join(format!("{name}.log"));
                nodes.push(Node {
                    name,
                    config,
                    log,
                    ports: of(group)[number - 1],
                    process: None,
                });
            }
        }
        let mut mesh = Self {
            shape,
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
    pub(in crate::cli) fn dir(&self) -> &Path {
        &self.path
    }

    /// The number of the group's master; waits until there is one.
    pub(in crate::cli) async fn wait_master(&self, group: &Group) -> usize {
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
    pub(in crate::cli) async fn wait_linked(&self) {
        let [north, south] = &GROUPS;
        for (group, other) in [(north, south), (south, north)] {
            while !self
                .master_says(group, |status| status::is_linked(status, other.name))
                .await
            {
                tokio::time::sleep(LOOK_EVERY).await;
            }
        }
    }

    /// Waits until the queue is empty in both groups, and nothing is on its way between them.
    pub(in crate::cli) async fn wait_empty(&self) {
        for group in self.groups() {
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
    pub(in crate::cli) fn kill(&mut self, group: &Group, number: usize) {
        self.nodes[group.at * self.shape.nodes + number - 1].kill();
    }

    /// Starts a killed node again, with the data that it had.
    pub(in crate::cli) fn restart(&mut self, group: &Group, number: usize) -> anyhow::Result<()> {
        self.nodes[group.at * self.shape.nodes + number - 1].start()
    }

    /// All nodes of a group, for clients.
    pub(in crate::cli) fn uri(&self, group: &Group) -> String {
        let all: Vec<String> = self
            .of(group)
            .iter()
            .map(|node| format!("tcp://127.0.0.1:{}", node.ports.stomp))
            .collect();
        format!("failover:({})", all.join(","))
    }

    fn of(&self, group: &Group) -> &[Node] {
        &self.nodes[group.at * self.shape.nodes..][..self.shape.nodes]
    }

    fn groups(&self) -> &'static [Group] {
        &GROUPS[..self.shape.groups]
    }

    /// The group's nodes by name, with their admin ports.
    pub(in crate::cli) fn admins(&self) -> impl Iterator<Item = (&str, String)> {
        let address = |node: &Node| format!("127.0.0.1:{}", node.ports.admin);
        self.nodes.iter().map(move |node| (&*node.name, address(node)))
    }

    /// One node of a group, for clients.
    pub(in crate::cli) fn uri_of(&self, group: &Group, number: usize) -> String {
        format!("tcp://127.0.0.1:{}", self.of(group)[number - 1].ports.stomp)
    }

    /// The files stay; the processes do not.
    pub(in crate::cli) fn keep_files(&mut self) -> PathBuf {
        self.path = self.dir.take().map_or_else(|| self.path.clone(), TempDir::keep);
        self.path.clone()
    }

    /// Files and processes stay.
    pub(in crate::cli) fn keep(mut self) -> PathBuf {
        for node in &mut self.nodes {
            // Dropping the handle of a child does not end it.
            node.process = None;
        }
        self.keep_files()
    }

    /// For `--keep`: addresses, what to try, how to stop.
    pub(in crate::cli) fn how_to_reach(&self) -> String {
        let program = std::env::current_exe().map_or_else(|_| "ferrymq".into(), |path| path.display().to_string());
        let pids: Vec<String> = self
            .nodes
            .iter()
            .filter_map(|node| Some(node.process.as_ref()?.id().to_string()))
            .collect();
        let mut text = "\nThe mesh goes on running.\n".to_owned();
        for group in self.groups() {
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

fn config_text(
    group: &str,
    number: usize,
    nodes: &[NodePorts],
    data: &Path,
    secret: &str,
    connector: Option<&str>,
    sync: Option<&str>,
) -> String {
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
    let connectors = connector.map_or(String::new(), |connector| format!("connectors = [{connector:?}]\n"));
    let store = sync.map_or(String::new(), |sync| format!("\n[store]\nsync = {sync:?}\n"));
    format!(
        "# Node {number} of group {group}, written by FerryMQ for a while.\n\
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
         {connectors}{store}"
    )
}

/// 256 bits that nobody can guess: the hasher's keys come from the system's randomness.
fn random_text() -> String {
    (0..4)
        .map(|n| format!("{:016x}", RandomState::new().hash_one(n)))
        .collect()
}
