//! Where the master's loop and the mesh meet: own demand goes out, other groups' demand becomes bridges of the
//! dispatcher, committed offers become transfers.

mod lost;
mod offers;
mod queues;
mod room;
mod topics;
mod wants;

use std::collections::{BTreeMap, BTreeSet};

use ferrymq_broker::{Broker, Command, GroupId, Owner, QueueId, QueueKind, TransferId};
use ferrymq_forwarding::{Failed, Input, LinkStatus, Output, Pace, RemoteDemand, Room};
use ferrymq_message::{Destination, DestinationKind};
use tokio::sync::mpsc;

use super::{Leader, outcome::Pending};
use crate::{crash, mesh::RunningMesh};
pub(super) use lost::Lost;
pub(super) use offers::HandOver;
pub(super) use wants::Seen;

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
    /// Since which tick a group that is there has not wanted a topic that is kept for it.
    unwanted_since: BTreeMap<QueueId, u64>,
    /// What the mesh knows of each other group.
    pub(super) groups: BTreeMap<GroupId, Seen>,
    /// Groups of which something may have to be noted in the log.
    unnoted: BTreeSet<GroupId>,
    /// Groups about which a command is on its way.
    noting: BTreeSet<GroupId>,
    /// Groups that the operator has given up in this term, and that have not been there since: whatever others still say of
    /// them, nothing is kept for them anew.
    forgotten: BTreeSet<GroupId>,
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

    pub(super) fn tell_time(&self, time_ms: Option<u64>) {
        self.tell(Input::Time { time_ms });
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
        let (group_id, life) = group.with_broker(|broker| (broker.group(), broker.life()));
        self.bridges.port = self.mesh.start_term(group_id, life, self.term);
        let arrived = group.with_broker(arrived);
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
        self.recall_groups();
        for (queue, topic) in topics {
            self.bridges.add_durable(queue, topic);
        }
        for topic in std::mem::take(&mut self.bridges.topics_changed) {
            self.report_topic(&topic);
        }
        self.bridges.tell(Input::Room(self.bridges.room_told));
        self.tell_time();
        self.bridges.tell(Input::Settled {
            next,
            pending: pending.clone(),
            arrived,
        });
        for (group, transfer) in pending {
            self.send_transfer(group, transfer);
        }
    }

    pub(crate) fn on_mesh(&mut self, output: Output) {
        match output {
            Output::Propose { token, command } => {
                let step = match command {
                    Command::Accept(_) => HandOver::Accept,
                    Command::Release(_) => HandOver::Release,
                    Command::TakeBack(_) => HandOver::TakeBack,
                    Command::Renew(_) => HandOver::Renew,
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
                    HandOver::Accept | HandOver::Renew => self.submit(command.encode(), pending),
                    // The message has moved; what is left is tidying up.
                    HandOver::Release | HandOver::TakeBack | HandOver::Forget => {
                        self.submit_along(command.encode(), pending)
                    }
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
            Output::Group(known) => self.on_group(known),
            Output::Links(links) => self.links_told(links),
            Output::Status { ask, links } => {
                self.links_told(links);
                self.answer_status(ask);
            }
        }
    }

    fn links_told(&mut self, links: Vec<LinkStatus>) {
        self.clock.watch_links(&links);
        self.bridges.links = links;
    }

    /// Tells the mesh what this group's own consumers want, where that has changed.
    pub(super) fn report_demand(&mut self) {
        if self.bridges.port.is_none() {
            return;
        }
        let group = self.group.clone();
        let now_ms = self.clock.now_ms();
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
        self.bridges.unwanted_since.remove(&queue);
        self.bridges.remove_durable(queue);
    }
}

/// How far the other groups' transfers have come: of each group its floor, and what is above the highest that was accepted.
fn arrived(broker: &Broker) -> Vec<(GroupId, TransferId, TransferId)> {
    let incoming = broker.transfers().incoming.iter();
    let arrived = incoming.map(|(&origin, incoming)| {
        let next = incoming.accepted.keys().next_back().map_or(0, |last| last + 1);
        (origin, incoming.floor, next.max(incoming.floor))
    });
    arrived.collect()
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
