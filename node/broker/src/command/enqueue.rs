//! Store a message: on its queue, or on the backlog of each durable subscription of its topic.

use bytes::{BufMut, Bytes, BytesMut};
use ferrymq_message::{Destination, StoredMessage};

use crate::{
    ApplyError, Effect, Outcome, Place, Queue, QueueId, Slot,
    command::{framed, kind},
    effect::Applied,
    producers::Producers,
    queues::Queues,
    subscriptions::Subscriptions,
    wire::{Reader, put_destination, put_option, put_text},
};

/// A client's message.
///
/// ```text
/// destination | producer: (0) or (1, id, sequence u64) | stored message to the end
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Enqueue {
    /// Where it goes.
    pub destination: Destination,
    /// The producer's id and the number it gave to this message (P5).
    pub producer: Option<(String, u64)>,
    /// Its stored form.
    pub message: Bytes,
}

impl Enqueue {
    pub(crate) fn encode(&self, out: &mut BytesMut) {
        put_destination(out, &self.destination);
        put_option(out, self.producer.as_ref(), |out, (id, sequence)| {
            put_text(out, id);
            out.put_u64_le(*sequence);
        });
        out.put_slice(&self.message);
    }

    /// Appends a whole command without a copy of the message in between: `write` appends the stored form.
    pub fn encode_with(
        out: &mut BytesMut,
        destination: &Destination,
        producer: Option<(&str, u64)>,
        write: impl FnOnce(&mut BytesMut),
    ) {
        framed(out, kind::ENQUEUE, |out| {
            put_destination(out, destination);
            put_option(out, producer.as_ref(), |out, (id, sequence)| {
                put_text(out, id);
                out.put_u64_le(*sequence);
            });
            write(out);
        });
    }
}

pub(crate) fn apply(
    queues: &mut Queues,
    subscriptions: &Subscriptions,
    producers: &mut Producers,
    index: u64,
    mut body: Reader,
    out: &mut Applied,
) -> Result<Outcome, ApplyError> {
    let destination = body.destination()?;
    let producer = body.option(|r| {
        let len = r.u32()? as usize;
        Ok((r.bytes(len)?, r.u64()?))
    })?;
    if let Some((id, sequence)) = producer {
        let id = std::str::from_utf8(&id).map_err(|_| ApplyError::Malformed("producer id"))?;
        if !producers.admit(id, sequence, index) {
            return Ok(Outcome::Duplicate);
        }
    }
    let slot = take_slot(&mut body, index, None)?;
    store(queues, subscriptions, &destination, slot, out);
    Ok(Outcome::Done)
}

/// Makes a slot of the stored message that comes next: of this length, or up to the end.
pub(crate) fn take_slot(body: &mut Reader, index: u64, len: Option<usize>) -> Result<Slot, ApplyError> {
    let offset = body.offset();
    let bytes = match len {
        Some(len) => body.bytes(len)?,
        None => body.rest(),
    };
    let place = Place {
        index,
        offset,
        len: bytes.len() as u32,
    };
    let message = StoredMessage::new(bytes).map_err(ApplyError::Message)?;
    Ok(Slot::new(
        place,
        message.expires_ms(),
        message.priority(),
        message.persistent(),
    ))
}

/// Puts a message where its destination says.
fn store(queues: &mut Queues, subscriptions: &Subscriptions, destination: &Destination, slot: Slot, out: &mut Applied) {
    if !destination.kind().is_topic() {
        let queue = queues.open(destination, out);
        add(queues, queue, slot, out);
        return;
    }
    publish(queues, subscriptions, destination, slot, Publisher::Client, out);
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
