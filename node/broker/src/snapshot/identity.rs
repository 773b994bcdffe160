//! Section 1: who the group is.
//!
//! ```text
//! group id u64
//! ```

use bytes::{BufMut, BytesMut};

use crate::{ApplyError, Broker, wire::Reader};

pub(super) const VERSION: u8 = 1;

pub(super) fn put(broker: &Broker, out: &mut BytesMut) {
    out.put_u64_le(broker.group);
}

pub(super) fn take(broker: &mut Broker, reader: &mut Reader) -> Result<(), ApplyError> {
    broker.group = reader.u64()?;
    Ok(())
}
