//! Take back everything under offer to a group that is lost for good. Only the operator can know that it is; what comes
//! back is marked redelivered, because the lost group may have delivered it.

use bytes::{BufMut, BytesMut};

use crate::{
    ApplyError, Effect, GroupId, Outcome,
    effect::Applied,
    queue::{OFFERED, REDELIVERED},
    queues::Queues,
    transfers::Transfers,
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
    for offer in std::mem::take(&mut outgoing.pending).into_values() {
        let Some(messages) = queues.get_mut(offer.queue) else {
            continue;
        };
        for seq in offer.seqs {
            if let Some(slot) = messages.get_mut(seq) {
                slot.set(OFFERED, false);
                slot.set(REDELIVERED, true);
                out.effects.push(Effect::Available {
                    queue: offer.queue,
                    seq,
                    returned: true,
                });
            }
        }
    }
    Ok(Outcome::Done)
}
