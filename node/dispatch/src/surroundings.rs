//! What one round of a queue's dispatch may look at besides itself: the replicated queue, the consumers, message bytes,
//! limits and the time.

use std::collections::BTreeMap;

use ferrymq_broker::{Admission, Numbered, Place, Queue, Slot, producers::Producers};
use ferrymq_message::{Message, Selector, StoredMessage};

use crate::{Action, Bodies, ConnectionId, Consumer, ConsumerId, Direct, Limits, numbers::Numbers};

/// See the file's head.
pub(crate) struct Surroundings<'a> {
    pub(crate) queue: &'a Queue,
    pub(crate) consumers: &'a mut BTreeMap<ConsumerId, Consumer>,
    pub(crate) bodies: &'a dyn Bodies,
    pub(crate) limits: &'a Limits,
    pub(crate) now_ms: i64,
    /// The numbers that the log has seen, and those of messages that did not take it.
    pub(crate) producers: &'a Producers,
    pub(crate) numbers: &'a mut Numbers,
    /// Memory of all queues' messages that do not take the log, in bytes.
    pub(crate) direct_bytes: &'a mut usize,
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

    /// What a message with this number is (P5).
    pub(crate) fn admission(&self, numbered: &Numbered) -> Admission {
        match self.numbers.look(numbered) {
            Admission::New => self
                .producers
                .look(numbered.who(), numbered.producer.sequence, numbered.digest),
            other => other,
        }
    }

    pub(crate) fn deliver_direct(&mut self, id: ConsumerId, direct: Direct, out: &mut Vec<Action>) {
        let Some(consumer) = self.consumers.get_mut(&id) else {
            return;
        };
        let connection = consumer.connection;
        let (message, redeliveries) = (direct.message.clone(), direct.redeliveries);
        let tag = consumer.take_direct(direct);
        self.bodies.hand_out(connection, message.bytes().len());
        out.push(Action::DeliverDirect {
            consumer: id,
            connection,
            tag,
            message,
            redeliveries,
        });
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
    bytes: Source<'a>,
    read: Option<Option<Message>>,
}

enum Source<'a> {
    Place(&'a dyn Bodies, Place),
    Stored(&'a StoredMessage),
}

impl<'a> Lazy<'a> {
    pub(crate) fn new(bodies: &'a dyn Bodies, place: Place) -> Self {
        let bytes = Source::Place(bodies, place);
        Self { bytes, read: None }
    }

    /// One that is in memory.
    pub(crate) fn of(stored: &'a StoredMessage) -> Self {
        let bytes = Source::Stored(stored);
        Self { bytes, read: None }
    }

    /// None where the message cannot be read.
    pub(crate) fn matches(&mut self, selector: &Selector) -> Option<bool> {
        let message = self.read.get_or_insert_with(|| match self.bytes {
            Source::Place(bodies, place) => {
                let bytes = bodies.read(place)?;
                StoredMessage::new(bytes).and_then(|stored| stored.decode()).ok()
            }
            Source::Stored(stored) => stored.decode().ok(),
        });
        message.as_ref().map(|message| selector.matches(message))
    }

    /// A selector has asked, in vain.
    pub(crate) fn is_unreadable(&self) -> bool {
        matches!(self.read, Some(None))
    }
}
