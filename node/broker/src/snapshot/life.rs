//! Section 6: which life of its group this is.
//!
//! ```text
//! incarnation u64 | lineage u64
//! ```

use bytes::{BufMut, BytesMut};

use crate::{
    ApplyError, Broker,
    life::{INCARNATION_MAX, Life},
    wire::Reader,
};

pub(super) const VERSION: u8 = 1;

pub(super) fn put(broker: &Broker, out: &mut BytesMut) {
    out.put_u64_le(broker.life.incarnation);
    out.put_u64_le(broker.life.lineage);
}

pub(super) fn take(broker: &mut Broker, body: &mut Reader) -> Result<(), ApplyError> {
    let (incarnation, lineage) = (body.u64()?, body.u64()?);
    if incarnation > INCARNATION_MAX {
        return Err(ApplyError::Malformed("incarnation of a group"));
    }
    broker.life = Life { incarnation, lineage };
    Ok(())
}
