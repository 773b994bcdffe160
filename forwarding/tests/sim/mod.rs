//! Groups wired by a network in memory: ordered per lane, delayed, cut at any time; masters crash and are replaced, or
//! live on deposed. Everything is chosen by a seed.

mod group;
pub(crate) mod model;
pub(crate) mod rng;

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use ferrymq_broker::GroupId;
use ferrymq_forwarding::{
    Action, DialId, Event, Failed, Input, LinkId, Mesh, Output, Room,
    frame::{Assembler, Demand, Frame, Held, Lane},
};
use ferrymq_message::Destination;

pub(crate) use group::{Copied, Group, PREFETCH};
use model::Place;
use rng::Rng;

/// A node that runs a mesh: the index of its group and its own number.
pub(crate) type Node = (usize, u64);

/// Something that happens at a time.
enum Due {
    Wake(Node),
    Dial {
        from: Node,
        dial: DialId,
        endpoint: String,
    },
    Deliver {
        connection: u64,
        to_first: bool,
        lane: Lane,
    },
    Closed {
        node: Node,
        link: LinkId,
        reason: String,
    },
    Propose {
        node: Node,
        token: u64,
        command: ferrymq_broker::Command,
    },
    Answer {
        node: Node,
        token: u64,
        result: Result<ferrymq_broker::Outcome, Failed>,
    },
    Offered {
        node: Node,
        input: Input,
    },
    Dispatch(usize),
    Expel(Node),
    Acknowledge {
        group: usize,
        node: Node,
    },
}

/// Both ends of a connection; a slave has no mesh.
struct Connection {
    ends: [Option<Node>; 2],
    open: bool,
    /// What is on its way: to the first and to the second end, control and bulk.
    wires: [[std::collections::VecDeque<(u8, Bytes)>; 2]; 2],
    assemblers: [Assembler; 2],
}

/// How rough it is.
#[derive(Clone, Copy)]
pub(crate) struct Chaos {
    /// One proposal in so many is not committed, and of one in so many committed ones this is not heard.
    pub(crate) propose_fails_one_in: u64,
    /// Longest delay of frames, commits and dials.
    pub(crate) delay_ms_max: u64,
}

pub(crate) struct World {
    pub(crate) now_ms: u64,
    pub(crate) rng: Rng,
    pub(crate) groups: Vec<Group>,
    pub(crate) chaos: Chaos,
    /// Pairs of groups that may not connect.
    pub(crate) blocked: BTreeSet<(usize, usize)>,
    /// So many of the next deltas are lost.
    pub(crate) deltas_to_drop: u32,
    pub(crate) deltas_told: u64,
    /// Nobody tells what it holds of others: every neighbour is believed to hold nothing.
    pub(crate) holds_nothing: bool,
    /// A group was put back: others may hold more of it than it has.
    was_put_back: bool,
    pub(crate) produced: u64,
    meshes: BTreeMap<Node, Mesh>,
    wake_at: BTreeMap<Node, u64>,
    connections: BTreeMap<u64, Connection>,
    agenda: BTreeMap<(u64, u64), Due>,
    next_number: u64,
    peers: Vec<Vec<usize>>,
    dispatch_due: BTreeSet<usize>,
    log_stuck_ms: BTreeMap<Node, u64>,
}

pub(crate) const CALM: Chaos = Chaos {
    propose_fails_one_in: u64::MAX,
    delay_ms_max: 2,
};
pub(crate) const ROUGH: Chaos = Chaos {
    propose_fails_one_in: 8,
    delay_ms_max: 12,
};

impl World {
    /// Groups linked as `edges` say (the first dials, and half of the time both do).
    pub(crate) fn new(seed: u64, count: usize, edges: &[(usize, usize)], chaos: Chaos) -> Self {
        let mut rng = Rng(seed);
        let mut peers = vec![Vec::new(); count];
        for &(a, b) in edges {
            peers[a].push(b);
            if rng.one_in(2) {
                peers[b].push(a);
            }
        }
        let mut world = Self {
            now_ms: 1_000,
            groups: (0..count).map(Group::new).collect(),
            rng,
            chaos,
            blocked: BTreeSet::new(),
            deltas_to_drop: 0,
            deltas_told: 0,
            holds_nothing: false,
            was_put_back: false,
            produced: 0,
            meshes: BTreeMap::new(),
            wake_at: BTreeMap::new(),
            connections: BTreeMap::new(),
            agenda: BTreeMap::new(),
            next_number: 0,
            peers,
            dispatch_due: BTreeSet::new(),
            log_stuck_ms: BTreeMap::new(),
        };
        (0..count).for_each(|group| world.begin_term(group));
        world
    }

    fn number(&mut self) -> u64 {
        self.next_number += 1;
        self.next_number
    }

    fn after(&mut self, delay_ms: u64, due: Due) {
        let number = self.number();
        self.agenda.insert((self.now_ms + delay_ms, number), due);
    }

    fn dispatch_soon(&mut self, group: usize, delay_ms: u64) {
        if self.dispatch_due.insert(group) {
            self.after(delay_ms, Due::Dispatch(group));
        }
    }

    fn delay(&mut self) -> u64 {
        self.rng.below(self.chaos.delay_ms_max) + 1
    }

    pub(crate) fn node(&self, group: usize) -> Node {
        (group, self.groups[group].epoch)
    }

    pub(crate) fn index_of(&self, id: GroupId) -> usize {
        self.groups
            .iter()
            .position(|group| group.id == id)
            .expect("ids are of these groups")
    }

    /// A master begins its term with what is in the replicated state, and nothing else.
    fn begin_term(&mut self, index: usize) {
        let config = self.groups[index].config();
        let node = self.node(index);
        let seed = self.rng.next();
        self.meshes.insert(node, Mesh::new(config, seed, self.now_ms));
        for input in self.groups[index].first_inputs() {
            self.input(node, input);
        }
        let peers = self.peers[index]
            .iter()
            .map(|&peer| self.groups[peer].candidate())
            .collect();
        self.input(node, Input::Peers(peers));
        self.dispatch_soon(index, 1);
    }

    /// The master is gone; its connections break, each end noticing when it does.
    pub(crate) fn crash(&mut self, index: usize) {
        let old = self.node(index);
        self.meshes.remove(&old);
        for link in self.links_of(old) {
            self.cut(link);
        }
        self.replace(index);
    }

    /// All nodes of a group are stopped, an older copy is put in the place of their data, and they start. Returns the ids of
    /// what is lost by that.
    pub(crate) fn put_back(&mut self, index: usize, copied: Copied) -> BTreeSet<String> {
        let old = self.node(index);
        self.meshes.remove(&old);
        for link in self.links_of(old) {
            self.cut(link);
        }
        self.was_put_back = true;
        let lost = self.groups[index].put_back(copied).ids();
        self.replace(index);
        lost
    }

    /// The master is deposed, but does not know it and keeps its links until its lease has run out (P7).
    pub(crate) fn depose(&mut self, index: usize) {
        let old = self.node(index);
        let lease_ms = 1 + self.rng.below(400);
        self.after(lease_ms, Due::Expel(old));
        self.replace(index);
    }

    fn replace(&mut self, index: usize) {
        self.groups[index].new_term();
        self.begin_term(index);
    }

    fn links_of(&self, node: Node) -> Vec<LinkId> {
        let touches = |c: &Connection| c.open && c.ends.contains(&Some(node));
        self.connections
            .iter()
            .filter(|(_, c)| touches(c))
            .map(|(link, _)| *link)
            .collect()
    }

    /// Breaks a random open connection.
    pub(crate) fn cut_any(&mut self) {
        let open: Vec<u64> = self
            .connections
            .iter()
            .filter(|(_, c)| c.open)
            .map(|(link, _)| *link)
            .collect();
        if !open.is_empty() {
            let link = open[self.rng.below(open.len() as u64) as usize];
            self.cut(link);
        }
    }

    /// Breaks all connections between two groups, and lets none come up until [`Self::heal`].
    pub(crate) fn block(&mut self, a: usize, b: usize) {
        self.blocked.insert((a.min(b), a.max(b)));
        let joins = |c: &Connection| {
            let groups: Vec<usize> = c.ends.iter().flatten().map(|node| node.0).collect();
            c.open && groups.contains(&a) && groups.contains(&b)
        };
        let links: Vec<u64> = self
            .connections
            .iter()
            .filter(|(_, c)| joins(c))
            .map(|(link, _)| *link)
            .collect();
        links.into_iter().for_each(|link| self.cut(link));
    }

    pub(crate) fn unblock(&mut self, a: usize, b: usize) {
        self.blocked.remove(&(a.min(b), a.max(b)));
    }

    pub(crate) fn heal(&mut self) {
        self.blocked.clear();
    }

    fn cut(&mut self, link: LinkId) {
        let Some(connection) = self.connections.get_mut(&link) else {
            return;
        };
        if !std::mem::replace(&mut connection.open, false) {
            return;
        }
        let ends = connection.ends;
        for node in ends.into_iter().flatten() {
            // What is on its way may still arrive at this end until it notices.
            let delay_ms = self.rng.below(40);
            self.after(
                delay_ms,
                Due::Closed {
                    node,
                    link,
                    reason: "cut".to_owned(),
                },
            );
        }
    }

    /// A group has so much room from now on, whoever is its master.
    pub(crate) fn room(&mut self, group: usize, room: Room) {
        self.groups[group].room = room;
        self.input(self.node(group), Input::Room(room));
    }

    /// Consumers of a destination in a group: 0 takes them away.
    pub(crate) fn consume(&mut self, group: usize, destination: &Destination, consumers: u32, durable: bool) {
        self.groups[group].set_consumers(destination, consumers, durable);
        self.dispatch_soon(group, 0);
        self.local_demand(group, destination);
    }

    fn local_demand(&mut self, group: usize, destination: &Destination) {
        if let Some(input) = self.groups[group].local_demand(destination) {
            let node = self.node(group);
            self.input(node, input);
        }
    }

    /// A client sends to a group; topics are copied for every group that wants them now.
    pub(crate) fn produce(&mut self, group: usize, destination: &Destination) {
        self.produced += 1;
        let id = format!("m{:06}", self.produced);
        self.groups[group].produce(destination, &id);
        self.dispatch_soon(group, 0);
    }

    /// A client of an unknown future version sends.
    pub(crate) fn produce_unreadable(&mut self, group: usize, destination: &Destination) {
        self.groups[group].produce_unreadable(destination);
        self.dispatch_soon(group, 0);
    }

    /// Consumers take no more, and acknowledge nothing.
    pub(crate) fn freeze_consumers(&mut self) {
        self.groups.iter_mut().for_each(|group| group.frozen = true);
    }

    /// Lets time pass.
    pub(crate) fn run(&mut self, ms: u64) {
        let end_ms = self.now_ms + ms;
        while let Some(entry) = self.agenda.first_entry() {
            if entry.key().0 > end_ms {
                break;
            }
            let ((at_ms, _), due) = entry.remove_entry();
            self.now_ms = self.now_ms.max(at_ms);
            self.happen(due);
        }
        self.now_ms = end_ms;
    }

    /// Lets time pass until something is so; panics with `what` where it never is.
    pub(crate) fn run_until(&mut self, what: &str, mut done: impl FnMut(&Self) -> bool) {
        for _ in 0..6_000 {
            if done(self) {
                return;
            }
            self.run(10);
        }
        panic!("after a minute still not: {what}\n{}", self.describe());
    }

    pub(crate) fn describe(&self) -> String {
        let mut text = String::new();
        for (index, group) in self.groups.iter().enumerate() {
            text += &format!("group {index}: {}\n", group.describe());
            if let Some(mesh) = self.meshes.get(&self.node(index)) {
                text += &format!("  {:#?}\n", mesh.status());
            }
        }
        text
    }

    fn happen(&mut self, due: Due) {
        match due {
            Due::Wake(node) => {
                if self.wake_at.get(&node).is_some_and(|at_ms| *at_ms <= self.now_ms) {
                    self.wake_at.remove(&node);
                    self.input(node, Input::Tick);
                }
            }
            Due::Dial { from, dial, endpoint } => self.dial(from, dial, &endpoint),
            Due::Deliver {
                connection,
                to_first,
                lane,
            } => self.deliver(connection, to_first, lane),
            Due::Closed { node, link, reason } => self.event(node, Event::Closed { link, reason }),
            Due::Propose { node, token, command } => self.commit(node, token, &command),
            Due::Answer { node, token, result } => self.input(node, Input::Proposed { token, result }),
            Due::Offered { node, input } => {
                if self.node(node.0) == node {
                    self.groups[node.0].told(&input);
                }
                self.input(node, input);
            }
            Due::Dispatch(group) => {
                self.dispatch_due.remove(&group);
                self.dispatch(group);
            }
            Due::Expel(node) => {
                self.meshes.remove(&node);
                self.links_of(node).into_iter().for_each(|link| self.cut(link));
            }
            Due::Acknowledge { group, node } => {
                if self.node(group) == node {
                    for destination in self.groups[group].acknowledge() {
                        self.local_demand(group, &destination);
                    }
                    self.dispatch_soon(group, 0);
                }
            }
        }
    }

    pub(crate) fn input(&mut self, node: Node, input: Input) {
        let now_ms = self.now_ms;
        if let Some(mesh) = self.meshes.get_mut(&node) {
            let actions = mesh.input(now_ms, input);
            self.act(node, actions);
        }
    }

    fn event(&mut self, node: Node, event: Event) {
        let now_ms = self.now_ms;
        if let Some(mesh) = self.meshes.get_mut(&node) {
            let actions = mesh.event(now_ms, event);
            self.act(node, actions);
        }
    }

    fn act(&mut self, node: Node, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Dial { dial, endpoint, .. } => {
                    let delay_ms = self.delay();
                    self.after(
                        delay_ms,
                        Due::Dial {
                            from: node,
                            dial,
                            endpoint,
                        },
                    );
                }
                Action::Send { link, frame } => self.post(node, link, &frame),
                Action::Close { link, reason } => self.close(node, link, &reason),
                Action::Output(Output::Propose { token, command }) => self.propose(node, token, command),
                Action::Output(Output::Demand { destination, rows }) => {
                    if self.node(node.0) == node {
                        self.groups[node.0].remote_demand(destination, rows);
                        self.dispatch_soon(node.0, 0);
                    }
                }
                Action::Output(Output::Group(known)) => {
                    if self.node(node.0) == node {
                        self.groups[node.0].known.insert(known.group, known);
                    }
                }
                Action::Output(Output::Links(_) | Output::Status { .. }) => {}
            }
        }
        let Some(mesh) = self.meshes.get(&node) else { return };
        if mesh.is_deposed() {
            self.meshes.remove(&node);
            return;
        }
        let wake_ms = mesh.wake_at_ms().max(self.now_ms + 1);
        if self.wake_at.get(&node).is_none_or(|at_ms| *at_ms > wake_ms) {
            self.wake_at.insert(node, wake_ms);
            self.after(wake_ms - self.now_ms, Due::Wake(node));
        }
    }

    /// Endpoints are `g1` (its master) and `g1-slave`.
    fn dial(&mut self, from: Node, dial: DialId, endpoint: &str) {
        let (name, slave) = endpoint
            .strip_suffix("-slave")
            .map_or((endpoint, false), |name| (name, true));
        let group: usize = name[1..].parse().expect("endpoints are g and an index");
        let pair = (from.0.min(group), from.0.max(group));
        let to = self.node(group);
        if self.blocked.contains(&pair) || !self.meshes.contains_key(&to) {
            return self.event(
                from,
                Event::DialFailed {
                    dial,
                    error: "unreachable".to_owned(),
                },
            );
        }
        let link = self.number();
        let connection = Connection {
            ends: [Some(from), (!slave).then_some(to)],
            open: true,
            wires: Default::default(),
            assemblers: Default::default(),
        };
        self.connections.insert(link, connection);
        let name = |node: Node| (format!("g{}", node.0), node.1);
        let (group_name, number) = name(to);
        self.event(
            from,
            Event::Connected {
                link,
                dial: Some(dial),
                group: group_name,
                node: number,
            },
        );
        if slave {
            self.wire(
                link,
                true,
                &Frame::Redirect {
                    endpoints: vec![format!("g{group}")],
                },
            );
        } else {
            let (group_name, number) = name(from);
            self.event(
                to,
                Event::Connected {
                    link,
                    dial: None,
                    group: group_name,
                    node: number,
                },
            );
        }
    }

    fn post(&mut self, node: Node, link: LinkId, frame: &Frame) {
        let Some(connection) = self.connections.get(&link).filter(|c| c.open) else {
            return;
        };
        let to_first = connection.ends[1] == Some(node);
        if let (Frame::Held(_), true) = (frame, self.holds_nothing) {
            return self.wire(link, to_first, &Frame::Held(Held::default()));
        }
        if let Frame::Demand(Demand { snapshot: false, .. }) = frame {
            self.deltas_told += 1;
            if self.deltas_to_drop > 0 {
                self.deltas_to_drop -= 1;
                return;
            }
        }
        self.wire(link, to_first, frame);
    }

    /// Frames travel as bytes, so that the codec is part of every run.
    fn wire(&mut self, link: LinkId, to_first: bool, frame: &Frame) {
        for encoded in frame.encode() {
            let payload: Vec<u8> = encoded.chunks.iter().flat_map(|chunk| chunk.iter().copied()).collect();
            let Some(connection) = self.connections.get_mut(&link) else {
                return;
            };
            connection.wires[usize::from(!to_first)][encoded.lane as usize].push_back((encoded.kind, payload.into()));
            let delay_ms = self.delay();
            self.after(
                delay_ms,
                Due::Deliver {
                    connection: link,
                    to_first,
                    lane: encoded.lane,
                },
            );
        }
    }

    fn deliver(&mut self, link: u64, to_first: bool, lane: Lane) {
        let end = usize::from(!to_first);
        let Some(connection) = self.connections.get_mut(&link) else {
            return;
        };
        let Some((kind, payload)) = connection.wires[end][lane as usize].pop_front() else {
            return;
        };
        let frame = connection.assemblers[end]
            .take(kind, payload)
            .expect("only frames of ours are on the wire");
        if let (Some(frame), Some(node)) = (frame, connection.ends[end]) {
            self.event(node, Event::Frame { link, frame });
        }
    }

    fn close(&mut self, node: Node, link: LinkId, reason: &str) {
        let Some(connection) = self.connections.get_mut(&link) else {
            return;
        };
        connection.open = false;
        let other = connection.ends.into_iter().flatten().find(|end| *end != node);
        if let Some(other) = other {
            let delay_ms = self.delay();
            self.after(
                delay_ms,
                Due::Closed {
                    node: other,
                    link,
                    reason: reason.to_owned(),
                },
            );
        }
    }

    /// Proposals take the same way to the log, in order. While one cannot be appended, those after it cannot either.
    fn propose(&mut self, node: Node, token: u64, command: ferrymq_broker::Command) {
        let stuck = self
            .log_stuck_ms
            .get(&node)
            .is_some_and(|until_ms| self.now_ms <= *until_ms);
        if !stuck && !self.rng.one_in(self.chaos.propose_fails_one_in) {
            let at_ms = self.groups[node.0].log_delay(&mut self.rng, self.now_ms, self.chaos.delay_ms_max);
            return self.after(at_ms - self.now_ms, Due::Propose { node, token, command });
        }
        if !stuck {
            let until_ms = self.now_ms + self.delay();
            self.log_stuck_ms.insert(node, until_ms);
        }
        let delay_ms = self.log_stuck_ms[&node] - self.now_ms;
        self.after(
            delay_ms,
            Due::Answer {
                node,
                token,
                result: Err(Failed::Retry),
            },
        );
    }

    /// A proposal reaches the log, or does not, and its proposer learns about it, or does not.
    fn commit(&mut self, node: Node, token: u64, command: &ferrymq_broker::Command) {
        let delay_ms = self.delay();
        if self.node(node.0) != node {
            return self.after(
                delay_ms,
                Due::Answer {
                    node,
                    token,
                    result: Err(Failed::NotMaster),
                },
            );
        }
        if let ferrymq_broker::Command::Forget(forget) = command {
            let owner = &self.groups[self.index_of(forget.origin)].model;
            let pending = owner
                .outgoing
                .get(&self.groups[node.0].id)
                .and_then(|o| o.pending.keys().next());
            assert!(
                self.was_put_back || pending.is_none_or(|lowest| *lowest >= forget.floor),
                "forgot what is in doubt: {forget:?}"
            );
        }
        let outcome = self.groups[node.0].model.apply(command);
        let unheard = self.rng.one_in(self.chaos.propose_fails_one_in);
        let result = if unheard { Err(Failed::Retry) } else { Ok(outcome) };
        self.after(delay_ms, Due::Answer { node, token, result });
        self.dispatch_soon(node.0, 0);
    }

    /// Local consumers first, then credit elsewhere.
    fn dispatch(&mut self, index: usize) {
        let node = self.node(index);
        if !self.meshes.contains_key(&node) {
            return;
        }
        let changed = self.groups[index].deliver();
        if !changed.is_empty() {
            let delay_ms = self.delay();
            self.after(delay_ms, Due::Acknowledge { group: index, node });
        }
        for destination in changed {
            self.local_demand(index, &destination);
        }
        let places: Vec<Place> = self.groups[index].model.queues.keys().cloned().collect();
        for place in places {
            let wish = 1 + self.rng.below(8) as usize;
            for input in self.groups[index].offers(&place, wish) {
                // Committed now, told to the mesh a moment later and in order: in between the master may be gone.
                let at = self.groups[index].log_delay(&mut self.rng, self.now_ms, self.chaos.delay_ms_max);
                self.after(at - self.now_ms, Due::Offered { node, input });
            }
            if self.groups[index].could_offer(&place) {
                self.dispatch_soon(index, 3);
            }
        }
    }

    /// Every id acknowledged anywhere.
    pub(crate) fn consumed(&self) -> Vec<String> {
        self.groups
            .iter()
            .flat_map(|group| group.model.consumed.iter().cloned())
            .collect()
    }

    /// Each message was acknowledged exactly once, and nothing is left anywhere.
    pub(crate) fn all_consumed_once(&self) -> bool {
        let count: usize = self.groups.iter().map(|group| group.model.consumed.len()).sum();
        if (count as u64) < self.produced {
            return false;
        }
        let all = self.consumed();
        let distinct: BTreeSet<&String> = all.iter().collect();
        assert_eq!(all.len(), distinct.len(), "a message was doubled");
        all.len() as u64 == self.produced
    }

    pub(crate) fn status(&self, group: usize) -> Vec<ferrymq_forwarding::LinkStatus> {
        self.meshes.get(&self.node(group)).map(Mesh::status).unwrap_or_default()
    }
}
