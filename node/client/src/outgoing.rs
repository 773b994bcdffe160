//! A message to be sent, and its SEND frame.
//!
//! The frame is written here and not by the codec, because most of its head is the same for all messages of a producer
//! and is kept ready.

use bytes::{BufMut, Bytes, BytesMut};

use crate::error::SendError;

/// A message to be sent. The producer adds the destination and its own name and count (P5).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Outgoing {
    /// The body.
    pub body: Bytes,
    /// The body is UTF-8 text without NUL (a JMS TextMessage); otherwise bytes (a BytesMessage).
    pub text: bool,
    /// 0–9; `None` is the normal 4.
    pub priority: Option<u8>,
    /// JMSExpiration, milliseconds since 1970, UTC; 0 means never.
    pub expires_ms: i64,
    /// JMSCorrelationID.
    pub correlation_id: Option<String>,
    /// JMSReplyTo, such as `/queue/ANSWERS`.
    pub reply_to: Option<String>,
    /// JMSType.
    pub message_type: Option<String>,
    /// JMSXGroupID.
    pub group_id: Option<String>,
    /// Application properties.
    pub properties: Vec<(String, String)>,
}

impl Outgoing {
    /// A message of bytes.
    pub fn bytes(body: impl Into<Bytes>) -> Self {
        Self {
            body: body.into(),
            ..Self::default()
        }
    }

    /// A message of text.
    pub fn text(body: impl Into<String>) -> Self {
        Self {
            body: body.into().into(),
            text: true,
            ..Self::default()
        }
    }

    /// The same with one more application property.
    #[must_use]
    pub fn with(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.properties.push((name.into(), value.into()));
        self
    }
}

/// An encoded frame as it is kept for a resend: everything in one piece, or a large body by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SendFrame {
    pub(crate) head: Bytes,
    /// Empty where the body was copied behind the head. A NUL byte follows a body.
    pub(crate) body: Bytes,
}

impl SendFrame {
    /// Bytes on the wire.
    pub(crate) fn len(&self) -> usize {
        self.head.len() + if self.body.is_empty() { 0 } else { self.body.len() + 1 }
    }
}

/// A body of this size or more is sent from where it lies instead of being copied, in bytes.
const OWN_PIECE_BYTES_MIN: usize = 4096;

/// What all SEND frames of a producer begin with.
pub(crate) fn send_prefix(destination: &str, persistent: bool, producer_id: &str) -> Bytes {
    let mut out = BytesMut::new();
    out.put_slice(b"SEND");
    header(&mut out, "destination", destination);
    header(&mut out, "persistent", if persistent { "true" } else { "false" });
    header(&mut out, "producer-id", producer_id);
    out.put_slice(b"\nproducer-sequence:");
    out.freeze()
}

/// Checks what the broker would answer by closing the connection.
pub(crate) fn validate(message: &Outgoing) -> Result<(), SendError> {
    if message.text && message.body.contains(&0) {
        return Err(SendError::Invalid(
            "a text must not contain NUL; send it as bytes".into(),
        ));
    }
    if message.priority.is_some_and(|priority| priority > 9) {
        return Err(SendError::Invalid("a priority is between 0 and 9".into()));
    }
    if let Some((name, _)) = message
        .properties
        .iter()
        .find(|(name, _)| name.is_empty() || RESERVED.contains(&&**name))
    {
        return Err(SendError::Invalid(format!(
            "a property cannot have the name {name:?}, which STOMP uses itself"
        )));
    }
    Ok(())
}

/// Headers with a meaning of their own in SEND (STOMP 1.2; ActiveMQ's `Stomp.Headers.Send`).
const RESERVED: [&str; 16] = [
    "destination",
    "persistent",
    "producer-id",
    "producer-sequence",
    "receipt",
    "content-length",
    "content-type",
    "transaction",
    "priority",
    "expires",
    "correlation-id",
    "reply-to",
    "type",
    "JMSXGroupID",
    "JMSXGroupSeq",
    "transformation",
];

/// How the broker says that it has stored a message.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Answer {
    /// By the receipt of this number.
    Receipt(u64),
    /// With the whole transaction of this number.
    Transaction(u64),
}

/// Writes a whole frame; `buffer` is the producer's, so that small frames share allocations.
pub(crate) fn encode(
    buffer: &mut BytesMut,
    prefix: &[u8],
    sequence: u64,
    answer: Answer,
    message: &Outgoing,
) -> SendFrame {
    let shared = message.body.len() >= OWN_PIECE_BYTES_MIN;
    let wanted = prefix.len() + 256 + if shared { 0 } else { message.body.len() };
    if buffer.capacity() < wanted {
        buffer.reserve(wanted.max(BUFFER_BYTES));
    }
    buffer.put_slice(prefix);
    number(buffer, sequence);
    let (name, value) = match answer {
        Answer::Receipt(receipt) => ("receipt", receipt),
        Answer::Transaction(begin) => ("transaction", begin),
    };
    buffer.put_u8(b'\n');
    buffer.put_slice(name.as_bytes());
    buffer.put_u8(b':');
    number(buffer, value);
    if !message.text {
        buffer.put_slice(b"\ncontent-length:");
        number(buffer, message.body.len() as u64);
    }
    if let Some(priority) = message.priority {
        buffer.put_slice(b"\npriority:");
        number(buffer, u64::from(priority));
    }
    if message.expires_ms > 0 {
        buffer.put_slice(b"\nexpires:");
        number(buffer, message.expires_ms.unsigned_abs());
    }
    let optional = [
        ("correlation-id", &message.correlation_id),
        ("reply-to", &message.reply_to),
        ("type", &message.message_type),
        ("JMSXGroupID", &message.group_id),
    ];
    for (name, value) in optional {
        if let Some(value) = value {
            header(buffer, name, value);
        }
    }
    for (name, value) in &message.properties {
        header(buffer, name, value);
    }
    buffer.put_slice(b"\n\n");
    if shared {
        return SendFrame {
            head: buffer.split().freeze(),
            body: message.body.clone(),
        };
    }
    buffer.put_slice(&message.body);
    buffer.put_u8(0);
    SendFrame {
        head: buffer.split().freeze(),
        body: Bytes::new(),
    }
}

/// Room for encoded frames that is taken at a time, in bytes.
const BUFFER_BYTES: usize = 64 << 10;

/// A line end and a header, escaped (STOMP 1.2, "Value Encoding").
fn header(out: &mut BytesMut, name: &str, value: &str) {
    out.put_u8(b'\n');
    escaped(out, name);
    out.put_u8(b':');
    escaped(out, value);
}

fn escaped(out: &mut BytesMut, text: &str) {
    if !text.bytes().any(|byte| matches!(byte, b'\\' | b'\n' | b'\r' | b':')) {
        return out.put_slice(text.as_bytes());
    }
    for byte in text.bytes() {
        match byte {
            b'\\' => out.put_slice(b"\\\\"),
            b'\n' => out.put_slice(b"\\n"),
            b'\r' => out.put_slice(b"\\r"),
            b':' => out.put_slice(b"\\c"),
            other => out.put_u8(other),
        }
    }
}

/// Decimal digits, without the allocation of `to_string`.
pub(crate) fn number(out: &mut BytesMut, mut number: u64) {
    let mut digits = [0u8; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.put_slice(&digits[at..]);
}

#[cfg(test)]
mod tests {
    use ferrymq_protocol::stomp::{Command, Decoder, StompLimits, Version};

    use super::*;

    fn decode(frame: &SendFrame) -> ferrymq_protocol::stomp::Frame {
        let mut wire = BytesMut::from(&frame.head[..]);
        if !frame.body.is_empty() {
            wire.put_slice(&frame.body);
            wire.put_u8(0);
        }
        assert_eq!(wire.len(), frame.len());
        let mut decoder = Decoder::new(StompLimits::default());
        decoder.open(Version::V1_2);
        let decoded = decoder.decode(&mut wire).unwrap().expect("the frame is whole");
        assert!(wire.is_empty());
        decoded
    }

    #[test]
    fn the_codec_reads_what_is_written_here() {
        let prefix = send_prefix("/queue/a:b", true, "p-1");
        let mut message = Outgoing::bytes(vec![0, 1, 2]).with("key:\n", "va\\lue\r");
        message.priority = Some(9);
        message.expires_ms = 1_700_000_000_000;
        message.correlation_id = Some("c".into());
        message.reply_to = Some("/queue/r".into());
        message.message_type = Some("t".into());
        message.group_id = Some("g".into());
        let frame = decode(&encode(
            &mut BytesMut::new(),
            &prefix,
            u64::MAX,
            Answer::Receipt(7),
            &message,
        ));
        assert_eq!(frame.command, Command::Send);
        assert_eq!(&frame.body[..], [0, 1, 2]);
        let headers: Vec<_> = frame.headers.iter().collect();
        assert_eq!(
            headers,
            [
                ("destination", "/queue/a:b"),
                ("persistent", "true"),
                ("producer-id", "p-1"),
                ("producer-sequence", "18446744073709551615"),
                ("receipt", "7"),
                ("content-length", "3"),
                ("priority", "9"),
                ("expires", "1700000000000"),
                ("correlation-id", "c"),
                ("reply-to", "/queue/r"),
                ("type", "t"),
                ("JMSXGroupID", "g"),
                ("key:\n", "va\\lue\r"),
            ]
        );
    }

    #[test]
    fn large_bodies_are_shared_and_text_has_no_length() {
        let prefix = send_prefix("/queue/a", false, "p");
        let mut buffer = BytesMut::new();
        let large = Outgoing::bytes(vec![7; OWN_PIECE_BYTES_MIN]);
        let frame = encode(&mut buffer, &prefix, 1, Answer::Receipt(1), &large);
        assert_eq!(frame.body.as_ptr(), large.body.as_ptr());
        assert_eq!(decode(&frame).body, large.body);
        let text = encode(&mut buffer, &prefix, 2, Answer::Transaction(5), &Outgoing::text("hé"));
        let text = decode(&text);
        let headers = ["transaction", "receipt"].map(|name| text.headers.get(name));
        assert_eq!(headers, [Some("5"), None]);
        assert_eq!(
            (&text.body[..], text.headers.get("content-length")),
            ("hé".as_bytes(), None)
        );
        let empty = decode(&encode(
            &mut buffer,
            &prefix,
            0,
            Answer::Receipt(0),
            &Outgoing::bytes(""),
        ));
        assert_eq!(
            (empty.headers.get("producer-sequence"), empty.body.len()),
            (Some("0"), 0)
        );
    }

    #[test]
    fn what_would_cost_the_connection_is_refused_here() {
        assert!(validate(&Outgoing::text("a\0b")).is_err());
        assert!(validate(&Outgoing::bytes("x").with("receipt", "1")).is_err());
        assert!(
            validate(&Outgoing {
                priority: Some(10),
                ..Outgoing::default()
            })
            .is_err()
        );
        assert!(validate(&Outgoing::bytes("a\0b").with("colour", "red")).is_ok());
    }
}
