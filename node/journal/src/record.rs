//! One record: its header, its checksums, and the kinds there are.
//!
//! ```text
//!  0  header CRC   u32   over bytes 4..36
//!  4  payload CRC  u32
//!  8  length       u32   of the payload, bytes
//! 12  synced       u32   bytes of this segment known to be on disk when this was written, in eights; 0: none
//! 16  kind         u8
//! 17  flags        u8
//! 18  zero         u16
//! 20  term         u64
//! 28  index        u64
//! 36  payload, then zeros up to a multiple of 8
//! ```
//!
//! Integers are little-endian. Both CRCs (IEEE) start from a seed made of the journal's random number, the segment's
//! number and the record's offset. For the same bytes, different seeds give different CRCs with certainty; since a
//! segment number is never used twice, what a recycled file held before can never be read as new, and a record that
//! was written to a wrong place is found.
//!
//! `synced` tells a torn tail from damage. One batch is written after the previous one was synced, so pages of the
//! last batch may be missing in any order after a power cut; but a valid header whose `synced` lies behind a bad record
//! proves that the bad record had been on disk.

/// Length of a record's header, bytes.
pub(crate) const HEADER_BYTES: usize = 36;
/// Where the kind stands in the header.
pub(crate) const KIND_AT: usize = 16;
/// Longest payload, bytes.
pub(crate) const PAYLOAD_BYTES_MAX: usize = 1 << 30;
/// On a [`Kind::Kept`] record: its slices are all that lives of their indexes, earlier copies no longer count.
pub(crate) const FLAG_COMPLETE: u8 = 1;

/// On a [`Kind::Truncate`] record: entries remain.
pub(crate) const FLAG_REMAINS: u8 = 1;

/// What a record is. A number is never used again for something else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    /// First record of each segment: cells, watermarks and the list of living segments.
    Head = 1,
    /// A log entry.
    Entry = 2,
    /// A cell's new value; its key stands in `flags`.
    Cell = 3,
    /// The log ends before `index` from here on; flag 1: with the entry before it, which is of `term`; flag 0: it is
    /// empty.
    Truncate = 4,
    /// The log is no longer needed up to (`term`, `index`).
    Purge = 5,
    /// Slices of earlier entries, written again; `term` is the number of the install they belong to, or 0.
    Kept = 6,
    /// Install `term` begins.
    InstallBegin = 7,
    /// The install whose number is the payload takes effect: the log is empty and ends at (`term`, `index`).
    Install = 8,
    /// Install `term` is given up.
    InstallAbandon = 9,
    /// Segments that may go.
    Release = 10,
    /// Last record of a segment: what it did, and the number of the next.
    Seal = 11,
    /// Nothing but its `synced`.
    Proof = 12,
}

impl Kind {
    fn from_u8(number: u8) -> Option<Self> {
        use Kind::*;
        let all = [
            Head,
            Entry,
            Cell,
            Truncate,
            Purge,
            Kept,
            InstallBegin,
            Install,
            InstallAbandon,
            Release,
            Seal,
            Proof,
        ];
        all.into_iter().find(|kind| *kind as u8 == number)
    }
}

/// Where the checksums of one segment start from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seed(u32);

impl Seed {
    /// For segment number `segment` of the journal with random number `journal`.
    pub(crate) fn new(journal: u64, segment: u64) -> Self {
        // An odd factor keeps the mapping one-to-one in the lower 32 bits and spreads neighbours beyond any offset.
        Self((journal ^ (journal >> 32)) as u32 ^ (segment as u32).wrapping_mul(0x9E37_79B1))
    }

    pub(crate) fn crc(self, offset: u64, parts: &[&[u8]]) -> u32 {
        let mut hasher = crc32fast::Hasher::new_with_initial(self.0 ^ (offset / 8) as u32);
        parts.iter().for_each(|part| hasher.update(part));
        hasher.finalize()
    }
}

/// A record without its payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) kind: Kind,
    pub(crate) flags: u8,
    pub(crate) len: u32,
    pub(crate) synced: u32,
    pub(crate) term: u64,
    pub(crate) index: u64,
    pub(crate) payload_crc: u32,
}

impl Header {
    pub(crate) fn encode(&self, seed: Seed, offset: u64) -> [u8; HEADER_BYTES] {
        let mut out = [0; HEADER_BYTES];
        out[4..8].copy_from_slice(&self.payload_crc.to_le_bytes());
        out[8..12].copy_from_slice(&self.len.to_le_bytes());
        out[12..16].copy_from_slice(&self.synced.to_le_bytes());
        out[KIND_AT] = self.kind as u8;
        out[17] = self.flags;
        out[20..28].copy_from_slice(&self.term.to_le_bytes());
        out[28..36].copy_from_slice(&self.index.to_le_bytes());
        let crc = seed.crc(offset, &[&out[4..]]);
        out[..4].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// The header that starts `bytes`, or `None` where there is none that belongs to this segment and offset.
    pub(crate) fn decode(bytes: &[u8], seed: Seed, offset: u64) -> Option<Self> {
        let bytes: &[u8; HEADER_BYTES] = bytes.get(..HEADER_BYTES)?.try_into().ok()?;
        // Cheap tests first: the search for proofs tries every eighth byte of a segment.
        let kind = Kind::from_u8(bytes[KIND_AT])?;
        if bytes[18] != 0 || bytes[19] != 0 || u32_at(bytes, 0) != seed.crc(offset, &[&bytes[4..]]) {
            return None;
        }
        Some(Self {
            kind,
            flags: bytes[17],
            len: u32_at(bytes, 8),
            synced: u32_at(bytes, 12),
            term: u64_at(bytes, 20),
            index: u64_at(bytes, 28),
            payload_crc: u32_at(bytes, 4),
        })
    }

    /// Bytes of the whole record on disk.
    pub(crate) fn record_bytes(&self) -> u64 {
        record_bytes(self.len as usize)
    }

    /// Offset up to which this record proves its segment synced; 0 when it proves nothing.
    pub(crate) fn synced_bytes(&self) -> u64 {
        u64::from(self.synced) * 8
    }
}

/// Bytes that a record with `len` bytes of payload takes on disk.
pub(crate) fn record_bytes(len: usize) -> u64 {
    (HEADER_BYTES as u64 + len as u64).next_multiple_of(8)
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: Header = Header {
        kind: Kind::Entry,
        flags: 3,
        len: 77,
        synced: 9,
        term: 5,
        index: u64::MAX,
        payload_crc: 0xdead_beef,
    };

    #[test]
    fn reads_what_it_writes() {
        let seed = Seed::new(7, 1);
        let bytes = HEADER.encode(seed, 64);
        assert_eq!(Header::decode(&bytes, seed, 64), Some(HEADER));
        assert_eq!(HEADER.record_bytes(), 120);
    }

    #[test]
    fn another_segment_offset_or_bit_is_not_this_record() {
        let seed = Seed::new(7, 1);
        let bytes = HEADER.encode(seed, 64);
        for segment in (0..5000).filter(|s| *s != 1) {
            assert_eq!(Header::decode(&bytes, Seed::new(7, segment), 64), None);
        }
        assert_eq!(Header::decode(&bytes, seed, 72), None);
        for bit in 0..HEADER_BYTES * 8 {
            let mut flipped = bytes;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Header::decode(&flipped, seed, 64), None, "bit {bit}");
        }
        assert_eq!(Header::decode(&bytes[..35], seed, 64), None);
        assert_eq!(Header::decode(&[0; HEADER_BYTES], seed, 64), None);
    }
}
