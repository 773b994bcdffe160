//! The pure core: takes what the node and the network say, hands it to the table that it concerns, and returns what is
//! to be done. It has no clock, no randomness and no task of its own.

mod handover;
mod life;
mod linking;
mod telling;

use std::collections::BTreeMap;

use ferrymq_broker::GroupId;
use ferrymq_message::Destination;

use crate::{
    action::Action,
    bridge::{Bridges, Offer},
    config::Config,
    demand::DemandTable,
    event::Event,
    frame::{Frame, Transfer},
    group_time::GroupTime,
    input::Input,
    jitter::Jitter,
    link_state::Links,
    output::{KnownGroup, LinkStatus, Output, RemoteDemand},
    proposals::Proposals,
    receiver::Receivers,
};

/// The mesh as one master sees it, during one term.
#[derive(Debug)]
pub struct Mesh {
    config: Config,
    links: Links,
    demand: DemandTable,
    bridges: Bridges,
    receivers: Receivers,
    proposals: Proposals,
    /// A new life of this group is proposed, for this reason.
    renewing: Option<String>,
    time: GroupTime,
    /// What the node was told last, so that it is told changes only.
    node_knows: BTreeMap<Destination, Vec<RemoteDemand>>,
    groups_told: BTreeMap<GroupId, KnownGroup>,
    status_told: Vec<LinkStatus>,
    /// The last trouble with each group, for the status.
    troubles: BTreeMap<GroupId, String>,
    /// For what is drawn at random.
    jitter: Jitter,
    /// When neighbours are told what has gathered; `None` where nothing has.
    tell_at_ms: Option<u64>,
    pulse_at_ms: u64,
    links_at_ms: u64,
    deposed: bool,
    actions: Vec<Action>,
}

impl Mesh {
    /// A mesh without peers. `seed` makes pauses between dials differ from node to node.
    pub fn new(config: Config, seed: u64, now_ms: u64) -> Self {
        Self {
            links: Links::new(seed),
            demand: DemandTable::new(&config),
            bridges: Bridges::new(&config),
            receivers: Receivers::new(&config),
            proposals: Proposals::default(),
            renewing: None,
            jitter: Jitter::new(seed),
            time: GroupTime::default(),
            node_knows: BTreeMap::new(),
            groups_told: BTreeMap::new(),
            status_told: Vec::new(),
            troubles: BTreeMap::new(),
            tell_at_ms: None,
            pulse_at_ms: now_ms + config.hash_interval_ms,
            links_at_ms: now_ms,
            deposed: false,
            actions: Vec::new(),
            config,
        }
    }

    /// Takes in what the node says.
    pub fn input(&mut self, now_ms: u64, input: Input) -> Vec<Action> {
        if self.deposed {
            return Vec::new();
        }
        match input {
            Input::Peers(candidates) => {
                self.links.peers(now_ms, candidates, &self.config);
                self.links_at_ms = now_ms;
            }
            Input::LocalDemand {
                destination,
                consumers,
                credit,
                selectors,
                durable,
                pace,
            } => {
                self.demand
                    .local(destination, consumers, credit, selectors, durable, pace);
            }
            Input::Time { time_ms } => self.time_told(now_ms, time_ms),
            Input::Room(room) => self.room(now_ms, room),
            Input::Settled { next, pending, arrived } => {
                self.bridges.settled(next, pending);
                self.receivers.settled(arrived);
                self.demand.settled();
                self.tell_and_judge_all(now_ms);
            }
            Input::Renew => self.renew(now_ms, 0, "the operator says that a copy was put back".to_owned()),
            Input::Remembered(groups) => groups.iter().for_each(|known| self.demand.restore(known)),
            Input::Forgotten { group } => self.demand.forget(group),
            Input::Offered {
                queue: _,
                group,
                transfer,
                destination,
                target,
                messages,
            } => {
                self.offered(
                    now_ms,
                    Offer {
                        group,
                        transfer,
                        destination,
                        target,
                        messages,
                    },
                );
            }
            Input::Reclaimed { group, below } => self.reclaimed(group, below),
            Input::Proposed { token, result } => self.proposed(now_ms, token, result),
            Input::StatusAsked { ask } => {
                let links = self.status();
                self.actions.push(Action::Output(Output::Status { ask, links }));
            }
            Input::Tick => {}
        }
        self.finish(now_ms)
    }

    /// Takes in what happened on the network.
    pub fn event(&mut self, now_ms: u64, event: Event) -> Vec<Action> {
        if self.deposed {
            return Vec::new();
        }
        match event {
            Event::Connected {
                link,
                dial,
                group,
                node,
            } => self.connected(now_ms, link, dial, group, node),
            Event::DialFailed { dial, error } => {
                self.links.dial_failed(now_ms, dial, error, &self.config);
                self.links_at_ms = now_ms;
            }
            Event::Frame { link, frame } => self.frame(now_ms, link, frame),
            Event::RoundTrip { link, rtt_us } => {
                if let Some(session) = self.links.session_mut(link) {
                    session.rtt_us = rtt_us;
                }
                if let Some(group) = self.links.group_of(link) {
                    self.demand.round_trip(group, rtt_us);
                }
            }
            Event::Silence { link, is_silent } => {
                self.links.silence(now_ms, link, is_silent);
                self.links_at_ms = now_ms;
            }
            Event::Closed { link, reason } => {
                self.links.told_turned_away(link, &reason);
                self.lost(now_ms, link, &reason);
            }
        }
        self.finish(now_ms)
    }

    /// When an [`Input::Tick`] is needed at the latest.
    pub fn wake_at_ms(&self) -> u64 {
        let some = [
            self.tell_at_ms,
            self.proposals.due_at_ms(),
            self.receivers.forget_at_ms(),
            self.receivers.retry_at_ms(),
            self.demand.arrivals.expires_at_ms(),
        ];
        some.into_iter()
            .flatten()
            .min()
            .unwrap_or(u64::MAX)
            .min(self.pulse_at_ms)
            .min(self.links_at_ms)
    }

    /// True once the node has said that it is no longer the master; the mesh is to be dropped.
    pub fn is_deposed(&self) -> bool {
        self.deposed
    }

    fn frame(&mut self, now_ms: u64, link: u64, frame: Frame) {
        if !self.links.heard(now_ms, link) {
            return;
        }
        match (frame, self.links.group_of(link)) {
            (Frame::Hello(hello), _) => self.hello(now_ms, link, hello),
            (Frame::Held(held), _) => self.held(now_ms, link, held),
            (Frame::Redirect { endpoints }, None) => self.redirected(now_ms, link, endpoints),
            (_, None) => self.close(now_ms, link, "a frame before the hello"),
            (Frame::Redirect { .. }, Some(_)) => self.close(now_ms, link, "redirected after the hello"),
            (Frame::Demand(_) | Frame::Pulse { .. } | Frame::Resync, Some(_)) if !self.is_cleared(link) => {
                self.missed(link)
            }
            (Frame::Demand(demand), Some(group)) => self.heard_demand(now_ms, link, group, demand),
            (
                Frame::Pulse {
                    rows,
                    hash,
                    floor,
                    time_ms,
                },
                Some(group),
            ) => {
                self.time_heard(now_ms, link, time_ms);
                self.pulse_heard(link, group, rows, hash, floor);
            }
            (Frame::Resync, Some(group)) => self.tell_all(now_ms, link, group),
            (Frame::Transfer(transfer), Some(group)) => self.transfer_arrived(now_ms, link, group, transfer),
            (
                Frame::Accepted {
                    transfer,
                    refused,
                    demand,
                },
                Some(group),
            ) => {
                self.heard_demand(now_ms, link, group, demand);
                self.accepted(now_ms, group, transfer, refused);
            }
            (Frame::Settled { transfer }, Some(group)) => self.called_settled(now_ms, group, transfer),
        }
    }

    /// Everything whose time has come; then the node learns what has changed.
    fn finish(&mut self, now_ms: u64) -> Vec<Action> {
        if self.deposed {
            return std::mem::take(&mut self.actions);
        }
        if now_ms >= self.links_at_ms {
            self.tick_links(now_ms);
        }
        for destination in self.demand.arrivals.expire(now_ms) {
            self.demand.touch(Some(&destination));
        }
        self.repeat_due(now_ms);
        self.forget_due(now_ms);
        self.tell_due(now_ms);
        if now_ms >= self.pulse_at_ms {
            self.pulse_at_ms = now_ms + self.config.hash_interval_ms;
            self.repeat_overdue(now_ms);
            self.pulse(now_ms);
            self.tell_status();
        }
        self.tell_node();
        std::mem::take(&mut self.actions)
    }

    /// By now it is later than when it was offered.
    fn send_transfer(&mut self, now_ms: u64, link: u64, transfer: Transfer) {
        let time_ms = self.time.now_ms(now_ms);
        self.send(link, Frame::Transfer(Transfer { time_ms, ..transfer }));
    }

    fn send(&mut self, link: u64, frame: Frame) {
        self.actions.push(Action::Send { link, frame });
    }
}
