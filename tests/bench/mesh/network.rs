//! Groups' meshes over a network in memory: simulated time, a latency for each link, frames as bytes and in order; and what
//! each group sent, heard and computed.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    ops::{Add, Sub},
};

use bytes::Bytes;
use ferrymq_forwarding::{
    Action, Config, DialId, Event, Input, LinkId, Mesh, Output, PeerCandidate,
    frame::{Assembler, Demand, Frame},
};
use rustix::time::{ClockId, clock_gettime};

use crate::{
    knowledge::{Knowledge, id_of},
    rng::Rng,
    shape::Shape,
};

/// Kind and length, which the transport puts before each frame.
const FRAME_HEADER_BYTES: u64 = 5;
/// Groups start at different moments, so that their pulses are not all at once.
const START_SPREAD_US: u64 = 500_000;

/// See the file's head.
pub(crate) struct Network {
    pub(crate) now_us: u64,
    pub(crate) groups: Vec<Group>,
    pub(crate) knowledge: Knowledge,
    links: Vec<Wire>,
    agenda: BinaryHeap<Reverse<Entry>>,
    entries: u64,
    latency_us: (u64, u64),
    rng: Rng,
    /// Demand frames on their way.
    pub(crate) demand_in_flight: u64,
}

/// One group: its master's mesh, and what it has cost.
pub(crate) struct Group {
    pub(crate) mesh: Mesh,
    pub(crate) cost: Cost,
    wake_at_us: u64,
}

/// Counts of one group. Bytes are the transport's frames, without what QUIC, UDP and IP add.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Cost {
    /// Frames with changed rows, sent.
    pub(crate) deltas_out: u64,
    /// Rows new, changed or gone in these frames, sent and heard.
    pub(crate) rows: u64,
    /// Their bytes, sent and heard.
    pub(crate) bytes: u64,
    /// Frames of snapshots sent, and their bytes.
    pub(crate) snapshots_out: u64,
    pub(crate) snapshot_bytes_out: u64,
    /// Hashes sent, and their bytes.
    pub(crate) pulses_out: u64,
    pub(crate) pulse_bytes_out: u64,
    /// Times that a neighbour's demand was asked for anew.
    pub(crate) resyncs_out: u64,
    /// Rows told to the node: of a destination that has changed, those of all groups that want it.
    pub(crate) node_rows: u64,
    /// Processor time in the mesh and its codec, in nanoseconds.
    pub(crate) cpu_ns: u64,
}

struct Wire {
    ends: [usize; 2],
    latency_us: u64,
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    at_us: u64,
    number: u64,
    due: Due,
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Due {
    Wake(usize),
    Connected {
        from: usize,
        to: usize,
        dial: DialId,
    },
    Arrive {
        link: usize,
        end: usize,
        kind: u8,
        payload: Bytes,
        delta: Delta,
    },
}

/// How a frame on its way counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Delta {
    No,
    Snapshot,
    Rows(u64),
}

impl Network {
    pub(crate) fn new(
        shape: Shape,
        knowledge: Knowledge,
        groups: usize,
        hops_max: usize,
        latency_ms: (u64, u64),
        mut rng: Rng,
    ) -> Self {
        let start_ms = 1_000;
        let meshes = (0..groups).map(|index| {
            let mut config = Config::new(format!("group-{index:04}"), id_of(index), 1, 1);
            config.links_max = config.links_max.max(groups);
            config.hops_max = hops_max;
            Group {
                mesh: Mesh::new(config, rng.next(), start_ms),
                cost: Cost::default(),
                wake_at_us: u64::MAX,
            }
        });
        let mut network = Self {
            now_us: start_ms * 1_000,
            groups: meshes.collect(),
            knowledge,
            links: Vec::new(),
            agenda: BinaryHeap::new(),
            entries: 0,
            latency_us: (latency_ms.0 * 1_000, latency_ms.1 * 1_000),
            rng,
            demand_in_flight: 0,
        };
        network.introduce(shape);
        network
    }

    /// Everyone learns whom to dial, a little later than the one before.
    fn introduce(&mut self, shape: Shape) {
        let groups = self.groups.len();
        for group in 0..groups {
            let candidates = shape.dials(group, groups).into_iter().map(|peer| PeerCandidate {
                group: Some(format!("group-{peer:04}")),
                group_id: Some(id_of(peer)),
                endpoints: vec![peer.to_string()],
            });
            let candidates = candidates.collect();
            self.run(START_SPREAD_US / groups as u64);
            // Earlier terms have left nothing.
            let settled = Input::Settled {
                next: Vec::new(),
                pending: Vec::new(),
                arrived: Vec::new(),
            };
            self.input(group, settled);
            self.input(group, Input::Peers(candidates));
        }
    }

    fn after(&mut self, delay_us: u64, due: Due) {
        self.entries += 1;
        let (at_us, number) = (self.now_us + delay_us, self.entries);
        self.agenda.push(Reverse(Entry { at_us, number, due }));
    }

    /// Lets time pass.
    pub(crate) fn run(&mut self, us: u64) {
        let end_us = self.now_us + us;
        while self.step(end_us) {}
        self.now_us = end_us;
    }

    /// Lets time pass until something is so, at most until `end_us`; false where it is not so by then.
    pub(crate) fn run_until(&mut self, end_us: u64, done: impl Fn(&Self) -> bool) -> bool {
        while !done(self) {
            if !self.step(end_us) {
                self.now_us = end_us;
                return false;
            }
        }
        true
    }

    fn step(&mut self, end_us: u64) -> bool {
        if self.agenda.peek().is_none_or(|Reverse(entry)| entry.at_us > end_us) {
            return false;
        }
        let Some(Reverse(entry)) = self.agenda.pop() else {
            return false;
        };
        self.now_us = entry.at_us;
        self.happen(entry.due);
        true
    }

    fn happen(&mut self, due: Due) {
        match due {
            Due::Wake(group) => {
                if self.groups[group].wake_at_us <= self.now_us {
                    self.groups[group].wake_at_us = u64::MAX;
                    self.input(group, Input::Tick);
                }
            }
            Due::Connected { from, to, dial } => self.connect(from, to, dial),
            Due::Arrive {
                link,
                end,
                kind,
                payload,
                delta,
            } => {
                let group = self.links[link].ends[end];
                let bytes = FRAME_HEADER_BYTES + payload.len() as u64;
                let cost = &mut self.groups[group].cost;
                if let Delta::Rows(rows) = delta {
                    cost.rows += rows;
                    cost.bytes += bytes;
                }
                self.demand_in_flight -= u64::from(delta != Delta::No);
                let began = cpu_ns();
                let frame = Assembler::default().take(kind, payload);
                cost.cpu_ns += cpu_ns() - began;
                let frame = frame
                    .ok()
                    .flatten()
                    .expect("control frames are whole, and what was encoded can be read");
                self.event(
                    group,
                    Event::Frame {
                        link: link as LinkId,
                        frame,
                    },
                );
            }
        }
    }

    fn connect(&mut self, from: usize, to: usize, dial: DialId) {
        let link = self.links.len() as LinkId;
        let latency_us = self.rng.between(self.latency_us.0, self.latency_us.1);
        self.links.push(Wire {
            ends: [from, to],
            latency_us,
        });
        for (end, peer, dial) in [(from, to, Some(dial)), (to, from, None)] {
            let group = format!("group-{peer:04}");
            self.event(
                end,
                Event::Connected {
                    link,
                    dial,
                    group,
                    node: 1,
                },
            );
        }
        for end in [from, to] {
            self.event(
                end,
                Event::RoundTrip {
                    link,
                    rtt_us: (2 * latency_us) as u32,
                },
            );
        }
    }

    pub(crate) fn input(&mut self, group: usize, input: Input) {
        let now_ms = self.now_us / 1_000;
        let began = cpu_ns();
        let actions = self.groups[group].mesh.input(now_ms, input);
        self.groups[group].cost.cpu_ns += cpu_ns() - began;
        self.act(group, actions);
    }

    fn event(&mut self, group: usize, event: Event) {
        let now_ms = self.now_us / 1_000;
        let began = cpu_ns();
        let actions = self.groups[group].mesh.event(now_ms, event);
        self.groups[group].cost.cpu_ns += cpu_ns() - began;
        self.act(group, actions);
    }

    fn act(&mut self, group: usize, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Dial { dial, endpoint, .. } => {
                    let to = endpoint.parse().expect("endpoints of the simulation are numbers");
                    // A handshake takes a round trip and a half.
                    let delay_us = 3 * self.latency_us.0.max(1);
                    self.after(delay_us, Due::Connected { from: group, to, dial });
                }
                Action::Send { link, frame } => self.send(group, link as usize, &frame),
                // Links of the simulation never break: this would be a mistake of the mesh, and shows as one.
                Action::Close { link, reason } => panic!("group {group} closed link {link}: {reason}"),
                Action::Output(Output::Demand { destination, rows }) => {
                    self.groups[group].cost.node_rows += rows.len() as u64;
                    self.knowledge.told(group, &destination, &rows);
                }
                Action::Output(Output::Links(_) | Output::Group(_) | Output::Status { .. }) => {}
                Action::Output(Output::Propose { .. }) => panic!("nothing was offered, so nothing is proposed"),
            }
        }
        let wake_us = (self.groups[group].mesh.wake_at_ms().saturating_mul(1_000)).max(self.now_us + 1_000);
        if wake_us < self.groups[group].wake_at_us {
            self.groups[group].wake_at_us = wake_us;
            self.after(wake_us - self.now_us, Due::Wake(group));
        }
    }

    fn send(&mut self, group: usize, link: usize, frame: &Frame) {
        let cost = &mut self.groups[group].cost;
        let began = cpu_ns();
        let encoded = frame.encode();
        cost.cpu_ns += cpu_ns() - began;
        let wire = &self.links[link];
        let (end, latency_us) = (usize::from(wire.ends[0] == group), wire.latency_us);
        for encoded in encoded {
            let payload: Bytes = encoded.chunks.concat().into();
            let delta = self.groups[group]
                .cost
                .sent(frame, FRAME_HEADER_BYTES + payload.len() as u64);
            self.demand_in_flight += u64::from(delta != Delta::No);
            let kind = encoded.kind;
            self.after(
                latency_us,
                Due::Arrive {
                    link,
                    end,
                    kind,
                    payload,
                    delta,
                },
            );
        }
    }

    /// Lets time pass until no demand is on its way and none is being gathered.
    pub(crate) fn settle(&mut self) {
        loop {
            while self.demand_in_flight > 0 {
                self.run(1_000);
            }
            // Changes are gathered for some milliseconds before they are told.
            self.run(20_000);
            if self.demand_in_flight == 0 {
                return;
            }
        }
    }

    pub(crate) fn costs(&self) -> Vec<Cost> {
        self.groups.iter().map(|group| group.cost).collect()
    }
}

/// Processor time of this thread, which is the only one: what else runs on the machine does not count.
fn cpu_ns() -> u64 {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

impl Cost {
    fn sent(&mut self, frame: &Frame, bytes: u64) -> Delta {
        match frame {
            Frame::Demand(Demand { snapshot: true, .. }) => {
                self.snapshots_out += 1;
                self.snapshot_bytes_out += bytes;
                Delta::Snapshot
            }
            Frame::Demand(Demand { rows, gone, .. }) => {
                let rows = (rows.len() + gone.len()) as u64;
                self.deltas_out += 1;
                self.rows += rows;
                self.bytes += bytes;
                Delta::Rows(rows)
            }
            Frame::Pulse { .. } => {
                self.pulses_out += 1;
                self.pulse_bytes_out += bytes;
                Delta::No
            }
            Frame::Resync => {
                self.resyncs_out += 1;
                Delta::No
            }
            _ => Delta::No,
        }
    }

    fn combine(self, other: Self, with: impl Fn(u64, u64) -> u64) -> Self {
        Self {
            deltas_out: with(self.deltas_out, other.deltas_out),
            rows: with(self.rows, other.rows),
            bytes: with(self.bytes, other.bytes),
            snapshots_out: with(self.snapshots_out, other.snapshots_out),
            snapshot_bytes_out: with(self.snapshot_bytes_out, other.snapshot_bytes_out),
            pulses_out: with(self.pulses_out, other.pulses_out),
            pulse_bytes_out: with(self.pulse_bytes_out, other.pulse_bytes_out),
            resyncs_out: with(self.resyncs_out, other.resyncs_out),
            node_rows: with(self.node_rows, other.node_rows),
            cpu_ns: with(self.cpu_ns, other.cpu_ns),
        }
    }
}

impl Add for Cost {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        self.combine(other, u64::wrapping_add)
    }
}

impl Sub for Cost {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        self.combine(other, u64::wrapping_sub)
    }
}

impl std::iter::Sum for Cost {
    fn sum<I: Iterator<Item = Self>>(costs: I) -> Self {
        costs.fold(Self::default(), Add::add)
    }
}
