//! What a record changes. The same function makes an event of a record just written and of one found at start, so the
//! journal never believes anything that it would not read back.

use std::collections::BTreeMap;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::{
    front::Place,
    record::{FLAG_COMPLETE, FLAG_REMAINS, Header, Kind},
};

/// Term and index of a log entry.
pub(crate) type LogId = (u64, u64);

/// A change of the catalog.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Event {
    Head(Box<Head>),
    Entry {
        term: u64,
        index: u64,
        at: Eights,
        len: u32,
    },
    Cell {
        key: u8,
        value: Bytes,
    },
    /// `term`: of the entry before `from`, which is the last one then; `None` where none remains. It is told because the
    /// segment of that entry may be gone when this is read again.
    Truncate {
        from: u64,
        term: Option<u64>,
    },
    Purge {
        upto: LogId,
    },
    Kept {
        install: u64,
        complete: bool,
        at: Eights,
        slices: Vec<Place>,
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
}

/// An offset in a segment file, in units of eight bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Eights(pub(crate) u32);

impl Eights {
    /// `offset` is a multiple of 8 within the size limit of a segment.
    pub(crate) fn of(offset: u64) -> Self {
        Self((offset / 8) as u32)
    }

    pub(crate) fn bytes(self) -> u64 {
        u64::from(self.0) * 8
    }
}

/// What the first record of a segment carries over from all segments before it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Head {
    /// The segment and offset up to which everything was on disk when this was written.
    pub(crate) synced: (u64, u64),
    pub(crate) purged: Option<LogId>,
    pub(crate) last: Option<LogId>,
    pub(crate) cells: BTreeMap<u8, Bytes>,
    /// The install under way.
    pub(crate) installing: Option<u64>,
    /// The earlier segments that live: number, first index and count of the log entries that hold in it.
    pub(crate) segments: Vec<(u64, u64, u32)>,
}

impl Event {
    /// The event of the record with `header` at `at`; an entry's payload is not looked at. `Ok(None)`: the record
    /// changes nothing. `Err`: the payload is not what its kind says.
    pub(crate) fn of_record(header: &Header, at: u64, payload: &Bytes) -> Result<Option<Self>, &'static str> {
        let mut payload = payload.clone();
        let event = match header.kind {
            Kind::Entry => Some(Self::Entry {
                term: header.term,
                index: header.index,
                at: Eights::of(at),
                len: header.len,
            }),
            Kind::Cell => Some(Self::Cell {
                key: header.flags,
                value: payload,
            }),
            Kind::Truncate => {
                let remains = header.flags & FLAG_REMAINS != 0;
                Some(Self::Truncate {
                    from: header.index,
                    term: remains.then_some(header.term),
                })
            }
            Kind::Purge => Some(Self::Purge {
                upto: (header.term, header.index),
            }),
            Kind::Head => Head::decode(&mut payload).map(|head| Self::Head(Box::new(head))),
            Kind::Kept => take_table(&mut payload).map(|slices| Self::Kept {
                install: header.term,
                complete: header.flags & FLAG_COMPLETE != 0,
                at: Eights::of(at),
                slices,
            }),
            Kind::InstallBegin => Some(Self::InstallBegin { id: header.term }),
            Kind::InstallAbandon => Some(Self::InstallAbandon { id: header.term }),
            Kind::Install => payload.try_get_u64_le().ok().map(|id| Self::Install {
                id,
                last: (header.term, header.index),
            }),
            Kind::Release => take_numbers(&mut payload).map(|segments| Self::Release { segments }),
            Kind::Seal | Kind::Proof => return Ok(None),
        };
        event.map(Some).ok_or("the record's payload is not valid")
    }
}

impl Head {
    pub(crate) fn encode(&self) -> Bytes {
        let mut out = BytesMut::new();
        out.put_u64_le(self.synced.0);
        out.put_u64_le(self.synced.1);
        put_log_id(&mut out, self.purged);
        put_log_id(&mut out, self.last);
        put_cells(&mut out, &self.cells);
        put_log_id(&mut out, self.installing.map(|id| (0, id)));
        out.put_u32_le(self.segments.len() as u32);
        for (id, first, count) in &self.segments {
            out.put_u64_le(*id);
            out.put_u64_le(*first);
            out.put_u32_le(*count);
        }
        out.freeze()
    }

    pub(crate) fn decode(input: &mut Bytes) -> Option<Self> {
        let synced = (input.try_get_u64_le().ok()?, input.try_get_u64_le().ok()?);
        let purged = take_log_id(input)?;
        let last = take_log_id(input)?;
        let cells = take_cells(input)?;
        let installing = take_log_id(input)?.map(|(_, id)| id);
        let count = input.try_get_u32_le().ok()?;
        let mut segments = Vec::new();
        for _ in 0..count {
            let id = input.try_get_u64_le().ok()?;
            segments.push((id, input.try_get_u64_le().ok()?, input.try_get_u32_le().ok()?));
        }
        Some(Self {
            synced,
            purged,
            last,
            cells,
            installing,
            segments,
        })
    }
}

/// The table at the head of a kept record's payload; the slices follow it in the same order.
pub(crate) fn put_table(out: &mut BytesMut, slices: &[Place]) {
    out.put_u32_le(slices.len() as u32);
    for slice in slices {
        out.put_u64_le(slice.index);
        out.put_u32_le(slice.offset);
        out.put_u32_le(slice.len);
    }
}

/// Length of the table for `count` slices, bytes.
pub(crate) fn table_bytes(count: usize) -> usize {
    4 + 16 * count
}

pub(crate) fn take_table(input: &mut Bytes) -> Option<Vec<Place>> {
    let count = input.try_get_u32_le().ok()?;
    let mut slices = Vec::new();
    for _ in 0..count {
        let index = input.try_get_u64_le().ok()?;
        slices.push(Place {
            index,
            offset: input.try_get_u32_le().ok()?,
            len: input.try_get_u32_le().ok()?,
        });
    }
    Some(slices)
}

pub(crate) fn put_numbers(out: &mut BytesMut, numbers: &[u64]) {
    out.put_u32_le(numbers.len() as u32);
    numbers.iter().for_each(|number| out.put_u64_le(*number));
}

pub(crate) fn take_numbers(input: &mut Bytes) -> Option<Vec<u64>> {
    let count = input.try_get_u32_le().ok()?;
    let mut numbers = Vec::new();
    for _ in 0..count {
        numbers.push(input.try_get_u64_le().ok()?);
    }
    Some(numbers)
}

pub(crate) fn put_cells(out: &mut BytesMut, cells: &BTreeMap<u8, Bytes>) {
    out.put_u32_le(cells.len() as u32);
    for (key, value) in cells {
        out.put_u8(*key);
        put_bytes(out, value);
    }
}

pub(crate) fn take_cells(input: &mut Bytes) -> Option<BTreeMap<u8, Bytes>> {
    let count = input.try_get_u32_le().ok()?;
    let mut cells = BTreeMap::new();
    for _ in 0..count {
        let key = input.try_get_u8().ok()?;
        cells.insert(key, take_bytes(input)?);
    }
    Some(cells)
}

pub(crate) fn put_bytes(out: &mut BytesMut, bytes: &Bytes) {
    out.put_u32_le(bytes.len() as u32);
    out.put_slice(bytes);
}

/// Copies, so that a small value does not hold a large buffer.
pub(crate) fn take_bytes(input: &mut Bytes) -> Option<Bytes> {
    let len = input.try_get_u32_le().ok()? as usize;
    (len <= input.len()).then(|| Bytes::copy_from_slice(&input.split_to(len)))
}

fn put_log_id(out: &mut BytesMut, id: Option<LogId>) {
    out.put_u8(u8::from(id.is_some()));
    let (term, index) = id.unwrap_or_default();
    out.put_u64_le(term);
    out.put_u64_le(index);
}

fn take_log_id(input: &mut Bytes) -> Option<Option<LogId>> {
    let some = input.try_get_u8().ok()?;
    let id = (input.try_get_u64_le().ok()?, input.try_get_u64_le().ok()?);
    Some((some != 0).then_some(id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_reads_what_it_writes_and_no_prefix_of_it() {
        let head = Head {
            synced: (4, 800),
            purged: None,
            last: Some((2, 9)),
            cells: [(1, Bytes::from_static(b"vote")), (9, Bytes::new())].into(),
            installing: Some(8),
            segments: vec![(1, 5, 2), (3, 0, 0)],
        };
        let bytes = head.encode();
        assert_eq!(Head::decode(&mut bytes.clone()), Some(head));
        for len in 0..bytes.len() {
            assert_eq!(Head::decode(&mut bytes.slice(..len)), None);
        }
    }

    #[test]
    fn a_table_reads_what_it_writes() {
        let slices = vec![
            Place {
                index: 1,
                offset: 2,
                len: 3,
            },
            Place {
                index: u64::MAX,
                offset: 0,
                len: u32::MAX,
            },
        ];
        let mut out = BytesMut::new();
        put_table(&mut out, &slices);
        assert_eq!(out.len(), table_bytes(2));
        assert_eq!(take_table(&mut out.freeze()), Some(slices));
    }
}
