//! A SEND frame as a message (`FrameTranslator.Helper.copyStandardHeadersFromFrameToMessage` in ActiveMQ).

use ferrymq_message::{BodyKind, Digest, Message, NO_DIGEST, Producer, Value};

use super::{
    Frame, StompError,
    deliver::{PRODUCER, SEQUENCE},
    destination,
};

/// Headers that never become properties: the protocol's own, and those that a consumer gets from the broker and that a
/// sender must not forge.
const NOT_PROPERTIES: [&str; 11] = [
    PRODUCER,
    SEQUENCE,
    "receipt",
    "transaction",
    "message-id",
    "subscription",
    "ack",
    "redelivered",
    "JMSXUserID",
    "JMSXDeliveryCount",
    "original-destination",
];

/// Headers that a resend may have otherwise, or that are compared by themselves: no part of the digest.
const NOT_DIGESTED: [&str; 5] = [
    "producer-id",
    "producer-sequence",
    "receipt",
    "transaction",
    "content-length",
];

/// Why a body is delivered as it was sent although its sender asked for a transformation.
const TRANSFORMATION_REFUSED: &str = "bodies are not transformed";

/// What a SEND frame says, as its client wrote it: a number is that of a resend only where this agrees (P5). Temporary
/// destinations are named anew with each connection, so the headers are taken and not what they mean here.
pub(super) fn digest(frame: &Frame) -> u64 {
    if frame.headers.get("producer-id").is_none() {
        return NO_DIGEST;
    }
    let mut digest = Digest::default();
    for (name, value) in frame.headers.iter() {
        if !NOT_DIGESTED.contains(&name) {
            digest.add(name.as_bytes(), value.as_bytes());
        }
    }
    // Its presence makes bytes of a text. No header's name has a NUL.
    let body = if frame.headers.get("content-length").is_some() {
        "\0bytes"
    } else {
        "\0text"
    };
    digest.add(body.as_bytes(), &frame.body);
    digest.finish()
}

/// The message that a SEND frame means. `id` is its id, `now_ms` its timestamp unless the sender gave one.
pub(super) fn message(frame: Frame, id: String, connection_id: &str, now_ms: i64) -> Result<Message, StompError> {
    let missing = StompError::MissingHeader {
        command: "SEND",
        header: "destination",
    };
    let destination = destination::read(frame.headers.get("destination").ok_or(missing)?, connection_id)?;
    let body_kind = body_kind(&frame)?;
    let mut message = Message::new(id, destination, frame.body);
    message.body_kind = body_kind;
    // Messages of STOMP clients are non-persistent unless they say so.
    message.persistent = false;
    message.timestamp_ms = now_ms;
    let (mut producer_id, mut producer_sequence) = (None, None);
    for (name, value) in frame.headers {
        match name.as_str() {
            "destination" | "content-length" => {}
            "persistent" => message.persistent = value.trim() == "true",
            "priority" => {
                let priority: i64 = number(&value, "priority", "a number from 0 to 9")?;
                message.priority = priority.clamp(0, 9) as u8;
            }
            "expires" => message.expires_ms = number(&value, "expires", "milliseconds since 1970")?,
            "timestamp" => message.timestamp_ms = number(&value, "timestamp", "milliseconds since 1970")?,
            "correlation-id" => message.correlation_id = Some(value),
            "type" => message.message_type = Some(value),
            "reply-to" => match destination::read_prefixed(&value, connection_id) {
                Some(destination) => message.reply_to = Some(destination),
                // `FrameTranslator.Helper`: what is no destination of ours may be one of the client's.
                None => message.properties.push((name, Value::Text(value))),
            },
            "JMSXGroupID" => message.group_id = Some(value),
            "JMSXGroupSeq" => message.group_sequence = number(&value, "JMSXGroupSeq", "a 32-bit number")?,
            "producer-id" => producer_id = Some(value),
            "producer-sequence" => {
                producer_sequence = Some(number(&value, "producer-sequence", "a number of 64 bits")?);
            }
            "transformation" => {
                message.properties.push((name, Value::Text(value)));
                message
                    .properties
                    .push(("transformation-error".into(), Value::from(TRANSFORMATION_REFUSED)));
            }
            other if NOT_PROPERTIES.contains(&other) => {}
            _ => message.properties.push((name, Value::Text(value))),
        }
    }
    message.producer = producer(producer_id, producer_sequence)?;
    Ok(message)
}

/// `content-length` makes a bytes message, its absence a text message, `amq-msg-type` overrules both
/// (`LegacyFrameTranslator.convertFrame`). A text that is not UTF-8 stays what it is: bytes.
fn body_kind(frame: &Frame) -> Result<BodyKind, StompError> {
    let text = match frame.headers.get("amq-msg-type") {
        Some(kind) if kind.eq_ignore_ascii_case("text") => true,
        Some(kind) if kind.eq_ignore_ascii_case("bytes") => false,
        Some(_) => {
            return Err(StompError::BadHeader {
                header: "amq-msg-type",
                expected: "text or bytes",
            });
        }
        None => frame.headers.get("content-length").is_none(),
    };
    let text = text && std::str::from_utf8(&frame.body).is_ok();
    Ok(if text { BodyKind::Text } else { BodyKind::Bytes })
}

/// Both or neither: by the two a resend is recognised (P5).
fn producer(id: Option<String>, sequence: Option<u64>) -> Result<Option<Producer>, StompError> {
    let max = Producer::ID_BYTES_MAX;
    match (id, sequence) {
        (Some(id), _) if id.len() > max => Err(StompError::NameTooLong {
            header: "producer-id",
            max,
        }),
        (Some(id), Some(sequence)) => Ok(Some(Producer { id, sequence })),
        (None, None) => Ok(None),
        (Some(_), None) => Err(StompError::MissingHeader {
            command: "SEND",
            header: "producer-sequence",
        }),
        (None, Some(_)) => Err(StompError::MissingHeader {
            command: "SEND",
            header: "producer-id",
        }),
    }
}

fn number<T: std::str::FromStr>(text: &str, header: &'static str, expected: &'static str) -> Result<T, StompError> {
    text.trim()
        .parse()
        .map_err(|_| StompError::BadHeader { header, expected })
}

#[cfg(test)]
mod tests {
    use ferrymq_message::Destination;

    use super::*;
    use crate::stomp::Command;

    fn send() -> Frame {
        Frame::new(Command::Send)
            .with("destination", "/queue/A")
            .with_body("hello")
    }

    fn read(frame: Frame) -> Message {
        message(frame, "ID:c:1".into(), "ID:c", 1_000).unwrap()
    }

    #[test]
    fn a_bare_send_is_a_text_that_may_be_lost() {
        let mut expected = Message::new("ID:c:1", Destination::queue("A"), "hello");
        expected.body_kind = BodyKind::Text;
        expected.persistent = false;
        expected.timestamp_ms = 1_000;
        assert_eq!(read(send()), expected);
    }

    #[test]
    fn headers_become_fields_and_the_rest_properties() {
        let frame = send()
            .with("content-length", "5")
            .with("content-type", "text/x")
            .with("persistent", "true")
            .with("priority", "12")
            .with("expires", "99")
            .with("timestamp", "77")
            .with("correlation-id", "c")
            .with("type", "t")
            .with("reply-to", "/temp-queue/r")
            .with("JMSXGroupID", "g")
            .with("JMSXGroupSeq", "-3")
            .with("producer-id", "p")
            .with("producer-sequence", "18446744073709551615")
            .with("AMQ_SCHEDULED_DELAY", "500")
            .with("receipt", "r")
            .with("transaction", "tx")
            .with("message-id", "forged")
            .with("JMSXUserID", "forged")
            .with("redelivered", "true")
            .with("mine", " x ");
        let mut expected = Message::new("ID:c:1", Destination::queue("A"), "hello");
        expected.priority = 9;
        expected.expires_ms = 99;
        expected.timestamp_ms = 77;
        expected.correlation_id = Some("c".into());
        expected.message_type = Some("t".into());
        expected.reply_to = Some("temp-queue://ID:c:r".parse().unwrap());
        expected.group_id = Some("g".into());
        expected.group_sequence = -3;
        expected.producer = Some(Producer {
            id: "p".into(),
            sequence: u64::MAX,
        });
        expected.properties = vec![
            ("content-type".into(), Value::from("text/x")),
            ("AMQ_SCHEDULED_DELAY".into(), Value::from("500")),
            ("mine".into(), Value::from(" x ")),
        ];
        assert_eq!(read(frame), expected);
    }

    #[test]
    fn a_resend_says_the_same_and_nothing_else_does() {
        let numbered = |body: &'static str| {
            send()
                .with_body(body)
                .with("producer-id", "p")
                .with("producer-sequence", "1")
                .with("persistent", "true")
        };
        let one = digest(&numbered("hello").with("a", "1").with("b", "2"));
        let again = Frame::new(Command::Send)
            .with("b", "2")
            .with("a", "1")
            .with("persistent", "true")
            .with("destination", "/queue/A")
            .with("producer-sequence", "1")
            .with("producer-id", "p")
            .with("transaction", "another")
            .with("receipt", "another")
            .with_body("hello");
        assert_eq!(digest(&again), one);
        for other in [
            numbered("hell").with("a", "1").with("b", "2"),
            numbered("hello").with("a", "2").with("b", "1"),
            numbered("hello").with("a", "1"),
            numbered("hello")
                .with("a", "1")
                .with("b", "2")
                .with("content-length", "5"),
            numbered("hello").with("a", "1").with("b", "2").with("timestamp", "5"),
        ] {
            assert_ne!(digest(&other), one, "{other:?}");
        }
        assert_eq!(digest(&send()), NO_DIGEST, "nobody asks");
    }

    #[test]
    fn the_body_is_text_or_bytes() {
        let kind = |frame| read(frame).body_kind;
        assert_eq!(kind(send().with("content-length", "5")), BodyKind::Bytes);
        assert_eq!(
            kind(send().with("content-length", "5").with("amq-msg-type", "TEXT")),
            BodyKind::Text
        );
        assert_eq!(kind(send().with("amq-msg-type", "bytes")), BodyKind::Bytes);
        assert_eq!(kind(send().with_body(&b"\xff"[..])), BodyKind::Bytes);
    }

    #[test]
    fn odd_replies_and_transformations_stay_texts() {
        let message = read(
            send()
                .with("reply-to", "elsewhere")
                .with("transformation", "jms-map-xml"),
        );
        assert_eq!(message.reply_to, None);
        let names: Vec<_> = message.properties.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["reply-to", "transformation", "transformation-error"]);
    }

    #[test]
    fn refuses_what_it_cannot_read() {
        let refused = |frame| message(frame, String::new(), "ID:c", 0).unwrap_err().to_string();
        assert_eq!(refused(Frame::new(Command::Send)), "SEND needs the header destination");
        assert_eq!(
            refused(send().with("priority", "high")),
            "the header priority must be a number from 0 to 9"
        );
        assert_eq!(
            refused(send().with("expires", "")),
            "the header expires must be milliseconds since 1970"
        );
        assert_eq!(
            refused(send().with("producer-id", "p")),
            "SEND needs the header producer-sequence"
        );
        assert_eq!(
            refused(send().with("producer-sequence", "1")),
            "SEND needs the header producer-id"
        );
        let of = |bytes| {
            send()
                .with("producer-id", "p".repeat(bytes))
                .with("producer-sequence", "1")
        };
        assert_eq!(refused(of(257)), "a producer-id header has more than 256 bytes");
        assert!(read(of(256)).producer.is_some(), "the longest that may be");
        assert_eq!(
            refused(send().with("amq-msg-type", "map")),
            "the header amq-msg-type must be text or bytes"
        );
        let nameless = Frame::new(Command::Send).with("destination", "/queue/");
        assert!(refused(nameless).starts_with("bad destination: "));
    }
}
