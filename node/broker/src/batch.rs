//! A log entry's payload: commands of many clients, one after the other.
//!
//! ```text
//! 0 version u8 = 1 | 1 count u32 | 5 commands: (kind u8, bytes u32, body)…
//! ```

use bytes::{BufMut, Bytes, BytesMut};

use crate::{ApplyError, wire::Reader};

const VERSION: u8 = 1;
const HEADER_BYTES: usize = 5;

/// Packs encoded commands into one payload.
#[derive(Debug)]
pub struct BatchBuilder {
    bytes: BytesMut,
    count: u32,
}

impl Default for BatchBuilder {
    fn default() -> Self {
        Self::with_capacity(4096)
    }
}

impl BatchBuilder {
    /// A builder that does not reallocate below this many bytes.
    pub fn with_capacity(bytes: usize) -> Self {
        let mut buffer = BytesMut::with_capacity(bytes + HEADER_BYTES);
        buffer.put_u8(VERSION);
        buffer.put_u32_le(0);
        Self {
            bytes: buffer,
            count: 0,
        }
    }

    /// Adds what `Command::encode_into` wrote.
    pub fn push(&mut self, command: &[u8]) {
        self.bytes.put_slice(command);
        self.count += 1;
    }

    /// Commands so far.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Bytes so far.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// True before the first command.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The payload.
    pub fn finish(mut self) -> Bytes {
        self.bytes[1..HEADER_BYTES].copy_from_slice(&self.count.to_le_bytes());
        self.bytes.freeze()
    }
}

/// Opens a payload: how many commands there are and a reader that stands on the first.
pub(crate) fn open(payload: &Bytes) -> Result<(u32, Reader), ApplyError> {
    let mut reader = Reader::new(payload.clone(), 0);
    let version = reader.u8()?;
    if version != VERSION {
        return Err(ApplyError::Version(version));
    }
    Ok((reader.u32()?, reader))
}

/// Takes one command's kind and body off the reader.
pub(crate) fn next(reader: &mut Reader) -> Result<(u8, Reader), ApplyError> {
    let kind = reader.u8()?;
    let len = reader.u32()? as usize;
    let offset = reader.offset();
    Ok((kind, Reader::new(reader.bytes(len)?, offset)))
}
