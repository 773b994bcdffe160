//! Begin a new life of this group, since its log went back: from here on its epochs and its transfers' numbers are of a
//! later incarnation, and no mark that another group holds of an earlier one answers for them (P4).

use bytes::{BufMut, BytesMut};

use crate::{
    ApplyError, Outcome,
    life::{INCARNATION_MAX, Life},
    wire::Reader,
};

/// The new life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Renew {
    /// Above all that anybody has seen of this group.
    pub incarnation: u64,
    /// Drawn at random.
    pub lineage: u64,
}

impl Renew {
    pub(crate) fn encode(&self, out: &mut BytesMut) {
        out.put_u64_le(self.incarnation);
        out.put_u64_le(self.lineage);
    }
}

/// A renewal that comes again, or behind a later one, changes nothing.
pub(crate) fn apply(life: &mut Life, mut body: Reader) -> Result<Outcome, ApplyError> {
    let (incarnation, lineage) = (body.u64()?, body.u64()?);
    if incarnation > life.incarnation && incarnation <= INCARNATION_MAX {
        *life = Life { incarnation, lineage };
    }
    let Life { incarnation, lineage } = *life;
    Ok(Outcome::Renewed { incarnation, lineage })
}
