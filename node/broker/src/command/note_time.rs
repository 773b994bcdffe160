//! Note the group's time, so that the next master goes on from there whatever its own clock says. Expiry is judged by the
//! master; what it decides is in the log as [`crate::Expire`].

use bytes::{BufMut, BytesMut};

use crate::{ApplyError, Outcome, wire::Reader};

/// It is so late for the group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoteTime {
    /// Milliseconds since 1970, by the group's clock.
    pub time_ms: u64,
}

impl NoteTime {
    pub(crate) fn encode(&self, out: &mut BytesMut) {
        out.put_u64_le(self.time_ms);
    }
}

/// It never goes back: a master whose clock was noted too late counts for nothing.
pub(crate) fn apply(time_ms: &mut u64, mut body: Reader) -> Result<Outcome, ApplyError> {
    *time_ms = (*time_ms).max(body.u64()?);
    Ok(Outcome::Done)
}
