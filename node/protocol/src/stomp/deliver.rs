//! A delivery as a MESSAGE frame (`FrameTranslator.Helper.copyStandardHeadersFromMessageToFrame` in ActiveMQ).

use bytes::Bytes;

use ferrymq_message::{BodyKind, Message, Value};

use super::{
    Command, Version,
    codec::FrameWriter,
    destination,
    json::{header_text, json},
};
use crate::{DeadLetter, Output};

/// The name of the producer that gave its messages numbers (P5). Not the header by which it gave them: a client that
/// copies the headers of what it receives into what it sends would seem to resend.
pub const PRODUCER: &str = "ferrymq_producer";
/// The number that the producer gave to this message.
pub const SEQUENCE: &str = "ferrymq_sequence";

/// Headers that the broker writes; a property of the same name would only repeat them.
const NOT_PROPERTIES: [&str; 21] = [
    PRODUCER,
    SEQUENCE,
    "message-id",
    "destination",
    "subscription",
    "ack",
    "content-length",
    "timestamp",
    "expires",
    "priority",
    "persistent",
    "redelivered",
    "correlation-id",
    "type",
    "JMSXGroupID",
    "JMSXGroupSeq",
    "JMSXUserID",
    "JMSXDeliveryCount",
    "original-destination",
    "dlqDeliveryFailureCause",
    "receipt",
];

/// What the frame says besides the message.
#[derive(Debug)]
pub(super) struct Envelope<'a> {
    /// The connection's version.
    pub(super) version: Version,
    /// The connection's id, to tell its own temporary destinations.
    pub(super) connection_id: &'a str,
    /// The client's id of the subscription; 1.0 does without.
    pub(super) subscription: Option<&'a str>,
    /// By which the client acknowledges, in 1.2.
    pub(super) ack: Option<String>,
    /// How often it was delivered before.
    pub(super) redelivery_count: u32,
    /// It may have been delivered before.
    pub(super) redelivered: bool,
    /// Where it comes from, if it is a dead letter.
    pub(super) dead_letter: Option<&'a DeadLetter>,
}

/// Writes the MESSAGE frame.
pub(super) fn write(message: &Message, envelope: &Envelope<'_>, out: &mut Output) {
    let mut frame = FrameWriter::new(Command::Message, envelope.version, out);
    if let Some(subscription) = envelope.subscription {
        frame.header("subscription", subscription);
    }
    frame.header("message-id", &message.id);
    if let Some(ack) = &envelope.ack {
        frame.header("ack", ack);
    }
    frame.header(
        "destination",
        &destination::write(&message.destination, envelope.connection_id),
    );
    write_standard(message, envelope, &mut frame);
    if let Some(dead_letter) = envelope.dead_letter {
        frame.header(
            "original-destination",
            &destination::write(&dead_letter.original, envelope.connection_id),
        );
        frame.header("dlqDeliveryFailureCause", &dead_letter.reason);
    }
    for (name, value) in &message.properties {
        let hidden = NOT_PROPERTIES.contains(&name.as_str()) || (name == "reply-to" && message.reply_to.is_some());
        if !name.is_empty() && !hidden {
            match value {
                Value::Text(text) => frame.header(name, text),
                other => frame.header(name, &header_text(other)),
            }
        }
    }
    let (body, counted) = body(message);
    if counted {
        frame.number("content-length", body.len());
    }
    frame.end(body);
}

fn write_standard(message: &Message, envelope: &Envelope<'_>, frame: &mut FrameWriter<'_>) {
    frame.number("timestamp", message.timestamp_ms);
    frame.number("expires", message.expires_ms);
    frame.number("priority", message.priority);
    if message.persistent {
        frame.header("persistent", "true");
    }
    if envelope.redelivered {
        frame.header("redelivered", "true");
    }
    if envelope.redelivery_count > 0 {
        frame.number("JMSXDeliveryCount", u64::from(envelope.redelivery_count) + 1);
    }
    let texts = [
        ("correlation-id", &message.correlation_id),
        ("type", &message.message_type),
        ("JMSXGroupID", &message.group_id),
        ("JMSXUserID", &message.user_id),
    ];
    for (name, text) in texts {
        if let Some(text) = text {
            frame.header(name, text);
        }
    }
    if message.group_id.is_some() {
        frame.number("JMSXGroupSeq", message.group_sequence);
    }
    if let Some(producer) = &message.producer {
        frame.header(PRODUCER, &producer.id);
        frame.number(SEQUENCE, producer.sequence);
    }
    if let Some(reply_to) = &message.reply_to {
        frame.header("reply-to", &destination::write(reply_to, envelope.connection_id));
    }
}

/// The body, and whether its length is told. A client takes a body without `content-length` for text, so only text goes
/// without, and only where no NUL would end it early.
fn body(message: &Message) -> (Bytes, bool) {
    match message.body_kind {
        BodyKind::Empty => (Bytes::new(), false),
        BodyKind::Text => (message.body.clone(), message.body.contains(&0)),
        BodyKind::Bytes | BodyKind::Object => (message.body.clone(), true),
        BodyKind::Map | BodyKind::List | BodyKind::Value => match Value::decode(&mut message.body.clone()) {
            Ok(Value::Text(text)) => {
                let counted = text.contains('\0');
                (text.into(), counted)
            }
            Ok(Value::Bytes(bytes)) => (bytes, true),
            // JSON has no bare NUL.
            Ok(value) => (json(&value).into(), false),
            Err(_) => (message.body.clone(), true),
        },
    }
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use ferrymq_message::Destination;

    use super::*;

    fn envelope(version: Version) -> Envelope<'static> {
        Envelope {
            version,
            connection_id: "ID:c",
            subscription: Some("0"),
            ack: None,
            redelivery_count: 0,
            redelivered: false,
            dead_letter: None,
        }
    }

    fn text_of(message: &Message, envelope: &Envelope<'_>) -> String {
        let mut out = Output::new();
        write(message, envelope, &mut out);
        out.take_chunks()
            .iter()
            .map(|chunk| String::from_utf8(chunk.to_vec()).unwrap())
            .collect()
    }

    fn text_message() -> Message {
        let mut message = Message::new("ID:p:1", Destination::queue("A"), "hello");
        message.body_kind = BodyKind::Text;
        message.persistent = false;
        message
    }

    #[test]
    fn a_plain_text() {
        let text = text_of(&text_message(), &envelope(Version::V1_1));
        let expected = "MESSAGE\nsubscription:0\nmessage-id:ID\\cp\\c1\ndestination:/queue/A\ntimestamp:0\nexpires:0\n\
                        priority:4\n\nhello\0\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn everything_at_once() {
        let mut message = Message::new("ID:p:1", Destination::queue("DLQ"), &b"a\0b"[..]);
        message.timestamp_ms = 5;
        message.expires_ms = 6;
        message.correlation_id = Some("a:b\\\n".into());
        message.reply_to = Some("temp-queue://ID:c:r".parse().unwrap());
        message.message_type = Some("t".into());
        message.group_id = Some("g".into());
        message.group_sequence = 2;
        message.user_id = Some("u".into());
        message.properties = vec![
            ("n".into(), Value::Int(1)),
            ("content-type".into(), Value::from("x/y")),
            ("destination".into(), Value::from("forged")),
            ("".into(), Value::from("nameless")),
        ];
        let dead_letter = DeadLetter {
            original: Destination::queue("A"),
            reason: "too often".into(),
        };
        let envelope = Envelope {
            ack: Some("1-7".into()),
            redelivery_count: 2,
            redelivered: true,
            dead_letter: Some(&dead_letter),
            ..envelope(Version::V1_2)
        };
        let expected = "MESSAGE\nsubscription:0\nmessage-id:ID\\cp\\c1\nack:1-7\ndestination:/queue/DLQ\ntimestamp:5\n\
                        expires:6\npriority:4\npersistent:true\nredelivered:true\nJMSXDeliveryCount:3\n\
                        correlation-id:a\\cb\\\\\\n\ntype:t\nJMSXGroupID:g\nJMSXUserID:u\nJMSXGroupSeq:2\n\
                        reply-to:/temp-queue/r\noriginal-destination:/queue/A\ndlqDeliveryFailureCause:too often\n\
                        n:1\ncontent-type:x/y\ncontent-length:3\n\na\0b\0\n";
        assert_eq!(text_of(&message, &envelope), expected);
    }

    #[test]
    fn version_1_0_cannot_be_tricked_into_another_header() {
        let mut message = text_message();
        message.properties = vec![("a:b".into(), Value::from("x\nreceipt:1\0"))];
        let text = text_of(&message, &envelope(Version::V1_0));
        assert!(text.contains("\na b:x receipt:1 \n\nhello\0\n"), "{text}");
    }

    #[test]
    fn bodies_of_other_languages() {
        let mut body = BytesMut::new();
        Value::Map(vec![("k".into(), Value::Int(1))]).encode(&mut body);
        let mut message = text_message();
        message.body_kind = BodyKind::Map;
        message.body = body.freeze();
        assert!(text_of(&message, &envelope(Version::V1_2)).ends_with("priority:4\n\n{\"k\":1}\0\n"));
        message.body_kind = BodyKind::Object;
        message.body = Bytes::from_static(b"\x01\x02");
        assert!(text_of(&message, &envelope(Version::V1_2)).ends_with("content-length:2\n\n\x01\x02\0\n"));
        message.body_kind = BodyKind::Text;
        message.body = Bytes::from_static(b"a\0b");
        assert!(text_of(&message, &envelope(Version::V1_2)).ends_with("content-length:3\n\na\0b\0\n"));
    }
}
