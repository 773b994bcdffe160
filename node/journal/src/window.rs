//! Reads a segment file from front to end through a window of memory: records in order, and proofs behind a hole.

use bytes::Bytes;

use crate::{
    error::Error,
    event::Head,
    record::{HEADER_BYTES, Header, KIND_AT, Kind, PAYLOAD_BYTES_MAX},
    segment::{FIRST_RECORD, SegmentFile},
};

/// How far the valid records of a segment reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Scan {
    /// Where they end: at the seal, at the first bad record, or where nothing was written.
    pub(crate) end: u64,
    /// Offset up to which a record of this segment proves it synced.
    pub(crate) proven: u64,
    pub(crate) records: u64,
    /// The segment named by the seal.
    pub(crate) next: Option<u64>,
}

/// Gives each valid record (header, offset, payload) to `each`, in order. An entry's payload is verified but not
/// handed over. An error of `each` is damage at that record.
pub(crate) fn scan(
    file: &SegmentFile,
    mut each: impl FnMut(&Header, u64, &Bytes) -> Result<(), &'static str>,
) -> Result<Scan, Error> {
    let mut window = Window::new(file);
    let mut scan = Scan {
        end: FIRST_RECORD,
        proven: 0,
        records: 0,
        next: None,
    };
    while let Some((header, payload)) = window.record(scan.end)? {
        let payload = if header.kind == Kind::Entry {
            Bytes::new()
        } else {
            Bytes::copy_from_slice(payload)
        };
        if header.kind == Kind::Seal {
            let next = payload.get(..8).map(|bytes| crate::record::u64_at(bytes, 0));
            scan.next = Some(next.ok_or_else(|| Error::damaged(&file.path, scan.end, "the seal is cut short"))?);
            break;
        }
        each(&header, scan.end, &payload).map_err(|what| Error::damaged(&file.path, scan.end, what))?;
        scan.records += 1;
        scan.proven = scan.proven.max(header.synced_bytes());
        scan.end += header.record_bytes();
    }
    Ok(scan)
}

/// Whether a header at or after `from` proves that its segment was synced beyond `hole`.
pub(crate) fn proves(file: &SegmentFile, from: u64, hole: u64) -> Result<bool, Error> {
    let mut window = Window::new(file);
    let mut start = from.next_multiple_of(8);
    while start + HEADER_BYTES as u64 <= file.len() {
        let len = (file.len() - start).min(WINDOW_BYTES as u64) as usize;
        let bytes = window.bytes(start, len)?;
        let mut at = 0;
        while at + HEADER_BYTES <= len {
            // Most of what is searched was never written, and no kind has the number 0.
            let kind_at = at + KIND_AT;
            if kind_at % ZEROS.len() < 8 && bytes[kind_at..].starts_with(&ZEROS) {
                at += ZEROS.len();
                continue;
            }
            if bytes[kind_at] != 0
                && Header::decode(&bytes[at..], file.seed, start + at as u64).is_some_and(|h| h.synced_bytes() > hole)
            {
                return Ok(true);
            }
            at += 8;
        }
        // The next window begins with the first offset that had no whole header in this one.
        start += ((len - HEADER_BYTES) / 8 * 8 + 8) as u64;
    }
    Ok(false)
}

/// Whether `file` proves that an earlier segment `id` was synced beyond `hole`.
pub(crate) fn proves_earlier(file: &SegmentFile, id: u64, hole: u64) -> Result<bool, Error> {
    if let Some((header, payload)) = Window::new(file).record(FIRST_RECORD)?
        && header.kind == Kind::Head
        && let Some(head) = Head::decode(&mut Bytes::copy_from_slice(payload))
        && head.synced > (id, hole)
    {
        return Ok(true);
    }
    proves(file, FIRST_RECORD, 0)
}

/// A part of the file in memory.
struct Window<'a> {
    file: &'a SegmentFile,
    start: u64,
    held: Vec<u8>,
}

impl<'a> Window<'a> {
    fn new(file: &'a SegmentFile) -> Self {
        Self {
            file,
            start: 0,
            held: Vec::new(),
        }
    }

    /// `len` bytes from `at`, which must be within the file.
    fn bytes(&mut self, at: u64, len: usize) -> Result<&[u8], Error> {
        let within = at >= self.start && at + len as u64 <= self.start + self.held.len() as u64;
        if !within {
            let left = self.file.len().saturating_sub(at);
            self.held.resize((len.max(WINDOW_BYTES) as u64).min(left) as usize, 0);
            self.start = at;
            self.file.read_exact(&mut self.held, at)?;
        }
        let from = (at - self.start) as usize;
        self.held
            .get(from..from + len)
            .ok_or_else(|| Error::damaged(&self.file.path, at, "the file ends within a record"))
    }

    /// The valid record at `at`, if there is one.
    fn record(&mut self, at: u64) -> Result<Option<(Header, &[u8])>, Error> {
        if at + HEADER_BYTES as u64 > self.file.len() {
            return Ok(None);
        }
        let seed = self.file.seed;
        let Some(header) = Header::decode(self.bytes(at, HEADER_BYTES)?, seed, at) else {
            return Ok(None);
        };
        let len = header.len as usize;
        if len > PAYLOAD_BYTES_MAX || at + header.record_bytes() > self.file.len() {
            return Ok(None);
        }
        let payload = &self.bytes(at, HEADER_BYTES + len)?[HEADER_BYTES..];
        Ok((seed.crc(at, &[payload]) == header.payload_crc).then_some((header, payload)))
    }
}

const WINDOW_BYTES: usize = 1 << 20;
static ZEROS: [u8; 4096] = [0; 4096];

#[cfg(test)]
mod tests {
    use std::{fs::File, os::unix::fs::FileExt};

    use super::*;

    /// The search skips what is zero, and looks through windows; it must miss no offset all the same.
    #[test]
    fn a_proof_is_found_wherever_it_lies() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0000000000000001.seg");
        let file = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&path)
            .unwrap();
        let len = 2 * WINDOW_BYTES as u64 + 4096;
        file.set_len(len).unwrap();
        let segment = SegmentFile::format(file.try_clone().unwrap(), 7, 1, path).unwrap();
        let last = len - HEADER_BYTES as u64 - len % 8;
        let around = |at: u64| (at - 64..at + 64).step_by(8);
        let offsets = around(4096)
            .chain(around(8192 - 24))
            .chain(around(WINDOW_BYTES as u64))
            .chain([128, last / 8 * 8]);
        for at in offsets {
            let header = Header {
                kind: Kind::Proof,
                flags: 0,
                len: 0,
                synced: 12,
                term: 0,
                index: 0,
                payload_crc: 0,
            };
            file.write_all_at(&header.encode(segment.seed, at), at).unwrap();
            assert!(proves(&segment, FIRST_RECORD, 95).unwrap(), "at {at}");
            assert!(!proves(&segment, FIRST_RECORD, 96).unwrap(), "at {at}");
            file.write_all_at(&[0; HEADER_BYTES], at).unwrap();
            assert!(!proves(&segment, FIRST_RECORD, 0).unwrap(), "at {at}");
        }
    }
}
