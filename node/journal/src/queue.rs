//! Operations on their way to the writer, and the records that they become.

use bytes::{BufMut, Bytes, BytesMut};

use crate::{
    error::Error,
    event::{LogId, put_numbers},
    front::Record,
    outline::STEP_BYTES_MAX,
    record::{FLAG_COMPLETE, FLAG_REMAINS, Kind, record_bytes},
};

/// Told once how an operation ended. Called on the journal's writer thread, so it must be quick and never wait for the
/// journal; an operation that is refused at once is answered on the caller's thread.
pub type Done = Box<dyn FnOnce(Result<(), Error>) + Send>;

/// What the writer is asked to do.
#[derive(Debug)]
pub(crate) enum Op {
    Append(Vec<Record>),
    /// As in [`crate::event::Event`].
    Truncate {
        from: u64,
        term: Option<u64>,
    },
    Purge {
        upto: LogId,
    },
    Cell {
        key: u8,
        value: Bytes,
    },
    /// `install` is 0 for slices copied forward.
    Kept {
        install: u64,
        payload: Bytes,
    },
    InstallBegin {
        id: u64,
    },
    Install {
        id: u64,
        last: LogId,
    },
    InstallAbandon {
        id: u64,
    },
    Release {
        segments: Vec<u64>,
    },
    Proof,
}

/// When an operation is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    /// After the next sync, whoever needs it.
    Lazy,
    /// Once written.
    Written,
    /// Once synced.
    Synced,
}

/// An operation in the queue.
pub(crate) struct Queued {
    pub(crate) sequence: u64,
    pub(crate) op: Op,
    pub(crate) need: Need,
    /// Payload bytes, as counted in `queued_bytes`.
    pub(crate) bytes: usize,
    pub(crate) done: Done,
}

/// A record to be written.
#[derive(Debug)]
pub(crate) struct Draft {
    pub(crate) kind: Kind,
    pub(crate) flags: u8,
    pub(crate) term: u64,
    pub(crate) index: u64,
    pub(crate) payload: Bytes,
}

impl Draft {
    pub(crate) fn new(kind: Kind, payload: Bytes) -> Self {
        Self {
            kind,
            flags: 0,
            term: 0,
            index: 0,
            payload,
        }
    }
}

impl Op {
    /// The records, sharing the payloads' memory.
    pub(crate) fn drafts(&self) -> Vec<Draft> {
        let bare = |kind, term, index| Draft {
            term,
            index,
            ..Draft::new(kind, Bytes::new())
        };
        match self {
            Self::Append(records) => {
                let draft = |r: &Record| Draft {
                    kind: Kind::Entry,
                    flags: 0,
                    term: r.term,
                    index: r.index,
                    payload: r.payload.clone(),
                };
                records.iter().map(draft).collect()
            }
            Self::Truncate { from, term } => {
                let flags = if term.is_some() { FLAG_REMAINS } else { 0 };
                vec![Draft {
                    flags,
                    ..bare(Kind::Truncate, term.unwrap_or_default(), *from)
                }]
            }
            Self::Purge { upto } => vec![bare(Kind::Purge, upto.0, upto.1)],
            Self::Cell { key, value } => vec![Draft {
                flags: *key,
                ..Draft::new(Kind::Cell, value.clone())
            }],
            Self::Kept { install, payload } => {
                let flags = if *install == 0 { FLAG_COMPLETE } else { 0 };
                vec![Draft {
                    flags,
                    term: *install,
                    ..Draft::new(Kind::Kept, payload.clone())
                }]
            }
            Self::InstallBegin { id } => vec![bare(Kind::InstallBegin, *id, 0)],
            Self::InstallAbandon { id } => vec![bare(Kind::InstallAbandon, *id, 0)],
            Self::Install { id, last } => {
                let payload = Bytes::copy_from_slice(&id.to_le_bytes());
                vec![Draft {
                    term: last.0,
                    index: last.1,
                    ..Draft::new(Kind::Install, payload)
                }]
            }
            Self::Release { segments } => {
                let mut payload = BytesMut::new();
                put_numbers(&mut payload, segments);
                vec![Draft::new(Kind::Release, payload.freeze())]
            }
            Self::Proof => vec![bare(Kind::Proof, 0, 0)],
        }
    }

    /// Bytes that its records take on disk.
    pub(crate) fn disk_bytes(&self) -> u64 {
        match self {
            Self::Append(records) => records.iter().map(|record| record_bytes(record.payload.len())).sum(),
            other => record_bytes(other.payload_bytes()),
        }
    }

    /// Upper bound of what it adds to the segment's outline, bytes.
    pub(crate) fn outline_bytes(&self) -> usize {
        match self {
            Self::Append(records) => records.len() * STEP_BYTES_MAX,
            Self::Kept { payload, .. } => {
                let slices = payload
                    .get(..4)
                    .map_or(0, |count| crate::record::u32_at(count, 0) as usize);
                crate::event::table_bytes(slices) + STEP_BYTES_MAX
            }
            other => other.payload_bytes() + STEP_BYTES_MAX,
        }
    }

    pub(crate) fn payload_bytes(&self) -> usize {
        match self {
            Self::Append(records) => records.iter().map(|record| record.payload.len()).sum(),
            Self::Cell { value, .. } => value.len(),
            Self::Kept { payload, .. } => payload.len(),
            Self::Install { .. } => 8,
            Self::Release { segments } => 4 + 8 * segments.len(),
            _ => 0,
        }
    }

    /// True for what must be writable on a full disk too: everything but payloads.
    pub(crate) fn is_control(&self) -> bool {
        !matches!(self, Self::Append(_) | Self::Kept { .. })
    }

    /// True where an entry that follows may not be consecutive with the ones before.
    pub(crate) fn moves_log(&self) -> bool {
        matches!(self, Self::Purge { .. } | Self::Install { .. })
    }
}

/// Slices gathered for one kept record.
#[derive(Debug, Default)]
pub(crate) struct Pack {
    places: Vec<crate::front::Place>,
    bodies: BytesMut,
}

impl Pack {
    pub(crate) fn push(&mut self, place: crate::front::Place, body: &[u8]) {
        self.places.push(place);
        self.bodies.put_slice(body);
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bodies.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// The record, leaving the pack empty.
    pub(crate) fn take(&mut self, install: u64) -> Op {
        let mut payload = BytesMut::with_capacity(crate::event::table_bytes(self.places.len()) + self.bodies.len());
        crate::event::put_table(&mut payload, &self.places);
        payload.put_slice(&self.bodies);
        *self = Self::default();
        Op::Kept {
            install,
            payload: payload.freeze(),
        }
    }
}

/// A pack becomes a record when it has grown to this many bytes.
pub(crate) const PACK_BYTES: usize = 1 << 20;
