//! Reading and writing the pieces of which commands and snapshots are made.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use ferrymq_message::{Destination, DestinationKind};

use crate::{ApplyError, DeadLetter};

/// Reads from the front of a slice of a log entry and knows where in the entry it stands.
#[derive(Debug, Clone)]
pub(crate) struct Reader {
    rest: Bytes,
    offset: u32,
}

impl Reader {
    /// `offset` is where `bytes` begins inside the entry's payload.
    pub(crate) fn new(bytes: Bytes, offset: u32) -> Self {
        Self { rest: bytes, offset }
    }

    /// Wraps where a snapshot is longer than 4 GiB; an entry's payload, whose offsets count, never is.
    fn advance(&mut self, bytes: u32) {
        self.offset = self.offset.wrapping_add(bytes);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Where the next byte lies inside the entry's payload.
    pub(crate) fn offset(&self) -> u32 {
        self.offset
    }

    pub(crate) fn bytes(&mut self, len: usize) -> Result<Bytes, ApplyError> {
        if len > self.rest.len() {
            return Err(ApplyError::Truncated);
        }
        self.advance(len as u32);
        Ok(self.rest.split_to(len))
    }

    /// Everything up to the end.
    pub(crate) fn rest(&mut self) -> Bytes {
        self.advance(self.rest.len() as u32);
        std::mem::take(&mut self.rest)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, ApplyError> {
        let value = self.rest.try_get_u8().map_err(|_| ApplyError::Truncated)?;
        self.advance(1);
        Ok(value)
    }

    pub(crate) fn u16(&mut self) -> Result<u16, ApplyError> {
        let value = self.rest.try_get_u16_le().map_err(|_| ApplyError::Truncated)?;
        self.advance(2);
        Ok(value)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, ApplyError> {
        let value = self.rest.try_get_u32_le().map_err(|_| ApplyError::Truncated)?;
        self.advance(4);
        Ok(value)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, ApplyError> {
        let value = self.rest.try_get_u64_le().map_err(|_| ApplyError::Truncated)?;
        self.advance(8);
        Ok(value)
    }

    /// A variable-length integer: seven bits a byte, low bits first.
    pub(crate) fn varint(&mut self) -> Result<u64, ApplyError> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(ApplyError::Truncated)
    }

    pub(crate) fn text(&mut self) -> Result<String, ApplyError> {
        let len = self.u32()? as usize;
        let bytes = self.bytes(len)?;
        std::str::from_utf8(&bytes)
            .map(str::to_owned)
            .map_err(|_| ApplyError::Malformed("text"))
    }

    pub(crate) fn destination(&mut self) -> Result<Destination, ApplyError> {
        let kind = DestinationKind::from_u8(self.u8()?).ok_or(ApplyError::Malformed("destination kind"))?;
        let len = self.u32()? as usize;
        let name = self.bytes(len)?;
        let name = std::str::from_utf8(&name).map_err(|_| ApplyError::Malformed("destination name"))?;
        Destination::new(kind, name).map_err(|_| ApplyError::Malformed("destination name"))
    }

    /// A destination that can be a queue's name.
    pub(crate) fn queue_name(&mut self) -> Result<Destination, ApplyError> {
        let destination = self.destination()?;
        if destination.kind().is_topic() {
            return Err(ApplyError::Malformed("name of a queue, which is a topic's"));
        }
        Ok(destination)
    }

    pub(crate) fn option<T>(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<T, ApplyError>,
    ) -> Result<Option<T>, ApplyError> {
        Ok(if self.u8()? == 0 { None } else { Some(read(self)?) })
    }

    pub(crate) fn dead_letter(&mut self) -> Result<DeadLetter, ApplyError> {
        Ok(DeadLetter {
            original: self.destination()?,
            reason: self.text()?,
        })
    }

    /// A list with a count in front; the count is not trusted for an allocation.
    pub(crate) fn list<T>(
        &mut self,
        mut read: impl FnMut(&mut Self) -> Result<T, ApplyError>,
    ) -> Result<Vec<T>, ApplyError> {
        let count = self.u32()? as usize;
        let mut items = Vec::with_capacity(count.min(self.rest.len()));
        for _ in 0..count {
            items.push(read(self)?);
        }
        Ok(items)
    }

    /// Increasing numbers, each written as the distance from the one before.
    pub(crate) fn seqs(&mut self) -> Result<Vec<u64>, ApplyError> {
        let mut last = 0u64;
        self.list(|r| {
            last = last.wrapping_add(r.varint()?);
            Ok(last)
        })
    }
}

pub(crate) fn put_varint(out: &mut BytesMut, mut value: u64) {
    while value >= 0x80 {
        out.put_u8(value as u8 | 0x80);
        value >>= 7;
    }
    out.put_u8(value as u8);
}

pub(crate) fn put_text(out: &mut BytesMut, text: &str) {
    out.put_u32_le(text.len() as u32);
    out.put_slice(text.as_bytes());
}

pub(crate) fn put_destination(out: &mut BytesMut, destination: &Destination) {
    out.put_u8(destination.kind() as u8);
    put_text(out, destination.name());
}

pub(crate) fn put_option<T>(out: &mut BytesMut, value: Option<&T>, put: impl FnOnce(&mut BytesMut, &T)) {
    match value {
        None => out.put_u8(0),
        Some(value) => {
            out.put_u8(1);
            put(out, value);
        }
    }
}

pub(crate) fn put_dead_letter(out: &mut BytesMut, letter: &DeadLetter) {
    put_destination(out, &letter.original);
    put_text(out, &letter.reason);
}

/// Writes increasing numbers as distances; wrapping keeps any order readable.
pub(crate) fn put_seqs(out: &mut BytesMut, seqs: &[u64]) {
    out.put_u32_le(seqs.len() as u32);
    let mut last = 0u64;
    for &seq in seqs {
        put_varint(out, seq.wrapping_sub(last));
        last = seq;
    }
}
