//! The form in which a message lies in the journal, in a log entry and on a link: the same bytes everywhere.
//!
//! ```text
//!  0  version u8 = 1      4  timestamp_ms i64
//!  1  flags u8           12  fields, bytes u32
//!  2  priority u8        16  fields: (tag u8, length, bytes)…
//!  3  body kind u8           body, to the end
//! ```
//!
//! Integers are little-endian, lengths take seven bits a byte. A reader skips a tag that it does not know, so a later
//! version can add fields without a new form; a new version number means a new layout. Every byte here is written to
//! every replica's disk once per message, so what is absent takes no room.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::{
    BodyKind, Destination, DestinationKind, Encoding, Foreign, Message, Producer, Value,
    value::{put_bytes, put_length, take_bytes, take_text},
};

/// Why bytes are not a stored message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoredError {
    /// A length points behind the end.
    #[error("the stored message is cut short")]
    Truncated,
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
const HEADER_BYTES: usize = 16;
const FLAG_PERSISTENT: u8 = 1;
/// The first field is the expiry, so that it is found without a search.
const FLAG_EXPIRES: u8 = 2;

/// Tags of the fields. A number is never used again for something else.
mod tag {
    pub(super) const EXPIRES: u8 = 1;
    pub(super) const DESTINATION: u8 = 2;
    pub(super) const PRODUCER: u8 = 3;
    pub(super) const ID: u8 = 4;
    pub(super) const CORRELATION_ID: u8 = 5;
    pub(super) const REPLY_TO: u8 = 6;
    pub(super) const MESSAGE_TYPE: u8 = 7;
    pub(super) const GROUP_ID: u8 = 8;
    pub(super) const GROUP_SEQUENCE: u8 = 9;
    pub(super) const USER_ID: u8 = 10;
    pub(super) const PROPERTIES: u8 = 11;
    pub(super) const FOREIGN: u8 = 12;
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
        let expires = if self.expires_ms != 0 { FLAG_EXPIRES } else { 0 };
        out.put_u8(persistent | expires);
        out.put_u8(self.priority);
        out.put_u8(self.body_kind as u8);
        out.put_i64_le(self.timestamp_ms);
        out.put_u32_le(0);
        self.encode_fields(out);
        let fields = (out.len() - start - HEADER_BYTES) as u32;
        out[start + 12..start + 16].copy_from_slice(&fields.to_le_bytes());
        out.put_slice(&self.body);
    }

    fn encode_fields(&self, out: &mut BytesMut) {
        let text = |out: &mut BytesMut, tag: u8, value: &Option<String>| {
            if let Some(value) = value {
                put_field(out, tag, value.as_bytes());
            }
        };
        if self.expires_ms != 0 {
            put_field(out, tag::EXPIRES, &self.expires_ms.to_le_bytes());
        }
        put_destination(out, tag::DESTINATION, &self.destination);
        if let Some(producer) = &self.producer {
            out.put_u8(tag::PRODUCER);
            put_length(out, 8 + producer.id.len());
            out.put_u64_le(producer.sequence);
            out.put_slice(producer.id.as_bytes());
        }
        put_field(out, tag::ID, self.id.as_bytes());
        text(out, tag::CORRELATION_ID, &self.correlation_id);
        if let Some(reply_to) = &self.reply_to {
            put_destination(out, tag::REPLY_TO, reply_to);
        }
        text(out, tag::MESSAGE_TYPE, &self.message_type);
        text(out, tag::GROUP_ID, &self.group_id);
        if self.group_sequence != 0 {
            put_field(out, tag::GROUP_SEQUENCE, &self.group_sequence.to_le_bytes());
        }
        text(out, tag::USER_ID, &self.user_id);
        if !self.properties.is_empty() {
            let mut properties = BytesMut::new();
            for (name, value) in &self.properties {
                put_bytes(&mut properties, name.as_bytes());
                value.encode(&mut properties);
            }
            put_field(out, tag::PROPERTIES, &properties);
        }
        if let Some(foreign) = &self.foreign {
            out.put_u8(tag::FOREIGN);
            put_length(out, 1 + foreign.bytes.len());
            out.put_u8(foreign.encoding as u8);
            out.put_slice(&foreign.bytes);
        }
    }
}

fn put_field(out: &mut BytesMut, tag: u8, value: &[u8]) {
    out.put_u8(tag);
    put_bytes(out, value);
}

fn put_destination(out: &mut BytesMut, tag: u8, destination: &Destination) {
    out.put_u8(tag);
    put_length(out, destination.name().len() + 1);
    out.put_u8(destination.kind() as u8);
    out.put_slice(destination.name().as_bytes());
}

fn take_destination(mut bytes: Bytes) -> Result<Destination, StoredError> {
    let kind = take_kind(&mut bytes)?;
    let name = std::str::from_utf8(&bytes).map_err(|_| StoredError::NotUtf8)?;
    Destination::new(kind, name).map_err(|_| StoredError::BadDestination)
}

fn take_kind(bytes: &mut Bytes) -> Result<DestinationKind, StoredError> {
    let number = bytes.try_get_u8().map_err(|_| StoredError::Truncated)?;
    DestinationKind::from_u8(number).ok_or(StoredError::UnknownType(number))
}

/// What decides where a message is stored, and whether it is; shares the message's memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Routing {
    /// The destination's kind.
    pub kind: DestinationKind,
    /// The destination's name, UTF-8; not checked further.
    pub name: Bytes,
    /// The producer's id and the number it gave to this message (P5).
    pub producer: Option<(Bytes, u64)>,
}

/// A message in its stored form, with the fixed fields at hand and the rest read on demand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredMessage(Bytes);

impl StoredMessage {
    /// Wraps bytes after checking the header; the fields are checked when read.
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
        let message = Self(bytes);
        let fields = message.fields_len();
        let expiry = if message.0[1] & FLAG_EXPIRES != 0 { 10 } else { 0 };
        if fields < expiry || HEADER_BYTES as u64 + fields as u64 > message.0.len() as u64 {
            return Err(StoredError::Truncated);
        }
        Ok(message)
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
        if self.0[1] & FLAG_EXPIRES != 0 {
            i64_at(&self.0, HEADER_BYTES + 2)
        } else {
            0
        }
    }

    /// The same message with another end, where it has one.
    #[must_use]
    pub fn expiring(&self, expires_ms: i64) -> Self {
        if self.0[1] & FLAG_EXPIRES == 0 {
            return self.clone();
        }
        let mut bytes = BytesMut::from(&self.0[..]);
        bytes[HEADER_BYTES + 2..HEADER_BYTES + 10].copy_from_slice(&expires_ms.to_le_bytes());
        Self(bytes.freeze())
    }

    /// JMSTimestamp.
    pub fn timestamp_ms(&self) -> i64 {
        i64_at(&self.0, 4)
    }

    /// The body, sharing memory.
    pub fn body(&self) -> Bytes {
        self.0.slice(HEADER_BYTES + self.fields_len()..)
    }

    /// JMSDestination, without decoding the rest.
    ///
    /// # Errors
    /// Where the fields are damaged or lack it.
    pub fn destination(&self) -> Result<Destination, StoredError> {
        let routing = self.routing()?;
        let name = std::str::from_utf8(&routing.name).map_err(|_| StoredError::NotUtf8)?;
        Destination::new(routing.kind, name).map_err(|_| StoredError::BadDestination)
    }

    /// Destination and producer, which are among the first fields, without decoding the rest.
    ///
    /// # Errors
    /// Where the fields are damaged or lack the destination.
    pub fn routing(&self) -> Result<Routing, StoredError> {
        let mut fields = self.fields();
        let mut found: Option<Routing> = None;
        while fields.has_remaining() {
            let tag = fields.get_u8();
            let mut value = take_bytes(&mut fields)?;
            match (tag, &mut found) {
                (tag::EXPIRES, _) => {}
                (tag::DESTINATION, _) => {
                    let kind = take_kind(&mut value)?;
                    found = Some(Routing {
                        kind,
                        name: value,
                        producer: None,
                    });
                }
                (tag::PRODUCER, Some(routing)) => {
                    let sequence = value.try_get_u64_le().map_err(|_| StoredError::Truncated)?;
                    routing.producer = Some((value, sequence));
                }
                _ => break,
            }
        }
        found.ok_or(StoredError::Missing("destination"))
    }

    /// The whole message.
    ///
    /// # Errors
    /// Where a field is damaged.
    pub fn decode(&self) -> Result<Message, StoredError> {
        let kind = self.0[3];
        let body_kind = BodyKind::from_u8(kind).ok_or(StoredError::UnknownType(kind))?;
        let mut id = None;
        let mut message = Message::new("", self.destination()?, self.body());
        message.persistent = self.persistent();
        message.priority = self.priority();
        message.timestamp_ms = self.timestamp_ms();
        message.expires_ms = self.expires_ms();
        message.body_kind = body_kind;
        let mut fields = self.fields();
        while fields.has_remaining() {
            let tag = fields.get_u8();
            let value = take_bytes(&mut fields)?;
            if tag == tag::ID {
                id = Some(text(&value)?);
            } else {
                set_field(&mut message, tag, value)?;
            }
        }
        message.id = id.ok_or(StoredError::Missing("id"))?;
        Ok(message)
    }

    fn fields_len(&self) -> usize {
        u32::from_le_bytes(self.0[12..16].try_into().expect("four bytes were sliced")) as usize
    }

    fn fields(&self) -> Bytes {
        self.0.slice(HEADER_BYTES..HEADER_BYTES + self.fields_len())
    }
}

fn set_field(message: &mut Message, tag: u8, mut value: Bytes) -> Result<(), StoredError> {
    let short = |_| StoredError::Truncated;
    match tag {
        tag::PRODUCER => {
            let sequence = value.try_get_u64_le().map_err(short)?;
            message.producer = Some(Producer {
                id: text(&value)?,
                sequence,
            });
        }
        tag::CORRELATION_ID => message.correlation_id = Some(text(&value)?),
        tag::REPLY_TO => message.reply_to = Some(take_destination(value)?),
        tag::MESSAGE_TYPE => message.message_type = Some(text(&value)?),
        tag::GROUP_ID => message.group_id = Some(text(&value)?),
        tag::GROUP_SEQUENCE => message.group_sequence = value.try_get_i32_le().map_err(short)?,
        tag::USER_ID => message.user_id = Some(text(&value)?),
        tag::PROPERTIES => {
            while value.has_remaining() {
                let name = take_text(&mut value)?;
                message.properties.push((name, Value::decode(&mut value)?));
            }
        }
        tag::FOREIGN => {
            let number = value.try_get_u8().map_err(short)?;
            let encoding = Encoding::from_u8(number).ok_or(StoredError::UnknownType(number))?;
            message.foreign = Some(Foreign { encoding, bytes: value });
        }
        _ => {}
    }
    Ok(())
}

fn text(bytes: &Bytes) -> Result<String, StoredError> {
    std::str::from_utf8(bytes)
        .map(str::to_owned)
        .map_err(|_| StoredError::NotUtf8)
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
        message.producer = Some(Producer {
            id: "p".into(),
            sequence: u64::MAX,
        });
        message.foreign = Some(Foreign {
            encoding: Encoding::Amqp,
            bytes: Bytes::from_static(b"raw"),
        });
        message.properties = vec![
            ("n".into(), Value::Null),
            ("d".into(), Value::Double(f64::NAN)),
            (
                "m".into(),
                Value::Map(vec![("l".into(), Value::List(vec![Value::Long(-1), Value::Char(7)]))]),
            ),
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
        for len in 0..bytes.len() - full().body.len() {
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
    fn what_is_absent_takes_no_room() {
        let message = Message::new("north-1-19a-7:123456", Destination::queue("ORDERS"), vec![0; 1024]);
        let overhead = message.encode().len() - 1024;
        assert!(
            overhead <= 48,
            "{overhead} bytes are written to every replica for each message"
        );
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
