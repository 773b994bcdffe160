//! What a producer promises, against a broker that misbehaves on purpose.

#![allow(clippy::unwrap_used)] // Also in what the tests share, where the lint does not see that it is one.
#![allow(unreachable_pub, dead_code)] // Each test binary uses its part of the broker.

mod broker;

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
    time::Duration,
};

use broker::{Broker, Reply, carried, connected, error, receipt};
use ferrymq_client::{ConnectError, Connection, Event, Options, Outgoing, ProducerOptions, SendError};
use ferrymq_protocol::stomp::{Command, Frame};
use tokio::time::timeout;

const DEADLINE: Duration = Duration::from_secs(20);

/// What a broker has stored, each send once (P5).
#[derive(Default)]
struct Store {
    known: BTreeSet<(String, u64)>,
    bodies: Vec<String>,
    doubled: usize,
}

impl Store {
    fn put(&mut self, frame: &Frame) {
        let header = |name| frame.headers.get(name).unwrap();
        let key = (
            header("producer-id").to_owned(),
            header("producer-sequence").parse().unwrap(),
        );
        if self.known.insert(key) {
            self.bodies.push(String::from_utf8(frame.body.to_vec()).unwrap());
        } else {
            self.doubled += 1;
        }
    }
}

fn numbers(count: usize) -> Vec<String> {
    (0..count).map(|number| number.to_string()).collect()
}

async fn connect(uri: &str) -> Connection {
    timeout(DEADLINE, Connection::connect(uri, Options::default()))
        .await
        .unwrap()
        .unwrap()
}

async fn send_numbers(connection: &Connection, count: usize) -> ferrymq_client::Producer {
    let producer = connection.producer("queue://Q", ProducerOptions::default()).unwrap();
    for number in 0..count {
        timeout(DEADLINE, producer.send(Outgoing::text(number.to_string())))
            .await
            .unwrap()
            .unwrap();
    }
    producer
}

#[tokio::test]
async fn sends_are_pipelined_within_the_window() {
    let store = Arc::new(Mutex::new(Store::default()));
    let seen = store.clone();
    let broker = Broker::start(move |_, frame| match frame.command {
        Command::Connect => vec![connected()],
        Command::Send => {
            assert_eq!(frame.headers.get("destination"), Some("/queue/Q"));
            assert_eq!(frame.headers.get("persistent"), Some("true"));
            seen.lock().unwrap().put(frame);
            receipt(frame)
        }
        _ => receipt(frame),
    })
    .await;
    let connection = connect(&broker.uri()).await;
    let producer = send_numbers(&connection, 5_000).await;
    timeout(DEADLINE, producer.flush()).await.unwrap().unwrap();
    assert_eq!((producer.confirmed(), producer.unconfirmed()), (5_000, 0));
    drop(producer);
    assert!(timeout(DEADLINE, connection.close(DEADLINE)).await.unwrap());
    assert_eq!(store.lock().unwrap().bodies, numbers(5_000));
}

#[tokio::test]
async fn what_has_no_receipt_is_sent_again_in_order_and_stored_once() {
    let store = Arc::new(Mutex::new(Store::default()));
    let seen = store.clone();
    let mut kept = 0;
    // Stores everything, but each of the first connections breaks down after 100 sends, of which it has confirmed every
    // third, and those late and in the wrong order.
    let mut late = Vec::new();
    let broker = Broker::start(move |connection, frame| match frame.command {
        Command::Connect => vec![connected()],
        Command::Send if connection >= 6 => {
            seen.lock().unwrap().put(frame);
            receipt(frame)
        }
        Command::Send => {
            seen.lock().unwrap().put(frame);
            kept += 1;
            if kept % 3 == 0 {
                late.insert(0, frame.clone());
            }
            if kept % 100 == 0 {
                let mut replies: Vec<Reply> = late.drain(..).flat_map(|frame| receipt(&frame)).collect();
                replies.push(Reply::Close);
                return replies;
            }
            Vec::new()
        }
        _ => receipt(frame),
    })
    .await;
    let connection = connect(&broker.uri()).await;
    let mut events = connection.events();
    let producer = send_numbers(&connection, 500).await;
    timeout(DEADLINE, producer.flush()).await.unwrap().unwrap();
    assert_eq!(producer.confirmed(), 500);
    let store = store.lock().unwrap();
    assert_eq!(store.bodies, numbers(500));
    assert!(store.doubled > 100, "sends were repeated: {}", store.doubled);
    let mut reconnected = 0;
    while let Ok(event) = events.try_recv() {
        reconnected += usize::from(matches!(event, Event::Reconnected { resent, .. } if resent > 0));
    }
    assert_eq!(reconnected, 6);
}

#[tokio::test]
async fn another_broker_takes_over() {
    let store = Arc::new(Mutex::new(Store::default()));
    let (first_store, second_store) = (store.clone(), store.clone());
    let mut sends = 0;
    let first = Broker::start(move |connection, frame| match frame.command {
        Command::Connect if connection == 0 => vec![connected()],
        Command::Send => {
            first_store.lock().unwrap().put(frame);
            sends += 1;
            if sends == 10 { vec![Reply::Close] } else { Vec::new() }
        }
        _ => vec![Reply::Close],
    })
    .await;
    let second = Broker::start(move |_, frame| match frame.command {
        Command::Connect => vec![connected()],
        Command::Send => {
            second_store.lock().unwrap().put(frame);
            receipt(frame)
        }
        _ => receipt(frame),
    })
    .await;
    let uri = format!(
        "failover:(tcp://{},tcp://{})?randomize=false",
        first.address, second.address
    );
    let connection = connect(&uri).await;
    let mut events = connection.events();
    let producer = send_numbers(&connection, 20).await;
    timeout(DEADLINE, producer.flush()).await.unwrap().unwrap();
    assert_eq!(store.lock().unwrap().bodies, numbers(20));
    assert!(matches!(events.recv().await, Ok(Event::Lost { address, .. }) if address == first.address.to_string()));
    let reconnected = events.recv().await.unwrap();
    assert!(matches!(reconnected, Event::Reconnected { address, .. } if address == second.address.to_string()));
}

#[tokio::test]
async fn of_several_nodes_the_master_is_chosen_or_else_the_first_that_carries() {
    for (masters, follow_master, expected) in [(1, true, 2), (0, true, 0), (1, false, 0)] {
        let taken = Arc::new(Mutex::new(Vec::new()));
        let mut nodes = Vec::new();
        for node in 0..3 {
            let (taken, carries) = (taken.clone(), node < 3 - masters);
            let behaviour = move |_: usize, frame: &Frame| match frame.command {
                Command::Connect if carries => vec![carried()],
                Command::Connect => vec![connected()],
                _ => {
                    taken.lock().unwrap().push(node);
                    receipt(frame)
                }
            };
            nodes.push(Broker::start(behaviour).await);
        }
        let uris: Vec<String> = nodes.iter().map(|node| format!("tcp://{}", node.address)).collect();
        let uri = format!("failover:({})?randomize=false", uris.join(","));
        let options = Options {
            follow_master,
            ..Options::default()
        };
        let connecting = timeout(DEADLINE, Connection::connect(&uri, options));
        let connection = connecting.await.unwrap().unwrap();
        let producer = send_numbers(&connection, 3).await;
        timeout(DEADLINE, producer.flush()).await.unwrap().unwrap();
        assert_eq!(*taken.lock().unwrap(), [expected; 3]);
    }
}

#[tokio::test]
async fn a_refused_message_is_told_and_the_rest_goes_on() {
    for (kind, tells_which) in [(Some("too-large"), true), (None, true), (None, false)] {
        let store = Arc::new(Mutex::new(Store::default()));
        let seen = store.clone();
        let broker = Broker::start(move |_, frame| match frame.command {
            Command::Connect => vec![connected()],
            Command::Send if &frame.body[..] == b"2" => error(tells_which.then_some(frame), kind, "not this one"),
            Command::Send => {
                seen.lock().unwrap().put(frame);
                // Without receipts there is no progress, so that the unnamed ERROR has to be guessed at.
                if tells_which || seen.lock().unwrap().bodies.len() > 2 {
                    receipt(frame)
                } else {
                    Vec::new()
                }
            }
            _ => receipt(frame),
        })
        .await;
        let connection = connect(&broker.uri()).await;
        let producer = send_numbers(&connection, 5).await;
        let refused = timeout(DEADLINE, producer.flush()).await.unwrap().unwrap_err();
        let SendError::Refused { sequence, text, .. } = refused else {
            panic!("{refused}")
        };
        assert_eq!(text, "not this one");
        if tells_which {
            assert_eq!(sequence, 3);
            timeout(DEADLINE, producer.flush()).await.unwrap().unwrap();
            assert_eq!(store.lock().unwrap().bodies, ["0", "1", "3", "4"]);
        } else {
            // The guess falls on the oldest one; what matters is that it ends.
            assert_eq!(sequence, 1);
        }
    }
}

#[tokio::test]
async fn a_broker_that_is_full_is_asked_again() {
    let mut refusals = 0;
    let broker = Broker::start(move |_, frame| match frame.command {
        Command::Connect => vec![connected()],
        Command::Send if refusals < 4 => {
            refusals += 1;
            error(Some(frame), Some("full"), "no room")
        }
        _ => receipt(frame),
    })
    .await;
    let connection = connect(&broker.uri()).await;
    let producer = send_numbers(&connection, 1).await;
    timeout(DEADLINE, producer.flush()).await.unwrap().unwrap();
    assert_eq!(producer.confirmed(), 1);
}

#[tokio::test]
async fn a_silent_broker_stops_the_producer_at_its_window() {
    let broker = Broker::start(|_, frame| match frame.command {
        Command::Connect => vec![connected()],
        _ => Vec::new(),
    })
    .await;
    let connection = connect(&format!("{}?timeout=50", broker.uri())).await;
    let options = ProducerOptions {
        window_messages_max: 10,
        ..ProducerOptions::default()
    };
    let producer = connection.producer("Q", options).unwrap();
    for _ in 0..10 {
        producer.send(Outgoing::bytes("x")).await.unwrap();
    }
    let refused = timeout(DEADLINE, producer.send(Outgoing::bytes("x"))).await.unwrap();
    assert_eq!(refused, Err(SendError::TimedOut(Duration::from_millis(50))));
    assert_eq!(producer.unconfirmed(), 10);

    let options = ProducerOptions {
        window_bytes_max: 1_000,
        ..ProducerOptions::default()
    };
    let producer = connection.producer("Q", options).unwrap();
    // One message is let through however large it is.
    producer.send(Outgoing::bytes(vec![0; 5_000])).await.unwrap();
    let refused = timeout(DEADLINE, producer.send(Outgoing::bytes("x"))).await.unwrap();
    assert_eq!(refused, Err(SendError::TimedOut(Duration::from_millis(50))));
    drop(producer);
    assert!(!connection.close(Duration::from_millis(10)).await);
}

#[tokio::test]
async fn connecting_is_bounded_and_says_why_it_failed() {
    let gone = Broker::start(|_, _| Vec::new()).await.address;
    let options = Options {
        startup_timeout: Duration::from_millis(200),
        ..Options::default()
    };
    let uri = format!("failover:(tcp://{gone})");
    let failed = timeout(DEADLINE, Connection::connect(&uri, options))
        .await
        .unwrap()
        .unwrap_err();
    let ConnectError::Unreachable { last, .. } = &failed else {
        panic!("{failed}")
    };
    assert!(last.starts_with(&gone.to_string()), "{last}");

    let uri = format!("failover:(tcp://{gone})?startupMaxReconnectAttempts=2");
    let failed = timeout(DEADLINE, Connection::connect(&uri, Options::default()))
        .await
        .unwrap();
    assert!(matches!(failed, Err(ConnectError::Unreachable { .. })), "{failed:?}");

    let strict = Broker::start(|_, _| error(None, Some("unauthorized"), "who are you?")).await;
    let failed = timeout(DEADLINE, Connection::connect(&strict.uri(), Options::default()))
        .await
        .unwrap();
    let (address, text) = (strict.address.to_string(), "who are you?".to_owned());
    assert_eq!(failed.unwrap_err(), ConnectError::Refused { address, text });
}

#[tokio::test]
async fn a_connection_that_is_given_up_fails_every_call() {
    let broker = Broker::start(|connection, frame| match frame.command {
        Command::Connect if connection == 0 => vec![connected()],
        _ => vec![Reply::Close],
    })
    .await;
    let connection = connect(&format!("{}?maxReconnectAttempts=1", broker.uri())).await;
    let producer = send_numbers(&connection, 1).await;
    let ended = timeout(DEADLINE, producer.flush()).await.unwrap().unwrap_err();
    assert!(matches!(ended, SendError::Ended(_)), "{ended}");
    assert_eq!(producer.send(Outgoing::bytes("x")).await.unwrap_err(), ended);
}

#[tokio::test]
async fn confirmations_are_told_as_they_come() {
    // Every third message is answered, and with it those before.
    let mut waiting = Vec::new();
    let broker = Broker::start(move |_, frame| match frame.command {
        Command::Connect => vec![connected()],
        Command::Send => {
            waiting.extend(receipt(frame));
            if waiting.len() < 3 {
                Vec::new()
            } else {
                std::mem::take(&mut waiting)
            }
        }
        _ => receipt(frame),
    })
    .await;
    let connection = connect(&broker.uri()).await;
    let producer = send_numbers(&connection, 7).await;
    let mut confirmed = 0;
    while confirmed < 6 {
        let now = timeout(DEADLINE, producer.wait_confirmed(confirmed))
            .await
            .unwrap()
            .unwrap();
        assert!(now > confirmed);
        confirmed = now;
    }
    // Nothing answers the seventh: the wait ends with the connection.
    let wait = producer.wait_confirmed(6);
    let close = connection.close(Duration::from_millis(1));
    let (waited, _) = timeout(DEADLINE, async { tokio::join!(wait, close) }).await.unwrap();
    assert!(matches!(waited, Err(SendError::Ended(_))), "{waited:?}");
}

#[tokio::test]
async fn transactions_have_one_receipt_and_are_sent_again_as_a_whole() {
    let frames = Arc::new(Mutex::new(Vec::new()));
    let seen = frames.clone();
    let mut commits = 0;
    let broker = Broker::start(move |number, frame| {
        if frame.command == Command::Connect {
            return vec![connected()];
        }
        let text = match frame.command {
            Command::Send => {
                assert_eq!(frame.headers.get("receipt"), None);
                frame.headers.get("producer-sequence").unwrap().to_owned()
            }
            command => command.as_str().to_owned(),
        };
        let transaction = frame.headers.get("transaction").unwrap_or("-").to_owned();
        seen.lock().unwrap().push((number, text, transaction));
        if frame.command == Command::Commit {
            commits += 1;
            // The second commit takes the connection with it.
            if commits == 2 {
                return vec![Reply::Close];
            }
        }
        receipt(frame)
    })
    .await;
    let connection = connect(&broker.uri()).await;
    let options = ProducerOptions {
        // Smaller than a transaction: it is let through all the same.
        window_messages_max: 2,
        transaction_messages: 3,
        ..ProducerOptions::default()
    };
    let producer = connection.producer("queue://Q", options).unwrap();
    for number in 0..7 {
        let sent = producer.send(Outgoing::text(number.to_string()));
        timeout(DEADLINE, sent).await.unwrap().unwrap();
    }
    timeout(DEADLINE, producer.flush()).await.unwrap().unwrap();
    assert_eq!((producer.confirmed(), producer.unconfirmed()), (7, 0));

    let frames = frames.lock().unwrap();
    let mut expected = Vec::new();
    for (connection, begin, sequences) in [(0, "1", 1..=3), (0, "6", 4..=6), (1, "6", 4..=6), (1, "11", 7..=7)] {
        let sequences = sequences.map(|sequence: u64| sequence.to_string());
        let texts = ["BEGIN".to_owned()]
            .into_iter()
            .chain(sequences)
            .chain(["COMMIT".to_owned()]);
        expected.extend(texts.map(|text| (connection, text, begin.to_owned())));
    }
    assert_eq!(*frames, expected);
}

#[tokio::test]
async fn a_refused_transaction_refuses_each_of_its_messages() {
    let broker = Broker::start(|_, frame| match frame.command {
        Command::Connect => vec![connected()],
        Command::Commit if frame.headers.get("transaction") == Some("1") => {
            error(Some(frame), Some("denied"), "not here")
        }
        _ => receipt(frame),
    })
    .await;
    let connection = connect(&broker.uri()).await;
    let options = ProducerOptions {
        transaction_messages: 2,
        ..ProducerOptions::default()
    };
    let producer = connection.producer("queue://Q", options).unwrap();
    let mut refused = Vec::new();
    let mut sent = 0;
    while sent < 4 {
        match timeout(DEADLINE, producer.send(Outgoing::text("x"))).await.unwrap() {
            Ok(_) => sent += 1,
            Err(SendError::Refused { sequence, .. }) => refused.push(sequence),
            Err(other) => panic!("{other}"),
        }
    }
    loop {
        match timeout(DEADLINE, producer.flush()).await.unwrap() {
            Ok(()) => break,
            Err(SendError::Refused { sequence, .. }) => refused.push(sequence),
            Err(other) => panic!("{other}"),
        }
    }
    assert_eq!((refused, producer.confirmed()), (vec![1, 2], 2));
}

#[tokio::test]
async fn no_two_producers_have_one_name_unless_one_is_to_go_on_where_the_other_ended() {
    let broker = Broker::start(|_, frame| match frame.command {
        Command::Connect => vec![connected()],
        _ => receipt(frame),
    })
    .await;
    let connection = connect(&broker.uri()).await;
    let named = |resume| ProducerOptions {
        id: Some("nightly".into()),
        resume,
        ..ProducerOptions::default()
    };
    let name = |options| {
        connection
            .producer("queue://Q", options)
            .map(|producer| producer.name().to_owned())
    };
    let (first, second) = (name(named(false)).unwrap(), name(named(false)).unwrap());
    assert_ne!(first, second);
    assert!(
        first.starts_with("nightly-") && second.starts_with("nightly-"),
        "{first} {second}"
    );
    assert_eq!(name(named(true)).unwrap(), "nightly");
    let nameless = ProducerOptions {
        resume: true,
        ..ProducerOptions::default()
    };
    assert!(name(nameless).is_err());
}
