//! Topics cross once for each group: what another group wants of a topic is a backlog of its own here, from which copies
//! are handed over.

use ferrymq_broker::{Broker, Command, GroupId, Owner, QueueId, Subscribe, Unsubscribe};
use ferrymq_message::{Destination, DestinationKind};

use super::{offers::is_under_offer, queues::to_bridge};
use crate::leader::{Leader, PLACE_BYTES, TICK, outcome::Pending};

impl Leader {
    /// Of a topic each other group gets a backlog of its own, from which copies are handed over.
    pub(super) fn set_topic_bridges(&mut self, topic: &Destination) {
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
                None if !row.linked && self.bridges.forgotten.contains(&row.origin) => {}
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

    /// Drops the backlogs of topics that a group has not wanted for a while, by its own word: a way leads there, and what it
    /// tells along that way does not name the topic. Nobody else's word, and no silence, drops what is kept for it (P2).
    pub(in super::super) fn tick_mesh(&mut self) {
        let now = self.ticks;
        let linger = self.config.topic_linger_ms / TICK.as_millis() as u64;
        let group = self.group.clone();
        let unwanted: Vec<(QueueId, String, GroupId)> = group.with_broker(|broker| {
            group_backlogs(broker)
                .filter(|(queue, topic, origin)| {
                    let rows = Destination::new(DestinationKind::Topic, topic).ok();
                    let rows = rows.and_then(|destination| self.bridges.rows.get(&destination));
                    let wanted = rows.is_some_and(|rows| rows.iter().any(|row| row.origin == *origin));
                    !wanted && self.bridges.is_present(*origin) && !is_under_offer(broker, *queue)
                })
                .map(|(queue, topic, origin)| (queue, topic.to_owned(), origin))
                .collect()
        });
        self.bridges
            .unwanted_since
            .retain(|queue, _| unwanted.iter().any(|(id, _, _)| id == queue));
        for (queue, topic, origin) in unwanted {
            let since = *self.bridges.unwanted_since.entry(queue).or_insert(now);
            if now - since > linger {
                self.bridges.unwanted_since.remove(&queue);
                let owner = Owner::Group { group: origin, topic };
                self.submit(Command::Unsubscribe(Unsubscribe { owner }).encode(), Pending::Nobody);
            }
        }
        self.note_wants();
    }

    /// Why a message to a topic has no room, in words: another group's backlog of it has reached its bound.
    pub(in super::super) fn full_backlog(&self, topic: &str) -> Option<String> {
        let bytes_max = self.config.group_backlog_bytes_max;
        let crossing = self.crossing.bytes(topic);
        let messages_max = self.config.backlog_bytes_max / 4 / PLACE_BYTES;
        let (origin, messages, bytes) = self.group.with_broker(|broker| {
            let backlogs = broker.subscriptions().matching(topic).into_iter();
            let mut backlogs = backlogs.filter_map(|queue| broker.queues().get(queue));
            let full = backlogs.find(|queue| {
                queue.other_group().is_some() && (queue.bytes + crossing >= bytes_max || queue.len() >= messages_max)
            })?;
            Some((full.other_group()?, full.len(), full.bytes))
        })?;
        Some(format!(
            "topic://{topic}: {messages} messages of {bytes} bytes wait for group {}, which is the limit (see [mesh] \
             backlog); they go when it is linked again, or with: ferrymq group forget {origin:016x}",
            self.group_name(origin)
        ))
    }
}

/// (queue, topic, group) of each backlog that is kept for another group.
pub(super) fn group_backlogs(broker: &Broker) -> impl Iterator<Item = (QueueId, &str, GroupId)> {
    broker
        .queues()
        .iter()
        .filter_map(|queue| Some((queue.id, queue.destination().name(), queue.other_group()?)))
}
