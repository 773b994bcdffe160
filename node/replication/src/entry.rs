//! How entries, votes and memberships lie in the journal. A batch is its own payload, byte for byte, so that a message's
//! place inside the batch is its place inside the journal record and nothing is copied.
//!
//! ```text
//! payload of a record:   empty          → blank entry (a new master's first)
//!                        0xFE, JSON …   → membership
//!                        anything else  → a batch; its first byte is the batch's version, which stays below 0x80
//! ```

use std::io;

use bytes::{BufMut, Bytes, BytesMut};
use ferrymq_journal::Record;
use openraft::EntryPayload;

use crate::types::{Batch, Entry, LogId, Vote, log_id, term_and_index};

const MEMBERSHIP: u8 = 0xFE;

/// The record of an entry.
pub(crate) fn to_record(entry: Entry) -> io::Result<Record> {
    let (term, index) = term_and_index(&entry.log_id);
    Ok(Record {
        term,
        index,
        payload: to_payload(entry.payload)?,
    })
}

/// The entry of a record; `InvalidData` if it is none.
pub(crate) fn from_record(record: Record) -> io::Result<Entry> {
    from_parts(log_id(record.term, record.index), record.payload)
}

/// An entry's payload as bytes.
pub(crate) fn to_payload(payload: EntryPayload<Batch, u64, crate::NodeAddress>) -> io::Result<Bytes> {
    match payload {
        EntryPayload::Blank => Ok(Bytes::new()),
        EntryPayload::Normal(Batch(bytes)) => Ok(bytes),
        EntryPayload::Membership(membership) => {
            let mut bytes = BytesMut::new();
            bytes.put_u8(MEMBERSHIP);
            serde_json::to_writer((&mut bytes).writer(), &membership)?;
            Ok(bytes.freeze())
        }
    }
}

/// The entry with that id and payload.
pub(crate) fn from_parts(log_id: LogId, payload: Bytes) -> io::Result<Entry> {
    let payload = match payload.first() {
        None => EntryPayload::Blank,
        Some(&MEMBERSHIP) => EntryPayload::Membership(serde_json::from_slice(&payload[1..])?),
        Some(version) if *version < 0x80 => EntryPayload::Normal(Batch(payload)),
        Some(kind) => {
            let text = format!(
                "log entry {} begins with {kind:#04x}, which is no kind of entry",
                log_id.index
            );
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
    };
    Ok(Entry { log_id, payload })
}

/// A vote as the journal keeps it: term, candidate, whether a majority granted it.
pub(crate) fn encode_vote(vote: &Vote) -> Bytes {
    let mut bytes = BytesMut::with_capacity(VOTE_BYTES);
    put_vote(&mut bytes, vote);
    bytes.freeze()
}

/// Appends a vote, [`VOTE_BYTES`] long.
pub(crate) fn put_vote(out: &mut BytesMut, vote: &Vote) {
    out.put_u64_le(vote.leader_id.term);
    out.put_u64_le(vote.leader_id.voted_for);
    out.put_u8(u8::from(vote.committed));
}

/// Reads what [`put_vote`] wrote.
pub(crate) fn decode_vote(bytes: &[u8]) -> io::Result<Vote> {
    let (Some(term), Some(node), Some(&[committed])) = (
        bytes.first_chunk::<8>(),
        bytes.get(8..16).and_then(|b| b.first_chunk::<8>()),
        bytes.get(16..),
    ) else {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "a stored vote has the wrong length",
        ));
    };
    let (term, node) = (u64::from_le_bytes(*term), u64::from_le_bytes(*node));
    Ok(if committed == 0 {
        Vote::new(term, node)
    } else {
        Vote::new_committed(term, node)
    })
}

/// Bytes of an encoded vote.
pub(crate) const VOTE_BYTES: usize = 17;

/// A log id as the journal keeps it: term, index.
pub(crate) fn encode_log_id(log_id: &LogId) -> Bytes {
    let (term, index) = term_and_index(log_id);
    let mut bytes = BytesMut::with_capacity(16);
    bytes.put_u64_le(term);
    bytes.put_u64_le(index);
    bytes.freeze()
}

/// Reads what [`encode_log_id`] wrote.
pub(crate) fn decode_log_id(bytes: &[u8]) -> io::Result<LogId> {
    match (
        bytes.first_chunk::<8>(),
        bytes.get(8..).and_then(|rest| <&[u8; 8]>::try_from(rest).ok()),
    ) {
        (Some(term), Some(index)) => Ok(log_id(u64::from_le_bytes(*term), u64::from_le_bytes(*index))),
        _ => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "a stored log id has the wrong length",
        )),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use openraft::Membership;

    use super::*;
    use crate::NodeAddress;

    #[test]
    fn entries_survive_their_record_and_batches_keep_their_bytes() {
        let nodes = BTreeMap::from([(1, NodeAddress::new("a:1")), (2, NodeAddress::new("b:2"))]);
        let membership = Membership::new(vec![BTreeSet::from([1])], nodes).unwrap();
        let batch = Bytes::from_static(b"\x01\x00\x00\x00\x00 a batch");
        let payloads = [
            EntryPayload::Blank,
            EntryPayload::Normal(Batch(batch.clone())),
            EntryPayload::Membership(membership),
        ];
        for payload in payloads {
            let entry = Entry {
                log_id: log_id(3, 7),
                payload,
            };
            let record = to_record(entry.clone()).unwrap();
            assert_eq!((record.term, record.index), (3, 7));
            assert_eq!(from_record(record).unwrap(), entry);
        }
        let record = to_record(Entry {
            log_id: log_id(3, 7),
            payload: EntryPayload::Normal(Batch(batch.clone())),
        });
        assert_eq!(
            record.unwrap().payload.as_ptr(),
            batch.as_ptr(),
            "the payload was copied"
        );
    }

    #[test]
    fn votes_and_log_ids_survive() {
        for vote in [Vote::new(4, 9), Vote::new_committed(u64::MAX, 1)] {
            let bytes = encode_vote(&vote);
            assert_eq!(bytes.len(), VOTE_BYTES);
            assert_eq!(decode_vote(&bytes).unwrap(), vote);
        }
        assert_eq!(decode_log_id(&encode_log_id(&log_id(2, 5))).unwrap(), log_id(2, 5));
    }

    #[test]
    fn garbage_is_an_error() {
        assert!(from_parts(log_id(1, 1), Bytes::from_static(&[0xFE, b'{'])).is_err());
        assert!(from_parts(log_id(1, 1), Bytes::from_static(&[0xFF])).is_err());
        for len in 0..VOTE_BYTES {
            assert!(decode_vote(&[0; VOTE_BYTES][..len]).is_err());
        }
        assert!(decode_vote(&[0; 18]).is_err());
        assert!(decode_log_id(&[0; 15]).is_err());
        assert!(decode_log_id(&[0; 17]).is_err());
    }
}
