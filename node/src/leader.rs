//! The master's loop for one term: everything that clients, the log and other groups bring meets here, on one task.
//!
//! *From* connections (requests), the group (applied batches) and the mesh (other groups' demand, proposals); *to* the
//! group (commands), connections (replies, deliveries) and the mesh (own demand, committed offers). It is made when this
//! node becomes master and dropped when it is that no longer; nothing of it is replicated.

mod client;
mod clocks;
mod delivery;
mod direct;
mod group_time;
mod mesh;
mod outcome;
mod request;
mod skew;
mod stamps;
mod status;
mod subscriptions;
mod transactions;
mod waiting;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque, hash_map::RandomState},
    hash::BuildHasher,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use ferrymq_access::Identity;
use ferrymq_broker::{Broker, Command, DeleteDestination, GroupId, Queue, QueueId};
use ferrymq_dispatch::{ConnectionId, ConsumerId, Dispatcher, Limits, Topics};
use ferrymq_message::Destination;
use ferrymq_replication::{Failure, Group, GroupEvent, Role};
use foldhash::fast::FixedState;
use tokio::sync::{mpsc, oneshot, watch};

use crate::{clock, connection::FromClient, load::Load, mesh::MeshStarter};
use client::Client;
use clocks::TermClock;
use mesh::Bridges;
pub(crate) use mesh::MeshPort;
use outcome::Pending;
pub(crate) use stamps::Stamps;
use status::StatusAsks;
use waiting::Crossing;
pub(crate) use waiting::WhenFull;

/// What the loop is told once, at its start.
#[derive(Debug, Clone)]
pub(crate) struct LeaderConfig {
    pub(crate) dispatch: Limits,
    /// Dispatch to a connection pauses while so much is not written to it, in bytes.
    pub(crate) outbox_bytes_max: usize,
    /// Bytes that one transaction may hold back.
    pub(crate) transaction_bytes_max: usize,
    /// Bytes that the journal may take on disk; producers wait beyond it.
    pub(crate) store_bytes_max: u64,
    /// Disk that must stay free; producers wait below it. Far above what the log itself needs to go on.
    pub(crate) store_reserve_bytes: u64,
    /// Queues and durable subscriptions at one time.
    pub(crate) destinations_max: usize,
    /// Memory that the places of waiting messages may take, in bytes; producers wait beyond it.
    pub(crate) backlog_bytes_max: u64,
    /// Bytes of one topic's messages that may be kept for one other group, and what sends to that topic do beyond it.
    pub(crate) group_backlog_bytes_max: u64,
    pub(crate) group_backlog_when_full: WhenFull,
    /// How long another group must have been there without wanting a topic before what is kept for it is dropped: after a
    /// change of master on either side it first has to hear, or to be told, what is wanted.
    pub(crate) topic_linger_ms: u64,
    /// By whose clock clients' messages are stamped.
    pub(crate) stamps: Stamps,
    /// What all clients together hold.
    pub(crate) load: Arc<Load>,
}

/// What the operator asks of the loop.
#[derive(Debug)]
pub(crate) enum Ask {
    /// What goes on here.
    Status(oneshot::Sender<serde_json::Value>),
    /// Take back what is under offer to a lost group of this name or id.
    Reclaim {
        group: String,
        answer: oneshot::Sender<Result<serde_json::Value, Denied>>,
    },
    /// Forget a lost group of this name or id, or count what would go.
    ForgetGroup {
        group: String,
        dry_run: bool,
        answer: oneshot::Sender<Result<serde_json::Value, Denied>>,
    },
}

/// Why the loop does not do what an operator asks, with the cure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Denied {
    /// Nothing is known of what was named.
    NotFound(String),
    /// As things are it must not be done.
    Refused(String),
}

/// How a term ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// Another node is master, or will be.
    Deposed,
    /// This node must stop.
    Fatal(String),
}

/// Housekeeping, and the pause before dispatch is tried again without a valid lease.
const TICK: Duration = Duration::from_millis(100);
/// Ticks between two looks at temporary queues that a fail-over has left without their connection.
const SWEEP_TICKS: u64 = 100;
/// Ticks between two looks at the room in the store.
const STORE_TICKS: u64 = 2;
/// Ticks between two counts of all waiting messages.
const BACKLOG_TICKS: u64 = 10;
/// What one waiting message takes in the state, in bytes: its slot, and its part of what surrounds it.
pub(crate) const PLACE_BYTES: u64 = 48;
/// Requests of clients taken in before the round ends.
const ROUND_MAX: usize = 1024;

pub(crate) struct Leader {
    group: Group,
    term: u64,
    /// The state was applied up to here when this loop began to hear of effects.
    attached_index: u64,
    config: LeaderConfig,
    dispatcher: Dispatcher,
    topics: Topics,
    clock: TermClock,
    clients: BTreeMap<ConnectionId, Client>,
    /// Whose consumer it is, and what its session calls it.
    consumers: HashMap<ConsumerId, Attached, FixedState>,
    next_consumer: ConsumerId,
    pending: HashMap<u64, Pending, FixedState>,
    next_token: u64,
    /// Clients for which the round has gathered something.
    touched: Vec<ConnectionId>,
    /// The disk is full, the journal is at its limit, or too many messages wait: sends wait.
    store_full: bool,
    /// Memory that the places of waiting messages take, by the last count, in bytes.
    backlog_bytes: u64,
    /// There are as many queues and durable subscriptions as there may be.
    destinations_full: bool,
    /// Clients whose requests wait for room in the store, in the order in which they began to.
    parked: VecDeque<ConnectionId>,
    /// Clients of which requests wait for room in a backlog of another group.
    waiting: BTreeSet<ConnectionId>,
    crossing: Crossing,
    bridges: Bridges,
    status_asks: StatusAsks,
    mesh: MeshStarter,
    fatal: Option<String>,
    /// A command of this loop has no outcome, so that what is in flight is not known any more.
    in_doubt: bool,
    ticks: u64,
    /// The first command of the term is committed.
    begun: bool,
    /// It found the disk full, and is to be proposed again.
    begin_refused: bool,
    /// The tick since which the store has been full.
    full_since: Option<u64>,
    /// Temporary queues that had no consumer at the last look.
    idle_temporary: BTreeSet<Destination>,
}

/// One consumer or subscriber as its session knows it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Attached {
    connection: ConnectionId,
    subscription: u32,
    /// None for a subscriber of a topic.
    queue: Option<QueueId>,
}

impl Leader {
    pub(crate) fn new(group: Group, term: u64, config: LeaderConfig, mesh: MeshStarter, first_token: u64) -> Self {
        Self {
            dispatcher: Dispatcher::new(config.dispatch.clone()),
            topics: Topics::default(),
            clock: TermClock::new(&group),
            clients: BTreeMap::new(),
            consumers: HashMap::default(),
            next_consumer: 1,
            pending: HashMap::default(),
            next_token: first_token,
            touched: Vec::new(),
            store_full: false,
            backlog_bytes: 0,
            destinations_full: false,
            parked: VecDeque::new(),
            waiting: BTreeSet::new(),
            crossing: Crossing::default(),
            bridges: Bridges::default(),
            status_asks: StatusAsks::default(),
            mesh,
            fatal: None,
            in_doubt: false,
            ticks: 0,
            begun: false,
            begin_refused: false,
            full_since: None,
            idle_temporary: BTreeSet::new(),
            group,
            term,
            attached_index: 0,
            config,
        }
    }

    /// Runs until the term ends. The first command of the term must be committed before the first client is heard, so
    /// that what an earlier master had in flight is marked (P3).
    pub(crate) async fn run(
        mut self,
        events: &mut mpsc::UnboundedReceiver<GroupEvent>,
        mut from_clients: mpsc::UnboundedReceiver<FromClient>,
        mut asks: mpsc::UnboundedReceiver<Ask>,
        mut role: watch::Receiver<Role>,
    ) -> Ended {
        self.begin_term();
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let ended = loop {
            let begun = self.has_begun();
            let held_for = self.held_for();
            tokio::select! {
                biased;
                event = events.recv() => match event {
                    Some(event) => {
                        self.on_event(event);
                        for _ in 0..ROUND_MAX {
                            let Ok(event) = events.try_recv() else { break };
                            self.on_event(event);
                        }
                    }
                    None => return Ended::Fatal("the group's replica has ended".into()),
                },
                told = self.bridges.next(), if begun => self.on_mesh(told),
                message = from_clients.recv(), if begun => match message {
                    Some(message) => {
                        let mut requests = self.on_client(message);
                        while requests < ROUND_MAX
                            && let Ok(message) = from_clients.try_recv()
                        {
                            requests += self.on_client(message);
                        }
                    }
                    None => return Ended::Deposed,
                },
                Some(ask) = asks.recv() => self.on_ask(ask),
                // An error means that the replica has ended, which its last event tells.
                _ = role.changed() => {}
                _ = tick.tick() => self.on_tick(),
                // The end of the round looks at what is held.
                () = tokio::time::sleep(held_for.unwrap_or(TICK)), if held_for.is_some() => {}
                // Rounds are bounded; between them everybody else has a turn.
                () = tokio::task::yield_now(), if begun && self.dispatcher.is_dirty() && self.group.lease_valid() => {}
            }
            let is_master = *role.borrow() == (Role::Master { term: self.term });
            if let Some(ended) = self.end_round(is_master) {
                break ended;
            }
        };
        self.end_term();
        ended
    }

    /// Makes itself known to the group and proposes the first commands of the term.
    pub(crate) fn begin_term(&mut self) {
        self.attached_index = self.group.attach(|_, index| index);
        tracing::info!(term = self.term, "this node is the master");
        self.tick_clock();
        self.submit_begin();
    }

    fn submit_begin(&mut self) {
        self.submit(Command::BeginTerm.encode(), Pending::Begin);
        if self.group.with_broker(Broker::group) == 0 {
            self.submit(Command::Found(new_group_id()).encode(), Pending::Begin);
        }
    }

    /// Whether clients and the mesh may be heard.
    pub(crate) fn has_begun(&self) -> bool {
        self.begun
    }

    pub(crate) fn end_term(&self) {
        self.group.detach();
        tracing::info!(
            term = self.term,
            in_doubt = self.in_doubt,
            "this node's term as master has ended"
        );
    }

    /// After whatever was heard: sees whether the term goes on, hands out what can be handed out, and sends what the
    /// round has gathered.
    pub(crate) fn end_round(&mut self, is_master: bool) -> Option<Ended> {
        if let Some(text) = self.fatal.take() {
            return Some(Ended::Fatal(text));
        }
        if self.in_doubt || !is_master {
            return Some(Ended::Deposed);
        }
        self.settle_clock();
        if !self.begun && !self.is_beginning() {
            self.begun = true;
            self.look_at_store();
            self.begin_mesh();
        }
        self.hand_out();
        None
    }

    /// The first commands of the term are still to be committed.
    fn is_beginning(&self) -> bool {
        self.begin_refused || self.pending.values().any(|pending| matches!(pending, Pending::Begin))
    }

    /// Hands out what can be handed out and sends what the round has gathered.
    fn hand_out(&mut self) {
        self.dispatch();
        self.spill_old();
        self.report_demand();
        for connection in std::mem::take(&mut self.touched) {
            if let Some(client) = self.clients.get_mut(&connection) {
                client.flush();
            }
        }
    }

    /// Returns what it counts for the bound of a round.
    pub(crate) fn on_client(&mut self, message: FromClient) -> usize {
        match message {
            FromClient::Opened { connection, to, outbox } => {
                let client = Client::new(to, outbox);
                self.clients.insert(connection, client);
            }
            FromClient::Admitted { connection, pass } => {
                if let Some(client) = self.clients.get_mut(&connection) {
                    client.user = pass.identity().map_or("", Identity::name).into();
                    client.pass = pass;
                }
            }
            FromClient::Requests { connection, requests } => {
                let count = requests.len();
                for request in requests {
                    self.on_request(connection, request);
                }
                return count;
            }
            FromClient::Drained { connection } => self.dispatcher.poke(connection),
            FromClient::Closed { connection } => self.on_closed(connection),
        }
        1
    }

    pub(crate) fn on_event(&mut self, event: GroupEvent) {
        match event {
            GroupEvent::Applied {
                index,
                effects,
                results,
            } => {
                // What came before is contained in the state that this loop began with.
                if !effects.is_empty() && index > self.attached_index {
                    self.on_effects(&effects);
                }
                for (token, result) in results {
                    self.on_result(token, result);
                }
            }
            GroupEvent::Done { results } => {
                let full = results.iter().any(|(_, result)| *result == Err(Failure::Full));
                for (token, result) in results {
                    self.on_result(token, result);
                }
                // Whoever was refused is known now, and not heard any more. A loop that ends leaves it to the next one.
                if full && !self.in_doubt {
                    self.group.go_on_after_full();
                }
            }
            GroupEvent::Fatal(text) => self.fatal = Some(text),
        }
    }

    pub(crate) fn on_tick(&mut self) {
        self.tick_clock();
        if !self.begun {
            if std::mem::take(&mut self.begin_refused) {
                self.submit_begin();
            }
            return;
        }
        let now_ms = self.clock.now_ms();
        let group = self.group.clone();
        let commands = group.with_broker(|broker| self.dispatcher.tick(broker, now_ms));
        for command in commands {
            self.submit(command.encode(), Pending::Nobody);
        }
        self.ticks += 1;
        if self.ticks.is_multiple_of(SWEEP_TICKS) {
            self.sweep_temporary();
        }
        if self.ticks.is_multiple_of(STORE_TICKS) {
            self.look_at_store();
        }
        self.tick_mesh();
        self.tick_status();
        self.retry_waiting();
    }

    /// A temporary queue ends with its connection, but a connection that ended with an earlier master told nobody. One
    /// that has had no consumer at two looks is taken for such a one.
    fn sweep_temporary(&mut self) {
        let group = self.group.clone();
        let idle: BTreeSet<Destination> = group.with_broker(|broker| {
            let temporary = broker
                .queues()
                .iter()
                .filter(|queue| queue.destination().kind().is_temporary());
            temporary
                .filter(|queue| self.dispatcher.counts(queue.id).0 == 0)
                .map(|queue| queue.destination().clone())
                .collect()
        });
        let before = std::mem::take(&mut self.idle_temporary);
        for destination in idle.iter().filter(|destination| before.contains(destination)) {
            let destination = destination.clone();
            let command = Command::DeleteDestination(DeleteDestination {
                destination,
                if_empty: false,
            });
            self.submit(command.encode(), Pending::Nobody);
        }
        self.idle_temporary = idle;
    }

    /// Sends wait while the disk has no room or the journal is at its limit, and go on when there is room again.
    fn look_at_store(&mut self) {
        let journal = self.group.status().journal;
        let gauge = |name: &str| journal.get(name).copied().unwrap_or(0);
        // Spare files do not fill the store: they are what the next messages are written to.
        let in_use = gauge("bytes_on_disk").saturating_sub(gauge("spare_bytes"));
        if self.ticks.is_multiple_of(BACKLOG_TICKS) {
            let messages: u64 = self
                .group
                .with_broker(|broker| broker.queues().iter().map(Queue::len).sum());
            self.backlog_bytes = messages * PLACE_BYTES;
        }
        let destinations = self.group.with_broker(|broker| broker.queues().len());
        self.destinations_full = destinations >= self.config.destinations_max;
        let full = !self.group.has_room(self.config.store_reserve_bytes)
            || in_use > self.config.store_bytes_max
            || self.backlog_bytes > self.config.backlog_bytes_max;
        if full != self.store_full {
            if full {
                tracing::warn!(
                    "the store is full: producers wait until there is room (see [store] limit and reserve, and [limits] \
                     backlog)"
                );
            } else {
                tracing::info!("the store has room again: producers go on");
            }
            self.store_full = full;
            self.full_since = full.then_some(self.ticks);
        }
        self.tell_room();
        if !self.store_full {
            for connection in std::mem::take(&mut self.parked) {
                self.unpark(connection);
            }
        }
    }

    /// Whether the disk has room for messages beyond what is on its way there.
    fn has_room_for_sends(&self) -> bool {
        self.has_room_beyond(self.config.store_reserve_bytes)
    }

    /// Whether so much stays free on the disk, with what is on its way there.
    fn has_room_beyond(&self, reserve_bytes: u64) -> bool {
        let on_its_way = self.group.backlog_bytes() as u64;
        self.group.has_room(reserve_bytes.saturating_add(on_its_way))
    }

    /// Proposes an encoded command; its outcome will meet `pending`.
    fn submit(&mut self, command: Bytes, pending: Pending) {
        let token = self.await_outcome(pending);
        self.group.submit(command, token);
    }

    /// [`Leader::submit`] for what nobody waits for: it rides along with what comes next.
    fn submit_along(&mut self, command: Bytes, pending: Pending) {
        let token = self.await_outcome(pending);
        self.group.submit_along(command, token);
    }

    fn await_outcome(&mut self, pending: Pending) -> u64 {
        let token = self.next_token;
        self.next_token += 1;
        self.pending.insert(token, pending);
        token
    }

    fn touch(&mut self, connection: ConnectionId) -> Option<&mut Client> {
        let client = self.clients.get_mut(&connection)?;
        if !client.touched {
            client.touched = true;
            self.touched.push(connection);
        }
        Some(client)
    }
}

/// Any number but 0. The hasher's keys come from the system's randomness.
fn new_group_id() -> GroupId {
    RandomState::new().hash_one(clock::now_ms()).max(1)
}
