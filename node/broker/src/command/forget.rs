//! Drop the marks of transfers that their owner has settled: step four of handing over (P4). What comes later under a
//! number below the floor is a stray copy and stores nothing.

use bytes::{BufMut, BytesMut};

use crate::{ApplyError, GroupId, Outcome, TransferId, transfers::Transfers, wire::Reader};

/// The owner's floor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forget {
    /// The owner.
    pub origin: GroupId,
    /// Every transfer below is settled.
    pub floor: TransferId,
}

impl Forget {
    pub(crate) fn encode(&self, out: &mut BytesMut) {
        out.put_u64_le(self.origin);
        out.put_u64_le(self.floor);
    }
}

pub(crate) fn apply(transfers: &mut Transfers, mut body: Reader) -> Result<Outcome, ApplyError> {
    let origin = body.u64()?;
    let floor = body.u64()?;
    let incoming = transfers.incoming.entry(origin).or_default();
    if floor > incoming.floor {
        incoming.floor = floor;
        incoming.accepted = incoming.accepted.split_off(&floor);
    }
    Ok(Outcome::Done)
}
