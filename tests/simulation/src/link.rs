//! Links between groups: connections between two masters' meshes, in order within a lane, cut at any time. After
//! `forwarding/tests/sim/`, with real masters at both ends.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use ferrymq_forwarding::{
    Action, DialId, Event, LinkId,
    frame::{Assembler, Frame, Lane},
};

use crate::world::{Due, MS, World};

/// Something that happens on a link.
#[derive(Debug)]
pub(crate) enum LinkDue {
    Dial { from: End, dial: DialId, endpoint: String },
    Failed { from: End, dial: DialId },
    Deliver { link: LinkId, to_first: bool, lane: usize },
    Lost { end: End, link: LinkId, reason: String },
}

/// A mesh: its node, the process, and the term.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct End {
    pub(crate) node: usize,
    incarnation: u64,
    term: u64,
}

/// All connections between groups.
#[derive(Debug, Default)]
pub(crate) struct Links {
    pub(crate) open: BTreeMap<LinkId, Wire>,
}

/// One connection. A slave has no mesh at its end.
#[derive(Debug)]
pub(crate) struct Wire {
    ends: [Option<End>; 2],
    nodes: [usize; 2],
    lanes: [[VecDeque<(u8, Bytes)>; 2]; 2],
    assemblers: [Assembler; 2],
    due_us: [[u64; 2]; 2],
}

impl World {
    fn end_of(&self, node: usize) -> Option<End> {
        let running = self.nodes[node].process.as_ref()?.running.as_ref()?;
        running.mesh.as_ref()?;
        Some(End {
            node,
            incarnation: self.nodes[node].incarnation,
            term: running.term,
        })
    }

    /// Tells a mesh, if it is still the same.
    fn tell_link(&mut self, end: End, event: Event) {
        if self.end_of(end.node) == Some(end) {
            self.turn(end.node, false, |process| process.on_link(event));
        }
    }

    /// What a mesh wants done.
    pub(crate) fn link_action(&mut self, node: usize, action: Action) {
        match action {
            Action::Close { link: LinkId::MAX, .. } => self.close_links_of(node),
            Action::Close { link, reason } => self.close_link(node, link, &reason),
            Action::Send { link, frame } => self.post(node, link, &frame),
            Action::Dial { dial, endpoint, .. } => {
                if let Some(from) = self.end_of(node) {
                    let delay_us = self.delay();
                    self.after(delay_us, Due::Link(LinkDue::Dial { from, dial, endpoint }));
                }
            }
            Action::Output(_) => {}
        }
    }

    pub(crate) fn on_link_due(&mut self, due: LinkDue) {
        match due {
            LinkDue::Dial { from, dial, endpoint } => self.dial(from, dial, &endpoint),
            LinkDue::Failed { from, dial } => {
                let error = "unreachable".to_owned();
                self.tell_link(from, Event::DialFailed { dial, error });
            }
            LinkDue::Deliver { link, to_first, lane } => self.deliver(link, to_first, lane),
            LinkDue::Lost { end, link, reason } => {
                if self.is_paused(end.node) {
                    let until_us = self.nodes[end.node].paused_until_us;
                    return self.at(until_us, Due::Link(LinkDue::Lost { end, link, reason }));
                }
                self.tell_link(end, Event::Closed { link, reason });
            }
        }
    }

    fn dial(&mut self, from: End, dial: DialId, endpoint: &str) {
        if self.end_of(from.node) != Some(from) {
            return;
        }
        let to = self.nodes.iter().position(|node| node.name == endpoint);
        let alive = to.filter(|to| {
            let blocked = self.network.is_blocked(from.node, *to) || self.network.is_blocked(*to, from.node);
            !blocked && self.nodes[*to].process.is_some() && !self.is_paused(*to)
        });
        let Some(to) = alive else {
            let delay_us = self.rng.between(5 * MS, 400 * MS);
            return self.after(delay_us, Due::Link(LinkDue::Failed { from, dial }));
        };
        let link = self.number();
        let end = self.end_of(to);
        let wire = Wire {
            ends: [Some(from), end],
            nodes: [from.node, to],
            lanes: Default::default(),
            assemblers: Default::default(),
            due_us: Default::default(),
        };
        self.links.open.insert(link, wire);
        let connected = |world: &Self, dial, node: usize| Event::Connected {
            link,
            dial,
            group: format!("g{}", world.nodes[node].group),
            node: world.nodes[node].id,
        };
        let event = connected(self, Some(dial), to);
        self.tell_link(from, event);
        match end {
            Some(end) => {
                let event = connected(self, None, from.node);
                self.tell_link(end, event);
            }
            // As the redirector of a slave.
            None => {
                let group = self.nodes[to].group;
                let master = self.nodes[to]
                    .process
                    .as_ref()
                    .and_then(|process| process.replica.master);
                let master = master.map(|id| self.nodes[self.groups[group][id as usize - 1]].name.clone());
                let endpoints = master.into_iter().collect();
                self.wire(link, true, &Frame::Redirect { endpoints });
            }
        }
    }

    fn post(&mut self, node: usize, link: LinkId, frame: &Frame) {
        let Some(wire) = self.links.open.get(&link) else { return };
        let to_first = wire.nodes[1] == node;
        self.say(|| format!("node {node} says on link {link}: {}", brief(frame)));
        self.wire(link, to_first, frame);
    }

    /// Frames travel as bytes, so that the codec is part of every run.
    fn wire(&mut self, link: LinkId, to_first: bool, frame: &Frame) {
        let side = usize::from(!to_first);
        for encoded in frame.encode() {
            let payload: Vec<u8> = encoded.chunks.iter().flat_map(|chunk| chunk.iter().copied()).collect();
            let lane = encoded.lane as usize;
            let delay_us = self.delay();
            let now_us = self.now_us;
            let Some(wire) = self.links.open.get_mut(&link) else {
                return;
            };
            wire.lanes[side][lane].push_back((encoded.kind, payload.into()));
            let due_us = wire.due_us[side][lane].max(now_us + delay_us);
            wire.due_us[side][lane] = due_us;
            self.at(due_us, Due::Link(LinkDue::Deliver { link, to_first, lane }));
        }
    }

    fn deliver(&mut self, link: LinkId, to_first: bool, lane: usize) {
        let side = usize::from(!to_first);
        let Some(wire) = self.links.open.get(&link) else { return };
        let (from, to) = (wire.nodes[1 - side], wire.nodes[side]);
        if self.is_paused(to) || self.network.is_blocked(from, to) {
            return self.after(25 * MS, Due::Link(LinkDue::Deliver { link, to_first, lane }));
        }
        let Some(wire) = self.links.open.get_mut(&link) else {
            return;
        };
        let Some((kind, payload)) = wire.lanes[side][lane].pop_front() else {
            return;
        };
        match wire.assemblers[side].take(kind, payload) {
            Ok(Some(frame)) => {
                if let Some(end) = wire.ends[side] {
                    self.tell_link(end, Event::Frame { link, frame });
                }
            }
            Ok(None) => {}
            Err(error) => self
                .history
                .break_promise(11, format!("a link's own frame is not understood: {error}")),
        }
    }

    fn close_link(&mut self, node: usize, link: LinkId, reason: &str) {
        if let Some(wire) = self.links.open.remove(&link) {
            for end in wire.ends.into_iter().flatten().filter(|end| end.node != node) {
                let (delay_us, reason) = (self.delay(), reason.to_owned());
                self.after(delay_us, Due::Link(LinkDue::Lost { end, link, reason }));
            }
        }
    }

    /// The network gives a link up: each end notices when it does.
    pub(crate) fn cut_link(&mut self, link: LinkId) {
        if let Some(wire) = self.links.open.remove(&link) {
            for end in wire.ends.into_iter().flatten() {
                let delay_us = self.rng.below(60 * MS);
                let reason = "cut".to_owned();
                self.after(delay_us, Due::Link(LinkDue::Lost { end, link, reason }));
            }
        }
    }

    /// A node, or its term, is gone.
    pub(crate) fn close_links_of(&mut self, node: usize) {
        let links: Vec<LinkId> = self
            .links
            .open
            .iter()
            .filter(|(_, wire)| wire.nodes.contains(&node))
            .map(|(link, _)| *link)
            .collect();
        links.into_iter().for_each(|link| self.cut_link(link));
    }
}

fn brief(frame: &Frame) -> String {
    format!("{frame:?}").chars().take(160).collect()
}

/// The two lanes exist.
const _: [Lane; 2] = [Lane::Control, Lane::Bulk];
