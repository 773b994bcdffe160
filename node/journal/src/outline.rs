//! The outline of a segment: everything that its records changed, short enough to be read at start instead of them.
//! It becomes the payload of the seal.
//!
//! ```text
//! next segment u64 │ newest cells │ steps …
//! ```
//!
//! A step begins with the number of its [`Kind`]. A run of entries with consecutive indexes and one term is one step
//! of 21 bytes and 8 bytes for each entry. Of a cell only the newest value is kept.

use std::collections::BTreeMap;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::{
    event::{
        Eights, Event, Head, put_bytes, put_cells, put_numbers, put_table, take_bytes, take_cells, take_numbers,
        take_table,
    },
    record::Kind,
};

/// Upper bound of what one record adds, beside its payload, bytes.
pub(crate) const STEP_BYTES_MAX: usize = 64;

/// Collects the events of one segment.
#[derive(Debug, Default)]
pub(crate) struct Outline {
    steps: BytesMut,
    cells: BTreeMap<u8, Bytes>,
    run: Option<Run>,
}

/// The run of entries that ends `steps`.
#[derive(Debug)]
struct Run {
    term: u64,
    next_index: u64,
    count: u32,
    count_at: usize,
}

impl Outline {
    pub(crate) fn push(&mut self, event: &Event) {
        if let Event::Entry { term, index, at, len } = event {
            return self.push_entry(*term, *index, *at, *len);
        }
        if let Event::Cell { key, value } = event {
            self.cells.insert(*key, value.clone());
            return;
        }
        self.run = None;
        let out = &mut self.steps;
        match event {
            Event::Entry { .. } | Event::Cell { .. } => {}
            Event::Head(head) => {
                out.put_u8(Kind::Head as u8);
                put_bytes(out, &head.encode());
            }
            Event::Truncate { from, term } => {
                out.put_u8(Kind::Truncate as u8);
                out.put_u64_le(*from);
                out.put_u8(u8::from(term.is_some()));
                out.put_u64_le(term.unwrap_or_default());
            }
            Event::Purge { upto } => {
                out.put_u8(Kind::Purge as u8);
                out.put_u64_le(upto.0);
                out.put_u64_le(upto.1);
            }
            Event::Kept {
                install,
                complete,
                at,
                slices,
            } => {
                out.put_u8(Kind::Kept as u8);
                out.put_u64_le(*install);
                out.put_u8(u8::from(*complete));
                out.put_u32_le(at.0);
                put_table(out, slices);
            }
            Event::InstallBegin { id } => {
                out.put_u8(Kind::InstallBegin as u8);
                out.put_u64_le(*id);
            }
            Event::InstallAbandon { id } => {
                out.put_u8(Kind::InstallAbandon as u8);
                out.put_u64_le(*id);
            }
            Event::Install { id, last } => {
                out.put_u8(Kind::Install as u8);
                out.put_u64_le(*id);
                out.put_u64_le(last.0);
                out.put_u64_le(last.1);
            }
            Event::Release { segments } => {
                out.put_u8(Kind::Release as u8);
                put_numbers(out, segments);
            }
        }
    }

    fn push_entry(&mut self, term: u64, index: u64, at: Eights, len: u32) {
        let out = &mut self.steps;
        let run = match &mut self.run {
            Some(run) if run.term == term && run.next_index == index => run,
            run => {
                out.put_u8(Kind::Entry as u8);
                out.put_u64_le(term);
                out.put_u64_le(index);
                let count_at = out.len();
                out.put_u32_le(0);
                run.insert(Run {
                    term,
                    next_index: index,
                    count: 0,
                    count_at,
                })
            }
        };
        run.count += 1;
        run.next_index = index + 1;
        out[run.count_at..run.count_at + 4].copy_from_slice(&run.count.to_le_bytes());
        out.put_u32_le(at.0);
        out.put_u32_le(len);
    }

    /// Length of the seal's payload if the segment were sealed now, bytes.
    pub(crate) fn bytes(&self) -> usize {
        12 + self.steps.len() + self.cells.values().map(|value| 5 + value.len()).sum::<usize>()
    }

    /// The seal's payload; `next` is the number of the segment that follows.
    pub(crate) fn encode(&self, next: u64) -> Bytes {
        let mut out = BytesMut::with_capacity(self.bytes());
        out.put_u64_le(next);
        put_cells(&mut out, &self.cells);
        out.put_slice(&self.steps);
        out.freeze()
    }

    /// Reads a seal's payload: the number of the next segment, then each event into `each`.
    pub(crate) fn decode(
        mut input: Bytes,
        mut each: impl FnMut(Event) -> Result<(), &'static str>,
    ) -> Result<u64, &'static str> {
        const CUT: &str = "the seal's payload is not valid";
        let next = input.try_get_u64_le().map_err(|_| CUT)?;
        let cells = take_cells(&mut input).ok_or(CUT)?;
        while input.has_remaining() {
            let kind = input.get_u8();
            if kind == Kind::Entry as u8 {
                decode_run(&mut input, &mut each).ok_or(CUT)??;
            } else {
                each(decode_step(kind, &mut input).ok_or(CUT)?)?;
            }
        }
        // After the head, which carries the values from before this segment.
        cells
            .into_iter()
            .try_for_each(|(key, value)| each(Event::Cell { key, value }))?;
        Ok(next)
    }
}

fn decode_step(kind: u8, input: &mut Bytes) -> Option<Event> {
    let number = |input: &mut Bytes| input.try_get_u64_le().ok();
    Some(match kind {
        k if k == Kind::Head as u8 => Event::Head(Box::new(Head::decode(&mut take_bytes(input)?)?)),
        k if k == Kind::Truncate as u8 => {
            let (from, remains) = (number(input)?, input.try_get_u8().ok()? != 0);
            let term = number(input)?;
            Event::Truncate {
                from,
                term: remains.then_some(term),
            }
        }
        k if k == Kind::Purge as u8 => Event::Purge {
            upto: (number(input)?, number(input)?),
        },
        k if k == Kind::Kept as u8 => Event::Kept {
            install: number(input)?,
            complete: input.try_get_u8().ok()? != 0,
            at: Eights(input.try_get_u32_le().ok()?),
            slices: take_table(input)?,
        },
        k if k == Kind::InstallBegin as u8 => Event::InstallBegin { id: number(input)? },
        k if k == Kind::InstallAbandon as u8 => Event::InstallAbandon { id: number(input)? },
        k if k == Kind::Install as u8 => Event::Install {
            id: number(input)?,
            last: (number(input)?, number(input)?),
        },
        k if k == Kind::Release as u8 => Event::Release {
            segments: take_numbers(input)?,
        },
        _ => return None,
    })
}

/// `None`: cut short. `Some(Err)`: `each` refused.
fn decode_run(
    input: &mut Bytes,
    each: &mut impl FnMut(Event) -> Result<(), &'static str>,
) -> Option<Result<(), &'static str>> {
    let term = input.try_get_u64_le().ok()?;
    let first = input.try_get_u64_le().ok()?;
    let count = input.try_get_u32_le().ok()?;
    for i in 0..u64::from(count) {
        let at = Eights(input.try_get_u32_le().ok()?);
        let len = input.try_get_u32_le().ok()?;
        if let Err(refused) = each(Event::Entry {
            term,
            index: first.wrapping_add(i),
            at,
            len,
        }) {
            return Some(Err(refused));
        }
    }
    Some(Ok(()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::front::Place;

    #[test]
    fn a_seal_reads_what_it_writes_and_a_prefix_never_panics() {
        let entry = |term, index| Event::Entry {
            term,
            index,
            at: Eights(8 + index as u32),
            len: 5,
        };
        let head = Head {
            last: Some((1, 2)),
            cells: [(1, Bytes::from_static(b"old"))].into(),
            ..Head::default()
        };
        let mut events = vec![
            Event::Head(Box::new(head)),
            entry(1, 3),
            entry(1, 4),
            entry(2, 5),
            Event::Truncate { from: 4, term: Some(1) },
            Event::Truncate { from: 4, term: None },
            entry(2, 4),
            Event::Purge { upto: (1, 2) },
            Event::InstallBegin { id: 77 },
            Event::Kept {
                install: 77,
                complete: false,
                at: Eights(9),
                slices: vec![Place {
                    index: 1,
                    offset: 2,
                    len: 3,
                }],
            },
            Event::InstallAbandon { id: 77 },
            Event::Install { id: 3, last: (4, 5) },
            Event::Release { segments: vec![1, 2] },
        ];
        let mut outline = Outline::default();
        events.iter().for_each(|event| outline.push(event));
        outline.push(&Event::Cell {
            key: 1,
            value: Bytes::from_static(b"a"),
        });
        outline.push(&Event::Cell {
            key: 1,
            value: Bytes::from_static(b"b"),
        });
        events.push(Event::Cell {
            key: 1,
            value: Bytes::from_static(b"b"),
        });

        let bytes = outline.encode(42);
        assert_eq!(bytes.len(), outline.bytes());
        let mut read = Vec::new();
        let next = Outline::decode(bytes.clone(), |event| {
            read.push(event);
            Ok(())
        });
        assert_eq!(next, Ok(42));
        assert_eq!(read, events);
        for len in 0..bytes.len() {
            let _ = Outline::decode(bytes.slice(..len), |_| Ok(()));
        }
    }
}
