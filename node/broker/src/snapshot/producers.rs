//! Section 3: which numbers of each producer have come, what was sent under the latest, and duplicate ids (P5).
//!
//! ```text
//! count u32 | producers: user text or not | id text | highest u64 | index u64 | gaps u16, (first u64, last u64)…
//!                        | digests, (distance from the number before, digest u64)…
//! duplicate ids | (number of the destination; the first time: destination | id text)…, the oldest first
//! ```
//!
//! Counts, distances and numbers of destinations are variable-length integers where nothing else is said. Version 1 had
//! neither users nor digests nor duplicate ids.

use std::collections::BTreeMap;

use bytes::{BufMut, BytesMut};

use crate::{
    ApplyError, Broker,
    duplicate_ids::DuplicateIds,
    producers::{Key, Producers, Recent, Seen, Who},
    wire::{Reader, put_option, put_text, put_varint},
};

pub(super) const VERSION: u8 = 2;

pub(super) fn put(broker: &Broker, out: &mut BytesMut) {
    let producers = broker.producers.sorted();
    out.put_u32_le(producers.len() as u32);
    for (key, seen) in producers {
        let Who { user, id } = key.who();
        put_option(out, user.as_ref(), |out, user| put_text(out, user));
        put_text(out, id);
        put_numbers(out, seen);
        put_digests(out, &seen.recent);
    }
    put_duplicate_ids(out, &broker.duplicate_ids);
}

pub(super) fn take(broker: &mut Broker, version: u8, reader: &mut Reader) -> Result<(), ApplyError> {
    let mut producers = Vec::new();
    for _ in 0..reader.u32()? {
        let user = if version == 1 {
            None
        } else {
            reader.option(Reader::text)?
        };
        let id = reader.text()?;
        let mut seen = take_numbers(reader)?;
        if version > 1 {
            take_digests(reader, &mut seen.recent)?;
        }
        let who = Who {
            user: user.as_deref(),
            id: &id,
        };
        producers.push((Key::new(who), seen));
    }
    broker.producers = Producers::restore(producers).map_err(|_| ApplyError::Malformed("id of a producer"))?;
    if version > 1 {
        broker.duplicate_ids = take_duplicate_ids(reader)?;
    }
    Ok(())
}

fn put_numbers(out: &mut BytesMut, seen: &Seen) {
    out.put_u64_le(seen.highest);
    out.put_u64_le(seen.index);
    out.put_u16_le(seen.gaps.len() as u16);
    for &(first, last) in &seen.gaps {
        out.put_u64_le(first);
        out.put_u64_le(last);
    }
}

fn take_numbers(reader: &mut Reader) -> Result<Seen, ApplyError> {
    let (highest, index) = (reader.u64()?, reader.u64()?);
    let mut gaps: Vec<(u64, u64)> = Vec::new();
    for _ in 0..reader.u16()? {
        let (first, last) = (reader.u64()?, reader.u64()?);
        let apart = gaps.last().is_none_or(|&(_, before)| before < first);
        if first > last || last >= highest || !apart {
            return Err(ApplyError::Malformed("gap in a producer's numbers"));
        }
        gaps.push((first, last));
    }
    let recent = Recent::default();
    Ok(Seen {
        highest,
        index,
        gaps,
        recent,
    })
}

fn put_digests(out: &mut BytesMut, recent: &Recent) {
    put_varint(out, recent.len() as u64);
    let mut last = 0;
    for (number, digest) in recent.iter() {
        put_varint(out, number - last);
        out.put_u64_le(digest);
        last = number;
    }
}

fn take_digests(reader: &mut Reader, recent: &mut Recent) -> Result<(), ApplyError> {
    let mut last = 0u64;
    for nth in 0..reader.varint()? {
        let distance = reader.varint()?;
        last = match last.checked_add(distance) {
            Some(number) if nth == 0 || distance > 0 => number,
            _ => return Err(ApplyError::Malformed("digest of a producer's message")),
        };
        recent.put(last, reader.u64()?);
    }
    Ok(())
}

fn put_duplicate_ids(out: &mut BytesMut, ids: &DuplicateIds) {
    let mut numbers: BTreeMap<(u8, &str), u64> = BTreeMap::new();
    put_varint(out, ids.len() as u64);
    for (kind, name, id) in ids.iter() {
        let next = numbers.len() as u64;
        let number = *numbers.entry((kind, name)).or_insert(next);
        put_varint(out, number);
        if number == next {
            out.put_u8(kind);
            put_text(out, name);
        }
        put_text(out, id);
    }
}

fn take_duplicate_ids(reader: &mut Reader) -> Result<DuplicateIds, ApplyError> {
    let mut ids = DuplicateIds::default();
    let mut destinations = Vec::new();
    for _ in 0..reader.varint()? {
        let number = reader.varint()? as usize;
        if number == destinations.len() {
            destinations.push(reader.destination()?);
        }
        let destination = destinations
            .get(number)
            .ok_or(ApplyError::Malformed("destination of an id"))?;
        let id = reader.text()?;
        if !ids.add(destination.kind(), destination.name(), &id) {
            return Err(ApplyError::Malformed("duplicate id, which is there twice"));
        }
    }
    Ok(ids)
}

/// Version 1, as it was written.
#[cfg(test)]
pub(super) fn put_first(broker: &Broker, out: &mut BytesMut) {
    let producers = broker.producers.sorted();
    out.put_u32_le(producers.len() as u32);
    for (key, seen) in producers {
        put_text(out, key.who().id);
        put_numbers(out, seen);
    }
}

#[cfg(test)]
mod tests {
    use ferrymq_message::DestinationKind;

    use super::*;
    use crate::{Settings, producers::GAPS_MAX};

    #[test]
    fn producers_with_as_many_gaps_as_may_be_and_duplicate_ids_survive() {
        let mut broker = Broker::default();
        let who = Who {
            user: Some("u"),
            id: "p",
        };
        for sequence in (1..2 * GAPS_MAX as u64).step_by(2) {
            broker.producers.admit(who, sequence, sequence + 7, 1);
            broker.producers.admit_undigested("p", sequence, 1);
        }
        for (kind, name, id) in [
            (DestinationKind::Queue, "A", "1"),
            (DestinationKind::Topic, "A", "1"),
            (DestinationKind::Queue, "A", "2"),
        ] {
            broker.duplicate_ids.add(kind, name, id);
        }
        assert_eq!(Broker::decode(&broker.encode(), Settings::default()), Ok(broker));
    }
}
