//! STOMP: bytes to frames, and frames to requests. However the bytes are cut, the result is the same.

use bytes::BytesMut;
use ferrymq_fuzz::{Rng, Target};
use ferrymq_message::{Destination, Message, StoredMessage};
use ferrymq_protocol::{
    Delivery, Output, Request, Session,
    stomp::{Decoder, Frame, StompLimits, StompSession, Version, encode},
};

/// Small, so that inputs reach them.
fn limits() -> StompLimits {
    StompLimits {
        frame_bytes_max: 8 << 10,
        header_bytes_max: 2 << 10,
        head_bytes_max: 8 << 10,
        headers_max: 40,
        subscriptions_max: 20,
        transactions_max: 8,
        awaiting_max: 16,
        ..StompLimits::default()
    }
}

const CONVERSATIONS: [&[u8]; 7] = [
    b"CONNECT\naccept-version:1.0,1.1,1.2\nhost:a\nheart-beat:0,1000\nlogin:u\npasscode:p\nclient-id:c\n\n\0\n\
      SUBSCRIBE\nid:1\ndestination:/queue/A\nack:client-individual\nselector:a > 3 AND b LIKE 'x%'\nreceipt:1\n\n\0\n\
      SEND\ndestination:/queue/A\ncontent-length:3\nreceipt:2\npriority:7\nexpires:99\npersistent:true\n\na\0b\0\n\
      ACK\nid:1-1\n\n\0NACK\nid:1-2\ntransaction:t\n\n\0DISCONNECT\nreceipt:9\n\n\0",
    b"STOMP\r\naccept-version:1.2\r\nhost:a\r\n\r\n\0\r\nBEGIN\r\ntransaction:t\r\n\r\n\0\
      SEND\r\ndestination:/topic/T.a\r\ntransaction:t\r\nx\\cy:z\\n\\\\\r\n\r\nbody\0COMMIT\r\ntransaction:t\r\nreceipt:c\r\n\r\n\0",
    b"CONNECT\n\n\0SUBSCRIBE\ndestination:/queue/Q\n\n\0SEND\ndestination:/queue/Q\n\nold\0\
      ACK\nmessage-id:ID:m:1\n\n\0UNSUBSCRIBE\ndestination:/queue/Q\n\n\0DISCONNECT\n\n\0",
    b"CONNECT\naccept-version:1.1\nclient-id:c\n\n\0SUBSCRIBE\nid:d\ndestination:/topic/T\nactivemq.subscriptionName:d\n\
      activemq.prefetchSize:10\nactivemq.noLocal:true\nactivemq.priority:3\nactivemq.exclusive:true\n\n\0\
      ACK\nsubscription:d\nmessage-id:ID:m:1\n\n\0NACK\nsubscription:d\nmessage-id:ID:m:1\n\n\0\
      UNSUBSCRIBE\nid:d\nactivemq.subscriptionName:d\n\n\0",
    b"CONNECT\naccept-version:1.2\n\n\0SEND\ndestination:/temp-queue/r\nreply-to:/temp-queue/r\ntransformation:jms-map-json\n\n\
      {\"map\":{\"entry\":[{\"string\":[\"a\",\"b\"]},{\"string\":\"n\",\"int\":3}]}}\0\
      SUBSCRIBE\nid:b\ndestination:/queue/A\nbrowser:true\n\n\0SUBSCRIBE\nid:r\ndestination:/temp-queue/r\n\n\0",
    b"CONNECT\naccept-version:1.2\n\n\0ABORT\ntransaction:none\n\n\0",
    b"MESSAGE\nsubscription:0\nmessage-id:1\ndestination:/queue/A\ncontent-type:text/plain\n\nhello\0RECEIPT\nreceipt-id:1\n\n\0\
      ERROR\nmessage:no\n\nwhy\0CONNECTED\nversion:1.2\nsession:s\n\n\0\n\n\n",
];

const WORDS: [&str; 45] = [
    "CONNECT\n",
    "SEND\n",
    "SUBSCRIBE\n",
    "UNSUBSCRIBE\n",
    "ACK\n",
    "NACK\n",
    "BEGIN\n",
    "COMMIT\n",
    "ABORT\n",
    "DISCONNECT\n",
    "MESSAGE\n",
    "ERROR\n",
    "\n",
    "\r\n",
    "\0",
    "\n\n",
    ":",
    "\\",
    "\\n",
    "\\c",
    "\\r",
    "a:b\n",
    "content-length:",
    "content-length:5\n",
    "receipt:1\n",
    "transaction:t\n",
    "destination:/queue/A\n",
    "destination:/topic/>\n",
    "destination:/temp-queue/x\n",
    "id:1\n",
    "id:1-1\n",
    "ack:client\n",
    "ack:auto\n",
    "selector:a = 1\n",
    "heart-beat:1,1\n",
    "accept-version:1.1\n",
    "accept-version:1.2\n",
    "transformation:jms-map-json\n",
    "{\"map\":{\"entry\":",
    "[",
    "{\"string\":",
    "\"\\u0000\"",
    "/queue/",
    "\u{fffd}ü",
    "SEND\ndestination:/queue/A\n\nx\0",
];

fn target(name: &'static str) -> Target {
    Target::new(name).seeds(CONVERSATIONS).words(WORDS).bytes_max(48 << 10)
}

/// Cuts an input anywhere, the same way each time.
fn pieces(input: &[u8]) -> Vec<&[u8]> {
    let mut rng = Rng::new(input.len() as u64);
    let mut rest = input;
    let mut pieces = Vec::new();
    while !rest.is_empty() {
        let longest = *rng.pick(&[1, 3, 20, 2000]);
        let (piece, behind) = rest.split_at(rest.len().min(1 + rng.below(longest)));
        pieces.push(piece);
        rest = behind;
    }
    pieces
}

/// Frames up to the end or the first error.
fn frames(pieces: &[&[u8]], version: Version) -> (Vec<Frame>, Option<String>) {
    let mut decoder = Decoder::new(limits());
    decoder.open(version);
    let mut input = BytesMut::new();
    let mut frames = Vec::new();
    for piece in pieces {
        input.extend_from_slice(piece);
        loop {
            match decoder.decode(&mut input) {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(error) => return (frames, Some(error.to_string())),
            }
        }
    }
    (frames, None)
}

#[test]
fn fuzz_stomp_frames() {
    target("stomp-frames").allocates(400, 1 << 20).run(|input| {
        let mut outcome = String::new();
        for version in [Version::V1_0, Version::V1_1, Version::V1_2] {
            let whole = frames(&[input], version);
            // A line that is too long may be found before its end is there, so the error can be another one.
            let cut = frames(&pieces(input), version);
            assert_eq!((&whole.0, whole.1.is_some()), (&cut.0, cut.1.is_some()), "{version:?}");
            for frame in &whole.0 {
                let mut out = Output::new();
                encode(frame, version, &mut out);
                let bytes: Vec<u8> = out.take_chunks().iter().flat_map(|chunk| chunk.to_vec()).collect();
                let again = frames(&[&bytes], version);
                if is_writable(frame, version) {
                    let expected = with_length(frame);
                    let found: Vec<Frame> = again.0.iter().map(with_length).collect();
                    assert_eq!((found, again.1), (vec![expected], None), "{version:?}");
                }
            }
            outcome += &format!(
                "{}{:?} ",
                whole.0.len().min(4),
                whole.1.map(|error| error[..error.len().min(30)].to_owned())
            );
        }
        outcome
    });
}

/// The encoder adds a `content-length` where a body holds a NUL.
fn with_length(frame: &Frame) -> Frame {
    let mut frame = frame.clone();
    frame.headers.take("content-length");
    frame
}

/// 1.0 has no escapes, so not everything that can be read can be written; and what the encoder makes of a head may be
/// longer than what was read.
fn is_writable(frame: &Frame, version: Version) -> bool {
    let special = |text: &str| text.contains(['\\', '\n', '\r', ':']) || text.trim() != text;
    let plain = frame
        .headers
        .iter()
        .all(|(name, value)| !special(name) && !special(value));
    let short = frame
        .headers
        .iter()
        .map(|(name, value)| name.len() + value.len() + 4)
        .sum::<usize>()
        < 2000;
    // A body without a NUL and with a length that is not written anew is the same either way.
    short && (plain || version == Version::V1_2 && !matches!(frame.command.as_str(), "CONNECT" | "STOMP" | "CONNECTED"))
}

/// Requests and the end of a conversation whose every request is granted at once.
fn converse(pieces: &[&[u8]], deliver: bool) -> (Vec<Request>, Option<String>) {
    let mut session = StompSession::new("ID:fuzz", limits());
    let mut input = BytesMut::new();
    let mut out = Output::new();
    let mut requests = Vec::new();
    let mut tick_ms = 0;
    for piece in pieces {
        input.extend_from_slice(piece);
        loop {
            session.on_bytes(&mut input, 1_700_000_000_000, &mut out);
            let asked = std::mem::take(&mut out.requests);
            let granted = !asked.is_empty();
            for request in &asked {
                answer(&mut session, request, deliver, &mut out);
            }
            requests.extend(asked);
            out.take_chunks();
            if let Some(close) = &out.close {
                return (requests, Some(close.reason.clone()));
            }
            if !granted || input.is_empty() {
                break;
            }
        }
        if deliver {
            tick_ms += 400;
            session.on_throttled();
            session.on_tick(tick_ms, &mut out);
            assert!(session.awaiting() <= limits().awaiting_max + 1);
        }
    }
    (requests, None)
}

fn answer(session: &mut StompSession, request: &Request, deliver: bool, out: &mut Output) {
    let token = match request {
        Request::Connect { token, .. } => Some(*token),
        Request::Send { token, .. }
        | Request::Subscribe { token, .. }
        | Request::Unsubscribe { token, .. }
        | Request::ForgetDurable { token, .. }
        | Request::Acknowledge { token, .. }
        | Request::Begin { token, .. }
        | Request::Commit { token, .. }
        | Request::Abort { token, .. }
        | Request::Disconnect { token } => *token,
    };
    if let Some(token) = token {
        session.on_reply(token, Ok(()), out);
    }
    if let (true, Request::Subscribe { subscribe, .. }) = (deliver, request) {
        for tag in 1..=3 {
            let mut message = Message::new("ID:m:1", Destination::queue("A"), "hello\0");
            message.properties = vec![("a\nb:c\\".into(), ferrymq_message::Value::Text("\r\n".into()))];
            session.on_delivery(
                Delivery {
                    subscription: subscribe.subscription,
                    tag,
                    message: StoredMessage::new(message.encode()).unwrap(),
                    redelivery_count: 1,
                    redelivered: true,
                    dead_letter: None,
                },
                out,
            );
        }
        if subscribe.browser {
            session.on_browse_end(subscribe.subscription, out);
        }
    }
    if let (true, Request::Send { message, .. }) = (deliver, request) {
        let stored = StoredMessage::new(message.encode()).unwrap();
        assert_eq!(stored.decode().as_ref(), Ok(message));
        session.on_delivery(
            Delivery {
                subscription: 1,
                tag: 4,
                message: stored,
                redelivery_count: 0,
                redelivered: false,
                dead_letter: None,
            },
            out,
        );
    }
}

#[test]
fn fuzz_stomp_session() {
    target("stomp-session").allocates(600, 2 << 20).run(|input| {
        let whole = converse(&[input], false);
        let cut = converse(&pieces(input), false);
        assert_eq!((&whole.0, whole.1.is_some()), (&cut.0, cut.1.is_some()));
        converse(&pieces(input), true);
        let kinds: String = whole
            .0
            .iter()
            .take(12)
            .map(|request| format!("{request:?}").chars().next().unwrap())
            .collect();
        format!(
            "{kinds} {:?}",
            whole.1.map(|reason| reason.chars().take(30).collect::<String>())
        )
    });
}
