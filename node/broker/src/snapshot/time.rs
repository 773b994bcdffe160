//! Section 7: the group's time.
//!
//! ```text
//! milliseconds since 1970 u64, as it was last noted; 0 for never
//! ```

use bytes::{BufMut, BytesMut};

use crate::{ApplyError, Broker, wire::Reader};

pub(super) const VERSION: u8 = 1;

pub(super) fn put(broker: &Broker, out: &mut BytesMut) {
    out.put_u64_le(broker.time_ms);
}

pub(super) fn take(broker: &mut Broker, body: &mut Reader) -> Result<(), ApplyError> {
    broker.time_ms = body.u64()?;
    Ok(())
}
