//! Section 4: both sides of handing over between groups (P4).
//!
//! ```text
//! outgoing: count u32, (group u64 | name text | next u64 | pending u32, (transfer u64 | queue u32 | numbers)…)…
//! incoming: count u32, (origin u64 | floor u64 | accepted u32, (transfer u64 | refused)…)…
//! ```

use bytes::{BufMut, BytesMut};

use super::COUNTER_MAX;
use crate::{
    ApplyError, Broker,
    command::accept::{put_refused, take_refused},
    transfers::{Incoming, Outgoing, PendingOffer},
    wire::{Reader, put_seqs, put_text},
};

pub(super) const VERSION: u8 = 1;

pub(super) fn put(broker: &Broker, out: &mut BytesMut) {
    out.put_u32_le(broker.transfers.outgoing.len() as u32);
    for (&group, outgoing) in &broker.transfers.outgoing {
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
    out.put_u32_le(broker.transfers.incoming.len() as u32);
    for (&origin, incoming) in &broker.transfers.incoming {
        out.put_u64_le(origin);
        out.put_u64_le(incoming.floor);
        out.put_u32_le(incoming.accepted.len() as u32);
        for (&transfer, refused) in &incoming.accepted {
            out.put_u64_le(transfer);
            put_refused(out, refused);
        }
    }
}

pub(super) fn take(broker: &mut Broker, reader: &mut Reader) -> Result<(), ApplyError> {
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
        broker.transfers.outgoing.insert(group, outgoing);
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
        broker.transfers.incoming.insert(origin, incoming);
    }
    Ok(())
}
