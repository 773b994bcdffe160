//! Forget what another group has accepted: step three of handing over (P4). What it refused stays and, refused too
//! often, is not offered again.

use bytes::{BufMut, BytesMut};

use crate::{
    ApplyError, Effect, GroupId, Outcome, TransferId,
    command::accept::{Refused, put_refused, take_refused},
    effect::Applied,
    queue::{OFFERED, PARKED},
    queues::Queues,
    transfers::Transfers,
    wire::Reader,
};

/// Refusals after which a message is parked: other groups are not asked again.
pub const REFUSALS_MAX: u8 = 3;

/// The answer to one transfer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Release {
    /// The group that answered.
    pub group: GroupId,
    /// The transfer.
    pub transfer: TransferId,
    /// What it did not take.
    pub refused: Vec<Refused>,
}

impl Release {
    pub(crate) fn encode(&self, out: &mut BytesMut) {
        out.put_u64_le(self.group);
        out.put_u64_le(self.transfer);
        put_refused(out, &self.refused);
    }
}

pub(crate) fn apply(
    queues: &mut Queues,
    transfers: &mut Transfers,
    mut body: Reader,
    out: &mut Applied,
) -> Result<Outcome, ApplyError> {
    let group = body.u64()?;
    let transfer = body.u64()?;
    let refused = take_refused(&mut body)?;
    let Some(offer) = transfers
        .outgoing
        .get_mut(&group)
        .and_then(|o| o.pending.remove(&transfer))
    else {
        return Ok(Outcome::NotFound);
    };
    let queue = offer.queue;
    let Some(messages) = queues.get_mut(queue) else {
        return Ok(Outcome::Done);
    };
    for (position, seq) in offer.seqs.into_iter().enumerate() {
        if !refused.iter().any(|r| r.position as usize == position) {
            if let Some(slot) = messages.remove(seq) {
                out.unpin(slot.place);
                out.effects.push(Effect::Removed { queue, seq });
            }
            continue;
        }
        if messages.get(seq).is_none() {
            continue;
        }
        let refusals = messages.refusals.entry(seq).or_insert(0);
        *refusals = refusals.saturating_add(1);
        let parked = *refusals >= REFUSALS_MAX;
        if let Some(slot) = messages.get_mut(seq) {
            slot.set(OFFERED, false);
            slot.set(PARKED, parked);
            out.effects.push(Effect::Available {
                queue,
                seq,
                returned: true,
            });
        }
    }
    Ok(Outcome::Done)
}
