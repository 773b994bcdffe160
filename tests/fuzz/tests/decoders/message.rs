//! Messages in their stored form, and selectors.

use bytes::Bytes;
use ferrymq_fuzz::Target;
use ferrymq_message::{
    BodyKind, Destination, DestinationKind, Encoding, Foreign, Message, Producer, Selector, StoredMessage, Value,
};

/// A message with everything that a message may have.
pub(crate) fn full() -> Message {
    let mut message = Message::new("ID:a:1", Destination::queue("ORDERS"), "hello");
    message.body_kind = BodyKind::Text;
    message.timestamp_ms = 1_700_000_000_000;
    message.expires_ms = 1_700_000_060_000;
    message.correlation_id = Some("c".into());
    message.reply_to = Some(Destination::new(DestinationKind::TempQueue, "ID:x:1").unwrap());
    message.message_type = Some("t".into());
    message.group_id = Some("g".into());
    message.group_sequence = -3;
    message.user_id = Some("u".into());
    message.producer = Some(Producer {
        id: "p".into(),
        sequence: 7,
    });
    message.foreign = Some(Foreign {
        encoding: Encoding::Stomp,
        bytes: Bytes::from_static(b"raw"),
    });
    message.properties = vec![
        ("n".into(), Value::Null),
        ("t".into(), Value::Text("a%b_c".repeat(40))),
        ("i".into(), Value::Int(-1)),
        ("d".into(), Value::Double(1.5)),
        ("b".into(), Value::Bool(true)),
        (
            "m".into(),
            Value::Map(vec![("l".into(), Value::List(vec![Value::Long(-1), Value::Char(7)]))]),
        ),
    ];
    message
}

#[test]
fn fuzz_stored_message() {
    let plain = Message::new("m", Destination::topic("T"), vec![0; 40]);
    // A list of ten thousand empty lists: each is one byte, and 40 bytes of memory.
    Target::new("stored-message")
        .seeds([full().encode(), plain.encode()])
        .words([
            &b"\x0c\x01"[..],
            b"\x0b\x01\x01a",
            b"\x09\x01a",
            b"\x0c\xff\x7f",
            b"\x0a\xff\xff\xff\xff\x0f",
        ])
        .allocates(300, 64 << 10)
        .run(|input| {
            let stored = match StoredMessage::new(Bytes::copy_from_slice(input)) {
                Ok(stored) => stored,
                Err(error) => return error.to_string(),
            };
            let routed = stored.routing().map(|routing| routing.kind);
            let _ = (
                stored.persistent(),
                stored.priority(),
                stored.expires_ms(),
                stored.timestamp_ms(),
            );
            assert!(stored.body().len() <= input.len());
            match stored.decode() {
                Ok(message) => {
                    assert!(routed.is_ok());
                    let again = StoredMessage::new(message.encode()).unwrap();
                    assert_eq!(
                        again.decode().as_ref(),
                        Ok(&message),
                        "what was written is not what is read"
                    );
                    assert_eq!(again.destination().as_ref(), Ok(&message.destination));
                    format!("{} properties", message.properties.len().min(8))
                }
                Err(error) => error.to_string(),
            }
        });
}

#[test]
fn fuzz_selector() {
    let mut message = full();
    // With what stands in a pattern against it, this is what takes longest.
    message
        .properties
        .push(("long".into(), Value::Text("a".repeat(30_000))));
    let endless = format!(" AND long LIKE '%{}b'", "a".repeat(400));
    Target::new("selector")
        .seeds([
            "i = -1 AND t LIKE 'a!%%' ESCAPE '!' OR NOT (d BETWEEN 1 AND 2.5e0)",
            "JMSPriority >= 4 AND JMSType IN ('t', 'u') AND n IS NULL AND b",
            "convert_string_expressions: t + 1 > 2 * (i - 3) / 4 AND JMSTimestamp < 0x7fL",
            "JMSCorrelationID <> 'it''s' AND m IS NOT NULL",
        ])
        .words([
            " AND ",
            " OR ",
            "NOT ",
            "(",
            ")",
            " LIKE '%a%a%a%b'",
            &endless,
            " BETWEEN ",
            " IN (",
            "'",
            "''",
            ",",
            " IS NULL",
            " ESCAPE ",
            "-",
            "+",
            "*",
            "/",
            "1e400",
            "0x",
            "0777",
            "9223372036854775808",
            ".5",
            "1.",
            "i",
            "t",
            "TRUE",
            "\"q\"",
            "/*",
            "--",
            "ü",
            "\u{0}",
            " = ",
            "<>",
            ">=",
            "%",
            "_",
        ])
        .bytes_max(20 << 10)
        // A tree's node is larger than the shortest text that makes one; and each place of a field is looked up.
        .allocates(2_000, 256 << 10)
        .run(|input| {
            let Ok(text) = std::str::from_utf8(input) else {
                return "not text".into();
            };
            match Selector::parse(text) {
                Ok(selector) => {
                    let matches = selector.matches(&message);
                    assert_eq!(Selector::parse(selector.text()).unwrap().matches(&message), matches);
                    matches.to_string()
                }
                Err(error) => {
                    assert!(error.column <= text.chars().count() + 1, "{error}");
                    error.expected.chars().take(20).collect()
                }
            }
        });
}
