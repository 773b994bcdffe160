//! Bytes on disk that are not what was written: flipped bits in every kind of record and file, torn tails, writes that
//! never arrived or arrived elsewhere (P9).
//!
//! The node is killed, its files are changed, and it is started again. Either it stops and says where the damage is and
//! what the cure is; then it gets that cure, an empty disk. Or it goes on, because what was damaged is not needed any
//! more. In both cases it becomes the master afterwards, and has to serve what it holds.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use ferrymq_tests::wait_until;

use crate::{
    NODES,
    fault::{Fault, Mend},
    faults::processes::step_down,
    field::{Field, WELL_MAX},
    random::Dice,
};

/// See the file's head.
pub struct Damage {
    /// Where.
    pub region: Region,
    /// How.
    pub how: How,
    /// Whether the node must notice at its start: what is damaged is needed or proven to be there.
    pub must_be_found: bool,
}

/// A kind of place on disk. Kinds of records are those of `node/journal/src/record.rs`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Region {
    /// The fixed header of the newest segment file.
    SegmentHeader,
    /// The header of an entry's record, in the middle of the newest segment that has some.
    EntryHeader,
    /// Its payload.
    EntryBody,
    /// Its two checksums.
    EntryChecksums,
    /// The payload of the newest record.
    LastRecord,
    /// The newest vote; where none has been written since the last segment began, the newest cell of another kind.
    Vote,
    /// The first record of the newest segment: watermarks and the list of segments.
    Head,
    /// The outline of a sealed segment.
    Seal,
    /// The last bytes of a sealed segment file, which point to it.
    Trailer,
    /// The newest snapshot of the state.
    State,
    /// Any byte of any record of any segment; where, the seed decides.
    Anywhere,
    /// What is left in a file that waits to be used again; a record, where there is one.
    Spare,
}

/// What is done to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// One bit is the other way round.
    Flip,
    /// From its middle to the end of the file nothing was written.
    Torn,
    /// The block that it is in was never written.
    LostWrite,
    /// The block that it is in holds what belongs to the next one.
    WrongPlace,
}

const SEGMENT_HEADER_BYTES: usize = 64;
const RECORD_HEADER_BYTES: usize = 36;
const TRAILER_BYTES: usize = 16;
/// Where a cell's record has its key.
const CELL_KEY_AT: usize = 17;
/// The key of the vote (`node/replication/src/log_store.rs`).
const VOTE: u8 = 1;
const BLOCK_BYTES: usize = 4096;
/// How long the files that a fault needs may take to come to be.
const FILES_MAX: Duration = Duration::from_secs(40);

mod kind {
    pub(super) const HEAD: u8 = 1;
    pub(super) const ENTRY: u8 = 2;
    pub(super) const CELL: u8 = 3;
    pub(super) const SEAL: u8 = 11;
}

impl Fault for Damage {
    fn strike(&self, field: &mut Field, on: &[usize]) -> Mend {
        let node = on[0];
        let data = field.node(node).data().to_owned();
        let begun = Instant::now();
        // Only a dead node's files keep still.
        wait_until("there is something of that kind to damage", 2 * FILES_MAX, || {
            let found = self.region.find(&data, &mut field.dice.clone()).is_some();
            found || begun.elapsed() > FILES_MAX
        });
        field.node_mut(node).kill();
        match self.region.find(&data, &mut field.dice) {
            Some(spot) => match self.how.apply(&spot) {
                Ok(()) => println!("    {spot:?}"),
                Err(error) => field.breach(format!("{}: {error}", spot.file.display())),
            },
            None => field.breach(format!("the node has no {:?} to damage", self.region)),
        }
        let before = field.ended();
        field.node_mut(node).spawn();
        let found = wait_found_or_well(field, node, before);
        if self.must_be_found && !found {
            field.breach(format!(
                "P9: {:?} in {:?} was not found at start",
                self.how, self.region
            ));
        }
        if found {
            field.node(node).wipe();
            field.node_mut(node).spawn();
        }
        Box::new(move |field| {
            let group = node / NODES;
            field.wait_group_well(group);
            let begun = Instant::now();
            // Refused while the slave lacks something.
            wait_until("the mended node is master", WELL_MAX, || {
                field.supervise();
                field.node(node).is_master()
                    || begun.elapsed() > WELL_MAX / 2
                    || (step_down(field, group, Some(node)) && field.node(node).is_master())
            });
        })
    }
}

/// True as soon as the node has ended by itself, false as soon as it follows its group.
fn wait_found_or_well(field: &mut Field, node: usize, ended_before: usize) -> bool {
    let mut found = false;
    wait_until("the damaged node ends or follows its group", WELL_MAX, || {
        field.supervise();
        found = field.ended() > ended_before;
        let follows = || {
            let status = field.node(node).status()?;
            let group = &status["group"];
            (group["master"].is_u64() && group["applied_index"].as_u64()? > 0).then_some(())
        };
        found || follows().is_some()
    });
    found
}

/// A place in a file.
#[derive(Debug)]
struct Spot {
    file: PathBuf,
    at: usize,
}

impl How {
    fn apply(self, spot: &Spot) -> std::io::Result<()> {
        let mut bytes = fs::read(&spot.file)?;
        let block = spot.at / BLOCK_BYTES * BLOCK_BYTES;
        let end = (block + BLOCK_BYTES).min(bytes.len());
        match self {
            Self::Flip => bytes[spot.at] ^= 1 << (spot.at % 8),
            Self::Torn => bytes[spot.at..].fill(0),
            Self::LostWrite => bytes[block..end].fill(0),
            Self::WrongPlace => {
                let next = bytes[end..].iter().take(end - block).copied().collect::<Vec<u8>>();
                bytes[block..block + next.len()].copy_from_slice(&next);
            }
        }
        fs::write(&spot.file, bytes)
    }
}

impl Region {
    fn find(self, data: &Path, dice: &mut Dice) -> Option<Spot> {
        if self == Self::State {
            let file = files(data, ".state").pop()?;
            let at = fs::metadata(&file).ok()?.len() as usize / 2;
            return Some(Spot { file, at });
        }
        let ending = if self == Self::Spare { ".spare" } else { ".seg" };
        let mut segments = files(&data.join("journal"), ending);
        if self == Self::Anywhere {
            let first = dice.below(segments.len() as u64) as usize;
            segments.rotate_left(first);
        }
        // The newest segment that has it.
        let newest = segments.last().cloned();
        let found = segments.into_iter().rev().find_map(|file| {
            let bytes = fs::read(&file).ok()?;
            let at = self.within(&bytes, dice)?;
            Some(Spot { file, at })
        });
        // A spare file that was never used has no records.
        let blank = || (self == Self::Spare).then_some(newest).flatten();
        let at = SEGMENT_HEADER_BYTES;
        found.or_else(|| blank().map(|file| Spot { file, at }))
    }

    fn within(self, bytes: &[u8], dice: &mut Dice) -> Option<usize> {
        let records = Record::all(bytes);
        let of = |wanted: u8| {
            records
                .iter()
                .filter(move |record| record.kind == wanted && record.len > 0)
        };
        let body = |record: &Record| record.at + RECORD_HEADER_BYTES + record.len / 2;
        let middle = || {
            let entries: Vec<&Record> = of(kind::ENTRY).collect();
            entries.get(entries.len() / 2).copied()
        };
        match self {
            // One that is only allocated ahead is needed by nobody.
            Self::SegmentHeader => middle().map(|_| 20),
            Self::EntryHeader => Some(middle()?.at + 30),
            Self::EntryBody | Self::Spare => middle().map(body),
            Self::EntryChecksums => Some(middle()?.at + 5),
            Self::LastRecord => of(kind::ENTRY).next_back().map(body),
            Self::Vote => {
                let mut votes = of(kind::CELL).filter(|record| bytes[record.at + CELL_KEY_AT] == VOTE);
                votes.next_back().or_else(|| of(kind::CELL).next_back()).map(body)
            }
            Self::Head => of(kind::HEAD).next().map(body),
            Self::Seal => of(kind::SEAL).next_back().map(body),
            Self::Trailer => of(kind::SEAL).next_back().map(|_| bytes.len() - TRAILER_BYTES / 2),
            Self::Anywhere => {
                let last = records.last()?;
                Some(dice.below((last.at + RECORD_HEADER_BYTES + last.len) as u64) as usize)
            }
            Self::State => None,
        }
    }
}

/// Files of a directory whose names end so, the newest last.
fn files(dir: &Path, ending: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    // Their names are numbers of one length.
    found.retain(|path| path.to_string_lossy().ends_with(ending));
    found.sort();
    found
}

/// A record as it lies in a segment file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Record {
    at: usize,
    kind: u8,
    len: usize,
}

impl Record {
    /// All records from the first one to where a header does not hold any more.
    fn all(bytes: &[u8]) -> Vec<Self> {
        let u32_at = |at: usize| {
            bytes
                .get(at..at + 4)
                .and_then(|four| four.try_into().ok())
                .map(u32::from_le_bytes)
        };
        let u64_at = |at: usize| {
            bytes
                .get(at..at + 8)
                .and_then(|eight| eight.try_into().ok())
                .map(u64::from_le_bytes)
        };
        let mut found = Vec::new();
        let (Some(journal), Some(segment)) = (u64_at(16), u64_at(24)) else {
            return found;
        };
        let seed = (journal ^ (journal >> 32)) as u32 ^ (segment as u32).wrapping_mul(0x9E37_79B1);
        let mut at = SEGMENT_HEADER_BYTES;
        while let (Some(crc), Some(len), Some(&kind)) = (u32_at(at), u32_at(at + 8), bytes.get(at + 16)) {
            // What a recycled file held before has another seed.
            let mut hasher = crc32fast::Hasher::new_with_initial(seed ^ (at / 8) as u32);
            hasher.update(bytes.get(at + 4..at + RECORD_HEADER_BYTES).unwrap_or_default());
            if hasher.finalize() != crc {
                break;
            }
            let len = len as usize;
            found.push(Self { at, kind, len });
            at += (RECORD_HEADER_BYTES + len).next_multiple_of(8);
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_damage_changes_what_it_says() {
        let dir = tempfile::tempdir().expect("a temporary directory can be made");
        let file = dir.path().join("file");
        let damaged = |how: How, at: usize| {
            let bytes: Vec<u8> = (0..3 * BLOCK_BYTES).map(|at| (at / BLOCK_BYTES) as u8 + 1).collect();
            fs::write(&file, bytes).expect("a file can be written");
            how.apply(&Spot { file: file.clone(), at }).expect("it can be damaged");
            fs::read(&file).expect("it can be read")
        };
        assert_eq!(damaged(How::Flip, 9)[8..11], [1, 3, 1]);
        let torn = damaged(How::Torn, BLOCK_BYTES + 1);
        assert_eq!(
            (torn[BLOCK_BYTES], torn[BLOCK_BYTES + 1], torn[3 * BLOCK_BYTES - 1]),
            (2, 0, 0)
        );
        let lost = damaged(How::LostWrite, BLOCK_BYTES + 1);
        assert_eq!(
            (lost[BLOCK_BYTES - 1], lost[BLOCK_BYTES], lost[2 * BLOCK_BYTES]),
            (1, 0, 3)
        );
        assert_eq!(damaged(How::WrongPlace, 1)[..BLOCK_BYTES], [2; BLOCK_BYTES]);
    }
}
