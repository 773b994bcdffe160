//! Where the master's loop and the mesh meet: own demand goes out, other groups' demand becomes bridges of the
//! dispatcher, committed offers become transfers.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use ferrymq_broker::{
    Broker, Carried, Command, GroupId, Outcome, Owner, QueueId, QueueKind, Subscribe, TransferId, Unsubscribe,
};
use ferrymq_dispatch::Bridge;
use ferrymq_forwarding::{Failed, Input, LinkState, LinkStatus, Output, Pace, RemoteDemand, Room};
use ferrymq_message::{Destination, DestinationKind, Selector};
use ferrymq_replication::Failure;
use tokio::sync::mpsc;

use super::{Leader, outcome::Pending};
use crate::{clock, crash, mesh::RunningMesh};

/// The two ends of the mesh of this term. The mesh ends when they are dropped.
#[derive(Debug)]
pub(crate) struct MeshPort {
    pub(crate) input: mpsc::UnboundedSender<Input>,
    pub(crate) output: mpsc::Receiver<Output>,
    /// Its tasks.
    #[expect(dead_code, reason = "held so that they end with the term")]
    pub(crate) running: RunningMesh,
}

/// Copies of a topic's messages that one other group may have under way.
const TOPIC_CREDIT: u32 = 1_000;
/// Ticks after which a store that has stayed full takes a little from other groups all the same.
const FULL_TICKS_MAX: u64 = 300;
/// How long another group must have been linked without wanting a topic before its backlog here is dropped: a new
/// master on either side first has to hear what is wanted.
const TOPIC_LINGER_MS: i64 = 30_000;

/// The steps of handing over that the mesh proposes; the first one, the offer, is the dispatcher's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HandOver {
    Accept,
    Release,
    Forget,
}

impl HandOver {
    /// The crash point before the proposal.
    fn proposed(self) -> &'static str {
        match self {
            Self::Accept => "accept-proposed",
            Self::Release => "release-proposed",
            Self::Forget => "forget-proposed",
        }
    }

    /// The crash point between the commit and whatever follows from it.
    fn committed(self) -> &'static str {
        match self {
            Self::Accept => "accept-committed",
            Self::Release => "release-committed",
            Self::Forget => "forget-committed",
        }
    }
}

/// What the loop knows of other groups.
#[derive(Debug, Default)]
pub(super) struct Bridges {
    /// None before the term has begun, and where this node has nothing to be linked by.
    port: Option<MeshPort>,
    rows: BTreeMap<Destination, Vec<RemoteDemand>>,
    pub(super) links: Vec<LinkStatus>,
    /// Topics whose own subscribers have changed since it was last told.
    topics_changed: BTreeSet<String>,
    /// Topics that the others believe are wanted here.
    topics_told: BTreeSet<String>,
    /// Topics of clients' durable subscriptions, by backlog, and how many each topic has.
    durable: BTreeMap<QueueId, String>,
    durable_counts: BTreeMap<String, u32>,
    /// Backlogs for other groups whose subscription is proposed and not applied yet.
    pub(super) backlogs_opening: u32,
    room_told: Room,
    /// By group, the first of the transfers from it for which there was no room.
    refused: BTreeMap<GroupId, TransferId>,
    /// Since when a linked group has not wanted a topic that is kept for it.
    unwanted_since_ms: BTreeMap<QueueId, i64>,
}

impl Bridges {
    /// What the mesh says next; never, where there is none.
    pub(super) async fn next(&mut self) -> Output {
        match &mut self.port {
            Some(port) => match port.output.recv().await {
                Some(output) => output,
                None => std::future::pending().await,
            },
            None => std::future::pending().await,
        }
    }

    /// Whether the mesh was asked; where there is none, nobody will answer.
    pub(super) fn ask_status(&self, ask: u64) -> bool {
        self.tell(Input::StatusAsked { ask });
        self.port.is_some()
    }

    fn tell(&self, input: Input) {
        if let Some(port) = &self.port {
            // The mesh ends after the term does; what is told to it after that is of no use to anybody.
            let _ = port.input.send(input);
        }
    }

    pub(super) fn topic_changed(&mut self, topic: &Destination) {
        self.topic_name_changed(topic.name());
    }

    pub(super) fn topic_name_changed(&mut self, topic: &str) {
        self.topics_changed.insert(topic.to_owned());
    }

    fn add_durable(&mut self, queue: QueueId, topic: String) {
        if self.durable.insert(queue, topic.clone()).is_none() {
            *self.durable_counts.entry(topic.clone()).or_insert(0) += 1;
            self.topics_changed.insert(topic);
        }
    }

    fn remove_durable(&mut self, queue: QueueId) {
        let Some(topic) = self.durable.remove(&queue) else {
            return;
        };
        if let Some(count) = self.durable_counts.get_mut(&topic) {
            *count -= 1;
            if *count == 0 {
                self.durable_counts.remove(&topic);
            }
        }
        self.topics_changed.insert(topic);
    }

    /// Messages that wait to be told to the mesh, by destination, for status.
    pub(super) fn rows(&self) -> &BTreeMap<Destination, Vec<RemoteDemand>> {
        &self.rows
    }
}

impl Leader {
    /// Tells the mesh what earlier terms have left under way, and which topics are wanted.
    pub(super) fn begin_mesh(&mut self) {
        let group = self.group.clone();
        self.bridges.port = self.mesh.start_term(group.with_broker(Broker::group), self.term);
        let (next, pending, topics) = group.with_broker(|broker| {
            let outgoing = &broker.transfers().outgoing;
            let next: Vec<(GroupId, TransferId)> = outgoing.iter().map(|(&id, o)| (id, o.next)).collect();
            let pending: Vec<(GroupId, TransferId)> = outgoing
                .iter()
                .flat_map(|(&id, o)| o.pending.keys().map(move |&transfer| (id, transfer)))
                .collect();
            let topics: Vec<(QueueId, String)> = broker
                .queues()
                .iter()
                .filter_map(|q| Some((q.id, durable_topic(q)?.to_owned())))
                .collect();
            (next, pending, topics)
        });
        self.bridges.tell(Input::Room(self.bridges.room_told));
        self.bridges.tell(Input::Settled {
            next,
            pending: pending.clone(),
        });
        for (group, transfer) in pending {
            self.send_transfer(group, transfer);
        }
        for (queue, topic) in topics {
            self.bridges.add_durable(queue, topic);
        }
    }

    pub(crate) fn on_mesh(&mut self, output: Output) {
        match output {
            Output::Propose { token, command } => {
                let step = match command {
                    Command::Accept(_) => HandOver::Accept,
                    Command::Release(_) => HandOver::Release,
                    _ => HandOver::Forget,
                };
                let accept = match &command {
                    Command::Accept(accept) => Some((accept.origin, accept.transfer)),
                    _ => None,
                };
                if accept.is_some_and(|accept| !self.may_accept(accept)) {
                    let result = Err(Failed::Retry);
                    return self.bridges.tell(Input::Proposed { token, result });
                }
                crash::point(step.proposed());
                let pending = Pending::Mesh { token, step, accept };
                match step {
                    HandOver::Accept => self.submit(command.encode(), pending),
                    // The message has moved; what is left is tidying up.
                    HandOver::Release | HandOver::Forget => self.submit_along(command.encode(), pending),
                }
            }
            Output::Demand { destination, rows } => {
                if rows.is_empty() {
                    self.bridges.rows.remove(&destination);
                } else {
                    self.bridges.rows.insert(destination.clone(), rows);
                }
                self.set_bridges(&destination);
            }
            Output::Links(links) => self.bridges.links = links,
            Output::Status { ask, links } => {
                self.bridges.links = links;
                self.answer_status(ask);
            }
        }
    }

    /// Whether there is room for what has arrived, so that the log keeps its reserve for acknowledgements. Behind a
    /// transfer that had none no later one of its group is taken before it comes again (P6); the mesh repeats them in their
    /// order.
    fn may_accept(&mut self, (origin, transfer): (GroupId, TransferId)) -> bool {
        let is_next = self.bridges.refused.get(&origin).is_none_or(|&first| transfer <= first);
        let may = is_next && self.has_room_beyond(self.accept_reserve_bytes(self.bridges.room_told));
        if may {
            self.bridges.refused.remove(&origin);
        } else {
            self.bridges.refused.entry(origin).or_insert(transfer);
        }
        may
    }

    pub(super) fn tell_mesh(
        &mut self,
        token: u64,
        step: HandOver,
        accept: Option<(GroupId, TransferId)>,
        result: Result<Outcome, Failure>,
    ) {
        if let (Some((origin, transfer)), Err(Failure::Full)) = (accept, &result) {
            self.bridges.refused.entry(origin).or_insert(transfer);
        }
        if result.is_ok() {
            crash::point(step.committed());
        }
        let result = result.map_err(|failure| match failure {
            Failure::Full => Failed::Retry,
            Failure::NotMaster | Failure::Unknown | Failure::Fatal => Failed::NotMaster,
        });
        self.bridges.tell(Input::Proposed { token, result });
    }

    /// Disk that must stay free when something is taken over, in bytes.
    fn accept_reserve_bytes(&self, room: Room) -> u64 {
        match room {
            Room::Plenty | Room::None => self.config.store_reserve_bytes,
            Room::Little => self.config.store_reserve_bytes / 2,
        }
    }

    /// Tells the mesh how much room there is for what other groups have (P8).
    pub(super) fn tell_room(&mut self) {
        let room = match self.full_since {
            None => Room::Plenty,
            Some(since)
                if self.ticks - since >= FULL_TICKS_MAX
                    && self.has_room_beyond(self.accept_reserve_bytes(Room::Little)) =>
            {
                Room::Little
            }
            Some(_) => Room::None,
        };
        if std::mem::replace(&mut self.bridges.room_told, room) != room {
            self.bridges.tell(Input::Room(room));
        }
    }

    /// Tells the mesh what this group's own consumers want, where that has changed.
    pub(super) fn report_demand(&mut self) {
        if self.bridges.port.is_none() {
            return;
        }
        let group = self.group.clone();
        let now_ms = clock::now_ms();
        for (destination, demand) in group.with_broker(|broker| self.dispatcher.changed_demand(broker, now_ms)) {
            let (consumers, credit, selectors) = (demand.consumers, demand.credit, demand.selectors);
            let pace = Pace {
                busy: demand.busy,
                per_second: demand.per_second,
                behind: demand.behind,
                in_hand: demand.in_hand,
            };
            self.bridges.tell(Input::LocalDemand {
                destination,
                consumers,
                credit,
                selectors,
                durable: false,
                pace,
            });
        }
        for topic in std::mem::take(&mut self.bridges.topics_changed) {
            self.report_topic(&topic);
        }
    }

    fn report_topic(&mut self, topic: &str) {
        let subscribers = self.topics.count(topic) as u32;
        let durable = self.bridges.durable_counts.get(topic).copied().unwrap_or(0);
        let consumers = subscribers + durable;
        if consumers > 0 {
            self.bridges.topics_told.insert(topic.to_owned());
        } else if !self.bridges.topics_told.remove(topic) {
            return;
        }
        let Ok(destination) = Destination::new(DestinationKind::Topic, topic) else {
            return;
        };
        self.bridges.tell(Input::LocalDemand {
            destination,
            consumers,
            credit: TOPIC_CREDIT,
            selectors: vec![None],
            durable: durable > 0,
            pace: Pace::default(),
        });
    }

    /// Makes bridges of what other groups want of a destination.
    fn set_bridges(&mut self, destination: &Destination) {
        if destination.kind().is_topic() {
            return self.set_topic_bridges(destination);
        }
        let found = self
            .group
            .with_broker(|broker| broker.queues().find(destination.kind(), destination.name()));
        // A queue that is not there yet gets its bridges when it is made.
        let Some(queue) = found else { return };
        let rows = self.bridges.rows.get(destination).map_or(&[][..], Vec::as_slice);
        let mut bridges: Vec<Bridge> = Vec::new();
        for row in rows.iter().filter(|row| row.linked) {
            let bridge = to_bridge(row);
            // One next hop is one bridge, whoever stands behind it.
            match bridges.iter_mut().find(|other| other.next_hop == bridge.next_hop) {
                Some(other) => merge(other, bridge),
                None => bridges.push(bridge),
            }
        }
        self.dispatcher.set_bridges(queue, bridges);
    }

    /// Of a topic each other group gets a backlog of its own, from which copies are handed over.
    fn set_topic_bridges(&mut self, topic: &Destination) {
        let rows = self.bridges.rows.get(topic).cloned().unwrap_or_default();
        for row in &rows {
            let owner = Owner::Group {
                group: row.origin,
                topic: topic.name().to_owned(),
            };
            match self.group.with_broker(|broker| broker.subscriptions().find(&owner)) {
                Some(queue) => {
                    let bridges = if row.linked { vec![to_bridge(row)] } else { Vec::new() };
                    self.dispatcher.set_bridges(queue, bridges);
                }
                None => {
                    let subscribe = Subscribe {
                        topic: topic.clone(),
                        owner,
                        selector: String::new(),
                    };
                    self.bridges.backlogs_opening += 1;
                    self.submit(Command::Subscribe(subscribe).encode(), Pending::Backlog);
                }
            }
        }
        let gone: Vec<QueueId> = self.group.with_broker(|broker| {
            group_backlogs(broker)
                .filter(|(_, name, origin)| *name == topic.name() && !rows.iter().any(|row| row.origin == *origin))
                .map(|(queue, _, _)| queue)
                .collect()
        });
        for queue in gone {
            self.dispatcher.set_bridges(queue, Vec::new());
        }
    }

    pub(super) fn on_queue_created(&mut self, queue: QueueId) {
        let group = self.group.clone();
        let found = group.with_broker(|broker| {
            let queue = broker.queues().get(queue)?;
            Some((queue.destination().clone(), durable_topic(queue).map(str::to_owned)))
        });
        let Some((destination, durable)) = found else { return };
        if let Some(topic) = durable {
            self.bridges.add_durable(queue, topic);
        }
        self.set_bridges(&destination);
    }

    pub(super) fn on_queue_deleted(&mut self, queue: QueueId) {
        self.bridges.unwanted_since_ms.remove(&queue);
        self.bridges.remove_durable(queue);
    }

    /// Drops the backlogs of topics that a linked group has not wanted for a while.
    pub(super) fn tick_mesh(&mut self) {
        let now_ms = clock::now_ms();
        let group = self.group.clone();
        let anybody_linked = self.bridges.links.iter().any(|link| link.state == LinkState::Up);
        let unwanted: Vec<(QueueId, String, GroupId)> = group.with_broker(|broker| {
            group_backlogs(broker)
                .filter(|(queue, topic, origin)| {
                    let rows = Destination::new(DestinationKind::Topic, topic).ok();
                    let rows = rows.and_then(|destination| self.bridges.rows.get(&destination));
                    let wanted = rows.is_some_and(|rows| rows.iter().any(|row| row.origin == *origin));
                    !wanted && anybody_linked && !is_under_offer(broker, *queue)
                })
                .map(|(queue, topic, origin)| (queue, topic.to_owned(), origin))
                .collect()
        });
        self.bridges
            .unwanted_since_ms
            .retain(|queue, _| unwanted.iter().any(|(id, _, _)| id == queue));
        for (queue, topic, origin) in unwanted {
            let neighbour_is_away = self
                .bridges
                .links
                .iter()
                .any(|l| l.group_id == Some(origin) && l.state != LinkState::Up);
            if neighbour_is_away {
                continue;
            }
            let since = *self.bridges.unwanted_since_ms.entry(queue).or_insert(now_ms);
            if now_ms - since > TOPIC_LINGER_MS {
                self.bridges.unwanted_since_ms.remove(&queue);
                let owner = Owner::Group { group: origin, topic };
                self.submit(Command::Unsubscribe(Unsubscribe { owner }).encode(), Pending::Nobody);
            }
        }
    }

    /// Hands a committed offer to the mesh.
    pub(super) fn send_transfer(&mut self, to: GroupId, transfer: TransferId) {
        crash::point("offer-committed");
        let group = self.group.clone();
        let Some((queue, destination, target, places)) = group.with_broker(|broker| offered(broker, to, transfer))
        else {
            return;
        };
        let mut messages = Vec::with_capacity(places.len());
        for (place, mut carried) in places {
            let Some(message) = self.read(place) else { return };
            carried.message = message.bytes().clone();
            messages.push(carried);
        }
        self.bridges.tell(Input::Offered {
            queue,
            group: to,
            transfer,
            destination,
            target,
            messages,
        });
    }

    pub(super) fn on_reclaimed(&self, group: GroupId, below: TransferId) {
        self.bridges.tell(Input::Reclaimed { group, below });
    }

    /// The operator says that a group is lost for good.
    pub(super) fn reclaim(&mut self, name: &str) -> Result<u64, String> {
        let group = self.group.clone();
        let found = group.with_broker(|broker| {
            let outgoing = &broker.transfers().outgoing;
            outgoing
                .iter()
                .find(|(_, o)| o.group_name == name)
                .map(|(&id, o)| (id, o.next, o.pending.len() as u64))
        });
        let Some((id, below, transfers)) = found else {
            return Err(format!("nothing was ever offered to a group named {name:?}"));
        };
        let command = Command::Reclaim(ferrymq_broker::Reclaim { group: id });
        self.submit(command.encode(), Pending::Reclaim { group: id, below });
        Ok(transfers)
    }
}

/// An offer's queue, destination and target, and its messages but for their bytes.
type Offered = (
    QueueId,
    Destination,
    Option<GroupId>,
    Vec<(ferrymq_broker::Place, Carried)>,
);

fn offered(broker: &Broker, to: GroupId, transfer: TransferId) -> Option<Offered> {
    let offer = broker.transfers().outgoing.get(&to)?.pending.get(&transfer)?;
    let queue = broker.queues().get(offer.queue)?;
    let places = offer
        .seqs
        .iter()
        .filter_map(|&seq| {
            let slot = queue.get(seq)?;
            let carried = Carried {
                redeliveries: slot.redeliveries,
                redelivered: queue.redelivered(seq, slot),
                hops: slot.hops.saturating_add(1),
                dead_letter: queue.dead_letter(seq).cloned(),
                message: Bytes::new(),
            };
            Some((slot.place, carried))
        })
        .collect();
    Some((offer.queue, queue.destination().clone(), queue.other_group(), places))
}

fn is_under_offer(broker: &Broker, queue: QueueId) -> bool {
    broker
        .transfers()
        .outgoing
        .values()
        .any(|outgoing| outgoing.pending.values().any(|offer| offer.queue == queue))
}

fn to_bridge(row: &RemoteDemand) -> Bridge {
    let mut bridge = Bridge::new(row.next_hop, row.next_hop_name.clone(), row.available, row.distance);
    if !row.selectors.contains(&None) {
        // A selector that does not parse here (a later version's, say) is taken for one that wants everything.
        bridge.selectors = row
            .selectors
            .iter()
            .flatten()
            .map_while(|text| Selector::parse(text).ok())
            .collect();
        if bridge.selectors.len() < row.selectors.len() {
            bridge.selectors.clear();
        }
    }
    bridge
}

fn merge(bridge: &mut Bridge, other: Bridge) {
    bridge.available = bridge.available.saturating_add(other.available);
    bridge.distance = bridge.distance.min(other.distance);
    if bridge.selectors.is_empty() || other.selectors.is_empty() {
        bridge.selectors.clear();
    } else {
        bridge.selectors.extend(other.selectors);
    }
}

/// The topic of a client's durable subscription.
fn durable_topic(queue: &ferrymq_broker::Queue) -> Option<&str> {
    match &queue.kind {
        QueueKind::Subscription {
            topic,
            owner: Owner::Client { .. },
            ..
        } => Some(topic.name()),
        _ => None,
    }
}

/// (queue, topic, group) of each backlog that is kept for another group.
fn group_backlogs(broker: &Broker) -> impl Iterator<Item = (QueueId, &str, GroupId)> {
    broker
        .queues()
        .iter()
        .filter_map(|queue| Some((queue.id, queue.destination().name(), queue.other_group()?)))
}
