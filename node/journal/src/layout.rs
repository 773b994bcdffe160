//! Records laid out for one vectored write: headers and padding in one buffer, payloads where they are.

use std::{io::IoSlice, ops::Range};

use bytes::Bytes;

use crate::{
    error::Error,
    event::Event,
    queue::Draft,
    record::{HEADER_BYTES, Header},
    segment::SegmentFile,
};

/// What is to be written from `start` of a segment, and what it changes.
#[derive(Debug)]
pub(crate) struct Layout {
    start: u64,
    pub(crate) end: u64,
    /// Padding of a record, header of the next, and so on.
    frames: Vec<u8>,
    pieces: Vec<(Range<usize>, Bytes)>,
    pub(crate) events: Vec<Event>,
}

impl Layout {
    /// `synced`: segment and offset up to which everything is on disk now.
    pub(crate) fn of(
        drafts: impl IntoIterator<Item = Draft>,
        file: &SegmentFile,
        start: u64,
        synced: (u64, u64),
    ) -> Result<Self, Error> {
        let synced = if synced.0 == file.id { (synced.1 / 8) as u32 } else { 0 };
        let mut layout = Self {
            start,
            end: start,
            frames: Vec::new(),
            pieces: Vec::new(),
            events: Vec::new(),
        };
        let mut padding = 0;
        for draft in drafts {
            let at = layout.end;
            let header = Header {
                kind: draft.kind,
                flags: draft.flags,
                len: draft.payload.len() as u32,
                synced,
                term: draft.term,
                index: draft.index,
                payload_crc: file.seed.crc(at, &[&draft.payload]),
            };
            let event = Event::of_record(&header, at, &draft.payload);
            layout
                .events
                .extend(event.map_err(|what| Error::damaged(&file.path, at, what))?);
            let from = layout.frames.len();
            layout.frames.extend(std::iter::repeat_n(0, padding));
            layout.frames.extend(header.encode(file.seed, at));
            layout.end += header.record_bytes();
            padding = header.record_bytes() as usize - HEADER_BYTES - draft.payload.len();
            layout.pieces.push((from..layout.frames.len(), draft.payload));
        }
        let from = layout.frames.len();
        layout.frames.extend(std::iter::repeat_n(0, padding));
        layout.pieces.push((from..layout.frames.len(), Bytes::new()));
        Ok(layout)
    }

    /// Bytes that it takes on disk.
    pub(crate) fn bytes(&self) -> u64 {
        self.end - self.start
    }

    pub(crate) fn write(&self, file: &SegmentFile) -> Result<(), Error> {
        let mut slices = Vec::with_capacity(2 * self.pieces.len());
        for (frame, payload) in &self.pieces {
            for bytes in [&self.frames[frame.clone()], payload] {
                if !bytes.is_empty() {
                    slices.push(IoSlice::new(bytes));
                }
            }
        }
        file.write_vectored(&mut slices, self.start)
    }
}
