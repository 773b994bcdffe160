//! The state as bytes: places only, no message bodies, and compact, because it is written again and again.
//!
//! ```text
//! 0 version u8 = 2 | 1 sections u8 | 2 sections: (tag u8 | version u8 | bytes u64 | body)…, in the order of their tags
//! ```
//!
//! Each part of the state has a section with a version of its own, so that one can change without the others. A section that
//! is not there is a part that its writer did not have yet: it stays as in a new state. One that this program does not
//! know stops the replica, since without it this replica would differ from the others. Tags are never used again.
//!
//! Version 1 was sections 1 to 4, in their first versions, one after the other without any of this.

mod identity;
mod life;
mod producers;
mod queues;
mod time;
mod transfers;
mod wants;

use bytes::{BufMut, Bytes, BytesMut};

use crate::{ApplyError, Broker, Settings, wire::Reader};

/// A part of the state. Its body is read to the end.
struct Section {
    tag: u8,
    /// What is written; `take` is handed this one or an earlier one.
    version: u8,
    put: fn(&Broker, &mut BytesMut),
    take: fn(&mut Broker, version: u8, &mut Reader) -> Result<(), ApplyError>,
}

/// In the order of their tags.
const SECTIONS: [Section; 7] = [
    Section {
        tag: 1,
        version: identity::VERSION,
        put: identity::put,
        take: |broker, _, body| identity::take(broker, body),
    },
    Section {
        tag: 2,
        version: queues::VERSION,
        put: queues::put,
        take: |broker, _, body| queues::take(broker, body),
    },
    Section {
        tag: 3,
        version: producers::VERSION,
        put: producers::put,
        take: producers::take,
    },
    Section {
        tag: 4,
        version: transfers::VERSION,
        put: transfers::put,
        take: |broker, _, body| transfers::take(broker, body),
    },
    Section {
        tag: 5,
        version: wants::VERSION,
        put: wants::put,
        take: |broker, _, body| wants::take(broker, body),
    },
    Section {
        tag: 6,
        version: life::VERSION,
        put: life::put,
        take: |broker, _, body| life::take(broker, body),
    },
    Section {
        tag: 7,
        version: time::VERSION,
        put: time::put,
        take: |broker, _, body| time::take(broker, body),
    },
];

const VERSION: u8 = 2;
const VERSION_WITHOUT_SECTIONS: u8 = 1;
/// The sections of [`VERSION_WITHOUT_SECTIONS`].
const FIRST_SECTIONS: usize = 4;
/// Counters only ever grow by one, so a larger one was never written; it could overflow later.
const COUNTER_MAX: u64 = u64::MAX / 2;

impl Broker {
    /// The whole state.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = BytesMut::with_capacity(64 * 1024);
        out.put_u8(VERSION);
        out.put_u8(SECTIONS.len() as u8);
        for section in &SECTIONS {
            out.put_u8(section.tag);
            out.put_u8(section.version);
            let at = out.len();
            out.put_u64_le(0);
            (section.put)(self, &mut out);
            let bytes = (out.len() - at - 8) as u64;
            out[at..at + 8].copy_from_slice(&bytes.to_le_bytes());
        }
        out.into()
    }

    /// Reads what [`Broker::encode`] wrote, or an earlier version of it.
    ///
    /// # Errors
    /// Where the bytes are not a snapshot of a version that this program reads.
    pub fn decode(bytes: &[u8], settings: Settings) -> Result<Self, ApplyError> {
        let mut reader = Reader::new(Bytes::copy_from_slice(bytes), 0);
        let mut broker = Self::new(settings);
        match reader.u8()? {
            VERSION => take_sections(&mut broker, &mut reader)?,
            VERSION_WITHOUT_SECTIONS => {
                for section in &SECTIONS[..FIRST_SECTIONS] {
                    (section.take)(&mut broker, 1, &mut reader)?;
                }
            }
            other => return Err(ApplyError::Version(other)),
        }
        if reader.is_empty() {
            Ok(broker)
        } else {
            Err(ApplyError::Malformed("end of a snapshot"))
        }
    }
}

fn take_sections(broker: &mut Broker, reader: &mut Reader) -> Result<(), ApplyError> {
    let mut last = 0;
    for _ in 0..reader.u8()? {
        let (tag, version, bytes) = (reader.u8()?, reader.u8()?, reader.u64()?);
        if tag <= last {
            return Err(ApplyError::Malformed("order of a snapshot's sections"));
        }
        last = tag;
        let known = SECTIONS.iter().find(|section| section.tag == tag);
        let Some(section) = known.filter(|section| (1..=section.version).contains(&version)) else {
            return Err(ApplyError::Section { tag, version });
        };
        let bytes = usize::try_from(bytes).map_err(|_| ApplyError::Truncated)?;
        let mut body = Reader::new(reader.bytes(bytes)?, 0);
        (section.take)(broker, version, &mut body)?;
        if !body.is_empty() {
            return Err(ApplyError::Malformed("end of a snapshot's section"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Version 1 as it was written, by the first versions of its parts.
    fn without_sections(broker: &Broker) -> Vec<u8> {
        let mut out = BytesMut::new();
        out.put_u8(VERSION_WITHOUT_SECTIONS);
        for put in [identity::put, queues::put, producers::put_first, transfers::put] {
            put(broker, &mut out);
        }
        out.into()
    }

    fn some_state() -> Broker {
        let mut broker = Broker::default();
        let mut out = crate::Applied::default();
        broker.group = 7;
        broker.queues.open(&ferrymq_message::Destination::queue("Q"), &mut out);
        broker.producers.admit_undigested("p", 3, 1);
        broker.transfers.incoming.entry(9).or_default().floor = 4;
        broker
    }

    #[test]
    fn a_snapshot_without_sections_is_read() {
        let broker = some_state();
        let old = without_sections(&broker);
        assert_eq!(Broker::decode(&old, Settings::default()), Ok(broker));
    }

    #[test]
    fn a_section_that_is_missing_is_a_part_that_is_new() {
        let mut bytes = some_state().encode();
        let first = &bytes[2..12];
        let first_bytes = u64::from_le_bytes(*first.last_chunk().unwrap()) as usize;
        bytes[1] = 1;
        bytes.truncate(12 + first_bytes);
        let only_named = Broker {
            group: 7,
            ..Broker::default()
        };
        assert_eq!(Broker::decode(&bytes, Settings::default()), Ok(only_named));
    }

    #[test]
    fn what_a_later_program_wrote_is_refused_by_name() {
        let good = some_state().encode();
        let at = |position: usize, value: u8| {
            let mut bytes = good.clone();
            bytes[position] = value;
            Broker::decode(&bytes, Settings::default())
        };
        assert_eq!(at(0, 3), Err(ApplyError::Version(3)));
        assert_eq!(at(2, 200), Err(ApplyError::Section { tag: 200, version: 1 }));
        assert_eq!(at(3, 9), Err(ApplyError::Section { tag: 1, version: 9 }));
        assert_eq!(at(2, 0), Err(ApplyError::Malformed("order of a snapshot's sections")));
    }
}
