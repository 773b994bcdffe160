//! Snapshots on disk: the replicated state, without bodies, as `snapshot-‹index›.state`.
//!
//! ```text
//! 0 "FMQSTATE" | 8 version u32 = 1 | 12 flags u32 (1: received from the master) | 16 term u64 | 24 index u64
//! 32 membership bytes u32, JSON | state bytes u64, state | crc32 of everything before
//! ```
//!
//! A file appears under its name only when it is whole and on disk. A received one is written before the journal's
//! install mark; if the process dies between the two, its index lies beyond the journal's log and it is dropped again:
//! the node is as it was before the snapshot came.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use bytes::Bytes;

use crate::types::{LogId, StoredMembership, log_id, term_and_index};

const MAGIC: &[u8; 8] = b"FMQSTATE";
const VERSION: u32 = 1;
const RECEIVED: u32 = 1;
const HEAD_BYTES: usize = 32;

/// A snapshot's state as it lies on disk.
#[derive(Debug, Clone)]
pub(crate) struct StateFile {
    /// The last entry that the state contains.
    pub(crate) log_id: LogId,
    pub(crate) membership: StoredMembership,
    /// `Broker::encode`.
    pub(crate) state: Bytes,
    /// Came from the master together with its bodies, rather than being made here.
    pub(crate) received: bool,
}

/// Why a directory of state files cannot be used (P9).
#[derive(Debug, thiserror::Error)]
pub enum StateFileError {
    /// The file is not what was written.
    #[error(
        "state file {file} is damaged at offset {offset}: {reason}; move the node's data away, start it empty and it \
         fetches everything from its group"
    )]
    Damaged {
        /// The file.
        file: PathBuf,
        /// Where in the file.
        offset: usize,
        /// What is wrong.
        reason: String,
    },
    /// The state covers entries that the journal has lost.
    #[error(
        "state file {file} contains log entry {index}, but the journal ends at {last}: the journal has lost its end \
         (a power loss without sync?); move the node's data away, start it empty and it fetches everything from its group"
    )]
    AheadOfJournal {
        /// The file.
        file: PathBuf,
        /// What it contains.
        index: u64,
        /// What the journal has.
        last: u64,
    },
    /// The journal has dropped entries that no state contains.
    #[error(
        "the log begins after entry {purged}, but the newest state in {dir} ends at {state}; restore the missing \
         snapshot-*.state, or move the node's data away, start it empty and it fetches everything from its group"
    )]
    Missing {
        /// Where it was looked for.
        dir: PathBuf,
        /// The log is gone up to here.
        purged: u64,
        /// The newest state, 0 for none.
        state: u64,
    },
    /// The directory cannot be read or written.
    #[error("state directory {dir}: {error}")]
    Io {
        /// The directory.
        dir: PathBuf,
        /// Why.
        error: io::Error,
    },
}

impl StateFile {
    /// Writes the file so that it either exists whole or not at all. Blocks on the disk. An error ends the node, so it tells
    /// people what they need.
    pub(crate) fn write(&self, dir: &Path) -> io::Result<()> {
        let (_, index) = term_and_index(&self.log_id);
        self.write_whole(dir, index).map_err(|error| {
            let file = dir.join(name(index));
            let told = format!(
                "{}: cannot write: {error}. Cure: check the disk, then restart the node",
                file.display()
            );
            io::Error::new(error.kind(), told)
        })
    }

    fn write_whole(&self, dir: &Path, index: u64) -> io::Result<()> {
        let unfinished = dir.join(format!("{}.tmp", name(index)));
        let file = self.write_parts(&unfinished).inspect_err(|_| {
            // Where it cannot be removed the next start does; what matters is why it is unfinished.
            let _ = fs::remove_file(&unfinished);
        })?;
        // Of another kind than a disk that has no room: that a sync has failed is final.
        file.sync_all().map_err(io::Error::other)?;
        fs::rename(&unfinished, dir.join(name(index)))?;
        File::open(dir)?.sync_all()
    }

    fn write_parts(&self, unfinished: &Path) -> io::Result<File> {
        let mut file = File::create(unfinished)?;
        let mut crc = crc32fast::Hasher::new();
        for part in self.parts()? {
            crc.update(&part);
            file.write_all(&part)?;
        }
        file.write_all(&crc.finalize().to_le_bytes())?;
        Ok(file)
    }

    fn parts(&self) -> io::Result<[Bytes; 4]> {
        let (term, index) = term_and_index(&self.log_id);
        let membership = serde_json::to_vec(&self.membership)?;
        let mut head = Vec::with_capacity(HEAD_BYTES + 4);
        head.extend_from_slice(MAGIC);
        head.extend_from_slice(&VERSION.to_le_bytes());
        head.extend_from_slice(&if self.received { RECEIVED } else { 0 }.to_le_bytes());
        head.extend_from_slice(&term.to_le_bytes());
        head.extend_from_slice(&index.to_le_bytes());
        head.extend_from_slice(&(membership.len() as u32).to_le_bytes());
        let state_bytes = Bytes::copy_from_slice(&(self.state.len() as u64).to_le_bytes());
        Ok([head.into(), membership.into(), state_bytes, self.state.clone()])
    }

    fn read(file: &Path) -> Result<StateFile, StateFileError> {
        Self::from_bytes(
            file,
            Bytes::from(fs::read(file).map_err(|error| io_error(file, error))?),
        )
    }

    /// What is written before the checksum, for `fuzz.rs`.
    #[cfg(test)]
    pub(crate) fn to_bytes(&self) -> io::Result<Vec<u8>> {
        Ok(self.parts()?.concat())
    }

    pub(crate) fn from_bytes(file: &Path, bytes: Bytes) -> Result<StateFile, StateFileError> {
        let damaged = |offset, reason: String| StateFileError::Damaged {
            file: file.to_owned(),
            offset,
            reason,
        };
        let short = || damaged(bytes.len(), "it ends too early".into());
        let at = |offset: usize, len: usize| {
            offset
                .checked_add(len)
                .and_then(|end| bytes.get(offset..end))
                .ok_or_else(short)
        };
        let u32_at = |offset| at(offset, 4).map(|b| u32::from_le_bytes(*b.first_chunk().expect("four bytes")));
        let u64_at = |offset| at(offset, 8).map(|b| u64::from_le_bytes(*b.first_chunk().expect("eight bytes")));
        if at(0, 8)? != MAGIC {
            return Err(damaged(0, "it does not begin with FMQSTATE".into()));
        }
        let content = bytes.len().checked_sub(4).ok_or_else(short)?;
        if crc32fast::hash(&bytes[..content]) != u32_at(content)? {
            return Err(damaged(content, "its checksum does not hold".into()));
        }
        match u32_at(8)? {
            VERSION => {}
            other => {
                return Err(damaged(
                    8,
                    format!("it has version {other}, this program reads {VERSION}"),
                ));
            }
        }
        let membership_bytes = u32_at(HEAD_BYTES)? as usize;
        let membership = serde_json::from_slice(at(HEAD_BYTES + 4, membership_bytes)?)
            .map_err(|error| damaged(HEAD_BYTES + 4, error.to_string()))?;
        let state_at = HEAD_BYTES + 4 + membership_bytes + 8;
        let state_bytes = u64_at(state_at - 8)? as usize;
        if state_at.checked_add(state_bytes) != Some(content) {
            return Err(damaged(state_at - 8, "its length does not fit the file".into()));
        }
        Ok(StateFile {
            log_id: log_id(u64_at(16)?, u64_at(24)?),
            membership,
            state: bytes.slice(state_at..content),
            received: u32_at(12)? & RECEIVED != 0,
        })
    }
}

/// The newest state that goes with a journal whose log is gone up to `purged` and ends at `last`. Removes what an
/// interrupted write or install has left.
pub(crate) fn open_newest(
    dir: &Path,
    purged: Option<u64>,
    last: Option<u64>,
) -> Result<Option<StateFile>, StateFileError> {
    fs::create_dir_all(dir).map_err(|error| io_error(dir, error))?;
    let mut newest = None;
    for (index, path) in list(dir).map_err(|error| io_error(dir, error))?.into_iter().rev() {
        let file = StateFile::read(&path)?;
        if last.is_some_and(|last| index <= last) {
            newest = Some(file);
            break;
        }
        if !file.received {
            return Err(StateFileError::AheadOfJournal {
                file: path,
                index,
                last: last.unwrap_or(0),
            });
        }
        tracing::info!(index, "dropping a snapshot whose install was interrupted");
        fs::remove_file(&path).map_err(|error| io_error(dir, error))?;
    }
    let state = newest.as_ref().map(|file| file.log_id.index);
    match purged {
        Some(purged) if state.is_none_or(|state| state < purged) => Err(StateFileError::Missing {
            dir: dir.to_owned(),
            purged,
            state: state.unwrap_or(0),
        }),
        _ => Ok(newest),
    }
}

/// Removes all state files before `index`. Blocks on the disk.
pub(crate) fn remove_older(dir: &Path, index: u64) -> io::Result<()> {
    for (older, path) in list(dir)? {
        if older < index {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}

/// All state files by index; unfinished ones are removed.
fn list(dir: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let Some(name) = path
            .file_name()
            .and_then(|name| name.to_str())
            .and_then(|name| name.strip_prefix("snapshot-"))
        else {
            continue;
        };
        if name.ends_with(".state.tmp") {
            fs::remove_file(&path)?;
        } else if let Some(index) = name.strip_suffix(".state").and_then(|index| index.parse().ok()) {
            files.push((index, path));
        }
    }
    files.sort_unstable();
    Ok(files)
}

fn name(index: u64) -> String {
    format!("snapshot-{index:020}.state")
}

fn io_error(dir: &Path, error: io::Error) -> StateFileError {
    StateFileError::Io {
        dir: dir.to_owned(),
        error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(index: u64, received: bool) -> StateFile {
        let state = Bytes::from(vec![7; 1000]);
        StateFile {
            log_id: log_id(2, index),
            membership: StoredMembership::default(),
            state,
            received,
        }
    }

    #[test]
    fn the_newest_file_is_read_back_and_older_ones_go() {
        let dir = tempfile::tempdir().unwrap();
        file(5, false).write(dir.path()).unwrap();
        file(9, true).write(dir.path()).unwrap();
        let newest = open_newest(dir.path(), Some(8), Some(20)).unwrap().unwrap();
        assert_eq!((newest.log_id, newest.received), (log_id(2, 9), true));
        assert_eq!(newest.state, file(9, true).state);
        remove_older(dir.path(), 9).unwrap();
        assert_eq!(list(dir.path()).unwrap().len(), 1);
    }

    #[test]
    fn what_cannot_be_written_is_told_with_its_cure() {
        let dir = tempfile::tempdir().unwrap();
        let error = file(5, false).write(&dir.path().join("gone")).unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("gone/snapshot-00000000000000000005.state: cannot write"),
            "{text}"
        );
        assert!(text.contains("Cure: check the disk"), "{text}");
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn an_interrupted_install_leaves_the_state_before_it() {
        let dir = tempfile::tempdir().unwrap();
        file(5, false).write(dir.path()).unwrap();
        file(50, true).write(dir.path()).unwrap();
        fs::write(dir.path().join("snapshot-00000000000000000070.state.tmp"), b"half").unwrap();
        assert_eq!(
            open_newest(dir.path(), Some(4), Some(20)).unwrap().unwrap().log_id,
            log_id(2, 5)
        );
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn states_that_do_not_go_with_the_journal_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        assert!(open_newest(dir.path(), None, None).unwrap().is_none());
        assert!(matches!(
            open_newest(dir.path(), Some(3), Some(9)),
            Err(StateFileError::Missing { state: 0, .. })
        ));
        file(5, false).write(dir.path()).unwrap();
        assert!(matches!(
            open_newest(dir.path(), Some(6), Some(9)),
            Err(StateFileError::Missing { state: 5, .. })
        ));
        assert!(matches!(
            open_newest(dir.path(), None, Some(4)),
            Err(StateFileError::AheadOfJournal { .. })
        ));
    }

    #[test]
    fn any_flipped_byte_is_found() {
        let dir = tempfile::tempdir().unwrap();
        file(5, false).write(dir.path()).unwrap();
        let path = dir.path().join(name(5));
        let good = fs::read(&path).unwrap();
        for offset in (0..good.len()).step_by(3).chain(good.len() - 4..good.len()) {
            let mut bad = good.clone();
            bad[offset] ^= 0x10;
            fs::write(&path, &bad).unwrap();
            assert!(
                matches!(StateFile::read(&path), Err(StateFileError::Damaged { .. })),
                "byte {offset}"
            );
        }
        for len in (0..good.len()).step_by(17) {
            fs::write(&path, &good[..len]).unwrap();
            assert!(
                matches!(StateFile::read(&path), Err(StateFileError::Damaged { .. })),
                "cut at {len}"
            );
        }
    }
}
