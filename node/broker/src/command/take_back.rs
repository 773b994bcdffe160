//! Take back one transfer of an earlier life of this group (P4): its receiver has forgotten it as settled in a life of
//! which this state knows nothing. Whether it was accepted then nobody can tell, so its messages are here again, marked.

use bytes::{BufMut, BytesMut};

use crate::{
    ApplyError, GroupId, Outcome, TransferId,
    command::reclaim,
    effect::Applied,
    life::{Life, first_transfer},
    queues::Queues,
    transfers::Transfers,
    wire::Reader,
};

/// One transfer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TakeBack {
    /// The group that it was offered to.
    pub group: GroupId,
    /// Its number; one of this life stays.
    pub transfer: TransferId,
}

impl TakeBack {
    pub(crate) fn encode(&self, out: &mut BytesMut) {
        out.put_u64_le(self.group);
        out.put_u64_le(self.transfer);
    }
}

pub(crate) fn apply(
    queues: &mut Queues,
    transfers: &mut Transfers,
    life: Life,
    mut body: Reader,
    out: &mut Applied,
) -> Result<Outcome, ApplyError> {
    let (group, transfer) = (body.u64()?, body.u64()?);
    let earlier = transfer < first_transfer(life.incarnation);
    let outgoing = transfers.outgoing.get_mut(&group).filter(|_| earlier);
    let Some(offer) = outgoing.and_then(|outgoing| outgoing.pending.remove(&transfer)) else {
        return Ok(Outcome::NotFound);
    };
    reclaim::take_back_one(queues, offer, out);
    Ok(Outcome::Done)
}
