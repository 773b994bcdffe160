//! Take back everything under offer to a group that is lost for good. Only the operator can know that it is; what comes
//! back is marked redelivered, because the lost group may have delivered it.

use bytes::{BufMut, BytesMut};

use crate::{
    ApplyError, Effect, GroupId, Outcome,
    effect::Applied,
    queue::{OFFERED, REDELIVERED},
    queues::Queues,
    transfers::{Outgoing, PendingOffer, Transfers},
    wire::Reader,
};

/// The lost group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reclaim {
    /// Its id.
    pub group: GroupId,
}

impl Reclaim {
    pub(crate) fn encode(&self, out: &mut BytesMut) {
        out.put_u64_le(self.group);
    }
}

pub(crate) fn apply(
    queues: &mut Queues,
    transfers: &mut Transfers,
    mut body: Reader,
    out: &mut Applied,
) -> Result<Outcome, ApplyError> {
    let group = body.u64()?;
    let Some(outgoing) = transfers.outgoing.get_mut(&group) else {
        return Ok(Outcome::NotFound);
    };
    let (transfers, messages) = take_back(queues, outgoing, out);
    Ok(Outcome::Reclaimed { transfers, messages })
}

/// Takes back what is under offer to a group. Returns how many transfers and how many messages.
pub(crate) fn take_back(queues: &mut Queues, outgoing: &mut Outgoing, out: &mut Applied) -> (u64, u64) {
    let pending = std::mem::take(&mut outgoing.pending);
    let (transfers, mut returned) = (pending.len() as u64, 0);
    for offer in pending.into_values() {
        returned += take_back_one(queues, offer, out);
    }
    (transfers, returned)
}

/// Takes back one transfer. Returns how many messages.
pub(crate) fn take_back_one(queues: &mut Queues, offer: PendingOffer, out: &mut Applied) -> u64 {
    let Some(messages) = queues.get_mut(offer.queue) else {
        return 0;
    };
    let mut returned = 0;
    for seq in offer.seqs {
        if let Some(slot) = messages.get_mut(seq) {
            returned += 1;
            slot.set(OFFERED, false);
            slot.set(REDELIVERED, true);
            out.effects.push(Effect::Available {
                queue: offer.queue,
                seq,
                returned: true,
            });
        }
    }
    returned
}
