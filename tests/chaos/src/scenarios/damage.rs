//! Bytes on disk that are not what was written (P9). The last words are the journal's and the state file's.

use crate::{
    NORTH, SOUTH,
    ending::Ending::MaySay,
    fault::Whom,
    faults::damage::{
        Damage,
        How::{self, Flip, LostWrite, Torn, WrongPlace},
        Region::{self, *},
    },
    scenario::{GONE_MS, Scenario},
};

/// It must be found when the node starts.
const fn found(region: Region, how: How) -> Damage {
    Damage {
        region,
        how,
        must_be_found: true,
    }
}

/// It may be that nobody needs it any more.
const fn harmless_or_found(region: Region, how: How) -> Damage {
    Damage {
        region,
        how,
        must_be_found: false,
    }
}

const SEGMENT_HEADER: Damage = found(SegmentHeader, Flip);
const ENTRY_HEADER: Damage = found(EntryHeader, Flip);
const ENTRY_BODY: Damage = found(EntryBody, Flip);
const ENTRY_CHECKSUMS: Damage = found(EntryChecksums, Flip);
const VOTE: Damage = harmless_or_found(Vote, Flip);
const HEAD: Damage = found(Head, Flip);
const SEAL: Damage = harmless_or_found(Seal, Flip);
const TRAILER: Damage = harmless_or_found(Trailer, Flip);
const STATE: Damage = found(State, Flip);
const ANYWHERE: Damage = harmless_or_found(Anywhere, Flip);
// Whatever it holds is overwritten before it counts: not even a reason to end.
const SPARE: Damage = harmless_or_found(Spare, Flip);
// The end of the log cannot always be told from a write that the end of the process has cut short. Whatever is cut off
// there is fetched again from the group.
const LAST_RECORD: Damage = harmless_or_found(LastRecord, Flip);
const TORN_TAIL: Damage = harmless_or_found(LastRecord, Torn);
const LOST_WRITE: Damage = found(EntryBody, LostWrite);
const WRONG_PLACE: Damage = found(EntryBody, WrongPlace);

const fn slave(name: &'static str, damage: &'static Damage) -> Scenario {
    struck(name, damage, Whom::Slave(NORTH))
}

const fn master(name: &'static str, damage: &'static Damage) -> Scenario {
    struck(name, damage, Whom::Master(SOUTH))
}

const fn struck(name: &'static str, damage: &'static Damage, whom: Whom) -> Scenario {
    Scenario::new(name, damage, whom, 0)
        .within(GONE_MS)
        .ends(MaySay("damaged"))
}

/// See the file's head.
pub const SCENARIOS: &[Scenario] = &[
    slave("flip-segment-header", &SEGMENT_HEADER),
    slave("flip-entry-header", &ENTRY_HEADER),
    slave("flip-entry-body", &ENTRY_BODY),
    master("flip-entry-body-of-a-master", &ENTRY_BODY),
    slave("flip-entry-checksums", &ENTRY_CHECKSUMS),
    slave("flip-vote", &VOTE),
    master("flip-vote-of-a-master", &VOTE),
    slave("flip-head-record", &HEAD),
    slave("flip-seal", &SEAL),
    slave("flip-trailer", &TRAILER),
    slave("flip-state-file", &STATE),
    slave("flip-anywhere", &ANYWHERE),
    master("flip-anywhere-of-a-master", &ANYWHERE),
    Scenario::new("flip-spare-file", &SPARE, Whom::Slave(NORTH), 0).within(GONE_MS),
    Scenario::new("flip-spare-file-of-a-master", &SPARE, Whom::Master(SOUTH), 0).within(GONE_MS),
    slave("flip-last-record", &LAST_RECORD),
    master("flip-last-record-of-a-master", &LAST_RECORD),
    slave("torn-tail", &TORN_TAIL),
    master("torn-tail-of-a-master", &TORN_TAIL),
    slave("lost-write", &LOST_WRITE),
    slave("write-to-a-wrong-place", &WRONG_PLACE),
];
