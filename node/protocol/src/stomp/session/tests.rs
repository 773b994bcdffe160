//! The session, by scripts: bytes, replies, deliveries and ticks in; bytes and requests out.

use ferrymq_message::{BodyKind, Destination, Message, Selector};

use super::*;
use crate::{Close, DeadLetter, Durable, Login, RefusalKind, Subscribe};

/// A session with what it has written so far.
struct Client {
    session: StompSession,
    input: BytesMut,
    out: Output,
}

impl Client {
    fn stranger() -> Self {
        let limits = StompLimits {
            awaiting_max: 3,
            subscriptions_max: 3,
            ..StompLimits::default()
        };
        Self {
            session: StompSession::new("ID:c", limits),
            input: BytesMut::new(),
            out: Output::new(),
        }
    }

    /// Connected in this version, the greeting behind it.
    fn connected(version: &str) -> Self {
        let mut client = Self::stranger();
        client.send(&format!(
            "CONNECT\naccept-version:{version}\nhost:h\nclient-id:me\n\n\0"
        ));
        client.ok(1);
        assert!(client.written().starts_with("CONNECTED\n"));
        client.requests();
        client
    }

    fn send(&mut self, text: &str) {
        self.input.extend_from_slice(text.as_bytes());
        self.session.on_bytes(&mut self.input, 1_000, &mut self.out);
    }

    fn ok(&mut self, token: Token) {
        self.session.on_reply(token, Ok(()), &mut self.out);
        self.session.on_bytes(&mut self.input, 1_000, &mut self.out);
    }

    fn refuse(&mut self, token: Token, kind: RefusalKind, text: &str) {
        self.session
            .on_reply(token, Err(Refusal::new(kind, text)), &mut self.out);
    }

    fn deliver(&mut self, subscription: u32, tag: u64, id: &str) {
        let mut message = Message::new(id, Destination::queue("A"), "hello");
        message.body_kind = BodyKind::Text;
        self.deliver_message(subscription, tag, &message);
    }

    fn deliver_message(&mut self, subscription: u32, tag: u64, message: &Message) {
        let delivery = Delivery {
            subscription,
            tag,
            message: ferrymq_message::StoredMessage::new(message.encode()).unwrap(),
            redelivery_count: 0,
            redelivered: false,
            dead_letter: None,
        };
        self.session.on_delivery(delivery, &mut self.out);
    }

    fn tick(&mut self, mono_ms: u64) -> String {
        self.session.on_tick(mono_ms, &mut self.out);
        self.written()
    }

    fn written(&mut self) -> String {
        String::from_utf8(Vec::from(self.out.take_chunks()).concat()).unwrap()
    }

    fn requests(&mut self) -> Vec<Request> {
        std::mem::take(&mut self.out.requests)
    }

    /// The one ERROR frame that was written, as its message; the connection is closed after it.
    fn failure(&mut self) -> String {
        let close = self.out.close.take().expect("the connection is closed");
        assert!(!close.clean);
        assert!(self.session.is_paused());
        let written = self.written();
        let message = written
            .strip_prefix("ERROR\nmessage:")
            .expect(&written)
            .split('\n')
            .next()
            .unwrap();
        message.replace("\\c", ":")
    }
}

fn acknowledge(subscription: u32, target: AckTarget) -> Request {
    Request::Acknowledge {
        token: None,
        subscription,
        target,
        verdict: Verdict::Consumed,
        transaction: None,
    }
}

#[test]
fn a_carried_connection_is_told_so() {
    let mut client = Client::stranger();
    client.session = client.session.carried();
    client.send("CONNECT\naccept-version:1.2\nhost:h\n\n\0");
    client.ok(1);
    assert!(client.written().contains("\ncarried:true\n"));
}

#[test]
fn connects_in_each_version() {
    let table = [
        ("", "1.0", "0,0"),
        ("accept-version:1.1\n", "1.1", "0,0"),
        ("accept-version:1.0,1.1,1.2\nheart-beat:4000,3000\n", "1.2", "3000,4000"),
    ];
    for (headers, version, heartbeat) in table {
        let mut client = Client::stranger();
        client.send(&format!("\nCONNECT\nlogin:u\npasscode:p\nhost:h\n{headers}\n\0\n"));
        let login = Login {
            login: Some("u".into()),
            passcode: Some("p".into()),
            client_id: None,
            host: Some("h".into()),
        };
        assert_eq!(client.requests(), [Request::Connect { token: 1, login }]);
        assert!(client.session.is_paused());
        assert_eq!(client.written(), "");
        client.ok(1);
        let server = concat!("FerryMQ/", env!("CARGO_PKG_VERSION"));
        let expected =
            format!("CONNECTED\nversion:{version}\nsession:ID:c\nserver:{server}\nheart-beat:{heartbeat}\n\n\0\n");
        assert_eq!(client.written(), expected);
        assert_eq!(client.session.awaiting(), 0);
        assert!(!client.session.is_paused());
    }
}

#[test]
fn a_password_is_never_shown() {
    let mut client = Client::stranger();
    client.send("CONNECT\npasscode:secret\n");
    assert!(!format!("{:?}", client.session).contains("secret"));
    let login = Login {
        passcode: Some("secret".into()),
        ..Login::default()
    };
    assert!(!format!("{login:?}").contains("secret"));
}

#[test]
fn what_comes_behind_connect_waits_for_the_login() {
    let mut client = Client::stranger();
    client.send("CONNECT\naccept-version:1.2\n\n\0SEND\ndestination:/queue/A\nk:a\\cb\n\nx\0");
    assert_eq!(client.requests().len(), 1);
    client.ok(1);
    let requests = client.requests();
    let [Request::Send { message, .. }] = &requests[..] else {
        panic!("{requests:?}")
    };
    assert_eq!(message.properties, [("k".to_owned(), "a:b".into())]);
}

/// P11.
#[test]
fn bad_greetings() {
    let table = [
        (
            "SEND\ndestination:/queue/A\n\n\0",
            "not connected: the first frame must be CONNECT or STOMP",
        ),
        (
            "CONNECT\naccept-version:3.0\n\n\0",
            "supported versions are 1.0,1.1,1.2",
        ),
        (
            "CONNECT\nheart-beat:soon\n\n\0",
            "the header heart-beat must be two numbers of milliseconds, as in 0,10000",
        ),
        ("HELO\n", "unknown command \"HELO\""),
    ];
    for (bytes, message) in table {
        let mut client = Client::stranger();
        client.send(bytes);
        assert_eq!(client.failure(), message);
        client.send("CONNECT\n\n\0");
        assert_eq!((client.requests(), client.written()), (vec![], String::new()));
    }
    let mut client = Client::stranger();
    client.send("CONNECT\naccept-version:3.0\n\n\0");
    assert!(client.written().contains("\nversion:1.0,1.1,1.2\n"));
}

#[test]
fn a_refused_login_ends_the_connection() {
    let mut client = Client::stranger();
    client.send("CONNECT\n\n\0");
    client.refuse(1, RefusalKind::Unauthorized, "wrong password");
    let expected = "ERROR\nmessage:wrong password\nrefusal:unauthorized\ncontent-type:text/plain\n\
                    content-length:14\n\nwrong password\0\n";
    assert_eq!(client.written(), expected);
    assert_eq!(
        client.out.close,
        Some(Close {
            reason: "wrong password".into(),
            clean: false
        })
    );
}

#[test]
fn a_stranger_must_connect_in_time() {
    let mut client = Client::stranger();
    assert_eq!(client.session.next_tick_ms(), Some(0));
    assert_eq!(client.tick(5_000), "");
    assert_eq!(client.session.next_tick_ms(), Some(35_000));
    client.session.on_tick(35_000, &mut client.out);
    assert_eq!(client.failure(), "no CONNECT came within 30000 ms");
}

#[test]
fn sends_with_and_without_receipt() {
    let mut client = Client::connected("1.2");
    client
        .send("SEND\ndestination:/queue/A\n\none\0SEND\ndestination:/queue/A\nreceipt:r\\c1\npersistent:true\n\ntwo\0");
    let requests = client.requests();
    let [
        Request::Send {
            token: None,
            message: one,
            transaction: None,
            ..
        },
        Request::Send {
            token: Some(2),
            message: two,
            ..
        },
    ] = &requests[..]
    else {
        panic!("{requests:?}")
    };
    assert_eq!(
        (one.id.as_str(), &one.body[..], one.persistent, one.timestamp_ms),
        ("ID:c:1", &b"one"[..], false, 1_000)
    );
    assert_eq!(
        (two.id.as_str(), &two.body[..], two.persistent),
        ("ID:c:2", &b"two"[..], true)
    );
    assert_eq!(client.written(), "");
    client.ok(2);
    assert_eq!(client.written(), "RECEIPT\nreceipt-id:r\\c1\n\n\0\n");
    client.ok(2);
    assert_eq!(client.written(), "");
}

#[test]
fn receipts_follow_their_replies() {
    let mut client = Client::connected("1.1");
    client.send("SEND\ndestination:A\nreceipt:a\n\n\0SEND\ndestination:A\nreceipt:b\n\n\0");
    client.ok(3);
    client.ok(2);
    assert_eq!(
        client.written(),
        "RECEIPT\nreceipt-id:b\n\n\0\nRECEIPT\nreceipt-id:a\n\n\0\n"
    );
}

#[test]
fn a_refused_send_ends_the_connection() {
    let mut client = Client::connected("1.2");
    client.send("SEND\ndestination:/queue/A\nreceipt:r\n\nx\0");
    client.refuse(2, RefusalKind::TooLarge, "too large: 2 of 1 bytes");
    let written = client.written();
    let head = "ERROR\nmessage:too large\\c 2 of 1 bytes\nreceipt-id:r\nrefusal:too-large\n";
    assert!(written.starts_with(head), "{written}");
    assert!(client.out.close.is_some());
}

#[test]
fn a_failure_without_token_ends_the_connection() {
    let mut client = Client::connected("1.2");
    client
        .session
        .on_failure(Refusal::new(RefusalKind::NotMaster, "not the master"), &mut client.out);
    assert_eq!(client.failure(), "not the master");
    client
        .session
        .on_failure(Refusal::new(RefusalKind::NotMaster, "again"), &mut client.out);
    assert_eq!(client.written(), "");
}

#[test]
fn too_many_open_receipts_pause_the_input() {
    let mut client = Client::connected("1.2");
    client.send(&"SEND\ndestination:A\nreceipt:r\n\n\0".repeat(5));
    assert_eq!(
        (
            client.requests().len(),
            client.session.awaiting(),
            client.session.is_paused()
        ),
        (3, 3, true)
    );
    client.ok(2);
    assert_eq!((client.requests().len(), client.session.awaiting()), (1, 3));
}

#[test]
fn subscribes_and_acknowledges_by_itself() {
    let mut client = Client::connected("1.2");
    client.send("SUBSCRIBE\nid:0\ndestination:/queue/A\nselector:n > 5\nreceipt:s\n\n\0");
    let subscribe = Subscribe {
        subscription: 1,
        destination: Destination::queue("A"),
        selector: Some(Selector::parse("convert_string_expressions:n > 5").unwrap()),
        prefetch: 1000,
        durable: None,
        no_local: false,
        exclusive: false,
        browser: false,
        priority: 0,
        ack: AckMode::Auto,
    };
    assert_eq!(
        client.requests(),
        [Request::Subscribe {
            token: Some(2),
            subscribe
        }]
    );
    client.ok(2);
    client.written();
    client.deliver(1, 1, "ID:p:1");
    client.deliver(1, 2, "ID:p:2");
    let written = client.written();
    let first = "MESSAGE\nsubscription:0\nmessage-id:ID\\cp\\c1\ndestination:/queue/A\ntimestamp:0\nexpires:0\n\
                 priority:4\npersistent:true\n\nhello\0\n";
    assert_eq!(written, format!("{first}{}", first.replace("c1", "c2")));
    assert_eq!(client.requests(), [acknowledge(1, AckTarget::UpTo(2))]);
    // Its end gives back what it holds, so what comes late is dropped.
    client.send("UNSUBSCRIBE\nid:0\n\n\0");
    assert_eq!(
        client.requests(),
        [Request::Unsubscribe {
            token: None,
            subscription: 1
        }]
    );
    client.deliver(1, 3, "ID:p:3");
    assert_eq!((client.written(), client.requests()), (String::new(), vec![]));
}

#[test]
fn acknowledges_by_the_ack_header_in_1_2() {
    let mut client = Client::connected("1.2");
    client.send(
        "SUBSCRIBE\nid:a\ndestination:A\nack:client\n\n\0SUBSCRIBE\nid:b\ndestination:A\nack:client-individual\n\n\0",
    );
    client.requests();
    for (subscription, tag) in [(1, 1), (1, 2), (2, 1), (2, 2)] {
        client.deliver(subscription, tag, "ID:p:1");
    }
    let written = client.written();
    for ack in ["1-1", "1-2", "2-1", "2-2"] {
        assert!(written.contains(&format!("\nack:{ack}\n")), "{written}");
    }
    assert_eq!(client.requests(), []);
    client.send("ACK\nid:1-2\n\n\0ACK\nid:2-2\n\n\0NACK\nid:2-1\nreceipt:n\n\n\0NACK\nid:1-1\n\n\0");
    let nack = |token, subscription| Request::Acknowledge {
        token,
        subscription,
        target: AckTarget::One(1),
        verdict: Verdict::Rejected,
        transaction: None,
    };
    let expected = [
        acknowledge(1, AckTarget::UpTo(2)),
        acknowledge(2, AckTarget::One(2)),
        nack(Some(2), 2),
        nack(None, 1),
    ];
    assert_eq!(client.requests(), expected);
    client.refuse(2, RefusalKind::NotFound, "too late");
    assert!(
        client
            .written()
            .starts_with("ERROR\nmessage:too late\nreceipt-id:n\nrefusal:not-found\n")
    );
    assert_eq!(client.out.close, None);
}

#[test]
fn acknowledges_by_message_id_before_1_2() {
    let mut client = Client::connected("1.1");
    client.send("SUBSCRIBE\nid:a\ndestination:A\nack:client\n\n\0");
    client.requests();
    for tag in 1..=3 {
        client.deliver(1, tag, &format!("m{tag}"));
    }
    assert!(!client.written().contains("\nack:"));
    client.send("ACK\nsubscription:a\nmessage-id:m2\n\n\0NACK\nsubscription:a\nmessage-id:m3\n\n\0");
    assert_eq!(client.requests().len(), 2);
    client.send("ACK\nsubscription:a\nmessage-id:m1\nreceipt:x\n\n\0");
    assert_eq!(client.requests(), []);
    let written = client.written();
    assert!(
        written.starts_with("ERROR\nmessage:no such message awaits acknowledgement\nreceipt-id:x\n"),
        "{written}"
    );
    assert_eq!(client.out.close, None);

    let mut client = Client::connected("1.0");
    client.send("SUBSCRIBE\ndestination:A\nack:client-individual\n\n\0");
    client.requests();
    client.deliver(1, 1, "m1");
    assert!(client.written().starts_with("MESSAGE\nmessage-id:m1\n"));
    client.send("ACK\nmessage-id:m1\n\n\0UNSUBSCRIBE\ndestination:/queue/A\n\n\0");
    let expected = [
        acknowledge(1, AckTarget::One(1)),
        Request::Unsubscribe {
            token: None,
            subscription: 1,
        },
    ];
    assert_eq!(client.requests(), expected);
}

#[test]
fn unknown_acknowledgements_leave_the_connection_open() {
    let mut client = Client::connected("1.2");
    client.send("SUBSCRIBE\nid:a\ndestination:A\nack:client\n\n\0SUBSCRIBE\nid:b\ndestination:A\n\n\0");
    client.deliver(1, 1, "m");
    client.deliver(2, 1, "m");
    client.written();
    client.requests();
    for id in ["1-2", "1-0", "2-1", "9-1", "x", "1-x", "-", "99999999999-1"] {
        client.send(&format!("ACK\nid:{id}\n\n\0"));
        assert!(client.written().starts_with("ERROR\n"), "{id}");
        assert_eq!((client.requests(), client.out.close.clone()), (vec![], None), "{id}");
    }
}

#[test]
fn transactions_are_named_by_the_client() {
    let mut client = Client::connected("1.1");
    client.send("SUBSCRIBE\nid:a\ndestination:A\nack:client-individual\n\n\0");
    client.deliver(1, 1, "m1");
    client.written();
    client.requests();
    client.send("BEGIN\ntransaction:t\nreceipt:b\n\n\0SEND\ndestination:A\ntransaction:t\n\nx\0");
    client.send("ACK\nsubscription:a\nmessage-id:m1\ntransaction:t\n\n\0ABORT\ntransaction:t\n\n\0");
    let t = || "t".to_owned();
    let requests = client.requests();
    let [
        begin,
        Request::Send {
            transaction: Some(name),
            ..
        },
        ack,
        abort,
    ] = &requests[..]
    else {
        panic!("{requests:?}")
    };
    assert_eq!(
        (begin, name),
        (
            &Request::Begin {
                token: Some(2),
                transaction: t()
            },
            &t()
        )
    );
    assert_eq!(
        abort,
        &Request::Abort {
            token: None,
            transaction: t()
        }
    );
    let Request::Acknowledge {
        transaction: Some(name),
        target: AckTarget::One(1),
        ..
    } = ack
    else {
        panic!("{ack:?}")
    };
    assert_eq!(name, "t");
    // The aborted acknowledgement may be given again, the committed one may not.
    client.send(
        "BEGIN\ntransaction:t\n\n\0ACK\nsubscription:a\nmessage-id:m1\ntransaction:t\n\n\0COMMIT\ntransaction:t\n\n\0",
    );
    assert_eq!(
        client.requests().pop(),
        Some(Request::Commit {
            token: None,
            transaction: t()
        })
    );
    assert_eq!(client.written(), "");
    client.send("ACK\nsubscription:a\nmessage-id:m1\n\n\0");
    assert!(client.written().starts_with("ERROR\n"));
}

/// P11.
#[test]
fn breaches_end_the_connection() {
    let table = [
        ("1.2", "CONNECT\n\n\0", "already connected"),
        ("1.2", "SEND\n\nx\0", "SEND needs the header destination"),
        (
            "1.2",
            "SEND\ndestination:A\ntransaction:t\n\nx\0",
            "no such transaction is open",
        ),
        ("1.2", "COMMIT\ntransaction:t\n\n\0", "no such transaction is open"),
        ("1.2", "BEGIN\n\n\0", "BEGIN needs the header transaction"),
        (
            "1.2",
            "BEGIN\ntransaction:t\n\n\0BEGIN\ntransaction:t\n\n\0",
            "the transaction is already open",
        ),
        ("1.1", "SUBSCRIBE\ndestination:A\n\n\0", "SUBSCRIBE needs the header id"),
        ("1.2", "SUBSCRIBE\nid:1\n\n\0", "SUBSCRIBE needs the header destination"),
        (
            "1.2",
            "SUBSCRIBE\nid:1\ndestination:A\n\n\0SUBSCRIBE\nid:1\ndestination:B\n\n\0",
            "the subscription id is in use",
        ),
        ("1.2", "UNSUBSCRIBE\nid:1\n\n\0", "no subscription matches"),
        (
            "1.2",
            "UNSUBSCRIBE\ndestination:A\n\n\0",
            "UNSUBSCRIBE needs the header id",
        ),
        ("1.0", "NACK\nmessage-id:1\n\n\0", "NACK is not part of STOMP 1.0"),
        ("1.1", "ACK\nmessage-id:1\n\n\0", "ACK needs the header subscription"),
        (
            "1.2",
            "ACK\nmessage-id:1\nsubscription:1\n\n\0",
            "ACK needs the header id",
        ),
        ("1.2", "MESSAGE\n\n\0", "MESSAGE has no place here"),
        (
            "1.2",
            "SEND\ndestination:A\nx:\\t\n\n\0",
            "undefined escape sequence in a header",
        ),
        (
            "1.2",
            "SUBSCRIBE\nid:1\ndestination:A\nselector:a >\n\n\0",
            "bad selector: a selector needs a name, a literal or ( at column 4",
        ),
    ];
    for (version, bytes, message) in table {
        let mut client = Client::connected(version);
        client.send(bytes);
        assert_eq!(client.failure(), message, "{bytes}");
        assert!(client.input.is_empty());
    }
    let mut client = Client::connected("1.2");
    for id in 0..4 {
        client.send(&format!("SUBSCRIBE\nid:{id}\ndestination:A\n\n\0"));
    }
    assert_eq!(client.failure(), "at most 3 subscriptions at a time");
}

#[test]
fn durable_subscriptions_are_forgotten_on_request() {
    let mut client = Client::connected("1.1");
    client.send("SUBSCRIBE\nid:d\ndestination:/topic/T\nactivemq.subscriptionName:news\n\n\0");
    let requests = client.requests();
    let [Request::Subscribe { subscribe, .. }] = &requests[..] else {
        panic!("{requests:?}")
    };
    assert_eq!(
        subscribe.durable,
        Some(Durable {
            client_id: "me".into(),
            name: "news".into()
        })
    );
    client.send("UNSUBSCRIBE\nid:d\nactivemq.subscriptionName:news\nreceipt:u\n\n\0");
    let forget = |token| Request::ForgetDurable {
        token,
        client_id: "me".into(),
        name: "news".into(),
    };
    assert_eq!(
        client.requests(),
        [
            Request::Unsubscribe {
                token: None,
                subscription: 1
            },
            forget(Some(2))
        ]
    );
    client.send("UNSUBSCRIBE\ndurable-subscriber-name:news\n\n\0");
    assert_eq!(client.requests(), [forget(None)]);
}

#[test]
fn a_browser_is_told_the_end() {
    let mut client = Client::connected("1.1");
    client.send("SUBSCRIBE\nid:b\ndestination:/queue/A\nbrowser:true\n\n\0");
    client.session.on_browse_end(1, &mut client.out);
    let expected = "MESSAGE\nsubscription:b\nmessage-id:0\ndestination:/queue/A\nbrowser:end\n\n\0\n";
    assert_eq!(client.written(), expected);
    client.session.on_browse_end(9, &mut client.out);
    assert_eq!(client.written(), "");
}

/// P3.
#[test]
fn dead_letters_and_redeliveries_are_marked() {
    let mut client = Client::connected("1.2");
    client.send("SUBSCRIBE\nid:0\ndestination:/queue/DLQ\n\n\0");
    let message = Message::new("m", Destination::queue("DLQ"), "x");
    let delivery = Delivery {
        subscription: 1,
        tag: 1,
        message: ferrymq_message::StoredMessage::new(message.encode()).unwrap(),
        redelivery_count: 6,
        redelivered: true,
        dead_letter: Some(DeadLetter {
            original: Destination::queue("A"),
            reason: "6 tries".into(),
        }),
    };
    client.session.on_delivery(delivery, &mut client.out);
    let written = client.written();
    for header in [
        "redelivered:true",
        "JMSXDeliveryCount:7",
        "original-destination:/queue/A",
        "dlqDeliveryFailureCause:6 tries",
    ] {
        assert!(written.contains(&format!("\n{header}\n")), "{written}");
    }
}

#[test]
fn a_message_that_cannot_be_read_is_rejected_alone() {
    let mut client = Client::connected("1.2");
    client.send("SUBSCRIBE\nid:0\ndestination:A\n\n\0");
    client.requests();
    let mut bytes = Message::new("m", Destination::queue("A"), "x").encode().to_vec();
    bytes[3] = 0xee;
    let delivery = Delivery {
        subscription: 1,
        tag: 1,
        message: ferrymq_message::StoredMessage::new(bytes.into()).unwrap(),
        redelivery_count: 0,
        redelivered: false,
        dead_letter: None,
    };
    client.session.on_delivery(delivery, &mut client.out);
    assert_eq!(client.written(), "");
    let requests = client.requests();
    let rejected = matches!(
        requests[..],
        [Request::Acknowledge {
            verdict: Verdict::Rejected,
            ..
        }]
    );
    assert!(rejected, "{requests:?}");
    client.deliver(1, 2, "m2");
    assert!(client.written().starts_with("MESSAGE\n"));
}

#[test]
fn what_one_client_sends_another_receives() {
    let mut sender = Client::connected("1.2");
    sender.send("SEND\ndestination:/queue/A\nk:a\\cb\ntransformation:jms-xml\nreply-to:/temp-queue/r\n\nhello\0");
    let requests = sender.requests();
    let [Request::Send { message, .. }] = &requests[..] else {
        panic!("{requests:?}")
    };
    let mut receiver = Client::connected("1.1");
    receiver.session.connection_id = "ID:d".into();
    receiver.send("SUBSCRIBE\nid:0\ndestination:/queue/A\n\n\0");
    receiver.deliver_message(1, 1, message);
    let expected = "MESSAGE\nsubscription:0\nmessage-id:ID\\cc\\c1\ndestination:/queue/A\ntimestamp:1000\nexpires:0\n\
                    priority:4\nreply-to:/remote-temp-queue/ID\\cc\\cr\nk:a\\cb\ntransformation:jms-xml\n\
                    transformation-error:bodies are not transformed\n\nhello\0\n";
    assert_eq!(receiver.written(), expected);
}

#[test]
fn the_receipt_of_disconnect_comes_last() {
    let mut client = Client::connected("1.2");
    client.send("SEND\ndestination:A\nreceipt:s\n\nx\0DISCONNECT\nreceipt:d\n\n\0SEND\ndestination:A\n\nlost\0");
    assert_eq!(client.requests().len(), 2);
    assert!(client.session.is_paused());
    client.ok(3);
    assert_eq!((client.written(), client.out.close.clone()), (String::new(), None));
    client.ok(2);
    assert_eq!(
        client.written(),
        "RECEIPT\nreceipt-id:s\n\n\0\nRECEIPT\nreceipt-id:d\n\n\0\n"
    );
    assert_eq!(
        client.out.close,
        Some(Close {
            reason: "the client disconnected".into(),
            clean: true
        })
    );
}

#[test]
fn disconnect_without_receipt_ends_at_once() {
    let mut client = Client::connected("1.2");
    client.send("DISCONNECT\n\n\0");
    assert_eq!(client.requests(), [Request::Disconnect { token: None }]);
    assert!(client.out.close.as_ref().is_some_and(|close| close.clean));
    client.deliver(1, 1, "late");
    assert_eq!((client.written(), client.session.next_tick_ms()), (String::new(), None));
}

#[test]
fn heart_beats_both_ways() {
    let mut client = Client::stranger();
    client.send("CONNECT\naccept-version:1.2\nheart-beat:1000,2000\n\n\0");
    client.ok(1);
    client.written();
    assert_eq!(client.session.next_tick_ms(), Some(0));
    // The greeting counts as written and as heard.
    assert_eq!(client.tick(0), "");
    assert_eq!(client.tick(1_000), "");
    assert_eq!(client.tick(2_000), "\n");
    client.send("\n");
    assert_eq!(client.tick(3_000), "\n");
    assert_eq!(client.tick(4_000), "\n");
    client.session.on_tick(5_000, &mut client.out);
    assert_eq!(client.failure(), "no heart-beat came within 2000 ms");
}

#[test]
fn names_that_have_to_be_remembered_are_bounded() {
    for (bytes, fits) in [(NAME_BYTES_MAX, true), (NAME_BYTES_MAX + 1, false)] {
        let name = "n".repeat(bytes);
        let expect = |mut client: Client, frame: &str, header: &str| {
            client.send(frame);
            if fits {
                assert_eq!(
                    (client.requests().len(), client.written()),
                    (1, String::new()),
                    "{header}"
                );
            } else {
                let said = format!("a {header} header has more than 1024 bytes");
                assert_eq!((client.requests(), client.failure()), (Vec::new(), said));
            }
        };
        for command in ["CONNECT", "STOMP"] {
            let frame = format!("{command}\naccept-version:1.2\nhost:h\nclient-id:{name}\n\n\0");
            expect(Client::stranger(), &frame, "client-id");
        }
        for (frame, header) in [
            ("SUBSCRIBE\ndestination:/queue/A\n", "id"),
            ("SUBSCRIBE\nid:1\ndestination:/topic/T\n", "activemq.subscriptionName"),
            ("UNSUBSCRIBE\nid:1\n", "durable-subscription-name"),
            ("SEND\ndestination:/queue/A\n", "receipt"),
        ] {
            let frame = format!("{frame}{header}:{name}\n\n\0");
            expect(Client::connected("1.1"), &frame, header);
        }
    }
}
