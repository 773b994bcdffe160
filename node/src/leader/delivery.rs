//! Station 9 of a message's road: effects reach the dispatcher, and what it hands out reaches the connections.

use std::{cell::RefCell, collections::BTreeMap};

use bytes::Bytes;
use ferrymq_broker::{Command, Effect, Outcome, Place, QueueId};
use ferrymq_dispatch::{Action, Bodies, ConnectionId, ConsumerId};
use ferrymq_message::StoredMessage;
use ferrymq_protocol::{DeadLetter, Delivery, Refusal, RefusalKind};
use ferrymq_replication::Group;

use super::{Leader, client::Client, outcome::Pending};
use crate::crash;

/// Messages below this size are copied out of their batch before they wait for a client: a part of a batch would keep a
/// megabyte in memory for as long as it waits.
const DETACHED_BYTES_MAX: usize = 256 << 10;
/// What a delivery takes beside its message, in bytes.
pub(super) const DELIVERY_BYTES: usize = 256;
/// Messages up to this size are copied for each subscriber of a topic when they are written; larger ones are shared.
const COPIED_BYTES_MAX: usize = 4096;
/// A topic's subscriber may be behind by so many times the outbox; then it is disconnected and told why.
const SUBSCRIBER_OUTBOXES_MAX: usize = 16;

impl Leader {
    pub(super) fn on_effects(&mut self, effects: &[Effect]) {
        let group = self.group.clone();
        group.with_broker(|broker| {
            for effect in effects {
                self.dispatcher.on_effect(effect, broker);
            }
        });
        for effect in effects {
            match effect {
                Effect::Published { topic, place } => {
                    if let Some(message) = self.read(*place) {
                        self.publish(topic.name(), &detached(message), None);
                    }
                }
                Effect::Offered { group, transfer, .. } => self.send_transfer(*group, *transfer),
                Effect::QueueCreated { queue } => self.on_queue_created(*queue),
                Effect::QueueDeleted { queue } => {
                    self.end_consumers(*queue);
                    self.on_queue_deleted(*queue);
                }
                _ => {}
            }
        }
    }

    /// A queue is gone: its consumers would wait for ever.
    fn end_consumers(&mut self, queue: QueueId) {
        let gone: Vec<_> = self
            .consumers
            .values()
            .filter(|a| a.queue == Some(queue))
            .map(|a| a.connection)
            .collect();
        for connection in gone {
            if let Some(client) = self.touch(connection) {
                client.fail(Refusal::new(
                    RefusalKind::NotFound,
                    "a queue that this client consumes was deleted",
                ));
            }
        }
    }

    /// Gives each subscriber of the moment its copy.
    pub(super) fn publish(&mut self, topic: &str, message: &StoredMessage, from: Option<ConnectionId>) {
        let max = self.config.outbox_bytes_max * SUBSCRIBER_OUTBOXES_MAX;
        let load = self.config.load.clone();
        let copies = self.topics.publish(topic, message, from);
        let bytes = message.bytes().len();
        // Its memory is that of all subscribers together, and free again when the last of them has got it.
        let shared = (bytes > COPIED_BYTES_MAX && !copies.is_empty()).then(|| load.shared(message));
        let message = shared.as_ref().unwrap_or(message);
        for copy in copies {
            let Some(attached) = self.consumers.get(&copy.consumer).copied() else {
                continue;
            };
            let Some(client) = self.touch(copy.connection) else {
                continue;
            };
            if client.outbox.has_ended() {
                continue;
            }
            if client.outbox.unwritten_bytes() > max {
                let text = format!("{max} bytes wait for this slow subscriber of topic://{topic}, which is the limit");
                tracing::warn!(connection = copy.connection, topic, "a slow subscriber is disconnected");
                load.counts.slow_consumers_cut.add();
                client.outbox.end(Refusal::new(RefusalKind::Full, text));
                continue;
            }
            let charged = DELIVERY_BYTES + if shared.is_some() { 0 } else { bytes };
            client.outbox.hand_out(bytes, charged);
            let delivery = Delivery {
                subscription: attached.subscription,
                tag: copy.tag,
                message: message.clone(),
                redelivery_count: 0,
                redelivered: false,
                dead_letter: None,
            };
            client.deliver(delivery, charged);
        }
    }

    /// Hands out what can be handed out, as long as no other node can be master (P7).
    pub(super) fn dispatch(&mut self) {
        if !self.dispatcher.is_dirty() || !self.group.lease_valid() {
            return;
        }
        let mut actions = Vec::new();
        let group = self.group.clone();
        let bodies = Reading::new(&group, &self.clients, self.config.outbox_bytes_max);
        let (dispatcher, now_ms) = (&mut self.dispatcher, self.clock.now_ms());
        group.with_broker(|broker| dispatcher.dispatch(broker, &bodies, now_ms, &mut actions));
        if let Some(text) = bodies.failed.into_inner() {
            self.fatal = Some(text);
            return;
        }
        for action in actions {
            self.carry_out(action);
        }
    }

    pub(super) fn carry_out(&mut self, action: Action) {
        match action {
            Action::Deliver {
                consumer,
                place,
                tag,
                redelivered,
                redeliveries,
                dead_letter,
                ..
            } => {
                let dead_letter = dead_letter.map(|l| DeadLetter {
                    original: l.original,
                    reason: l.reason,
                });
                let count = u32::from(redeliveries).max(u32::from(redelivered));
                self.deliver(consumer, place, tag, count, redelivered, dead_letter);
            }
            Action::DeliverDirect {
                consumer,
                connection,
                tag,
                message,
                redeliveries,
            } => self.deliver_direct(consumer, connection, tag, message, redeliveries),
            Action::Answer { ticket } => self.on_result(ticket, Ok(Outcome::Done)),
            Action::Log {
                ticket,
                producer,
                command,
                ..
            } => {
                self.tell_passed(producer.as_ref());
                self.group.submit(command, ticket);
            }
            Action::PutBack { queue, command } => self.submit(command.encode(), Pending::PutBack { queue }),
            Action::Propose(command) => {
                if matches!(command, Command::Offer(_)) {
                    crash::point("offer-proposed");
                }
                self.submit(command.encode(), Pending::Nobody);
            }
            Action::Browsed { consumer, connection } => {
                let subscription = self.consumers.get(&consumer).map(|attached| attached.subscription);
                if let (Some(subscription), Some(client)) = (subscription, self.touch(connection)) {
                    client.end_browse(subscription);
                }
            }
            // The reader has reported it, and the node stops.
            Action::Unreadable { .. } => {}
        }
    }

    fn deliver(
        &mut self,
        consumer: ConsumerId,
        place: Place,
        tag: u64,
        redelivery_count: u32,
        redelivered: bool,
        dead_letter: Option<DeadLetter>,
    ) {
        let Some(attached) = self.consumers.get(&consumer).copied() else {
            return;
        };
        let Some(message) = self.read(place) else { return };
        let subscription = attached.subscription;
        let message = detached(message);
        if let Some(client) = self.touch(attached.connection) {
            let charged = DELIVERY_BYTES + message.bytes().len();
            let delivery = Delivery {
                subscription,
                tag,
                message,
                redelivery_count,
                redelivered,
                dead_letter,
            };
            client.deliver(delivery, charged);
        }
    }

    /// A message's bytes. Where they are damaged the node stops and another one, whose bytes are good, takes over (P9).
    pub(super) fn read(&mut self, place: Place) -> Option<StoredMessage> {
        let read = self.group.read(place).map_err(|error| error.to_string());
        match read.and_then(|bytes| StoredMessage::new(bytes).map_err(|error| error.to_string())) {
            Ok(message) => Some(message),
            Err(error) => {
                self.fatal = Some(format!(
                    "the message at log entry {} cannot be read: {error}",
                    place.index
                ));
                None
            }
        }
    }
}

/// A message by itself, unless it is most of its batch.
fn detached(message: StoredMessage) -> StoredMessage {
    if message.bytes().len() >= DETACHED_BYTES_MAX {
        return message;
    }
    StoredMessage::new(Bytes::copy_from_slice(message.bytes())).unwrap_or(message)
}

/// What the dispatcher may look at while it holds the state's lock.
pub(super) struct Reading<'a> {
    group: &'a Group,
    clients: &'a BTreeMap<ConnectionId, Client>,
    outbox_bytes_max: usize,
    failed: RefCell<Option<String>>,
}

impl<'a> Reading<'a> {
    pub(super) fn new(group: &'a Group, clients: &'a BTreeMap<ConnectionId, Client>, outbox_bytes_max: usize) -> Self {
        Self {
            group,
            clients,
            outbox_bytes_max,
            failed: RefCell::new(None),
        }
    }
}

impl Bodies for Reading<'_> {
    fn read(&self, place: Place) -> Option<Bytes> {
        match self.group.read(place) {
            Ok(bytes) => Some(bytes),
            Err(error) => {
                let text = format!("the message at log entry {} cannot be read: {error}", place.index);
                self.failed.borrow_mut().get_or_insert(text);
                None
            }
        }
    }

    fn has_room(&self, connection: ConnectionId) -> bool {
        self.clients
            .get(&connection)
            .is_some_and(|c| c.outbox.has_room(self.outbox_bytes_max))
    }

    fn hand_out(&self, connection: ConnectionId, bytes: usize) {
        if let Some(client) = self.clients.get(&connection) {
            client.outbox.hand_out(bytes, DELIVERY_BYTES + bytes);
        }
    }
}
