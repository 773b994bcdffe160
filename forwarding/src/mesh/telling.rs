//! The mesh's part for demand and status: what is told to neighbours, at which time, and what to the node.

use ferrymq_broker::{GroupId, TransferId, incarnation_of, term_of};
use ferrymq_message::Destination;

use super::Mesh;
use crate::{
    action::Action,
    event::LinkId,
    frame::{Demand, Frame},
    output::{LinkState, LinkStatus, Output},
};

impl Mesh {
    pub(super) fn heard_demand(&mut self, now_ms: u64, link: LinkId, group: GroupId, demand: Demand) {
        if self.demand.heard(group, demand).is_err() {
            self.close(now_ms, link, "more rows of demand than are taken from one group");
        } else if self.demand.is_synced(group) {
            self.links.synced(now_ms, link);
        }
    }

    /// Everything, at the beginning of a link or where the peer has found a difference.
    pub(super) fn tell_all(&mut self, now_ms: u64, link: LinkId, group: GroupId) {
        for demand in self.demand.snapshot(group, &self.bridges) {
            self.send(link, Frame::Demand(demand));
        }
        self.send_pulse(now_ms, link, group);
    }

    /// What is heard was said half a round trip ago.
    pub(super) fn time_heard(&mut self, now_ms: u64, link: LinkId, time_ms: u64) {
        if let Some(session) = self.links.session_mut(link) {
            let ago_ms = u64::from(session.rtt_us) / 2_000;
            session.skew_ms = self.time.skew_ms(now_ms, time_ms, ago_ms);
        }
    }

    pub(super) fn pulse_heard(&mut self, link: LinkId, group: GroupId, rows: u64, hash: u64, floor: TransferId) {
        self.receivers.floor_heard(group, floor);
        if self.demand.agrees(group, rows, hash) {
            return;
        }
        tracing::warn!(group = %format_args!("{group:016x}"), "demand differs from what was told, asking anew");
        if let Some(session) = self.links.session_mut(link) {
            session.resyncs += 1;
        }
        self.send(link, Frame::Resync);
    }

    pub(super) fn pulse(&mut self, now_ms: u64) {
        for group in self.demand.neighbours() {
            if let Some(link) = self.links.link_of(group) {
                self.send_pulse(now_ms, link, group);
            }
        }
    }

    fn send_pulse(&mut self, now_ms: u64, link: LinkId, group: GroupId) {
        let (rows, hash) = self.demand.told(group);
        let floor = self.bridges.floor(group);
        let time_ms = self.time.now_ms(now_ms);
        let pulse = Frame::Pulse {
            rows,
            hash,
            floor,
            time_ms,
        };
        self.send(link, pulse);
    }

    /// Tells neighbours what has gathered, once it has gathered for long enough.
    pub(super) fn tell_due(&mut self, now_ms: u64) {
        if !self.demand.has_news() {
            return;
        }
        let at_ms = *self.tell_at_ms.get_or_insert(now_ms + self.config.demand_debounce_ms);
        if now_ms < at_ms {
            return;
        }
        self.tell_at_ms = None;
        for (group, changes) in self.demand.all_changes(&self.bridges) {
            let Some(link) = self.links.link_of(group) else {
                continue;
            };
            changes
                .into_iter()
                .for_each(|demand| self.send(link, Frame::Demand(demand)));
        }
    }

    /// Tells the node what has changed of the other groups' demand.
    pub(super) fn tell_node(&mut self) {
        for group in self.demand.take_groups_for_node() {
            let known = self.demand.known(group);
            if self.groups_told.get(&group) != Some(&known) {
                self.groups_told.insert(group, known.clone());
                self.actions.push(Action::Output(Output::Group(known)));
            }
        }
        for (destination, origins) in self.demand.take_for_node() {
            let mut known = self.node_knows.remove(&destination).unwrap_or_default();
            let changed = self.demand.refresh(&destination, &origins, &self.bridges, &mut known);
            if changed {
                self.actions.push(Action::Output(Output::Demand {
                    destination: destination.clone(),
                    rows: known.clone(),
                }));
            }
            if !known.is_empty() {
                self.node_knows.insert(destination, known);
            }
        }
    }

    /// The node has taken an offer off what it was told to be available, so it is told anew, even the same as before:
    /// credit above the bound looks unchanged, while the node's own count would run down to nothing.
    pub(super) fn node_has_charged(&mut self, destination: &Destination, next_hop: GroupId) {
        let rows = self.node_knows.get_mut(destination).into_iter().flatten();
        for row in rows.filter(|row| row.next_hop == next_hop) {
            // As much as no row can have.
            row.available = u32::MAX;
        }
    }

    pub(super) fn tell_status(&mut self) {
        let status = self.status();
        if status != self.status_told {
            self.status_told.clone_from(&status);
            self.actions.push(Action::Output(Output::Links(status)));
        }
    }

    /// Every link, every attempt at one, and every group to which something is under offer.
    pub fn status(&self) -> Vec<LinkStatus> {
        let mut all: Vec<LinkStatus> = Vec::new();
        for (_, session) in self.links.sessions() {
            let hello = session.hello.as_ref();
            let mut status = self.status_of(hello.map(|hello| hello.group_id));
            status.peer.clone_from(&session.group);
            status.node = Some(session.node);
            status.term = hello.map(|hello| term_of(hello.epoch));
            status.incarnation = hello.map(|hello| incarnation_of(hello.epoch));
            status.state = session.state;
            status.since_ms = session.since_ms;
            status.rtt_us = session.rtt_us;
            status.resyncs = session.resyncs;
            status.skew_ms = session.skew_ms;
            all.push(status);
        }
        for target in self.links.idle_targets() {
            let mut status = self.status_of(target.candidate.group_id.or(target.learned));
            status.peer = target.title();
            status.state = target.link_state();
            status.since_ms = target.since_ms;
            status.last_error = target.last_error.clone().or(status.last_error);
            all.push(status);
        }
        for group in self.bridges.groups() {
            let listed = all.iter().any(|status| status.group_id == Some(group));
            let in_doubt = self.bridges.get(group).is_some_and(|bridge| bridge.in_doubt() > 0);
            if in_doubt && !listed {
                all.push(self.status_of(Some(group)));
            }
        }
        all.sort_by(|a, b| (&a.peer, a.group_id, a.since_ms).cmp(&(&b.peer, b.group_id, b.since_ms)));
        all
    }

    fn status_of(&self, group_id: Option<GroupId>) -> LinkStatus {
        let bridge = group_id.and_then(|group| self.bridges.get(group));
        let (rows_in, rows_out) = group_id.map_or((0, 0), |group| self.demand.counts(group));
        LinkStatus {
            peer: group_id.map_or_else(String::new, |group| format!("group {group:016x}")),
            group_id,
            node: None,
            term: None,
            incarnation: None,
            state: LinkState::BackOff,
            since_ms: 0,
            rtt_us: 0,
            skew_ms: None,
            rows_in,
            rows_out,
            transfers_in_doubt: bridge.map_or(0, |bridge| bridge.in_doubt()),
            sent: bridge.map_or(0, |bridge| bridge.sent),
            received: group_id.map_or(0, |group| self.receivers.received(group)),
            refused: bridge.map_or(0, |bridge| bridge.refused),
            resyncs: 0,
            last_error: group_id.and_then(|group| self.troubles.get(&group).cloned()),
        }
    }
}
