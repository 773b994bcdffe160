//! The field on which faults strike: two groups of three nodes, each on a machine with a network, a disk and a clock of
//! its own, under load, and watched.

use std::{
    collections::BTreeMap,
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use ferrymq_tests::{Discovery, Mesh, MeshBuilder, NodeProcess, disk::PowerDisk, net::Net, wait_for, wait_until};
use serde_json::Value;

use crate::{NODES, NORTH, SOUTH, faults::clock::SkewedClock, lanes::Load, watch::Watch};

/// How long all may take to be well again after a fault.
pub const WELL_MAX: Duration = Duration::from_secs(60);
/// How long everything may take to be delivered.
const DRAIN_MAX: Duration = Duration::from_secs(90);
/// Bytes of each node's disk.
const DISK_MB: u64 = 192;
/// Entries that a slave may lack under load to count as well.
const LAG_MAX: u64 = 64;
/// Since when a slave that is well has been heard.
const HEARD_MS_MAX: u64 = 1_000;
/// Times that a node is started again after it has ended by itself.
const STARTS_MAX: usize = 5;
/// Lines of a log that tell why a node ended.
const LAST_LINES: usize = 6;

/// What the field is made of.
#[derive(Debug, Clone)]
pub struct Options {
    /// How the groups find each other.
    pub discovery: Discovery,
    /// This crate's program, which also delays packets.
    pub program: PathBuf,
}

/// See the file's head. Order of the fields: threads end before nodes, nodes before their disks.
#[derive(Debug)]
pub struct Field {
    /// Who sends and consumes.
    pub load: Load,
    /// Who asks the nodes.
    pub watch: Watch,
    /// The nodes and their networks.
    pub mesh: Mesh,
    /// One for each node, by position.
    pub disks: Vec<PowerDisk>,
    /// One for each node, where there is a compiler.
    pub clocks: Vec<SkewedClock>,
    /// What it was made of.
    pub options: Options,
    /// Where the disks' images are.
    _images: tempfile::TempDir,
    /// One of these nodes that end by themselves must have said; they must not end where there are none.
    last_words: Vec<&'static str>,
    /// Nodes that have ended by themselves since [`Field::expect`].
    ended: usize,
    starts: BTreeMap<usize, usize>,
    breaches: Vec<String>,
    /// How much of each log was there at the last look.
    log_read: Vec<usize>,
}

impl Field {
    /// Why this machine can have no such field, or `None`.
    pub fn missing() -> Option<String> {
        Net::missing().or_else(PowerDisk::missing)
    }

    /// Starts everything and waits until all are well; the load is paused.
    ///
    /// # Panics
    /// Where they do not become well.
    #[track_caller]
    pub fn start(options: Options) -> Self {
        let images = images();
        let disks: Vec<PowerDisk> = ["north1", "north2", "north3", "south1", "south2", "south3"]
            .iter()
            .map(|name| PowerDisk::new(images.path(), name, DISK_MB))
            .collect();
        let mut mesh = MeshBuilder::new("chaos")
            .group("north", NODES)
            .group("south", NODES)
            .link(NORTH, SOUTH)
            .discovery(options.discovery)
            .data(images.path())
            .more("\n[store]\nsegment = \"1MiB\"\nreserve = \"4MiB\"\nsnapshot_log = \"1MiB\"\ncache = \"1MiB\"\n")
            .on_machines()
            .prepare();
        let clocks = SkewedClock::for_all(mesh.dir(), 2 * NODES);
        for (at, node) in mesh.groups.iter_mut().flat_map(|group| &mut group.nodes).enumerate() {
            if let Some(clock) = clocks.get(at) {
                clock.wind(node);
            }
            node.spawn();
        }
        let field = Self {
            load: Load::start(&mesh),
            watch: Watch::start(&mesh),
            mesh,
            disks,
            clocks,
            options,
            _images: images,
            last_words: Vec::new(),
            ended: 0,
            starts: BTreeMap::new(),
            breaches: Vec::new(),
            log_read: vec![0; 2 * NODES],
        };
        let mut field = field;
        field.wait_well();
        // What is published before the other group is known to want it is not owed to it.
        field.mesh.wait_demand(NORTH, "topic://NEWS", 1);
        field
    }

    /// A node by its position among all.
    pub fn node(&self, position: usize) -> &NodeProcess {
        &self.mesh.groups[position / NODES].nodes[position % NODES]
    }

    /// A node by its position among all.
    pub fn node_mut(&mut self, position: usize) -> &mut NodeProcess {
        &mut self.mesh.groups[position / NODES].nodes[position % NODES]
    }

    /// The machines' network.
    pub fn net(&self) -> &Net {
        self.mesh.net.as_ref().expect("the field is made with machines")
    }

    /// A group's master, by position among all; while there is none, its first node.
    pub fn master(&self, group: usize) -> usize {
        let its = &self.mesh.groups[group].nodes;
        group * NODES + its.iter().position(NodeProcess::is_master).unwrap_or(0)
    }

    /// Waits until a group has a master; its position among all.
    ///
    /// # Panics
    /// Where it has none for long.
    #[track_caller]
    pub fn wait_master(&mut self, group: usize) -> usize {
        let (found, _) = wait_for("the group has a master", WELL_MAX, || {
            self.supervise();
            self.mesh.groups[group].nodes.iter().position(NodeProcess::is_master)
        });
        group * NODES + found
    }

    /// What nodes that end by themselves from now on must have said, one of these; without any, they must not end.
    pub fn expect(&mut self, last_words: Vec<&'static str>) {
        self.supervise();
        self.last_words = last_words;
        self.ended = 0;
        self.starts.clear();
    }

    /// Nodes that have ended by themselves since [`Field::expect`].
    pub fn ended(&self) -> usize {
        self.ended
    }

    /// Something was wrong.
    pub fn breach(&mut self, what: String) {
        self.breaches.push(what);
    }

    /// Looks whether nodes have ended by themselves.
    pub fn supervise(&mut self) {
        for position in 0..2 * NODES {
            let Some(status) = self.node_mut(position).ended() else {
                continue;
            };
            self.ended += 1;
            let name = self.node(position).name.clone();
            let log = self.node(position).log();
            let said = &log[self.log_read[position].min(log.len())..];
            let last: Vec<&str> = said.lines().rev().take(LAST_LINES).collect();
            let last = last.into_iter().rev().collect::<Vec<_>>().join("\n    ");
            let by_signal = status
                .signal()
                .map_or(String::new(), |signal| format!(" by signal {signal}"));
            let allowed = self.last_words.iter().any(|words| said.contains(words));
            if !allowed {
                self.breach(format!("{name} has ended by itself ({status}{by_signal}):\n    {last}"));
            }
        }
    }

    /// Lets time pass, as a supervisor of services would: nodes that end are noted.
    pub fn hold(&mut self, time: Duration) {
        let begun = Instant::now();
        wait_until("the fault lasts", time + WELL_MAX, || {
            self.supervise();
            begun.elapsed() >= time
        });
    }

    /// Starts all nodes that do not run.
    pub fn revive(&mut self) {
        for position in 0..2 * NODES {
            if self.node(position).is_running() {
                continue;
            }
            let starts = self.starts.entry(position).or_default();
            *starts += 1;
            assert!(
                *starts <= STARTS_MAX,
                "{} does not stay alive",
                self.node(position).name
            );
            self.node_mut(position).spawn();
        }
    }

    /// Waits until everybody is well, starting again whoever has ended. Returns how long it took.
    ///
    /// # Panics
    /// Past the deadline, with what is still missing.
    #[track_caller]
    pub fn wait_well(&mut self) -> Duration {
        let begun = Instant::now();
        let mut missing = String::new();
        wait_until("everybody is looked at", 2 * WELL_MAX, || {
            self.supervise();
            self.revive();
            match self.is_well() {
                Ok(()) => missing.clear(),
                Err(what) => missing = what,
            }
            missing.is_empty() || begun.elapsed() > WELL_MAX
        });
        assert!(
            missing.is_empty(),
            "not well after {WELL_MAX:?}: {missing}\n{}",
            self.breaches.join("\n")
        );
        begun.elapsed()
    }

    fn is_well(&self) -> Result<(), String> {
        for (at, group) in self.mesh.groups.iter().enumerate() {
            let statuses: Vec<Option<Value>> = group.nodes.iter().map(NodeProcess::status).collect();
            for (node, status) in group.nodes.iter().zip(&statuses) {
                status
                    .as_ref()
                    .ok_or_else(|| format!("{} does not answer", node.name))?;
            }
            let statuses: Vec<Value> = statuses.into_iter().flatten().collect();
            let leads = |status: &&Value| status["group"]["role"] == "master" && status["group"]["lease_valid"] == true;
            let master = statuses
                .iter()
                .find(leads)
                .ok_or_else(|| format!("{} has no master", group.name))?;
            members_are_well(&group.name, master, &statuses)?;
            let other = &self.mesh.groups[1 - at].name;
            let links = master["master"]["mesh"]["links"]
                .as_array()
                .cloned()
                .unwrap_or_default();
            if !links
                .iter()
                .any(|link| link["peer"] == **other && link["state"] == "up")
            {
                return Err(format!("{} is not linked to {other}: {links:?}", group.name));
            }
        }
        if !self.load.is_connected() {
            return Err("a consumer is not connected".into());
        }
        Ok(())
    }

    /// Stops the load, waits until all that was promised has been delivered and nothing is left anywhere, and judges.
    ///
    /// # Panics
    /// Where that takes too long, with what is left.
    #[track_caller]
    pub fn drain(&mut self) {
        self.load.pause();
        self.load.wake_resting(&self.mesh);
        let begun = Instant::now();
        let (mut left, mut empty) = (String::new(), 0);
        wait_until("everything is looked at", 2 * DRAIN_MAX, || {
            self.supervise();
            left = self.left_over();
            // Twice: an answer may be older than what came from elsewhere meanwhile.
            empty = if left.is_empty() { empty + 1 } else { 0 };
            empty >= 2 || begun.elapsed() > DRAIN_MAX
        });
        if empty < 2 {
            self.judge();
            panic!(
                "not delivered after {DRAIN_MAX:?}: {left}\n{}",
                self.breaches.join("\n")
            );
        }
        self.load.settle();
        self.judge();
    }

    fn left_over(&self) -> String {
        if !self.load.is_at_rest() {
            return "producers wait for receipts".into();
        }
        let owed = self.load.owed();
        if !owed.is_empty() {
            return format!("{}; {}", owed.join(", "), self.queues_left().unwrap_or_else(|why| why));
        }
        self.queues_left().unwrap_or_else(|why| why)
    }

    fn queues_left(&self) -> Result<String, String> {
        let mut left = Vec::new();
        for group in &self.mesh.groups {
            let status = group
                .nodes
                .iter()
                .filter(|node| node.is_master())
                .find_map(NodeProcess::status);
            let status = status.ok_or_else(|| format!("{} has no master", group.name))?;
            let queues = status["master"]["queues"].as_array().ok_or("no queues are told")?;
            for queue in queues
                .iter()
                .filter(|queue| queue["messages"].as_u64().unwrap_or(0) > 0)
            {
                left.push(format!("{} in {}: {queue}", queue["name"], group.name));
            }
            let in_doubt = status["master"]["mesh"]["in_doubt"]
                .as_array()
                .cloned()
                .unwrap_or_default();
            if !in_doubt.is_empty() {
                left.push(format!("in doubt in {}: {in_doubt:?}", group.name));
            }
        }
        Ok(left.join("; "))
    }

    /// Looks at all that was recorded and logged.
    fn judge(&mut self) {
        for (lane, report) in self.load.reports() {
            if !report.is_kept() || (lane.is_ordered() && !report.reordered.is_empty()) {
                self.breaches.push(format!("{}: {report}", lane.name));
            }
        }
        let breaches = self.watch.take_breaches();
        self.breaches.extend(breaches);
        for position in 0..2 * NODES {
            let log = self.node(position).log();
            let new = log[self.log_read[position].min(log.len())..].to_owned();
            self.log_read[position] = log.len();
            let bad = new.lines().filter(|line| {
                let damaged = line.contains("damaged") || line.contains("checksum");
                line.contains("panicked at") || (damaged && self.last_words.is_empty())
            });
            let bad: Vec<String> = bad
                .map(|line| format!("{}: {line}", self.node(position).name))
                .collect();
            self.breaches.extend(bad);
        }
    }

    /// What was wrong since the last call.
    pub fn take_breaches(&mut self) -> Vec<String> {
        std::mem::take(&mut self.breaches)
    }
}

fn members_are_well(name: &str, master: &Value, statuses: &[Value]) -> Result<(), String> {
    let term = &master["group"]["term"];
    for status in statuses {
        let its = &status["group"];
        if its["term"] != *term || its["master"] != master["group"]["node"] {
            return Err(format!(
                "node {} of {name} is in term {}, not {term}",
                its["node"], its["term"]
            ));
        }
    }
    let members = master["group"]["members"].as_array().cloned().unwrap_or_default();
    let is_well = |member: &Value| {
        member["is_voter"] == true
            && member["lag_entries"].as_u64().is_some_and(|lag| lag <= LAG_MAX)
            && member["heard_ms_ago"].as_u64().is_some_and(|ms| ms <= HEARD_MS_MAX)
    };
    match members.iter().find(|member| !is_well(member)) {
        Some(member) => Err(format!("a member of {name} is not well: {member}")),
        None if members.len() == NODES => Ok(()),
        None => Err(format!("{name} has {} members", members.len())),
    }
}

/// In memory where there is room: a disk's power is cut above its image, so that nothing is lost by that, and others on
/// this machine are not slowed down.
fn images() -> tempfile::TempDir {
    let builder = || {
        let mut builder = tempfile::Builder::new();
        builder.prefix("ferrymq-chaos-disks-");
        builder
    };
    let memory = Path::new("/dev/shm");
    let made = builder().tempdir_in(memory).or_else(|_| builder().tempdir());
    made.expect("a directory can be made")
}
