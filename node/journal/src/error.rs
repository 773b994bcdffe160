//! Why the journal could not do what was asked, with file, offset and cure where there is one.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

/// What went wrong. Cloned to every operation of a failed batch.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Bytes on disk are not what was written (promise P9).
    #[error("{}: damaged at byte {offset}: {what}. Cure: {cure}", file.display())]
    Damaged {
        /// The segment file.
        file: PathBuf,
        /// Where in the file.
        offset: u64,
        /// What does not hold.
        what: String,
        /// What the operator can do.
        cure: &'static str,
    },
    /// The operating system refused.
    #[error("{}: cannot {doing}: {source}", file.display())]
    Io {
        /// What was tried.
        doing: &'static str,
        /// On which file or directory.
        file: PathBuf,
        /// Its answer.
        source: Arc<io::Error>,
    },
    /// Another process uses the directory.
    #[error("{}: in use by another process. Cure: stop it, or give this node a directory of its own", dir.display())]
    Locked {
        /// The journal's directory.
        dir: PathBuf,
    },
    /// There is no room for another segment. The log is as it was before the operation.
    #[error("{}: no room for another segment. Cure: free disk space; nothing is lost and appends resume by themselves", dir.display())]
    Full {
        /// The journal's directory.
        dir: PathBuf,
    },
    /// An earlier write or sync failed; what the disk holds is unknown, so nothing more is written.
    #[error("the journal has stopped: {reason}. Cure: check the disk, then restart the node")]
    Failed {
        /// The first failure.
        reason: Arc<str>,
    },
    /// The journal was closed.
    #[error("the journal is closed")]
    Closed,
    /// The log no longer reaches back so far.
    #[error("log index {index} is purged (up to {purged})")]
    Purged {
        /// Asked for.
        index: u64,
        /// Purged up to and including.
        purged: u64,
    },
    /// No record, or no kept slice, covers the place.
    #[error("nothing is stored for index {index}, bytes {offset}..{offset}+{len}")]
    Gone {
        /// The record's index.
        index: u64,
        /// Offset in its payload, in bytes.
        offset: u32,
        /// Bytes.
        len: u32,
    },
    /// Indexes are not consecutive: a mistake of the caller.
    #[error("index {got} was appended where {expected} follows")]
    Gap {
        /// The next index of the log.
        expected: u64,
        /// What was given.
        got: u64,
    },
    /// A payload is longer than a record may be.
    #[error("a payload of {bytes} bytes is longer than {max}")]
    TooLong {
        /// Its length.
        bytes: usize,
        /// The limit.
        max: usize,
    },
    /// Another install was begun after this one, or this one has failed.
    #[error("this install was given up")]
    InstallAbandoned,
}

impl Error {
    pub(crate) fn io(doing: &'static str, file: &Path, source: impl Into<io::Error>) -> Self {
        Self::Io {
            doing,
            file: file.to_owned(),
            source: Arc::new(source.into()),
        }
    }

    pub(crate) fn damaged(file: &Path, offset: u64, what: impl Into<String>) -> Self {
        Self::Damaged {
            file: file.to_owned(),
            offset,
            what: what.into(),
            cure: CURE_RESYNC,
        }
    }

    /// True where what was written may not be on disk although the system was asked to bring it there.
    pub(crate) fn is_failed_sync(&self) -> bool {
        let is_sync = matches!(self, Self::Io { doing, .. } if doing.starts_with("sync"));
        is_sync && !self.is_no_space()
    }

    /// True where the disk, or the file system's quota, has no room.
    pub(crate) fn is_no_space(&self) -> bool {
        match self {
            Self::Io { source, .. } => {
                matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
            }
            Self::Full { .. } => true,
            _ => false,
        }
    }
}

const CURE_RESYNC: &str = "replace the disk if it is failing, then move the journal directory away and restart; \
     a node of a group fetches everything again from the others, a group of one needs its backup";
