//! The frames between nodes of a group. Entries are encoded by hand so that their payloads are written from, and
//! received into, shared bytes; the rare messages are JSON.
//!
//! ```text
//! APPEND    vote 17 | prev log id | commit log id | count u32 | count × (term u64, bytes u32) | payloads …
//! log id    present u8 [| term u64 | index u64]
//! APPENDED  0 log id (last that matches) | 1 conflict | 2 higher vote, vote 17
//! ```

use std::io;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use openraft::raft::{AppendEntriesRequest, StreamAppendError, StreamAppendResult};
use serde::{Serialize, de::DeserializeOwned};

use crate::entry::{VOTE_BYTES, decode_vote, from_parts, put_vote, to_payload};
use crate::types::{LogId, Types, log_id, term_and_index};

/// Kinds of frames.
pub(crate) mod kind {
    /// Entries, or none: a heartbeat or a commit mark.
    pub(crate) const APPEND: u8 = 1;
    /// The answer to [`APPEND`].
    pub(crate) const APPENDED: u8 = 2;
    /// A request for a vote.
    pub(crate) const VOTE: u8 = 3;
    /// Would you vote for me?
    pub(crate) const PRE_VOTE: u8 = 4;
    /// The master hands over.
    pub(crate) const TRANSFER: u8 = 5;
    /// What do you know of this group? (founding.rs)
    pub(crate) const ASK: u8 = 6;
    /// Let me found the group with you.
    pub(crate) const FOUND: u8 = 7;
    /// I have no data: let me take part.
    pub(crate) const ADMIT: u8 = 8;
    /// Which life of mine do you know? (meeting.rs)
    pub(crate) const MEET: u8 = 12;
    /// No answer before we have met, and a reason in UTF-8.
    pub(crate) const UNMET: u8 = 13;
    /// The JSON answer to any of those above, except [`APPEND`].
    pub(crate) const ANSWER: u8 = 9;
    /// No answer, but a reason in UTF-8.
    pub(crate) const REFUSED: u8 = 10;
    /// Is that master dead for you too? (failover.rs)
    pub(crate) const IS_DEAD: u8 = 11;
    /// What does your wall clock show? (clocks.rs)
    pub(crate) const CLOCK: u8 = 16;
    /// A snapshot's head: JSON.
    pub(crate) const SNAPSHOT: u8 = 20;
    /// A piece of the snapshot's state.
    pub(crate) const STATE: u8 = 21;
    /// Living bodies.
    pub(crate) const BODIES: u8 = 22;
    /// The snapshot is complete.
    pub(crate) const END: u8 = 23;
}

/// Largest frame: the largest message plus an append request's other entries. Peers are authenticated before.
pub(crate) const FRAME_BYTES_MAX: usize = 256 * 1024 * 1024;

/// An append request as the chunks of one frame; payloads are not copied.
pub(crate) fn encode_append(request: AppendEntriesRequest<Types>) -> io::Result<Vec<Bytes>> {
    let count = request.entries.len();
    let mut head = BytesMut::with_capacity(VOTE_BYTES + 2 * 17 + 4 + count * 12);
    put_vote(&mut head, &request.vote);
    put_log_id(&mut head, request.prev_log_id.as_ref());
    put_log_id(&mut head, request.leader_commit.as_ref());
    head.put_u32_le(count as u32);
    let mut payloads = Vec::with_capacity(count + 1);
    for entry in request.entries {
        let (term, _) = term_and_index(&entry.log_id);
        let payload = to_payload(entry.payload)?;
        head.put_u64_le(term);
        head.put_u32_le(payload.len() as u32);
        payloads.push(payload);
    }
    payloads.insert(0, head.freeze());
    Ok(payloads)
}

/// Reads what [`encode_append`] wrote.
pub(crate) fn decode_append(mut frame: Bytes) -> io::Result<AppendEntriesRequest<Types>> {
    need(&frame, VOTE_BYTES)?;
    let vote = decode_vote(&frame.split_to(VOTE_BYTES))?;
    let prev_log_id = take_log_id(&mut frame)?;
    let leader_commit = take_log_id(&mut frame)?;
    need(&frame, 4)?;
    let count = frame.get_u32_le() as usize;
    need(&frame, count.checked_mul(12).ok_or_else(cut)?)?;
    let mut heads = frame.split_to(count * 12);
    let mut entries = Vec::with_capacity(count);
    let mut index = prev_log_id.as_ref().map_or(0, |prev| prev.index.saturating_add(1));
    while heads.has_remaining() {
        let (term, bytes) = (heads.get_u64_le(), heads.get_u32_le() as usize);
        need(&frame, bytes)?;
        entries.push(from_parts(log_id(term, index), frame.split_to(bytes))?);
        index = index.saturating_add(1);
    }
    if frame.has_remaining() {
        return Err(cut());
    }
    Ok(AppendEntriesRequest {
        vote,
        prev_log_id,
        entries,
        leader_commit,
    })
}

/// A follower's answer.
pub(crate) fn encode_appended(result: &StreamAppendResult<Types>) -> Bytes {
    let mut out = BytesMut::with_capacity(18);
    match result {
        Ok(matched) => {
            out.put_u8(0);
            put_log_id(&mut out, matched.as_ref());
        }
        Err(StreamAppendError::Conflict(_)) => out.put_u8(1),
        Err(StreamAppendError::HigherVote(vote)) => {
            out.put_u8(2);
            put_vote(&mut out, vote);
        }
    }
    out.freeze()
}

/// Reads what [`encode_appended`] wrote, as the answer to a request that followed `prev`.
pub(crate) fn decode_appended(mut frame: Bytes, prev: Option<LogId>) -> io::Result<StreamAppendResult<Types>> {
    need(&frame, 1)?;
    match (frame.get_u8(), prev) {
        (0, _) => Ok(Ok(take_log_id(&mut frame)?)),
        (1, Some(prev)) => Ok(Err(StreamAppendError::Conflict(prev))),
        (2, _) => Ok(Err(StreamAppendError::HigherVote(decode_vote(&frame)?))),
        (kind, _) => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("unexpected answer {kind} to an append"),
        )),
    }
}

/// A follower's answer with the bytes that its disk has free behind it. Who does not know of them does not look there.
pub(crate) fn with_room(answer: Bytes, free_bytes: u64) -> Bytes {
    if room_at(&answer) != Some(answer.len()) {
        return answer;
    }
    let mut out = BytesMut::from(answer);
    out.put_u64_le(free_bytes);
    out.freeze()
}

/// What [`with_room`] has put behind an answer.
pub(crate) fn room_of(answer: &[u8]) -> Option<u64> {
    let (free_bytes, _) = answer.get(room_at(answer)?..)?.split_first_chunk()?;
    Some(u64::from_le_bytes(*free_bytes))
}

/// Where the answer of one that has what it was sent ends.
fn room_at(answer: &[u8]) -> Option<usize> {
    match answer {
        [0, 0, ..] => Some(2),
        [0, 1, ..] => Some(18),
        _ => None,
    }
}

/// A rare message.
pub(crate) fn to_json(message: &impl Serialize) -> io::Result<Bytes> {
    Ok(Bytes::from(serde_json::to_vec(message)?))
}

/// Reads what [`to_json`] wrote.
pub(crate) fn from_json<T: DeserializeOwned>(frame: &[u8]) -> io::Result<T> {
    Ok(serde_json::from_slice(frame)?)
}

fn put_log_id(out: &mut BytesMut, log_id: Option<&LogId>) {
    match log_id {
        None => out.put_u8(0),
        Some(log_id) => {
            let (term, index) = term_and_index(log_id);
            out.put_u8(1);
            out.put_u64_le(term);
            out.put_u64_le(index);
        }
    }
}

fn take_log_id(frame: &mut Bytes) -> io::Result<Option<LogId>> {
    need(frame, 1)?;
    if frame.get_u8() == 0 {
        return Ok(None);
    }
    need(frame, 16)?;
    Ok(Some(log_id(frame.get_u64_le(), frame.get_u64_le())))
}

fn need(frame: &Bytes, bytes: usize) -> io::Result<()> {
    if frame.remaining() < bytes { Err(cut()) } else { Ok(()) }
}

fn cut() -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        "a frame between nodes does not have the length that it states",
    )
}

#[cfg(test)]
mod tests {
    use openraft::EntryPayload;

    use super::*;
    use crate::types::{Batch, Entry, Vote};

    fn request() -> AppendEntriesRequest<Types> {
        let batch = |text: &'static [u8]| EntryPayload::Normal(Batch(Bytes::from_static(text)));
        AppendEntriesRequest {
            vote: Vote::new_committed(3, 2),
            prev_log_id: Some(log_id(2, 40)),
            entries: vec![
                Entry {
                    log_id: log_id(2, 41),
                    payload: batch(b"\x01 first"),
                },
                Entry {
                    log_id: log_id(3, 42),
                    payload: EntryPayload::Blank,
                },
                Entry {
                    log_id: log_id(3, 43),
                    payload: batch(b"\x01 second"),
                },
            ],
            leader_commit: Some(log_id(2, 39)),
        }
    }

    fn frame(request: AppendEntriesRequest<Types>) -> Bytes {
        Bytes::from(encode_append(request).unwrap().concat())
    }

    #[test]
    fn append_requests_survive_the_wire() {
        let got = decode_append(frame(request())).unwrap();
        assert_eq!(got.vote, request().vote);
        assert_eq!(got.prev_log_id, request().prev_log_id);
        assert_eq!(got.entries, request().entries);
        assert_eq!(got.leader_commit, request().leader_commit);
        let first = AppendEntriesRequest {
            prev_log_id: None,
            leader_commit: None,
            entries: vec![],
            ..request()
        };
        assert!(decode_append(frame(first)).unwrap().entries.is_empty());
    }

    #[test]
    fn every_truncation_is_an_error() {
        let whole = frame(request());
        for len in 0..whole.len() {
            assert!(decode_append(whole.slice(..len)).is_err(), "cut at {len}");
        }
        let mut longer = BytesMut::from(&whole[..]);
        longer.put_u8(0);
        assert!(decode_append(longer.freeze()).is_err());
    }

    #[test]
    fn answers_survive_the_wire() {
        let prev = log_id(2, 40);
        let results: [StreamAppendResult<Types>; 4] = [
            Ok(None),
            Ok(Some(log_id(3, 43))),
            Err(StreamAppendError::Conflict(prev)),
            Err(StreamAppendError::HigherVote(Vote::new(9, 3))),
        ];
        for result in results {
            assert_eq!(decode_appended(encode_appended(&result), Some(prev)).unwrap(), result);
        }
        assert!(
            decode_appended(Bytes::from_static(&[1]), None).is_err(),
            "no conflict without a predecessor"
        );
        assert!(decode_appended(Bytes::new(), None).is_err());
        for matched in [None, Some(prev)] {
            let answer = with_room(encode_appended(&Ok(matched)), 7 << 40);
            assert_eq!(room_of(&answer), Some(7 << 40));
            assert_eq!(decode_appended(answer.clone(), Some(prev)).unwrap(), Ok(matched));
            (0..answer.len()).for_each(|len| assert_eq!(room_of(&answer[..len]), None));
        }
        let higher = encode_appended(&Err(StreamAppendError::HigherVote(Vote::new(9, 3))));
        assert_eq!(with_room(higher.clone(), 7), higher);
    }
}
