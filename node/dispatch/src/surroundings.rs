//! What one round of a queue's dispatch may look at besides itself: the replicated queue, the consumers, message bytes,
//! limits and the time.

use std::collections::BTreeMap;

use ferrymq_broker::{Queue, Slot};
use ferrymq_message::{Message, Selector, StoredMessage};

use crate::{Action, Bodies, ConnectionId, Consumer, ConsumerId, Limits};

/// See the file's head.
pub(crate) struct Surroundings<'a> {
    pub(crate) queue: &'a Queue,
    pub(crate) consumers: &'a mut BTreeMap<ConsumerId, Consumer>,
    pub(crate) bodies: &'a dyn Bodies,
    pub(crate) limits: &'a Limits,
    pub(crate) now_ms: i64,
}

impl Surroundings<'_> {
    pub(crate) fn consumer_has_room(&self, id: ConsumerId) -> bool {
        self.consumers
            .get(&id)
            .is_some_and(|c| !c.browser && c.room() > 0 && self.bodies.has_room(c.connection))
    }

    pub(crate) fn deliver(&mut self, id: ConsumerId, seq: u64, slot: &Slot, out: &mut Vec<Action>) {
        let Some(connection) = self.consumers.get(&id).map(|c| c.connection) else {
            return;
        };
        out.push(self.delivery(id, connection, seq, slot));
    }

    pub(crate) fn delivery(&mut self, id: ConsumerId, connection: ConnectionId, seq: u64, slot: &Slot) -> Action {
        let tag = match self.consumers.get_mut(&id) {
            Some(consumer) if consumer.browser => consumer.tag(),
            Some(consumer) => consumer.take(seq),
            None => 0,
        };
        self.bodies.hand_out(connection, slot.place.len as usize);
        Action::Deliver {
            consumer: id,
            connection,
            tag,
            place: slot.place,
            redelivered: self.queue.redelivered(seq, slot),
            redeliveries: slot.redeliveries,
            dead_letter: self.queue.dead_letter(seq).cloned(),
        }
    }

    pub(crate) fn advance_browser(&mut self, id: ConsumerId, position: u64) {
        if let Some(consumer) = self.consumers.get_mut(&id) {
            consumer.browsed_to = position;
        }
    }

    pub(crate) fn finish_browser(&mut self, id: ConsumerId) -> bool {
        self.consumers
            .get_mut(&id)
            .is_some_and(|consumer| !std::mem::replace(&mut consumer.browse_ended, true))
    }
}

/// A message whose bytes are read and decoded when a selector first asks.
pub(crate) struct Lazy<'a> {
    bodies: &'a dyn Bodies,
    slot: &'a Slot,
    read: Option<Option<Message>>,
}

impl<'a> Lazy<'a> {
    pub(crate) fn new(bodies: &'a dyn Bodies, slot: &'a Slot) -> Self {
        Self {
            bodies,
            slot,
            read: None,
        }
    }

    /// None where the message cannot be read.
    pub(crate) fn matches(&mut self, selector: &Selector) -> Option<bool> {
        let message = self.read.get_or_insert_with(|| {
            let bytes = self.bodies.read(self.slot.place)?;
            StoredMessage::new(bytes).and_then(|stored| stored.decode()).ok()
        });
        message.as_ref().map(|message| selector.matches(message))
    }
}
