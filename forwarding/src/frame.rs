//! What two masters say to each other on a link, and its bytes.
//!
//! ```text
//! Control channel                                             Bulk channel
//!  1 Hello     version u16 | name text | group u64 |           8 Transfer  as below
//!              epoch u64 | lineage u64 | node u64              9 Part      last u8 | piece of a Transfer …
//!  2 Redirect  count u32, endpoint text …
//!  3 Demand    flags u8 (1 snapshot, 2 last) |                 Transfer:   transfer u64 | floor u64 |
//!              count u32, row … | count u32, gone key …                    destination kind u8, name text |
//!  4 Pulse     rows u64 | hash u64 | floor u64 | time u64                  target (present u8 [u64]) | time u64 |
//!  5 Resync    –                                                           count u32, message …
//!  6 Accepted  transfer u64 | count u32, (position u32,        message:    redeliveries u16 | redelivered u8 |
//!              reason u8) … | count u32, row … |                           hops u8 | dead letter (present u8
//!              count u32, gone key …                                       [destination, reason text]) |
//!  7 Settled   transfer u64                                                bytes u32 | stored form
//! 10 Held      epoch u64 | floor u64 | next u64
//! ```
//!
//! A time is milliseconds since 1970 by the teller's group time, 0 where it does not know it; messages' ends are by it.
//! Integers are little-endian, a text is its length (u32) and UTF-8. Rows are pictured in [`row`](crate::row). The two
//! channels are each in order, but not with each other.

use bytes::{BufMut, Bytes, BytesMut};

use ferrymq_broker::{Carried, DeadLetter, GroupId, Refused, TransferId};
use ferrymq_message::Destination;

use crate::{
    row::{GROUP_NAME_BYTES_MAX, Key, Row},
    wire::{Reader, put_destination, put_list, put_option, put_text},
};

/// The protocol's version; links of different versions do not come up.
pub const LINK_VERSION: u16 = 3;

/// One thing said on a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// The first word of both sides.
    Hello(Hello),
    /// A slave's answer: ask its master, who has these endpoints. Empty where it knows none.
    Redirect {
        /// `host:port`.
        endpoints: Vec<String>,
    },
    /// The second word of both sides, before anything is handed over.
    Held(Held),
    /// Rows of demand, whole or changed.
    Demand(Demand),
    /// Each second: a hash over all rows told, the floor of transfers, and the time.
    Pulse {
        /// Rows told.
        rows: u64,
        /// Wrapping sum of the rows' hashes.
        hash: u64,
        /// Every transfer of the teller below this number is settled.
        floor: TransferId,
        /// How late it is for the teller's group, in milliseconds since 1970; 0 for unknown.
        time_ms: u64,
    },
    /// Please tell all rows anew.
    Resync,
    /// The messages of a transfer are stored by the teller, and are its own now, but for the refused ones.
    Accepted {
        /// The transfer.
        transfer: TransferId,
        /// Not taken.
        refused: Vec<Refused>,
        /// What room is left: changed rows of the transfer's destination.
        demand: Demand,
    },
    /// The transfer is one that the hearer itself has settled long ago.
    Settled {
        /// The transfer.
        transfer: TransferId,
    },
    /// Messages under offer.
    Transfer(Transfer),
}

/// Who speaks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// See [`LINK_VERSION`].
    pub version: u16,
    /// The group's name.
    pub group: String,
    /// Its id.
    pub group_id: GroupId,
    /// The master's epoch: its term, in its group's incarnation.
    pub epoch: u64,
    /// The lineage of that incarnation.
    pub lineage: u64,
    /// The master's node.
    pub node: u64,
}

/// What the teller holds of the hearer. Where it is beyond what the hearer knows of itself, the hearer's log went back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Held {
    /// The highest epoch seen of it.
    pub epoch: u64,
    /// Every transfer of it below this number is settled, as it has told.
    pub floor: TransferId,
    /// No transfer of it with this number or a higher one has come.
    pub next: TransferId,
}

/// Rows of demand. A snapshot may take several; it counts once the last one is there.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Demand {
    /// Part of a snapshot, else of what changed.
    pub snapshot: bool,
    /// The last part of a snapshot.
    pub last: bool,
    /// Rows, new or changed.
    pub rows: Vec<Row>,
    /// Rows that are no more.
    pub gone: Vec<Key>,
}

/// Messages under offer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transfer {
    /// Its number.
    pub transfer: TransferId,
    /// Every transfer of the teller below this number is settled.
    pub floor: TransferId,
    /// Where the messages go.
    pub destination: Destination,
    /// Of a topic: the group whose subscribers this copy is for.
    pub target: Option<GroupId>,
    /// How late it is for the teller's group, in milliseconds since 1970; 0 for unknown. Messages' ends are by this time.
    pub time_ms: u64,
    /// The messages, in order.
    pub messages: Vec<Carried>,
}

/// Bytes that are no frame. The link is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// A length points behind the end.
    #[error("a frame is cut short")]
    Truncated,
    /// Bytes follow the last field.
    #[error("{0} bytes follow a frame")]
    Trailing(usize),
    /// A kind that this version does not know.
    #[error("unknown frame kind {0}")]
    UnknownKind(u8),
    /// A field holds what it cannot hold.
    #[error("a frame's {0} is not valid")]
    Malformed(&'static str),
    /// The pieces of a transfer add up to more than is taken.
    #[error("a transfer of more than {0} bytes")]
    TooLarge(usize),
}

/// Which of a link's two streams carries a frame, so that messages never delay what keeps the link alive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    /// Everything but messages.
    Control,
    /// Messages.
    Bulk,
}

/// A frame as it goes to the transport.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoded {
    /// The frame's number.
    pub kind: u8,
    /// Its stream.
    pub lane: Lane,
    /// The payload, in pieces that are not copied together.
    pub chunks: Vec<Bytes>,
}

/// Payload bytes from which a transfer is cut into parts: well below the transport's limit of a frame.
pub const PART_BYTES: usize = 4 << 20;
/// Most bytes of a transfer that is put together from parts.
pub const ASSEMBLED_BYTES_MAX: usize = 256 << 20;
/// Most bytes of messages in a transfer: what surrounds them takes part of [`ASSEMBLED_BYTES_MAX`] too.
pub const TRANSFER_BYTES_MAX: usize = ASSEMBLED_BYTES_MAX - (64 << 20);

mod kind {
    pub(super) const HELLO: u8 = 1;
    pub(super) const REDIRECT: u8 = 2;
    pub(super) const DEMAND: u8 = 3;
    pub(super) const PULSE: u8 = 4;
    pub(super) const RESYNC: u8 = 5;
    pub(super) const ACCEPTED: u8 = 6;
    pub(super) const SETTLED: u8 = 7;
    pub(super) const TRANSFER: u8 = 8;
    pub(super) const PART: u8 = 9;
    pub(super) const HELD: u8 = 10;
}

const SNAPSHOT: u8 = 1;
const LAST: u8 = 2;
/// Longest endpoint, in bytes, and most of them.
const ENDPOINT_BYTES_MAX: usize = 512;
const ENDPOINTS_MAX: usize = 64;
const DEAD_LETTER_REASON_BYTES_MAX: usize = 64 * 1024;

impl Frame {
    /// The frame for the transport; a large transfer becomes several.
    pub fn encode(&self) -> Vec<Encoded> {
        let mut out = BytesMut::new();
        let kind = match self {
            Self::Hello(hello) => {
                hello.encode(&mut out);
                kind::HELLO
            }
            Self::Redirect { endpoints } => {
                put_list(&mut out, endpoints, |out, endpoint| put_text(out, endpoint));
                kind::REDIRECT
            }
            Self::Held(held) => {
                [held.epoch, held.floor, held.next]
                    .into_iter()
                    .for_each(|number| out.put_u64_le(number));
                kind::HELD
            }
            Self::Demand(demand) => {
                out.put_u8(if demand.snapshot { SNAPSHOT } else { 0 } | if demand.last { LAST } else { 0 });
                demand.encode_rows(&mut out);
                kind::DEMAND
            }
            Self::Pulse {
                rows,
                hash,
                floor,
                time_ms,
            } => {
                [rows, hash, floor, time_ms]
                    .into_iter()
                    .for_each(|number| out.put_u64_le(*number));
                kind::PULSE
            }
            Self::Resync => kind::RESYNC,
            Self::Accepted {
                transfer,
                refused,
                demand,
            } => {
                out.put_u64_le(*transfer);
                put_list(&mut out, refused, |out, refused| {
                    out.put_u32_le(refused.position);
                    out.put_u8(refused.reason);
                });
                demand.encode_rows(&mut out);
                kind::ACCEPTED
            }
            Self::Settled { transfer } => {
                out.put_u64_le(*transfer);
                kind::SETTLED
            }
            Self::Transfer(transfer) => return in_parts(transfer.encode()),
        };
        vec![Encoded {
            kind,
            lane: Lane::Control,
            chunks: vec![out.freeze()],
        }]
    }

    fn decode(kind: u8, payload: Bytes) -> Result<Self, FrameError> {
        let mut from = Reader::new(payload);
        let frame = match kind {
            kind::HELLO => Self::Hello(Hello::decode(&mut from)?),
            kind::REDIRECT => {
                let endpoints = from.list(4, |from| from.text("endpoint", ENDPOINT_BYTES_MAX))?;
                if endpoints.len() > ENDPOINTS_MAX {
                    return Err(FrameError::Malformed("endpoints"));
                }
                Self::Redirect { endpoints }
            }
            kind::HELD => Self::Held(Held {
                epoch: from.u64()?,
                floor: from.u64()?,
                next: from.u64()?,
            }),
            kind::DEMAND => {
                let flags = from.u8()?;
                if flags & !(SNAPSHOT | LAST) != 0 {
                    return Err(FrameError::Malformed("demand flags"));
                }
                let rows = Demand::decode_rows(&mut from)?;
                Self::Demand(Demand {
                    snapshot: flags & SNAPSHOT != 0,
                    last: flags & LAST != 0,
                    ..rows
                })
            }
            kind::PULSE => Self::Pulse {
                rows: from.u64()?,
                hash: from.u64()?,
                floor: from.u64()?,
                time_ms: from.u64()?,
            },
            kind::RESYNC => Self::Resync,
            kind::ACCEPTED => Self::Accepted {
                transfer: from.u64()?,
                refused: from.list(5, |from| {
                    Ok(Refused {
                        position: from.u32()?,
                        reason: from.u8()?,
                    })
                })?,
                demand: Demand::decode_rows(&mut from)?,
            },
            kind::SETTLED => Self::Settled { transfer: from.u64()? },
            kind::TRANSFER => Self::Transfer(Transfer::decode(&mut from)?),
            other => return Err(FrameError::UnknownKind(other)),
        };
        from.end()?;
        Ok(frame)
    }
}

/// Cuts a transfer's payload so that no frame is larger than [`PART_BYTES`].
fn in_parts(chunks: Vec<Bytes>) -> Vec<Encoded> {
    let mut left: usize = chunks.iter().map(Bytes::len).sum();
    if left <= PART_BYTES {
        return vec![Encoded {
            kind: kind::TRANSFER,
            lane: Lane::Bulk,
            chunks,
        }];
    }
    let mut parts = Vec::new();
    let mut chunks = chunks.into_iter();
    let mut current = chunks.next().unwrap_or_default();
    while left > 0 {
        let mut room = PART_BYTES.min(left);
        left -= room;
        let mut pieces = vec![Bytes::copy_from_slice(&[u8::from(left == 0)])];
        while room > 0 {
            if current.is_empty() {
                current = chunks.next().expect("the chunks' lengths add up to what is left");
            }
            let piece = current.split_to(room.min(current.len()));
            room -= piece.len();
            pieces.push(piece);
        }
        parts.push(Encoded {
            kind: kind::PART,
            lane: Lane::Bulk,
            chunks: pieces,
        });
    }
    parts
}

/// Turns what arrives on one link into frames, putting the parts of large transfers together.
#[derive(Debug, Default)]
pub struct Assembler {
    parts: BytesMut,
}

impl Assembler {
    /// Takes one frame of the transport; `None` where more parts are to come.
    ///
    /// # Errors
    /// Where the bytes are no frame; the link is of no further use then.
    pub fn take(&mut self, kind: u8, mut payload: Bytes) -> Result<Option<Frame>, FrameError> {
        if kind != kind::PART {
            return Frame::decode(kind, payload).map(Some);
        }
        if payload.is_empty() {
            return Err(FrameError::Truncated);
        }
        let last = match payload.split_to(1)[0] {
            0 => false,
            1 => true,
            _ => return Err(FrameError::Malformed("part flag")),
        };
        if self.parts.len() + payload.len() > ASSEMBLED_BYTES_MAX {
            return Err(FrameError::TooLarge(ASSEMBLED_BYTES_MAX));
        }
        self.parts.extend_from_slice(&payload);
        if !last {
            return Ok(None);
        }
        let whole = std::mem::take(&mut self.parts).freeze();
        Frame::decode(kind::TRANSFER, whole).map(Some)
    }
}

impl Hello {
    fn encode(&self, out: &mut BytesMut) {
        out.put_u16_le(self.version);
        put_text(out, &self.group);
        out.put_u64_le(self.group_id);
        out.put_u64_le(self.epoch);
        out.put_u64_le(self.lineage);
        out.put_u64_le(self.node);
    }

    fn decode(from: &mut Reader) -> Result<Self, FrameError> {
        Ok(Self {
            version: from.u16()?,
            group: from.text("group name", GROUP_NAME_BYTES_MAX)?,
            group_id: from.u64()?,
            epoch: from.u64()?,
            lineage: from.u64()?,
            node: from.u64()?,
        })
    }
}

impl Demand {
    fn encode_rows(&self, out: &mut BytesMut) {
        put_list(out, &self.rows, |out, row| row.encode(out));
        put_list(out, &self.gone, |out, key| key.encode(out));
    }

    fn decode_rows(from: &mut Reader) -> Result<Self, FrameError> {
        let rows = from.list(Row::BYTES_MIN, Row::decode)?;
        let gone = from.list(Key::BYTES_MIN, Key::decode)?;
        Ok(Self {
            snapshot: false,
            last: false,
            rows,
            gone,
        })
    }

    /// True where nothing is told.
    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty() && self.gone.is_empty()
    }
}

impl Transfer {
    /// Heads in one buffer, the messages' stored forms where they lie.
    fn encode(&self) -> Vec<Bytes> {
        let mut chunks = Vec::with_capacity(1 + 2 * self.messages.len());
        let mut head = BytesMut::with_capacity(64 + 16 * self.messages.len());
        head.put_u64_le(self.transfer);
        head.put_u64_le(self.floor);
        put_destination(&mut head, &self.destination);
        put_option(&mut head, self.target.as_ref(), |out, group| out.put_u64_le(*group));
        head.put_u64_le(self.time_ms);
        head.put_u32_le(self.messages.len() as u32);
        for carried in &self.messages {
            head.put_u16_le(carried.redeliveries);
            head.put_u8(u8::from(carried.redelivered));
            head.put_u8(carried.hops);
            put_option(&mut head, carried.dead_letter.as_ref(), |out, letter| {
                put_destination(out, &letter.original);
                put_text(out, cut(&letter.reason, DEAD_LETTER_REASON_BYTES_MAX));
            });
            head.put_u32_le(carried.message.len() as u32);
            chunks.push(head.split().freeze());
            chunks.push(carried.message.clone());
        }
        if !head.is_empty() {
            chunks.push(head.freeze());
        }
        chunks
    }

    fn decode(from: &mut Reader) -> Result<Self, FrameError> {
        Ok(Self {
            transfer: from.u64()?,
            floor: from.u64()?,
            destination: from.destination()?,
            target: from.option(Reader::u64)?,
            time_ms: from.u64()?,
            messages: from.list(9, carried)?,
        })
    }
}

fn carried(from: &mut Reader) -> Result<Carried, FrameError> {
    let redeliveries = from.u16()?;
    let redelivered = from.bool()?;
    let hops = from.u8()?;
    let dead_letter = from.option(|from| {
        let original = from.destination()?;
        Ok(DeadLetter {
            original,
            reason: from.text("dead letter reason", DEAD_LETTER_REASON_BYTES_MAX)?,
        })
    })?;
    let len = from.u32()? as usize;
    Ok(Carried {
        redeliveries,
        redelivered,
        hops,
        dead_letter,
        message: from.bytes(len)?,
    })
}

/// The longest beginning of `text` of at most `bytes_max` bytes that ends between characters.
fn cut(text: &str, bytes_max: usize) -> &str {
    let mut end = text.len().min(bytes_max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}
