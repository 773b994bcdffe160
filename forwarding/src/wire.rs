//! Reading and writing the pieces of which link frames are made. Nothing is allocated by a length that was not checked
//! against the bytes that are really there.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use ferrymq_message::{Destination, DestinationKind};

use crate::frame::FrameError;

/// Reads from the front of a frame's payload.
#[derive(Debug)]
pub(crate) struct Reader(Bytes);

impl Reader {
    pub(crate) fn new(payload: Bytes) -> Self {
        Self(payload)
    }

    /// Every frame is read to its last byte, so that no two sides disagree about its form.
    pub(crate) fn end(self) -> Result<(), FrameError> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err(FrameError::Trailing(self.0.len()))
        }
    }

    pub(crate) fn bytes(&mut self, len: usize) -> Result<Bytes, FrameError> {
        if len > self.0.len() {
            return Err(FrameError::Truncated);
        }
        Ok(self.0.split_to(len))
    }

    pub(crate) fn u8(&mut self) -> Result<u8, FrameError> {
        self.0.try_get_u8().map_err(|_| FrameError::Truncated)
    }

    pub(crate) fn u16(&mut self) -> Result<u16, FrameError> {
        self.0.try_get_u16_le().map_err(|_| FrameError::Truncated)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, FrameError> {
        self.0.try_get_u32_le().map_err(|_| FrameError::Truncated)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, FrameError> {
        self.0.try_get_u64_le().map_err(|_| FrameError::Truncated)
    }

    pub(crate) fn bool(&mut self) -> Result<bool, FrameError> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(FrameError::Malformed("flag")),
        }
    }

    pub(crate) fn text(&mut self, what: &'static str, bytes_max: usize) -> Result<String, FrameError> {
        let len = self.u32()? as usize;
        if len > bytes_max {
            return Err(FrameError::Malformed(what));
        }
        let bytes = self.bytes(len)?;
        std::str::from_utf8(&bytes)
            .map(str::to_owned)
            .map_err(|_| FrameError::Malformed(what))
    }

    pub(crate) fn destination(&mut self) -> Result<Destination, FrameError> {
        let kind = DestinationKind::from_u8(self.u8()?).ok_or(FrameError::Malformed("destination kind"))?;
        let name = self.text("destination name", Destination::NAME_BYTES_MAX)?;
        Destination::new(kind, &name).map_err(|_| FrameError::Malformed("destination name"))
    }

    pub(crate) fn option<T>(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<T, FrameError>,
    ) -> Result<Option<T>, FrameError> {
        if self.bool()? { read(self).map(Some) } else { Ok(None) }
    }

    /// A list with its count in front; every item takes at least `item_bytes_min` bytes.
    pub(crate) fn list<T>(
        &mut self,
        item_bytes_min: usize,
        mut read: impl FnMut(&mut Self) -> Result<T, FrameError>,
    ) -> Result<Vec<T>, FrameError> {
        let count = self.u32()? as usize;
        if count > self.0.len() / item_bytes_min.max(1) {
            return Err(FrameError::Truncated);
        }
        (0..count).map(|_| read(self)).collect()
    }
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
    out.put_u8(u8::from(value.is_some()));
    if let Some(value) = value {
        put(out, value);
    }
}

pub(crate) fn put_list<T>(out: &mut BytesMut, items: &[T], mut put: impl FnMut(&mut BytesMut, &T)) {
    out.put_u32_le(items.len() as u32);
    for item in items {
        put(out, item);
    }
}
