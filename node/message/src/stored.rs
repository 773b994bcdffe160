//! The form in which a message lies in the journal, in a log entry and on a link: the same bytes everywhere.
//!
//! ```text
//!  0  version u8 = 1        4  timestamp_ms i64       28  fields      bytes u32
//!  1  flags u8              12 expires_ms i64         32  properties  bytes u32
//!  2  priority u8           20 producer sequence u64  36  foreign     bytes u32
//!  3  body kind u8                                    40  body        bytes u32
//! 44  fields ‖ properties ‖ foreign ‖ body
//! ```
//!
//! Integers are little-endian. `fields` is a run of (tag u8, length u32, bytes); a reader skips a tag that it does not
//! know, so a later version can add fields without a new form. A new version number means a new layout.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::{
    BodyKind, Destination, DestinationKind, Encoding, Foreign, Message, Producer, Value,
    value::{put_bytes, take_bytes, take_text},
};

/// Why bytes are not a stored message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoredError {
    /// A length points behind the end.
    #[error("the stored message is cut short")]
    Truncated,
    /// Bytes follow the body.
    #[error("{0} bytes follow the stored message")]
    Trailing(usize),
    /// Written by a later version of this program.
    #[error("stored message of version {0}, this program reads version {VERSION}")]
    Version(u8),
    /// A number that names no type of value, body, destination or encoding.
    #[error("unknown type {0} in a stored message")]
    UnknownType(u8),
    /// A text is not UTF-8.
    #[error("a text in a stored message is not UTF-8")]
    NotUtf8,
    /// Maps and lists are nested more deeply than is read.
    #[error("maps or lists in a stored message are nested too deeply")]
    TooDeep,
    /// A destination's name is not a valid one.
    #[error("a destination in a stored message is not valid")]
    BadDestination,
    /// The destination or the id is missing.
    #[error("a stored message lacks its {0}")]
    Missing(&'static str),
}

const VERSION: u8 = 1;
const HEADER_BYTES: usize = 44;
const FLAG_PERSISTENT: u8 = 1;
const FLAG_PRODUCER: u8 = 2;

/// Tags of the `fields` section. A number is never used again for something else.
mod tag {
    pub(super) const ID: u8 = 1;
    pub(super) const DESTINATION: u8 = 2;
    pub(super) const CORRELATION_ID: u8 = 3;
    pub(super) const REPLY_TO: u8 = 4;
    pub(super) const MESSAGE_TYPE: u8 = 5;
    pub(super) const GROUP_ID: u8 = 6;
    pub(super) const GROUP_SEQUENCE: u8 = 7;
    pub(super) const USER_ID: u8 = 8;
    pub(super) const PRODUCER_ID: u8 = 9;
}

impl Message {
    /// The stored form.
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(HEADER_BYTES + 160 + self.body.len());
        self.encode_into(&mut out);
        out.freeze()
    }

    /// Appends the stored form to `out`.
    pub fn encode_into(&self, out: &mut BytesMut) {
        let start = out.len();
        out.put_u8(VERSION);
        let persistent = if self.persistent { FLAG_PERSISTENT } else { 0 };
        let producer = if self.producer.is_some() { FLAG_PRODUCER } else { 0 };
        out.put_u8(persistent | producer);
        out.put_u8(self.priority);
        out.put_u8(self.body_kind as u8);
        out.put_i64_le(self.timestamp_ms);
        out.put_i64_le(self.expires_ms);
        out.put_u64_le(self.producer.as_ref().map_or(0, |p| p.sequence));
        out.put_bytes(0, 16);

        let fields = section(out, |out| self.encode_fields(out));
        let properties = section(out, |out| {
            for (name, value) in &self.properties {
                put_bytes(out, name.as_bytes());
                value.encode(out);
            }
        });
        let foreign = section(out, |out| {
            if let Some(foreign) = &self.foreign {
                out.put_u8(foreign.encoding as u8);
                out.put_slice(&foreign.bytes);
            }
        });
        out.put_slice(&self.body);
        let lengths = [fields, properties, foreign, self.body.len()];
        for (i, length) in lengths.into_iter().enumerate() {
            let at = start + 28 + 4 * i;
            out[at..at + 4].copy_from_slice(&(length as u32).to_le_bytes());
        }
    }

    fn encode_fields(&self, out: &mut BytesMut) {
        let text = |out: &mut BytesMut, tag: u8, value: &Option<String>| {
            if let Some(value) = value {
                out.put_u8(tag);
                put_bytes(out, value.as_bytes());
            }
        };
        out.put_u8(tag::ID);
        put_bytes(out, self.id.as_bytes());
        put_destination(out, tag::DESTINATION, &self.destination);
        text(out, tag::CORRELATION_ID, &self.correlation_id);
        if let Some(reply_to) = &self.reply_to {
            put_destination(out, tag::REPLY_TO, reply_to);
        }
        text(out, tag::MESSAGE_TYPE, &self.message_type);
        text(out, tag::GROUP_ID, &self.group_id);
        if self.group_sequence != 0 {
            out.put_u8(tag::GROUP_SEQUENCE);
            put_bytes(out, &self.group_sequence.to_le_bytes());
        }
        text(out, tag::USER_ID, &self.user_id);
        if let Some(producer) = &self.producer {
            out.put_u8(tag::PRODUCER_ID);
            put_bytes(out, producer.id.as_bytes());
        }
    }
}

/// Runs `write` and returns how many bytes it appended.
fn section(out: &mut BytesMut, write: impl FnOnce(&mut BytesMut)) -> usize {
    let before = out.len();
    write(out);
    out.len() - before
}

fn put_destination(out: &mut BytesMut, tag: u8, destination: &Destination) {
    out.put_u8(tag);
    out.put_u32_le(destination.name().len() as u32 + 1);
    out.put_u8(destination.kind() as u8);
    out.put_slice(destination.name().as_bytes());
}

fn take_destination(mut bytes: Bytes) -> Result<Destination, StoredError> {
    let number = bytes.try_get_u8().map_err(|_| StoredError::Truncated)?;
    let kind = DestinationKind::from_u8(number).ok_or(StoredError::UnknownType(number))?;
    let name = std::str::from_utf8(&bytes).map_err(|_| StoredError::NotUtf8)?;
    Destination::new(kind, name).map_err(|_| StoredError::BadDestination)
}

/// A message in its stored form, with the fixed fields at hand and the rest read on demand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredMessage(Bytes);

impl StoredMessage {
    /// Wraps bytes after checking the header and that the lengths add up; the sections are checked when read.
    ///
    /// # Errors
    /// Where the bytes are not a stored message of a version that this program reads.
    pub fn new(bytes: Bytes) -> Result<Self, StoredError> {
        if bytes.len() < HEADER_BYTES {
            return Err(StoredError::Truncated);
        }
        if bytes[0] != VERSION {
            return Err(StoredError::Version(bytes[0]));
        }
        let total = (0..4).fold(HEADER_BYTES as u64, |sum, i| sum + u64::from(u32_at(&bytes, 28 + 4 * i)));
        let len = bytes.len() as u64;
        if total > len {
            return Err(StoredError::Truncated);
        }
        if total < len {
            return Err(StoredError::Trailing((len - total) as usize));
        }
        Ok(Self(bytes))
    }

    /// The stored bytes.
    pub fn bytes(&self) -> &Bytes {
        &self.0
    }

    /// JMSDeliveryMode.
    pub fn persistent(&self) -> bool {
        self.0[1] & FLAG_PERSISTENT != 0
    }

    /// JMSPriority.
    pub fn priority(&self) -> u8 {
        self.0[2]
    }

    /// JMSExpiration; 0 means never.
    pub fn expires_ms(&self) -> i64 {
        i64_at(&self.0, 12)
    }

    /// JMSTimestamp.
    pub fn timestamp_ms(&self) -> i64 {
        i64_at(&self.0, 4)
    }

    /// The body, sharing memory.
    pub fn body(&self) -> Bytes {
        let len = u32_at(&self.0, 40) as usize;
        self.0.slice(self.0.len() - len..)
    }

    /// JMSDestination, without decoding the rest.
    ///
    /// # Errors
    /// Where the fields are damaged or lack it.
    pub fn destination(&self) -> Result<Destination, StoredError> {
        let mut fields = self.section(0);
        while fields.has_remaining() {
            let tag = fields.get_u8();
            let value = take_bytes(&mut fields)?;
            if tag == tag::DESTINATION {
                return take_destination(value);
            }
        }
        Err(StoredError::Missing("destination"))
    }

    /// The whole message.
    ///
    /// # Errors
    /// Where a section is damaged.
    pub fn decode(&self) -> Result<Message, StoredError> {
        let kind = self.0[3];
        let body_kind = BodyKind::from_u8(kind).ok_or(StoredError::UnknownType(kind))?;
        let mut id = None;
        let mut destination = None;
        let mut message = Message::new("", Destination::queue("-"), self.body());
        message.persistent = self.persistent();
        message.priority = self.priority();
        message.timestamp_ms = self.timestamp_ms();
        message.expires_ms = self.expires_ms();
        message.body_kind = body_kind;

        let mut fields = self.section(0);
        while fields.has_remaining() {
            let tag = fields.get_u8();
            let mut value = take_bytes(&mut fields)?;
            let text = |bytes: &Bytes| {
                std::str::from_utf8(bytes).map(|t| Some(t.to_owned())).map_err(|_| StoredError::NotUtf8)
            };
            match tag {
                tag::ID => id = text(&value)?,
                tag::DESTINATION => destination = Some(take_destination(value)?),
                tag::CORRELATION_ID => message.correlation_id = text(&value)?,
                tag::REPLY_TO => message.reply_to = Some(take_destination(value)?),
                tag::MESSAGE_TYPE => message.message_type = text(&value)?,
                tag::GROUP_ID => message.group_id = text(&value)?,
                tag::GROUP_SEQUENCE => {
                    message.group_sequence = value.try_get_i32_le().map_err(|_| StoredError::Truncated)?;
                }
                tag::USER_ID => message.user_id = text(&value)?,
                tag::PRODUCER_ID if self.0[1] & FLAG_PRODUCER != 0 => {
                    let sequence = i64_at(&self.0, 20) as u64;
                    message.producer = text(&value)?.map(|id| Producer { id, sequence });
                }
                _ => {}
            }
        }
        let mut properties = self.section(1);
        while properties.has_remaining() {
            let name = take_text(&mut properties)?;
            message.properties.push((name, Value::decode(&mut properties)?));
        }
        let mut foreign = self.section(2);
        if foreign.has_remaining() {
            let number = foreign.get_u8();
            let encoding = Encoding::from_u8(number).ok_or(StoredError::UnknownType(number))?;
            message.foreign = Some(Foreign { encoding, bytes: foreign });
        }
        message.id = id.ok_or(StoredError::Missing("id"))?;
        message.destination = destination.ok_or(StoredError::Missing("destination"))?;
        Ok(message)
    }

    /// Section 0 is fields, 1 properties, 2 foreign; `new` has checked that the lengths add up.
    fn section(&self, number: usize) -> Bytes {
        let start = (0..number).fold(HEADER_BYTES, |sum, i| sum + u32_at(&self.0, 28 + 4 * i) as usize);
        self.0.slice(start..start + u32_at(&self.0, 28 + 4 * number) as usize)
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes were sliced"))
}

fn i64_at(bytes: &[u8], at: usize) -> i64 {
    i64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes were sliced"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full() -> Message {
        let mut message = Message::new("ID:a:1", Destination::queue("ORDERS"), "hello");
        message.body_kind = BodyKind::Text;
        message.timestamp_ms = 1_700_000_000_000;
        message.expires_ms = 1_700_000_060_000;
        message.correlation_id = Some("c".into());
        message.reply_to = Some(Destination::topic("T"));
        message.message_type = Some("t".into());
        message.group_id = Some("g".into());
        message.group_sequence = -3;
        message.user_id = Some("u".into());
        message.producer = Some(Producer { id: "p".into(), sequence: u64::MAX });
        message.foreign = Some(Foreign { encoding: Encoding::Amqp, bytes: Bytes::from_static(b"raw") });
        message.properties = vec![
            ("n".into(), Value::Null),
            ("d".into(), Value::Double(f64::NAN)),
            ("m".into(), Value::Map(vec![("l".into(), Value::List(vec![Value::Long(-1), Value::Char(7)]))])),
        ];
        message
    }

    #[test]
    fn reads_what_it_writes() {
        let message = full();
        let stored = StoredMessage::new(message.encode()).unwrap();
        assert_eq!(stored.decode().unwrap(), message);
        assert_eq!(stored.destination().unwrap(), message.destination);
        assert_eq!(stored.body(), message.body);
        assert!(stored.persistent());
    }

    #[test]
    fn cut_or_changed_bytes_never_panic() {
        let bytes = full().encode();
        for len in 0..bytes.len() {
            assert!(StoredMessage::new(bytes.slice(..len)).is_err());
        }
        for at in 0..bytes.len() {
            for value in [0, 1, 0x7f, 0xff] {
                let mut changed = BytesMut::from(&bytes[..]);
                changed[at] = value;
                if let Ok(stored) = StoredMessage::new(changed.freeze()) {
                    let _ = stored.decode();
                    let _ = stored.destination();
                }
            }
        }
    }

    #[test]
    fn nesting_is_bounded() {
        let mut value = Value::Null;
        for _ in 0..40 {
            value = Value::List(vec![value]);
        }
        let mut out = BytesMut::new();
        value.encode(&mut out);
        assert_eq!(Value::decode(&mut out.freeze()), Err(StoredError::TooDeep));
    }
}
