//! The world: nodes, networks and clients, and the agenda of everything that is going to happen. One event after the
//! other; each moves the clock to its own time.

use std::{collections::BTreeMap, sync::Arc};

use ferrymq_forwarding::{LinkState, Mesh, PeerCandidate};
use ferrymq_simulated_journal::{Crash, Machine, disk};

use crate::{
    client::Client,
    clock,
    config::NodeId,
    group::{Clocks, MemberClock, locked},
    history::History,
    invariants,
    link::Links,
    network::{Connection, Network},
    oracle::Oracle,
    process::{Plan, Process},
    profile::Profile,
    raft::{Birth, Peer},
    rng::Rng,
    sabotage::Sabotage,
    storm::Storm,
};

/// One millisecond, in the world's microseconds.
pub(crate) const MS: u64 = 1_000;
/// How often a node's timers are looked at.
const TICK_US: u64 = 10 * MS;
const CLIENT_TICK_US: u64 = 7 * MS;
/// How often it is looked whose each message is.
const AUDIT_US: u64 = 200 * MS;
/// The wall clock at the beginning, milliseconds since 1970.
const WALL_MS: i64 = 1_800_000_000_000;
/// A slave that has not answered for so long is not asked for its clock.
const CLOCK_AGE_MAX_MS: u64 = 2_000;

/// Something that happens at a time.
#[derive(Debug)]
pub(crate) enum Due {
    Tick(usize),
    /// The disk of a node's process has had its time.
    Disk(usize, u64),
    /// The master's loop hears what the log has brought.
    Heard(usize, u64),
    Peer {
        to: usize,
        from: NodeId,
        peer: Box<Peer>,
    },
    Start(usize),
    Client(usize),
    Arrive(u64),
    ToServer(u64),
    ToClient(u64, Box<ferrymq_protocol::stomp::Frame>),
    ServerLost(u64),
    ClientLost(u64),
    Link(crate::link::LinkDue),
    Storm,
    Relief(crate::storm::Relief),
    Audit,
}

/// One node: what stays when its process ends.
pub(crate) struct Node {
    pub(crate) group: usize,
    pub(crate) id: NodeId,
    pub(crate) name: String,
    pub(crate) machine: Arc<Machine>,
    pub(crate) process: Option<Process>,
    /// Grows with each process.
    pub(crate) incarnation: u64,
    pub(crate) paused_until_us: u64,
    pub(crate) slow_until_us: u64,
    /// How its clocks differ from the world's.
    drift_ppm: i64,
    boot_us: u64,
    pub(crate) wall_offset_ms: i64,
    disk_due: bool,
    heard_due: bool,
    /// A bit that was flipped and not yet restored: (path, offset, bit).
    pub(crate) flipped: Option<(std::path::PathBuf, u64, u8)>,
    /// Its disk was made to fail.
    pub(crate) failing: bool,
    /// How it ends when it meets the end that was set for it.
    pub(crate) ends_by: Crash,
}

/// See the file's head.
pub(crate) struct World {
    pub(crate) now_us: u64,
    pub(crate) rng: Rng,
    pub(crate) profile: Profile,
    pub(crate) sabotage: Option<Sabotage>,
    pub(crate) nodes: Vec<Node>,
    pub(crate) groups: Vec<Vec<usize>>,
    pub(crate) oracles: Vec<Oracle>,
    pub(crate) clients: Vec<Client>,
    pub(crate) connections: BTreeMap<u64, Connection>,
    pub(crate) links: Links,
    pub(crate) network: Network,
    pub(crate) storm: Storm,
    pub(crate) history: History,
    /// Faults strike.
    pub(crate) is_storm: bool,
    /// Clients make new load.
    pub(crate) has_load: bool,
    agenda: BTreeMap<(u64, u64), Due>,
    next_number: u64,
    pub(crate) trace: bool,
    /// Over everything that happened.
    pub(crate) hash: u64,
    pub(crate) events: u64,
}

impl World {
    pub(crate) fn new(seed: u64, profile: Profile, sabotage: Option<Sabotage>, trace: bool) -> Self {
        Machine::end_all();
        disk::seed(seed);
        let mut world = Self {
            now_us: MS,
            rng: Rng(seed),
            sabotage,
            nodes: Vec::new(),
            groups: Vec::new(),
            oracles: Vec::new(),
            clients: Vec::new(),
            connections: BTreeMap::new(),
            links: Links::default(),
            network: Network::default(),
            storm: Storm::default(),
            history: History::default(),
            is_storm: false,
            has_load: false,
            agenda: BTreeMap::new(),
            next_number: 0,
            trace,
            hash: 0xcbf2_9ce4_8422_2325,
            events: 0,
            profile,
        };
        for group in 0..world.profile.groups.len() {
            world.add_group(group);
        }
        world.after(AUDIT_US, Due::Audit);
        world
    }

    fn add_group(&mut self, group: usize) {
        let mut members = Vec::new();
        for id in 1..=self.profile.groups[group] {
            let index = self.nodes.len();
            let name = format!("g{group}n{id}");
            let machine = Machine::begin(&name, self.rng.next());
            if self.sabotage == Some(Sabotage::SkipSync) {
                machine.lie();
            }
            self.nodes.push(Node {
                group,
                id,
                machine,
                name,
                process: None,
                incarnation: 0,
                paused_until_us: 0,
                slow_until_us: 0,
                drift_ppm: self.rng.below(2_001) as i64 - 1_000,
                boot_us: self.rng.below(1_000_000_000),
                wall_offset_ms: self.profile.clocks_ahead_ms[group] + self.rng.below(2_000) as i64 - 1_000,
                disk_due: false,
                heard_due: false,
                flipped: None,
                failing: false,
                ends_by: Crash::Killed,
            });
            members.push(index);
            let delay_us = self.rng.below(50 * MS);
            self.after(delay_us, Due::Start(index));
            self.after(delay_us, Due::Tick(index));
        }
        self.groups.push(members);
        self.oracles.push(Oracle::new());
    }

    pub(crate) fn number(&mut self) -> u64 {
        self.next_number += 1;
        self.next_number
    }

    pub(crate) fn after(&mut self, delay_us: u64, due: Due) {
        self.at(self.now_us + delay_us, due);
    }

    pub(crate) fn at(&mut self, at_us: u64, due: Due) {
        let number = self.number();
        self.agenda.insert((at_us.max(self.now_us), number), due);
    }

    pub(crate) fn add_client(&mut self, client: Client) {
        let id = client.id;
        self.clients.push(client);
        let delay_us = self.rng.below(CLIENT_TICK_US);
        self.after(delay_us, Due::Client(id));
    }

    /// Lets time pass; ends early where a promise was broken.
    pub(crate) fn run(&mut self, us: u64) {
        let end_us = self.now_us + us;
        while self.history.violations.is_empty()
            && let Some(entry) = self.agenda.first_entry()
        {
            if entry.key().0 > end_us {
                break;
            }
            let ((at_us, number), due) = entry.remove_entry();
            self.now_us = self.now_us.max(at_us);
            self.note(number, &due);
            self.happen(due);
        }
        if self.history.violations.is_empty() {
            self.now_us = end_us;
        }
    }

    /// Lets time pass until something is so; false where it is not after `us`.
    pub(crate) fn run_until(&mut self, us: u64, mut done: impl FnMut(&mut Self) -> bool) -> bool {
        let end_us = self.now_us + us;
        while self.now_us < end_us && self.history.violations.is_empty() {
            if done(self) {
                return true;
            }
            self.run(20 * MS);
        }
        done(self)
    }

    fn note(&mut self, number: u64, due: &Due) {
        self.events += 1;
        let step = |hash: u64, value: u64| (hash ^ value).wrapping_mul(0x0100_0000_01b3);
        self.hash = step(step(self.hash, self.now_us), number);
        let quiet = matches!(due, Due::Tick(_) | Due::Client(_) | Due::Audit | Due::Disk(..));
        if self.trace && !quiet {
            let text = format!("{due:?}");
            let text: String = text.chars().take(400).collect();
            println!("{:>10.3} {text}", self.now_us as f64 / 1e3);
        }
    }

    /// A line of the event log.
    pub(crate) fn say(&mut self, text: impl FnOnce() -> String) {
        if self.trace {
            println!("{:>10.3} -- {}", self.now_us as f64 / 1e3, text());
        }
    }

    fn happen(&mut self, due: Due) {
        match due {
            Due::Tick(node) => {
                self.after(TICK_US, Due::Tick(node));
                if !self.is_paused(node) {
                    self.tell_clocks(node);
                    self.turn(node, false, Process::tick);
                }
            }
            Due::Disk(node, incarnation) => self.on_disk(node, incarnation),
            Due::Heard(node, incarnation) => {
                if self.nodes[node].incarnation == incarnation {
                    if self.deferred(node, Due::Heard(node, incarnation)) {
                        return;
                    }
                    self.nodes[node].heard_due = false;
                    self.turn(node, true, |_| {});
                }
            }
            Due::Peer { to, from, peer } => {
                if self.is_paused(to) {
                    let until_us = self.nodes[to].paused_until_us;
                    return self.at(until_us, Due::Peer { to, from, peer });
                }
                self.turn(to, false, |process| process.replica.hear(from, *peer));
            }
            Due::Start(node) => self.start(node),
            Due::Client(client) => {
                self.after(CLIENT_TICK_US, Due::Client(client));
                self.client_tick(client);
            }
            Due::Arrive(connection) => self.arrive(connection),
            Due::ToServer(connection) => self.reaches_server(connection),
            Due::ToClient(connection, frame) => self.reaches_client(connection, &frame),
            Due::ServerLost(connection) => self.server_lost(connection),
            Due::ClientLost(connection) => self.client_lost(connection),
            Due::Link(due) => self.on_link_due(due),
            Due::Storm => self.storm_breaks(),
            Due::Relief(relief) => self.relieve(relief),
            Due::Audit => {
                self.after(AUDIT_US, Due::Audit);
                invariants::p4_transfer::audit(self);
            }
        }
    }

    pub(crate) fn is_paused(&self, node: usize) -> bool {
        self.now_us < self.nodes[node].paused_until_us
    }

    /// Puts `due` off until the node goes on.
    pub(crate) fn deferred(&mut self, node: usize, due: Due) -> bool {
        let paused = self.is_paused(node);
        if paused {
            let until_us = self.nodes[node].paused_until_us;
            self.at(until_us, due);
        }
        paused
    }

    fn set_clock(&self, node: usize) {
        let wall_ms = self.wall_ms(node);
        let node = &self.nodes[node];
        let drift = (self.now_us as i64 / 1_000 * node.drift_ppm / 1_000) as u64;
        let monotonic_us = (node.boot_us + self.now_us).wrapping_add(drift);
        clock::set(wall_ms, monotonic_us);
    }

    /// What `node` has learnt of the wall clocks of its group: its own one, and those of the slaves that have lately
    /// answered it.
    fn tell_clocks(&self, node: usize) {
        self.set_clock(node);
        let Some(process) = &self.nodes[node].process else {
            return;
        };
        let boot_ms = clock::boot_ms();
        let members = &self.groups[self.nodes[node].group];
        let heard = process.replica.shared.lease.heard_ms_ago();
        let trusts_itself = self.sabotage == Some(Sabotage::TrustClocks);
        let is_known = |id: NodeId| !trusts_itself && heard.get(&id).is_some_and(|&ms| ms < CLOCK_AGE_MAX_MS);
        let known = members
            .iter()
            .filter(|&&member| member == node || is_known(self.nodes[member].id));
        *locked(&process.replica.shared.clocks) = Clocks {
            voters: if trusts_itself { 1 } else { members.len() },
            members: known
                .map(|&member| MemberClock {
                    node: self.nodes[member].id,
                    from_boot_ms: self.wall_ms(member) - boot_ms,
                    error_ms: 1,
                })
                .collect(),
        };
    }

    /// What the clocks of a group's clients show.
    pub(crate) fn clients_wall_ms(&self, group: usize) -> i64 {
        WALL_MS + (self.now_us / MS) as i64 + self.profile.clocks_ahead_ms[group]
    }

    fn wall_ms(&self, node: usize) -> i64 {
        WALL_MS + (self.now_us / MS) as i64 + self.nodes[node].wall_offset_ms
    }

    /// Gives a node's process a turn and carries out what it wants.
    pub(crate) fn turn(&mut self, node: usize, heard: bool, act: impl FnOnce(&mut Process)) {
        self.set_clock(node);
        let Some(process) = self.nodes[node].process.as_mut() else {
            return;
        };
        act(process);
        process.turn(heard);
        self.settle(node);
    }

    fn settle(&mut self, index: usize) {
        let group = self.nodes[index].group;
        let Some(process) = self.nodes[index].process.as_mut() else {
            return;
        };
        let committed = std::mem::take(&mut process.replica.committed);
        let said = std::mem::take(&mut process.replica.out);
        let out = std::mem::take(&mut process.out);
        let (wants_disk, has_events) = (process.replica.wants_disk(), process.has_events());
        let fatal = process.fatal.take();
        for entry in &committed {
            self.oracles[group].learn(entry, &mut self.history);
        }
        invariants::p7_one_master::look(self, index);
        invariants::p8_bounded::look(self, index);
        if self.nodes[index].machine.has_ended() {
            let by = self.nodes[index].ends_by;
            return self.crash(index, by, true);
        }
        for (to, peer) in said {
            self.send_peer(index, to, peer);
        }
        for action in out.links {
            self.link_action(index, action);
        }
        for (connection, frame) in out.written {
            self.written(index, connection, frame);
        }
        for connection in out.closed {
            self.server_closed(connection);
        }
        if let Some(why) = fatal {
            return self.ended(index, &why);
        }
        let incarnation = self.nodes[index].incarnation;
        if wants_disk && !self.nodes[index].disk_due {
            self.nodes[index].disk_due = true;
            let slow = self.now_us < self.nodes[index].slow_until_us;
            let delay_us = if slow {
                self.rng.between(20 * MS, 400 * MS)
            } else {
                self.rng.between(100, 3 * MS)
            };
            self.after(delay_us, Due::Disk(index, incarnation));
        }
        if has_events && !self.nodes[index].heard_due {
            self.nodes[index].heard_due = true;
            let delay_us = self.rng.below(1_500);
            self.after(delay_us, Due::Heard(index, incarnation));
        }
    }

    fn on_disk(&mut self, node: usize, incarnation: u64) {
        if self.nodes[node].incarnation != incarnation {
            return;
        }
        if self.deferred(node, Due::Disk(node, incarnation)) {
            return;
        }
        self.nodes[node].disk_due = false;
        let rested = self.rng.one_in(6);
        self.turn(node, false, |process| process.replica.disk(rested));
    }

    fn start(&mut self, index: usize) {
        if self.nodes[index].process.is_some() {
            return;
        }
        self.set_clock(index);
        let seed = self.rng.next();
        let node = &mut self.nodes[index];
        node.incarnation += 1;
        node.disk_due = false;
        node.heard_due = false;
        let group = node.group;
        let birth = Birth {
            id: node.id,
            dir: format!("/{}", node.name),
            voters: (1..=self.profile.groups[group]).collect(),
            founds_as: 1_000 + group as u64 * 7 % 5 + 1,
            sabotage: self.sabotage,
            seed,
        };
        let plan = Plan {
            group_name: format!("g{group}"),
            peers: self.peers_of(group),
            seed,
        };
        match Process::start(birth, plan) {
            Ok(process) => {
                self.nodes[index].process = Some(process);
                self.say(|| format!("node {index} starts"));
                self.turn(index, false, |_| {});
            }
            Err(_) if self.nodes[index].machine.has_ended() => {
                let by = self.nodes[index].ends_by;
                self.crash(index, by, true);
            }
            Err(why) => self.ended(index, &why),
        }
    }

    fn peers_of(&self, group: usize) -> Vec<PeerCandidate> {
        self.profile
            .neighbours(group)
            .map(|other| PeerCandidate {
                group: Some(format!("g{other}")),
                group_id: None,
                endpoints: self.groups[other]
                    .iter()
                    .map(|node| self.nodes[*node].name.clone())
                    .collect(),
            })
            .collect()
    }

    /// A process has ended by itself.
    fn ended(&mut self, index: usize, why: &str) {
        self.say(|| format!("node {index} ends: {why}"));
        let node = &mut self.nodes[index];
        let flipped = node.flipped.take();
        let failing = std::mem::take(&mut node.failing);
        if let Some((path, offset, bit)) = &flipped {
            node.machine.unflip(path, *offset, *bit);
        }
        if flipped.is_none() && !failing {
            invariants::p9_damage::unexplained(self, index, why);
        }
        let by = if self.rng.one_in(2) {
            Crash::Killed
        } else {
            Crash::PowerCut
        };
        self.crash(index, by, true);
    }

    /// The process of a node is gone at once; it is started again a while later.
    pub(crate) fn crash(&mut self, index: usize, crash: Crash, again: bool) {
        self.say(|| format!("node {index} crashes: {crash:?}"));
        let node = &mut self.nodes[index];
        let was = node.process.take();
        node.incarnation += 1;
        node.paused_until_us = 0;
        drop(was);
        node.machine.crash(crash);
        self.drop_connections_of(index);
        self.close_links_of(index);
        if again {
            let delay_us = self.rng.between(20 * MS, 1_200 * MS);
            self.after(delay_us, Due::Start(index));
        }
    }

    /// The node whose process is master of a group and serves clients.
    pub(crate) fn master_of(&self, group: usize) -> Option<usize> {
        let masters = self.groups[group].iter().copied();
        masters
            .filter(|node| self.nodes[*node].process.as_ref().is_some_and(Process::serves))
            .max_by_key(|node| {
                self.nodes[*node]
                    .process
                    .as_ref()
                    .map_or(0, |process| process.replica.term)
            })
    }

    /// Whether every two neighbours have a link that carries demand.
    pub(crate) fn all_linked(&self) -> bool {
        (0..self.groups.len()).all(|group| {
            let mesh = self.master_of(group).and_then(|node| {
                let process = self.nodes[node].process.as_ref()?;
                process.running.as_ref()?.mesh.as_ref()
            });
            let up = |mesh: &Mesh| mesh.status().iter().filter(|link| link.state == LinkState::Up).count();
            let others = self.profile.neighbours(group).count();
            others == 0 || mesh.is_some_and(|mesh| up(mesh) >= others)
        })
    }
}
