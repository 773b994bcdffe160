//! The state as bytes: places only, no message bodies, and compact, because it is written again and again.
//!
//! Places are written as distances from the one before; consecutive messages of a backlog take about ten bytes each.

use bytes::{BufMut, Bytes, BytesMut};

use crate::{
    ApplyError, Broker, Place, Queue, Settings, Slot,
    command::{
        accept::{put_refused, take_refused},
        subscribe::{put_owner, take_owner},
    },
    producers::Seen,
    queue::{KEPT_FLAGS, QueueKind},
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
            out.put_u8(seen.gaps.len() as u8);
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
        for _ in 0..reader.u32()? {
            let id = reader.text()?;
            broker.producers.insert(&id, take_seen(&mut reader)?);
        }
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
    for _ in 0..reader.u8()? {
        let (first, last) = (reader.u64()?, reader.u64()?);
        let apart = gaps.last().is_none_or(|&(_, before)| before < first);
        if first > last || last >= highest || !apart {
            return Err(ApplyError::Malformed("gap in a producer's numbers"));
        }
        gaps.push((first, last));
    }
    Ok(Seen { highest, index, gaps })
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
    let mut last = (
        0u64,
        Place {
            index: 0,
            offset: 0,
            len: 0,
        },
    );
    for (seq, slot) in queue.iter_from(0) {
        let Place { index, offset, len } = slot.place;
        put_varint(out, seq.wrapping_sub(last.0));
        let step = index.wrapping_sub(last.1.index);
        put_varint(out, step);
        // Within one entry offsets mostly grow by about the same; in a new entry they begin anew.
        let base = if step == 0 { last.1.offset } else { 0 };
        put_varint(out, u64::from(offset.wrapping_sub(base)));
        put_varint(out, u64::from(len));
        put_varint(out, slot.expires_ms as u64);
        put_varint(out, u64::from(slot.redeliveries));
        out.put_u8(slot.hops);
        out.put_u8(slot.priority);
        out.put_u8(slot.flags);
        last = (seq, slot.place);
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
    let mut seq = 0u64;
    let mut place = Place {
        index: 0,
        offset: 0,
        len: 0,
    };
    for number in 0..reader.varint()? {
        let distance = reader.varint()?;
        seq = seq.wrapping_add(distance);
        if (distance == 0 && number > 0) || seq < distance || seq >= next_seq {
            return Err(ApplyError::Malformed("number of a message"));
        }
        let step = reader.varint()?;
        let base = if step == 0 { place.offset } else { 0 };
        place.index = place.index.wrapping_add(step);
        place.offset = base.wrapping_add(reader.varint()? as u32);
        place.len = reader.varint()? as u32;
        let slot = Slot {
            place,
            expires_ms: reader.varint()? as i64,
            redeliveries: reader.varint()? as u16,
            hops: reader.u8()?,
            priority: reader.u8()?,
            flags: reader.u8()?,
        };
        if slot.flags & !KEPT_FLAGS != 0 {
            return Err(ApplyError::Malformed("flags of a message"));
        }
        queue.restore(seq, slot);
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
