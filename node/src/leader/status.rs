//! What the master's loop shows of itself, as JSON for the console and the command line.

use std::collections::BTreeMap;

use ferrymq_broker::{Broker, Queue, QueueKind};
use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::{Ask, Leader};

/// Whoever wants the status and waits for the mesh to tell its part, by the number of the question.
#[derive(Debug, Default)]
pub(super) struct StatusAsks {
    waiting: BTreeMap<u64, Waiting>,
    next: u64,
}

#[derive(Debug)]
struct Waiting {
    answer: oneshot::Sender<Value>,
    since_ticks: u64,
}

/// Queues shown at most, the longest first; a group may have a hundred thousand.
const QUEUES_SHOWN_MAX: usize = 1_000;
/// Ticks after which a status is told without waiting for a mesh that is busy, with what is known of its links.
const MESH_TICKS_MAX: u64 = 5;
/// Questions that wait for the mesh at one time; further ones are answered with what is known.
const ASKS_MAX: usize = 64;

impl Leader {
    pub(super) fn on_ask(&mut self, ask: Ask) {
        match ask {
            Ask::Status(answer) => self.on_status_asked(answer),
            Ask::Reclaim { group, answer } => self.reclaim(&group, answer),
            Ask::ForgetGroup { group, dry_run, answer } => self.forget_group(&group, dry_run, answer),
        }
    }

    /// The figures of links are the mesh's, so it is asked first: a status is no older in them than in queues.
    fn on_status_asked(&mut self, answer: oneshot::Sender<Value>) {
        let asks = &mut self.status_asks;
        asks.next += 1;
        let ask = asks.next;
        let since_ticks = self.ticks;
        let is_asked = asks.waiting.len() < ASKS_MAX && self.bridges.ask_status(ask);
        asks.waiting.insert(ask, Waiting { answer, since_ticks });
        if !is_asked {
            self.answer_status(ask);
        }
    }

    /// The mesh has told its part, or shall not be waited for.
    pub(super) fn answer_status(&mut self, ask: u64) {
        if let Some(waiting) = self.status_asks.waiting.remove(&ask) {
            // An error means that nobody waits for it any more.
            let _ = waiting.answer.send(self.status());
        }
    }

    pub(super) fn tick_status(&mut self) {
        let is_late = |waiting: &&Waiting| self.ticks - waiting.since_ticks > MESH_TICKS_MAX;
        let late = self.status_asks.waiting.iter().filter(|(_, waiting)| is_late(waiting));
        for ask in late.map(|(ask, _)| *ask).collect::<Vec<_>>() {
            self.answer_status(ask);
        }
    }

    fn status(&self) -> Value {
        let (queues, in_doubt, kept, group_id, incarnation, total) = self.group.with_broker(|broker| {
            (
                self.queues(broker),
                in_doubt(broker),
                self.kept(broker),
                broker.group(),
                broker.life().incarnation,
                broker.queues().len(),
            )
        });
        json!({
            "group_id": format!("{group_id:016x}"),
            "incarnation": incarnation,
            "clock": self.clock.status(&self.group.clocks()),
            "connections": self.clients.len(),
            "consumers": self.consumers.len(),
            "store_full": self.store_full,
            "waiting_for_room": self.parked.len(),
            "waiting_for_groups": self.waiting.len(),
            "backlog_bytes": self.backlog_bytes,
            "backlog_bytes_max": self.config.backlog_bytes_max,
            "destinations_max": self.config.destinations_max,
            "queues_total": total,
            "queues": queues,
            "mesh": {
                "links": self.bridges.links.iter().map(link).collect::<Vec<_>>(),
                "demand": self.bridges.rows().iter().map(|(destination, rows)| json!({
                    "destination": destination.to_string(),
                    "groups": rows.iter().map(|row| json!({
                        "group": row.origin_name,
                        "next_hop": row.next_hop_name,
                        "consumers": row.consumers,
                        "credit": row.available,
                        "distance": row.distance,
                        "durable": row.durable,
                        "linked": row.linked,
                    })).collect::<Vec<_>>(),
                })).collect::<Vec<_>>(),
                "in_doubt": in_doubt,
                "kept": kept,
                "kept_bytes_max": self.config.group_backlog_bytes_max,
            },
        })
    }

    fn queues(&self, broker: &Broker) -> Vec<Value> {
        let mut queues: Vec<&Queue> = broker.queues().iter().collect();
        queues.sort_by_key(|queue| std::cmp::Reverse(queue.len()));
        queues
            .into_iter()
            .take(QUEUES_SHOWN_MAX)
            .map(|queue| {
                let (consumers, in_flight) = self.dispatcher.counts(queue.id);
                let direct = self.dispatcher.direct_counts(queue.id);
                json!({
                    "name": name(queue),
                    "messages": queue.len() + direct.messages,
                    "bytes": queue.bytes + direct.bytes,
                    "in_flight": in_flight,
                    "consumers": consumers,
                    "enqueued": queue.enqueued + direct.enqueued,
                    "dequeued": queue.dequeued + direct.dequeued,
                    "without_log": direct.enqueued,
                })
            })
            .collect()
    }
}

fn name(queue: &Queue) -> String {
    use ferrymq_broker::Owner;
    match &queue.kind {
        QueueKind::Queue(destination) => destination.to_string(),
        QueueKind::Subscription {
            topic,
            owner: Owner::Client { client_id, name },
            ..
        } => {
            format!("{topic} for {client_id}:{name}")
        }
        QueueKind::Subscription {
            topic,
            owner: Owner::Group { group, .. },
            ..
        } => {
            format!("{topic} for group {group:016x}")
        }
    }
}

fn in_doubt(broker: &Broker) -> Vec<Value> {
    broker
        .transfers()
        .outgoing
        .values()
        .filter(|outgoing| !outgoing.pending.is_empty())
        .map(|outgoing| {
            let messages: usize = outgoing.pending.values().map(|offer| offer.seqs.len()).sum();
            json!({ "group": outgoing.group_name, "transfers": outgoing.pending.len(), "messages": messages })
        })
        .collect()
}

fn link(link: &ferrymq_forwarding::LinkStatus) -> Value {
    json!({
        "peer": link.peer,
        "node": link.node,
        "term": link.term,
        "incarnation": link.incarnation,
        "state": format!("{:?}", link.state).to_lowercase(),
        "rtt_us": link.rtt_us,
        "skew_ms": link.skew_ms,
        "rows_in": link.rows_in,
        "rows_out": link.rows_out,
        "transfers_in_doubt": link.transfers_in_doubt,
        "sent": link.sent,
        "received": link.received,
        "refused": link.refused,
        "resyncs": link.resyncs,
        "last_error": link.last_error,
    })
}
