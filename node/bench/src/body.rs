//! Bodies: who sent which message when, then filler.
//!
//! ```text
//! 0        4         8                 16               24
//! | run u32 | sender u32 | sequence u64 | due, ns u64 | filler …
//! ```

use bytes::{BufMut, Bytes, BytesMut};

use crate::clock::Nanos;

/// What begins every body, and so the smallest body, in bytes.
pub const STAMP_BYTES: usize = 24;

/// What a body says about its message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    /// Which load it belongs to: a queue may still hold messages of an earlier one.
    pub(crate) run: u32,
    pub(crate) sender: u32,
    /// Its number among its sender's, from 0.
    pub(crate) sequence: u64,
    /// When it was to be sent.
    pub(crate) due: Nanos,
}

impl Stamp {
    /// `None` where the body is too short to be one of ours.
    pub(crate) fn read(body: &[u8]) -> Option<Self> {
        let (stamp, _) = body.split_first_chunk::<STAMP_BYTES>()?;
        Some(Self {
            run: u32::from_be_bytes(part(stamp, 0)),
            sender: u32::from_be_bytes(part(stamp, 4)),
            sequence: u64::from_be_bytes(part(stamp, 8)),
            due: u64::from_be_bytes(part(stamp, 16)),
        })
    }
}

fn part<const N: usize>(stamp: &[u8; STAMP_BYTES], at: usize) -> [u8; N] {
    std::array::from_fn(|i| stamp[at + i])
}

/// Makes a sender's bodies; many share one allocation.
#[derive(Debug)]
pub(crate) struct Bodies {
    run: u32,
    sender: u32,
    filler: Bytes,
    buffer: BytesMut,
}

/// Room for bodies that is taken at a time, in bytes.
const BUFFER_BYTES: usize = 128 << 10;

impl Bodies {
    pub(crate) fn new(run: u32, sender: usize, size: usize) -> Self {
        let filler = b"FerryMQ measures with this message. ".iter().copied().cycle();
        Self {
            run,
            sender: sender as u32,
            filler: filler.take(size.saturating_sub(STAMP_BYTES)).collect(),
            buffer: BytesMut::new(),
        }
    }

    pub(crate) fn make(&mut self, sequence: u64, due: Nanos) -> Bytes {
        let size = STAMP_BYTES + self.filler.len();
        if self.buffer.capacity() < size {
            self.buffer.reserve(size.max(BUFFER_BYTES));
        }
        self.buffer.put_u32(self.run);
        self.buffer.put_u32(self.sender);
        self.buffer.put_u64(sequence);
        self.buffer.put_u64(due);
        self.buffer.put_slice(&self.filler);
        self.buffer.split().freeze()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_says_what_it_was_made_with() {
        let mut bodies = Bodies::new(9, 3, 1000);
        for sequence in [0, 1, u64::MAX] {
            let body = bodies.make(sequence, 77);
            assert_eq!(body.len(), 1000);
            let stamp = Stamp::read(&body).unwrap();
            assert_eq!((stamp.run, stamp.sender), (9, 3));
            assert_eq!((stamp.sequence, stamp.due), (sequence, 77));
        }
        assert_eq!(Stamp::read(&[0; STAMP_BYTES - 1]), None);
    }
}
