//! Damage that no checksum shows: a record is changed and its checksums are made to fit. What the journal then serves
//! is what it would serve if it did not look at checksums.

use std::path::Path;

use crate::{
    disk::Machine,
    record::{HEADER_BYTES, Header, Kind, Seed, u64_at},
    segment::FIRST_RECORD,
};

/// Changes the entry around `offset` of a segment file by one bit of its last byte; false where there is none.
pub fn forge(machine: &Machine, path: &Path, offset: u64) -> bool {
    let Some(bytes) = machine.read(path).filter(|bytes| bytes.len() as u64 > FIRST_RECORD) else {
        return false;
    };
    let seed = Seed::new(u64_at(&bytes, 16), u64_at(&bytes, 24));
    let mut at = FIRST_RECORD;
    while let Some(mut header) = bytes.get(at as usize..).and_then(|rest| Header::decode(rest, seed, at)) {
        let end = at + header.record_bytes();
        let len = header.len as usize;
        if header.kind == Kind::Entry && len > 0 && (at..end).contains(&offset) {
            let from = at as usize + HEADER_BYTES;
            let Some(mut payload) = bytes.get(from..from + len).map(<[u8]>::to_vec) else {
                return false;
            };
            payload[len - 1] ^= 1;
            header.payload_crc = seed.crc(at, &[&payload]);
            machine.overwrite(path, at, &header.encode(seed, at));
            machine.overwrite(path, from as u64, &payload);
            return true;
        }
        at = end;
    }
    false
}
