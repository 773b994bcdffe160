//! What comes from the other nodes of the group, and from the state files on disk, under fire.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use ferrymq_fuzz::Target;
use openraft::raft::{AppendEntriesRequest, StreamAppendError, StreamAppendResult};
use openraft::{EntryPayload, Membership};
use serde::{Serialize, de::DeserializeOwned};

use crate::NodeAddress;
use crate::entry::{decode_log_id, decode_vote, encode_log_id, encode_vote, from_parts, to_payload};
use crate::founding::{AdmitRequest, FoundRequest, Knowledge};
use crate::lives::{Noted, Point, Told};
use crate::meeting::Meeting;
use crate::snapshot::{self, Head};
use crate::state_file::StateFile;
use crate::types::{Batch, Entry, StoredMembership, Types, Vote, log_id};
use crate::verdict::Opinion;
use crate::wire::{decode_append, decode_appended, encode_append, encode_appended, from_json, to_json};

fn membership() -> Membership<u64, NodeAddress> {
    let nodes = BTreeMap::from([(1, NodeAddress::new("a:1")), (2, NodeAddress::new("b:2"))]);
    Membership::new(vec![BTreeSet::from([1, 2])], nodes).expect("voters that are nodes")
}

fn append(entries: Vec<Entry>) -> AppendEntriesRequest<Types> {
    AppendEntriesRequest {
        vote: Vote::new_committed(3, 2),
        prev_log_id: Some(log_id(2, 40)),
        entries,
        leader_commit: Some(log_id(2, 39)),
    }
}

fn entry(index: u64, payload: EntryPayload<Batch, u64, NodeAddress>) -> Entry {
    Entry {
        log_id: log_id(3, index),
        payload,
    }
}

fn short(error: impl ToString) -> String {
    error.to_string().chars().take(24).collect()
}

#[test]
fn fuzz_append() {
    let batch = |text: &'static [u8]| EntryPayload::Normal(Batch(Bytes::from_static(text)));
    let entries = vec![
        entry(41, batch(b"\x01 first")),
        entry(42, EntryPayload::Blank),
        entry(43, EntryPayload::Membership(membership())),
    ];
    let write = |request| encode_append(request).expect("a request").concat();
    Target::new("append")
        .seeds([write(append(Vec::new())), write(append(entries))])
        .words([
            &b"\xff\xff\xff\xff"[..],
            b"\x03\0\0\0\0\0\0\0\0\0\0\0",
            b"\xfe{",
            b"[",
            b"{\"configs\":[[",
        ])
        // Twelve bytes of the frame are an entry of two hundred in memory.
        .allocates(80, 64 << 10)
        .run(|input| match decode_append(Bytes::copy_from_slice(input)) {
            Ok(request) => {
                let count = request.entries.len();
                let again = decode_append(write(request.clone()).into()).expect("what was read can be written");
                assert_eq!((again.vote, again.prev_log_id), (request.vote, request.prev_log_id));
                assert_eq!(
                    (again.entries, again.leader_commit),
                    (request.entries, request.leader_commit)
                );
                format!("{} entries", count.min(9))
            }
            Err(error) => short(error),
        });
}

#[test]
fn fuzz_appended() {
    let prev = log_id(2, 40);
    let answers: [StreamAppendResult<Types>; 4] = [
        Ok(None),
        Ok(Some(log_id(3, 43))),
        Err(StreamAppendError::Conflict(prev)),
        Err(StreamAppendError::HigherVote(Vote::new(9, 3))),
    ];
    Target::new("appended")
        .seeds(answers.iter().map(encode_appended))
        .bytes_max(64)
        .run(
            |input| match decode_appended(Bytes::copy_from_slice(input), Some(prev)) {
                Ok(answer) => {
                    let again =
                        decode_appended(encode_appended(&answer), Some(prev)).expect("what was read can be written");
                    assert_eq!(again, answer);
                    input[0].to_string()
                }
                Err(error) => short(error),
            },
        );
}

#[test]
fn fuzz_entry_vote_and_log_id() {
    let payload = |payload| to_payload(payload).expect("a payload");
    Target::new("entry-vote-log-id")
        .seeds([
            payload(EntryPayload::Membership(membership())),
            payload(EntryPayload::Normal(Batch(Bytes::from_static(b"\x01batch")))),
            encode_vote(&Vote::new(4, 9)),
            encode_log_id(&log_id(2, 5)),
        ])
        .words([
            "[",
            "{",
            "\"configs\":",
            "\"nodes\":",
            "\"peer\":",
            "1e99",
            "null",
            "\\ud800",
            "\"1\":",
        ])
        .allocates(400, 64 << 10)
        .run(|input| {
            if let Ok(vote) = decode_vote(input) {
                assert_eq!(decode_vote(&encode_vote(&vote)).expect("a vote"), vote);
            }
            if let Ok(id) = decode_log_id(input) {
                assert_eq!(decode_log_id(&encode_log_id(&id)).expect("a log id"), id);
            }
            match from_parts(log_id(1, 7), Bytes::copy_from_slice(input)) {
                Ok(entry) => {
                    let again = from_parts(entry.log_id, to_payload(entry.payload.clone()).expect("a payload"));
                    assert_eq!(again.expect("what was read can be written"), entry);
                    "an entry".into()
                }
                Err(error) => short(error),
            }
        });
}

/// True where the bytes are this message; then it is the same once written and read again.
fn is<T: Serialize + DeserializeOwned>(input: &[u8]) -> bool {
    let Ok(read) = from_json::<T>(input) else {
        return false;
    };
    let written = to_json(&read).expect("what was read can be written");
    let again: T = from_json(&written).expect("what was written can be read");
    assert_eq!(to_json(&again).expect("a message"), written);
    true
}

fn meeting() -> Meeting {
    let reached = Point {
        vote: 5,
        last: Some((4, 9)),
    };
    let noted = Noted {
        start: 3,
        life: 77,
        anew: 0,
        reached,
    };
    Meeting {
        me: Told {
            node: 2,
            start: 4,
            life: 78,
            anew: 1,
            takes_part: true,
            found: reached,
        },
        notes: [(3, noted)].into(),
        timers: None,
    }
}

#[test]
fn fuzz_rare_messages() {
    let json = |bytes: Bytes| bytes.to_vec();
    let seeds = [
        to_json(&Knowledge {
            founded: true,
            master: Some((2, NodeAddress::new("b:2"))),
            leads: true,
            takes_part: true,
            last: Some((3, 4)),
            group_id: 7,
            notice: Some("waiting".to_owned()),
            life: 77,
        }),
        to_json(&meeting()),
        to_json(&FoundRequest { founder: 1 }),
        to_json(&AdmitRequest {
            node: 3,
            has_data: false,
            life: 77,
            listens: "c:3".to_owned(),
        }),
        to_json(&Opinion {
            node: 1,
            is_dead: true,
            last: Some((3, 4)),
        }),
        to_json(&Vote::new(3, 4)),
        to_json(&openraft::raft::VoteRequest::<Types>::new(Vote::new(3, 4), Some(log_id(2, 9)))),
        Ok(Bytes::from_static(br#"{"vote":{"leader_id":{"term":3,"voted_for":2},"committed":true},"meta":{"last_log_id":{"leader_id":1,"index":5},"last_membership":{"log_id":null,"membership":{"configs":[],"nodes":{}}},"snapshot_id":"x"},"state_bytes":7}"#)),
    ];
    Target::new("rare-messages")
        .seeds(seeds.into_iter().map(|seed| json(seed.expect("a message"))))
        .words([
            "[",
            "{",
            "\"master\":",
            "null",
            "\"voted_for\":",
            "1e99",
            "-1",
            "18446744073709551616",
            "\\u0000",
            "\"\":",
        ])
        .allocates(400, 64 << 10)
        .run(|input| {
            let kinds = [
                is::<Knowledge>(input),
                is::<Meeting>(input),
                is::<FoundRequest>(input),
                is::<AdmitRequest>(input),
                is::<Opinion>(input),
                is::<Vote>(input),
                is::<openraft::raft::VoteRequest<Types>>(input),
                is::<Head>(input),
            ];
            format!("{kinds:?}")
        });
}

#[test]
fn fuzz_bodies_and_state_file() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = |state: &'static [u8], received| StateFile {
        log_id: log_id(2, 5),
        membership: StoredMembership::default(),
        state: Bytes::from_static(state),
        received,
    };
    let bytes = |file: &StateFile| file.to_bytes().expect("a state file");
    Target::new("bodies-and-state-file")
        .seeds([
            bytes(&file(b"a state", false)),
            bytes(&file(b"", true)),
            snapshot::bodies_of_two().to_vec(),
        ])
        .words(["FMQSTATE", "[", "{\"log_id\":"])
        .allocates(200, 64 << 10)
        .run(|input| {
            // Without the checksum hardly anything would get past it; with the right one behind it, the rest is looked at.
            let mut sealed = input.to_vec();
            sealed.extend_from_slice(&crc32fast::hash(input).to_le_bytes());
            let outcome = match StateFile::from_bytes(dir.path(), sealed.into()) {
                Ok(read) => {
                    let again = StateFile::from_bytes(dir.path(), with_checksum(&bytes(&read))).expect("a state file");
                    assert_eq!((again.log_id, again.state), (read.log_id, read.state));
                    "a state".to_owned()
                }
                Err(error) => short(error.to_string().replace(&dir.path().display().to_string(), "")),
            };
            assert!(StateFile::from_bytes(dir.path(), Bytes::copy_from_slice(input)).is_err() || input.len() > 40);
            let mut piece = crc32fast::hash(input).to_le_bytes().to_vec();
            piece.extend_from_slice(input);
            let bodies = snapshot::decode_bodies(piece.into());
            format!("{outcome} {:?}", bodies.map(|bodies| bodies.len().min(9)).ok())
        });
}

fn with_checksum(bytes: &[u8]) -> Bytes {
    [bytes, &crc32fast::hash(bytes).to_le_bytes()].concat().into()
}
