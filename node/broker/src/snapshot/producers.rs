//! Section 3: which numbers of each producer have come (P5).
//!
//! ```text
//! count u32 | producers: id text | highest u64 | index u64 | gaps u16, (first u64, last u64)…
//! ```

use bytes::{BufMut, BytesMut};

use crate::{
    ApplyError, Broker,
    producers::{Producers, Seen},
    wire::{Reader, put_text},
};

pub(super) const VERSION: u8 = 1;

pub(super) fn put(broker: &Broker, out: &mut BytesMut) {
    let producers = broker.producers.sorted();
    out.put_u32_le(producers.len() as u32);
    for (id, seen) in producers {
        put_text(out, id);
        out.put_u64_le(seen.highest);
        out.put_u64_le(seen.index);
        out.put_u16_le(seen.gaps.len() as u16);
        for &(first, last) in &seen.gaps {
            out.put_u64_le(first);
            out.put_u64_le(last);
        }
    }
}

pub(super) fn take(broker: &mut Broker, reader: &mut Reader) -> Result<(), ApplyError> {
    let mut producers = Vec::new();
    for _ in 0..reader.u32()? {
        producers.push((reader.text()?.into(), take_seen(reader)?));
    }
    broker.producers = Producers::restore(producers).map_err(|_| ApplyError::Malformed("id of a producer"))?;
    Ok(())
}

fn take_seen(reader: &mut Reader) -> Result<Seen, ApplyError> {
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
    Ok(Seen { highest, index, gaps })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Settings, producers::GAPS_MAX};

    #[test]
    fn a_producer_with_as_many_gaps_as_may_be_survives() {
        let mut broker = Broker::default();
        for sequence in (1..2 * GAPS_MAX as u64).step_by(2) {
            broker.producers.admit("p", sequence, 1);
        }
        assert_eq!(Broker::decode(&broker.encode(), Settings::default()), Ok(broker));
    }
}
