//! Section 2: the queues and what waits in them, as places.
//!
//! Places are written as distances from the one before; consecutive messages of a backlog take two to four bytes each.
//!
//! ```text
//! the last queue's number u32 | count u32 | queues: id, kind, counters, count varint, slots…, dead letters, refusals
//! ```

use bytes::{BufMut, BytesMut};
use ferrymq_message::Message;

use super::COUNTER_MAX;
use crate::{
    ApplyError, Broker, Place, Queue, Slot,
    command::subscribe::{put_owner, take_owner},
    queue::{KEPT_FLAGS, PERSISTENT, QueueKind},
    wire::{Reader, put_dead_letter, put_destination, put_text, put_varint},
};

pub(super) const VERSION: u8 = 1;

pub(super) fn put(broker: &Broker, out: &mut BytesMut) {
    out.put_u32_le(broker.queues.next_id);
    out.put_u32_le(broker.queues.len() as u32);
    for queue in broker.queues.iter() {
        put_queue(out, queue);
    }
}

/// Durable subscriptions are found by their backlogs; they have no section of their own.
pub(super) fn take(broker: &mut Broker, reader: &mut Reader) -> Result<(), ApplyError> {
    broker.queues.next_id = reader.u32()?;
    for _ in 0..reader.u32()? {
        let queue = take_queue(reader)?;
        if broker.queues.get(queue.id).is_some() {
            return Err(ApplyError::Malformed("number of a queue"));
        }
        if let QueueKind::Subscription { topic, owner, .. } = &queue.kind {
            broker.subscriptions.insert(owner.clone(), topic.name(), queue.id);
        }
        broker.queues.insert(queue);
    }
    Ok(())
}

/// What the first message of a queue is told as the difference from.
const FIRST: Slot = Slot {
    place: Place {
        index: 0,
        offset: 0,
        len: 0,
    },
    expires_ms: 0,
    redeliveries: 0,
    hops: 0,
    priority: Message::PRIORITY_DEFAULT,
    flags: PERSISTENT,
};

/// What a message has in common with the one before it; a backlog of millions is mostly that.
mod same {
    /// Its number is the next one.
    pub(super) const RUN: u8 = 1;
    /// It came with the same entry.
    pub(super) const ENTRY: u8 = 2;
    /// It has as many bytes.
    pub(super) const LEN: u8 = 4;
    /// Everything but number and place.
    pub(super) const KIND: u8 = 8;
}

/// Writes how a message differs from the one before it.
fn put_slot(out: &mut BytesMut, (last_seq, last): (u64, Slot), (seq, slot): (u64, &Slot)) {
    let kind = |s: &Slot| (s.expires_ms, s.redeliveries, s.hops, s.priority, s.flags);
    let common = [
        (seq == last_seq.wrapping_add(1), same::RUN),
        (slot.place.index == last.place.index, same::ENTRY),
        (slot.place.len == last.place.len, same::LEN),
        (kind(slot) == kind(&last), same::KIND),
    ];
    let common = common
        .iter()
        .filter(|(holds, _)| *holds)
        .fold(0, |bits, (_, bit)| bits | bit);
    out.put_u8(common);
    if common & same::RUN == 0 {
        put_varint(out, seq.wrapping_sub(last_seq));
    }
    let mut end = 0;
    if common & same::ENTRY == 0 {
        put_varint(out, slot.place.index.wrapping_sub(last.place.index));
    } else {
        end = last.place.offset.wrapping_add(last.place.len);
    }
    put_varint(out, u64::from(slot.place.offset.wrapping_sub(end)));
    if common & same::LEN == 0 {
        put_varint(out, u64::from(slot.place.len));
    }
    if common & same::KIND == 0 {
        put_varint(out, slot.expires_ms as u64);
        put_varint(out, u64::from(slot.redeliveries));
        out.put_u8(slot.hops);
        out.put_u8(slot.priority);
        out.put_u8(slot.flags);
    }
}

fn take_slot(reader: &mut Reader, (last_seq, last): (u64, Slot)) -> Result<(u64, Slot), ApplyError> {
    let common = reader.u8()?;
    let distance = if common & same::RUN == 0 { reader.varint()? } else { 1 };
    let mut slot = last;
    let mut end = 0;
    if common & same::ENTRY == 0 {
        slot.place.index = last.place.index.wrapping_add(reader.varint()?);
    } else {
        end = last.place.offset.wrapping_add(last.place.len);
    }
    slot.place.offset = end.wrapping_add(reader.varint()? as u32);
    if common & same::LEN == 0 {
        slot.place.len = reader.varint()? as u32;
    }
    if common & same::KIND == 0 {
        slot.expires_ms = reader.varint()? as i64;
        slot.redeliveries = reader.varint()? as u16;
        slot.hops = reader.u8()?;
        slot.priority = reader.u8()?;
        slot.flags = reader.u8()?;
    }
    Ok((last_seq.wrapping_add(distance), slot))
}

fn put_queue(out: &mut BytesMut, queue: &Queue) {
    out.put_u32_le(queue.id);
    match &queue.kind {
        QueueKind::Queue(destination) => {
            out.put_u8(0);
            put_destination(out, destination);
        }
        QueueKind::Subscription { topic, owner, selector } => {
            out.put_u8(1);
            put_destination(out, topic);
            put_owner(out, owner);
            put_text(out, selector);
        }
    }
    out.put_u8(u8::from(queue.consuming));
    for number in [queue.next_seq, queue.redelivered_below, queue.enqueued, queue.dequeued] {
        out.put_u64_le(number);
    }
    put_varint(out, queue.len());
    let mut last = (u64::MAX, FIRST);
    for (seq, slot) in queue.iter_from(0) {
        put_slot(out, last, (seq, slot));
        last = (seq, *slot);
    }
    out.put_u32_le(queue.dead_letters.len() as u32);
    for (&seq, letter) in &queue.dead_letters {
        out.put_u64_le(seq);
        put_dead_letter(out, letter);
    }
    out.put_u32_le(queue.refusals.len() as u32);
    for (&seq, &refusals) in &queue.refusals {
        out.put_u64_le(seq);
        out.put_u8(refusals);
    }
}

fn take_queue(reader: &mut Reader) -> Result<Queue, ApplyError> {
    let id = reader.u32()?;
    let kind = match reader.u8()? {
        0 => QueueKind::Queue(reader.queue_name()?),
        1 => QueueKind::Subscription {
            topic: reader.destination()?,
            owner: take_owner(reader)?,
            selector: reader.text()?,
        },
        _ => return Err(ApplyError::Malformed("kind of queue")),
    };
    let mut queue = Queue::new(id, kind);
    queue.consuming = reader.u8()? != 0;
    let next_seq = reader.u64()?;
    queue.redelivered_below = reader.u64()?;
    let (enqueued, dequeued) = (reader.u64()?, reader.u64()?);
    if next_seq > COUNTER_MAX || enqueued > COUNTER_MAX || dequeued > COUNTER_MAX {
        return Err(ApplyError::Malformed("counter of a queue"));
    }
    let mut last = (u64::MAX, FIRST);
    for number in 0..reader.varint()? {
        let (seq, slot) = take_slot(reader, last)?;
        if (number > 0 && seq <= last.0) || seq >= next_seq {
            return Err(ApplyError::Malformed("number of a message"));
        }
        if slot.flags & !KEPT_FLAGS != 0 {
            return Err(ApplyError::Malformed("flags of a message"));
        }
        queue.restore(seq, slot);
        last = (seq, slot);
    }
    for _ in 0..reader.u32()? {
        let seq = reader.u64()?;
        queue.dead_letters.insert(seq, reader.dead_letter()?);
    }
    for _ in 0..reader.u32()? {
        let seq = reader.u64()?;
        queue.refusals.insert(seq, reader.u8()?);
    }
    (queue.next_seq, queue.enqueued, queue.dequeued) = (next_seq, enqueued, dequeued);
    Ok(queue)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Settings;

    #[test]
    fn a_long_backlog_takes_few_bytes() {
        let mut broker = Broker::default();
        let mut out = crate::Applied::default();
        let queue = broker.queues.open(&ferrymq_message::Destination::queue("Q"), &mut out);
        for n in 0..10_000u32 {
            let place = Place {
                index: u64::from(n / 300),
                offset: 5 + n % 300 * 1105,
                len: 1100,
            };
            broker.queues.get_mut(queue).unwrap().push(Slot::new(place, 0, 4, true));
        }
        let bytes = broker.encode();
        assert!(bytes.len() < 30_000, "{} bytes for 10,000 messages", bytes.len());
        assert_eq!(Broker::decode(&bytes, Settings::default()), Ok(broker));
    }
}
