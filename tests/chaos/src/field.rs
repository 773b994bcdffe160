//! The field on which faults strike: three groups in a line, each node on a machine with a network, a disk and a clock of
//! its own, under load, and watched.

use std::{
    collections::{BTreeMap, BTreeSet},
    os::unix::process::ExitStatusExt,
    path::PathBuf,
    time::{Duration, Instant},
};

use ferrymq_tests::{Discovery, Mesh, MeshBuilder, NodeProcess, disk::PowerDisk, net::Net, wait_for, wait_until};
use serde_json::Value;

use crate::{
    ALL, EAST, GROUPS, NODES, NORTH, SOUTH, breach::Breaches, ending::Ending, faults::clock::SkewedClock,
    images::Images, lanes::Load, random::Dice, watch::Watch,
};

/// How long all may take to be well again after a fault.
pub const WELL_MAX: Duration = Duration::from_secs(60);
/// How long everything may take to be delivered.
const DRAIN_MAX: Duration = Duration::from_secs(90);
/// What is owed and has not become less for so long will not come any more.
const STILL_MAX: Duration = Duration::from_secs(30);
/// How long a fault that ends nodes may take to end them.
const END_MAX: Duration = Duration::from_secs(30);
/// Bytes of each node's disk.
const DISK_MB: u64 = 192;
/// Entries that a slave may lack under load to count as well.
const LAG_MAX: u64 = 64;
/// Since when a slave that is well has been heard.
const HEARD_MS_MAX: u64 = 1_000;
/// Times that a node is started again after it has ended by itself.
const STARTS_MAX: usize = 5;
/// The topic that east alone wants.
pub const BULLETIN: &str = "topic://BULLETIN";
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
    _images: Images,
    /// What was wrong.
    pub breaches: Breaches,
    /// What the seed leaves to a fault to decide.
    pub dice: Dice,
    /// Which nodes may end by themselves, and how.
    endings: Vec<(Ending, Vec<usize>)>,
    /// Nodes that have ended by themselves since [`Field::expect_no_end`], each time.
    ended: Vec<usize>,
    starts: BTreeMap<usize, usize>,
    /// Nodes that a fault keeps from running.
    down: BTreeSet<usize>,
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
        // First of all the networks: whoever was left on them by a run that was killed ends.
        let builder = MeshBuilder::new("chaos")
            .group("north", NODES)
            .group("south", NODES)
            .group("east", ALL - 2 * NODES)
            .link(NORTH, SOUTH)
            .link(EAST, SOUTH)
            .discovery(options.discovery)
            .on_machines();
        let images = Images::new();
        let disks: Vec<PowerDisk> = ["north1", "north2", "north3", "south1", "south2", "south3", "east1"]
            .iter()
            .map(|name| PowerDisk::new(images.path(), name, DISK_MB))
            .collect();
        let mut mesh = builder
            .data(images.path())
            .more("\n[store]\nsegment = \"1MiB\"\nreserve = \"4MiB\"\nsnapshot_log = \"1MiB\"\ncache = \"1MiB\"\n")
            .prepare();
        let clocks = SkewedClock::for_all(mesh.dir(), ALL);
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
            breaches: Breaches::default(),
            dice: Dice::new(0),
            endings: Vec::new(),
            ended: Vec::new(),
            starts: BTreeMap::new(),
            down: BTreeSet::new(),
            log_read: vec![0; ALL],
        };
        let mut field = field;
        field.wait_well();
        // What is published before another group is known to want it is not owed to it.
        field.mesh.wait_demand(NORTH, "topic://NEWS", 1);
        field.mesh.wait_demand(NORTH, BULLETIN, 1);
        field.mesh.wait_demand(SOUTH, BULLETIN, 1);
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

    /// No node may end by itself from here on.
    pub fn expect_no_end(&mut self) {
        self.supervise();
        self.endings.clear();
        self.ended.clear();
        self.starts.clear();
    }

    /// These nodes end as a fault makes them.
    pub fn expect_end(&mut self, ending: Ending, on: &[usize]) {
        self.endings.push((ending, on.to_vec()));
    }

    /// Waits until as many of these nodes have ended as have to.
    pub fn wait_ends(&mut self, ending: Ending, on: &[usize]) {
        let ends_min = ending.ends_min(on.len());
        let (begun, mut ended) = (Instant::now(), 0);
        wait_until("struck nodes end", 2 * END_MAX, || {
            self.supervise();
            ended = on.iter().filter(|node| self.ended.contains(node)).count();
            ended >= ends_min || begun.elapsed() > END_MAX
        });
        if ended < ends_min {
            self.breach(format!(
                "{ended} of the nodes {on:?} have ended ({ending:?}), and {ends_min} had to"
            ));
        }
    }

    /// How often nodes have ended by themselves since [`Field::expect_no_end`].
    pub fn ended(&self) -> usize {
        self.ended.len()
    }

    /// A promise was broken.
    pub fn breach(&self, what: String) {
        self.breaches.broken(what);
    }

    /// Looks whether nodes have ended by themselves.
    pub fn supervise(&mut self) {
        for position in 0..ALL {
            let Some(status) = self.node_mut(position).ended() else {
                continue;
            };
            self.ended.push(position);
            let name = self.node(position).name.clone();
            let log = self.node(position).log();
            let said = &log[self.log_read[position].min(log.len())..];
            let last: Vec<&str> = said.lines().rev().take(LAST_LINES).collect();
            let last = last.into_iter().rev().collect::<Vec<_>>().join("\n    ");
            let by_signal = status
                .signal()
                .map_or(String::new(), |signal| format!(" by signal {signal}"));
            let mut its = self.endings.iter().filter(|(_, on)| on.contains(&position));
            let allowed = its.any(|(ending, _)| ending.explains(status, said));
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

    /// `kill -9`, and nobody starts the node again until [`Field::release`].
    pub fn keep_down(&mut self, position: usize) {
        if self.node(position).is_running() {
            self.node_mut(position).kill();
        }
        self.down.insert(position);
    }

    /// Starts a node that was kept down.
    pub fn release(&mut self, position: usize) {
        self.down.remove(&position);
        self.revive();
    }

    /// Starts all nodes that do not run and are not kept down.
    pub fn revive(&mut self) {
        for position in 0..ALL {
            if self.node(position).is_running() || self.down.contains(&position) {
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
        self.wait_until_well("everybody", Self::is_well)
    }

    /// Waits until the nodes of one group are well, whatever the others do.
    ///
    /// # Panics
    /// Past the deadline, with what is still missing.
    #[track_caller]
    pub fn wait_group_well(&mut self, group: usize) {
        self.wait_until_well("the group", |field| field.group_is_well(group).map(|_| ()));
    }

    #[track_caller]
    fn wait_until_well(&mut self, who: &str, is_well: impl Fn(&Self) -> Result<(), String>) -> Duration {
        let begun = Instant::now();
        let mut missing = String::new();
        wait_until(&format!("{who} is looked at"), 2 * WELL_MAX, || {
            self.supervise();
            self.revive();
            match is_well(self) {
                Ok(()) => missing.clear(),
                Err(what) => missing = what,
            }
            missing.is_empty() || begun.elapsed() > WELL_MAX
        });
        assert!(missing.is_empty(), "not within {WELL_MAX:?}: all well again; {missing}");
        begun.elapsed()
    }

    fn is_well(&self) -> Result<(), String> {
        for at in 0..GROUPS {
            let master = self.group_is_well(at)?;
            let links = master["master"]["mesh"]["links"]
                .as_array()
                .cloned()
                .unwrap_or_default();
            for other in neighbours(at) {
                let (own, other) = (&self.mesh.groups[at].name, &self.mesh.groups[*other].name);
                if !links
                    .iter()
                    .any(|link| link["peer"] == **other && link["state"] == "up")
                {
                    return Err(format!("{own} is not linked to {other}: {links:?}"));
                }
            }
        }
        if !self.load.is_connected() {
            return Err("a consumer is not connected".into());
        }
        Ok(())
    }

    /// The master's status.
    fn group_is_well(&self, at: usize) -> Result<Value, String> {
        let group = &self.mesh.groups[at];
        let mut statuses = Vec::new();
        for node in &group.nodes {
            statuses.push(node.status().ok_or_else(|| format!("{} does not answer", node.name))?);
        }
        let leads = |status: &&Value| status["group"]["role"] == "master" && status["group"]["lease_valid"] == true;
        let master = statuses.iter().find(leads).cloned();
        let master = master.ok_or_else(|| format!("{} has no master", group.name))?;
        members_are_well(&group.name, &master, &statuses)?;
        Ok(master)
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
        let (mut owed, mut moved) = (self.load.owed(), Instant::now());
        wait_until("everything is looked at", 2 * DRAIN_MAX, || {
            self.supervise();
            left = self.left_over();
            let now = self.load.owed();
            if now != owed {
                (owed, moved) = (now, Instant::now());
            }
            // Twice: an answer may be older than what came from elsewhere meanwhile.
            empty = if left.is_empty() { empty + 1 } else { 0 };
            empty >= 2 || begun.elapsed() > DRAIN_MAX
        });
        self.load.settle();
        // What the broker has taken and does not deliver for long, it does not deliver at all. It may be that it has been
        // slow, as long as it goes on.
        let is_slow = moved.elapsed() < STILL_MAX || !self.load.is_at_rest();
        self.judge(empty < 2 && is_slow);
        if let (true, Ok(left)) = (empty < 2 && !is_slow, self.queues_left())
            && !left.is_empty()
        {
            self.breach(format!("nothing moves any more, and there is left: {left}"));
        }
        assert!(
            empty >= 2,
            "not within {DRAIN_MAX:?}: everything is delivered; left: {left}"
        );
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

    /// Looks at all that was recorded and logged; with `may_owe`, more may still come.
    fn judge(&mut self, may_owe: bool) {
        for (lane, mut report) in self.load.reports() {
            if may_owe {
                report.lost.clear();
                report.torn.clear();
            }
            if !report.is_kept() || (lane.is_ordered() && !report.reordered.is_empty()) {
                self.breach(format!("{}: {report}", lane.name));
            }
        }
        self.watch
            .take_breaches()
            .into_iter()
            .for_each(|what| self.breach(what));
        for position in 0..ALL {
            let log = self.node(position).log();
            let new = log[self.log_read[position].min(log.len())..].to_owned();
            self.log_read[position] = log.len();
            let mut its = self.endings.iter().filter(|(_, on)| on.contains(&position));
            let may_be_damaged = its.any(|(ending, _)| ending.tells_of_damage());
            let bad = new.lines().filter(|line| {
                let damaged = line.contains("damaged") || line.contains("checksum");
                line.contains("panicked at") || (damaged && !may_be_damaged)
            });
            bad.for_each(|line| self.breach(format!("{}: {line}", self.node(position).name)));
        }
    }
}

/// The groups that one is linked with, in the line of three.
pub fn neighbours(group: usize) -> &'static [usize] {
    match group {
        SOUTH => &[NORTH, EAST],
        _ => &[SOUTH],
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
        None if members.len() == statuses.len() => Ok(()),
        None => Err(format!("{name} has {} members", members.len())),
    }
}
