//! The state as bytes: places only, no message bodies, and compact, because it is written again and again.
//!
//! Places are written as distances from the one before; consecutive messages of a backlog take two to four bytes each.

use bytes::{BufMut, Bytes, BytesMut};
use ferrymq_message::Message;

use crate::{
    ApplyError, Broker, Place, Queue, Settings, Slot,
    command::{
        accept::{put_refused, take_refused},
        subscribe::{put_owner, take_owner},
    },
    producers::{Producers, Seen},
    queue::{KEPT_FLAGS, PERSISTENT, QueueKind},
    transfers::{Incoming, Outgoing, PendingOffer},
    wire::{Reader, put_dead_letter, put_destination, put_seqs, put_text, put_varint},
};

const VERSION: u8 = 1;
/// Counters only ever grow by one, so a larger one was never written; it could overflow later.
const COUNTER_MAX: u64 = u64::MAX / 2;

impl Broker {
    /// The whole state.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = BytesMut::with_capacity(64 * 1024);
        out.put_u8(VERSION);
        out.put_u64_le(self.group);
        out.put_u32_le(self.queues.next_id);
        out.put_u32_le(self.queues.len() as u32);
        for queue in self.queues.iter() {
            put_queue(&mut out, queue);
        }
        let producers = self.producers.sorted();
        out.put_u32_le(producers.len() as u32);
        for (id, seen) in producers {
            put_text(&mut out, id);
            out.put_u64_le(seen.highest);
            out.put_u64_le(seen.index);
            out.put_u16_le(seen.gaps.len() as u16);
            for &(first, last) in &seen.gaps {
                out.put_u64_le(first);
                out.put_u64_le(last);
            }
        }
        self.put_transfers(&mut out);
        out.into()
    }

    fn put_transfers(&self, out: &mut BytesMut) {
        out.put_u32_le(self.transfers.outgoing.len() as u32);
        for (&group, outgoing) in &self.transfers.outgoing {
            out.put_u64_le(group);
            put_text(out, &outgoing.group_name);
            out.put_u64_le(outgoing.next);
            out.put_u32_le(outgoing.pending.len() as u32);
            for (&transfer, offer) in &outgoing.pending {
                out.put_u64_le(transfer);
                out.put_u32_le(offer.queue);
                put_seqs(out, &offer.seqs);
            }
        }
        out.put_u32_le(self.transfers.incoming.len() as u32);
        for (&origin, incoming) in &self.transfers.incoming {
            out.put_u64_le(origin);
            out.put_u64_le(incoming.floor);
            out.put_u32_le(incoming.accepted.len() as u32);
            for (&transfer, refused) in &incoming.accepted {
                out.put_u64_le(transfer);
                put_refused(out, refused);
            }
        }
    }

    /// Reads what [`Broker::encode`] wrote.
    ///
    /// # Errors
    /// Where the bytes are not a snapshot of a version that this program reads.
    pub fn decode(bytes: &[u8], settings: Settings) -> Result<Self, ApplyError> {
        let mut reader = Reader::new(Bytes::copy_from_slice(bytes), 0);
        let version = reader.u8()?;
        if version != VERSION {
            return Err(ApplyError::Version(version));
        }
        let mut broker = Self::new(settings);
        broker.group = reader.u64()?;
        broker.queues.next_id = reader.u32()?;
        for _ in 0..reader.u32()? {
            let queue = take_queue(&mut reader)?;
            if broker.queues.get(queue.id).is_some() {
                return Err(ApplyError::Malformed("number of a queue"));
            }
            if let QueueKind::Subscription { topic, owner, .. } = &queue.kind {
                broker.subscriptions.insert(owner.clone(), topic.name(), queue.id);
            }
            broker.queues.insert(queue);
        }
        let mut producers = Vec::new();
        for _ in 0..reader.u32()? {
            producers.push((reader.text()?.into(), take_seen(&mut reader)?));
        }
        broker.producers = Producers::restore(producers).map_err(|_| ApplyError::Malformed("id of a producer"))?;
        broker.take_transfers(&mut reader)?;
        if reader.is_empty() {
            Ok(broker)
        } else {
            Err(ApplyError::Malformed("end of a snapshot"))
        }
    }

    fn take_transfers(&mut self, reader: &mut Reader) -> Result<(), ApplyError> {
        for _ in 0..reader.u32()? {
            let group = reader.u64()?;
            let mut outgoing = Outgoing {
                group_name: reader.text()?,
                next: reader.u64()?,
                ..Outgoing::default()
            };
            if outgoing.next > COUNTER_MAX {
                return Err(ApplyError::Malformed("number of a transfer"));
            }
            for _ in 0..reader.u32()? {
                let transfer = reader.u64()?;
                outgoing.pending.insert(
                    transfer,
                    PendingOffer {
                        queue: reader.u32()?,
                        seqs: reader.seqs()?,
                    },
                );
            }
            self.transfers.outgoing.insert(group, outgoing);
        }
        for _ in 0..reader.u32()? {
            let origin = reader.u64()?;
            let mut incoming = Incoming {
                floor: reader.u64()?,
                ..Incoming::default()
            };
            for _ in 0..reader.u32()? {
                let transfer = reader.u64()?;
                incoming.accepted.insert(transfer, take_refused(reader)?);
            }
            self.transfers.incoming.insert(origin, incoming);
        }
        Ok(())
    }
}

fn take_seen(reader: &mut Reader) -> Result<Seen, ApplyError> {
    let (highest, index) = (reader.u64()?, reader.u64()?);
    let mut gaps: Vec<(u64, u64)> = Vec::new();
    for _ in 0..reader.u16()? {
        let (first, last) = (reader.u64()?, reader.u64()?);
        let apart = gaps.last().is_none_or(|&(_, before)| before < first);
        if first > last || last >= highest || !apart {
            return Err(ApplyError::Malformed("gap in a producer's numbers"));
        }
        gaps.push((first, last));
    }
    Ok(Seen { highest, index, gaps })
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
    use crate::producers::GAPS_MAX;

    #[test]
    fn a_producer_with_as_many_gaps_as_may_be_survives() {
        let mut broker = Broker::default();
        for sequence in (1..2 * GAPS_MAX as u64).step_by(2) {
            broker.producers.admit("p", sequence, 1);
        }
        assert_eq!(Broker::decode(&broker.encode(), Settings::default()), Ok(broker));
    }

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
