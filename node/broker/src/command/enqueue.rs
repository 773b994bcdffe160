//! Store a message: on its queue, or on the backlog of each durable subscription of its topic.
//!
//! What a producer has numbered comes as [`crate::EnqueueOnce`]. In the log's first form it came as this, and was judged
//! by the number alone.

use bytes::{BufMut, Bytes, BytesMut};
use ferrymq_message::{Destination, DestinationKind, StoredMessage};

use crate::{
    ApplyError, Effect, Outcome, Place, Queue, QueueId, Slot,
    command::{framed, kind},
    effect::Applied,
    producers::{Admission, GAPS_MAX, Producers},
    queues::Queues,
    subscriptions::Subscriptions,
    wire::Reader,
};

/// A client's message. The command is nothing but the stored form, which names its destination: every byte more would be
/// written to every replica's disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Enqueue {
    /// Its stored form.
    pub message: Bytes,
}

impl Enqueue {
    pub(crate) fn encode(&self, out: &mut BytesMut) {
        out.put_slice(&self.message);
    }

    /// Appends a whole command without a copy of the message in between: `write` appends the stored form.
    pub fn encode_with(out: &mut BytesMut, write: impl FnOnce(&mut BytesMut)) {
        framed(out, kind::ENQUEUE, write);
    }
}

pub(crate) fn apply(
    queues: &mut Queues,
    subscriptions: &Subscriptions,
    producers: &mut Producers,
    index: u64,
    body: Reader,
    out: &mut Applied,
) -> Result<Outcome, ApplyError> {
    let (slot, message) = take_slot(body, index)?;
    let routing = message.routing().map_err(ApplyError::Message)?;
    if let Some((id, sequence)) = routing.producer {
        let id = std::str::from_utf8(&id).map_err(|_| ApplyError::Malformed("producer id"))?;
        match producers.admit_undigested(id, sequence, index) {
            Admission::New => {}
            Admission::Seen | Admission::Other | Admission::TooOld => return Ok(Outcome::Duplicate),
            Admission::TooManyGaps => {
                let text = format!("producer {id:?} leaves out too many numbers: more than {GAPS_MAX} gaps");
                return Ok(Outcome::Refused(text));
            }
        }
    }
    let destination = (routing.kind, &routing.name[..]);
    store(queues, subscriptions, destination, slot, out)?;
    Ok(Outcome::Done)
}

/// Puts a message on its queue, which may have to be made, or publishes it.
pub(crate) fn store(
    queues: &mut Queues,
    subscriptions: &Subscriptions,
    (kind, name): (DestinationKind, &[u8]),
    slot: Slot,
    out: &mut Applied,
) -> Result<(), ApplyError> {
    let name = std::str::from_utf8(name).map_err(|_| ApplyError::Malformed("destination name"))?;
    if let Some(queue) = queues.find(kind, name) {
        add(queues, queue, slot, out);
        return Ok(());
    }
    let destination = Destination::new(kind, name).map_err(|_| ApplyError::Malformed("destination name"))?;
    if destination.kind().is_topic() {
        publish(queues, subscriptions, &destination, slot, Publisher::Client, out);
    } else {
        let queue = queues.open(&destination, out);
        add(queues, queue, slot, out);
    }
    Ok(())
}

/// Makes a slot of a reader that holds nothing but one stored message.
pub(crate) fn take_slot(mut body: Reader, index: u64) -> Result<(Slot, StoredMessage), ApplyError> {
    let offset = body.offset();
    let bytes = body.rest();
    let place = Place {
        index,
        offset,
        len: bytes.len() as u32,
    };
    let message = StoredMessage::new(bytes).map_err(ApplyError::Message)?;
    Ok((
        Slot::new(place, message.expires_ms(), message.priority(), message.persistent()),
        message,
    ))
}

/// Who published a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Publisher {
    /// A client of this group.
    Client,
    /// Another group handed it over.
    Group,
}

/// Gives each matching subscription its copy and tells the subscribers of the moment.
///
/// A message that came from another group is for this group's own subscriptions only: the group where it was published
/// has sent a copy for every other group that wants one.
pub(crate) fn publish(
    queues: &mut Queues,
    subscriptions: &Subscriptions,
    topic: &Destination,
    slot: Slot,
    from: Publisher,
    out: &mut Applied,
) {
    let mut groups = Vec::new();
    for queue in subscriptions.matching(topic.name()) {
        if let Some(group) = queues.get(queue).and_then(Queue::other_group) {
            // A group that wants this topic under several patterns gets one copy all the same.
            if from == Publisher::Group || groups.contains(&group) {
                continue;
            }
            groups.push(group);
        }
        add(queues, queue, slot, out);
    }
    out.effects.push(Effect::Published {
        topic: topic.clone(),
        place: slot.place,
    });
}

/// Appends to a queue that is there.
pub(crate) fn add(queues: &mut Queues, queue: QueueId, slot: Slot, out: &mut Applied) -> Option<u64> {
    let seq = queues.get_mut(queue)?.push(slot);
    out.pin(slot.place);
    out.effects.push(Effect::Available {
        queue,
        seq,
        returned: false,
    });
    Some(seq)
}
