//! What a consumer promises, against a broker that misbehaves on purpose.

#![allow(clippy::unwrap_used)] // Also in what the tests share, where the lint does not see that it is one.
#![allow(unreachable_pub, dead_code)] // Each test binary uses its part of the broker.

mod broker;

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use broker::{Broker, Reply, connected, delivery, error, receipt};
use ferrymq_client::{AckError, AckMode, Connection, ConsumerOptions, Event, Options, ReceiveError, Received};
use ferrymq_protocol::stomp::{Command, Frame};
use tokio::time::timeout;

const DEADLINE: Duration = Duration::from_secs(20);

async fn connect(broker: &Broker, options: Options) -> Connection {
    timeout(DEADLINE, Connection::connect(&broker.uri(), options))
        .await
        .unwrap()
        .unwrap()
}

async fn next(consumer: &ferrymq_client::Consumer) -> Received {
    timeout(DEADLINE, consumer.recv()).await.unwrap().unwrap()
}

/// Receipts are wanted, and deliveries follow them.
fn and(mut replies: Vec<Reply>, more: impl IntoIterator<Item = Reply>) -> Vec<Reply> {
    replies.extend(more);
    replies
}

#[tokio::test]
async fn messages_are_received_and_acknowledged() {
    let acks = Arc::new(Mutex::new(Vec::new()));
    let seen = acks.clone();
    let broker = Broker::start(move |_, frame| match frame.command {
        Command::Connect => vec![connected()],
        Command::Subscribe => {
            let header = |name| frame.headers.get(name);
            assert_eq!(
                (header("destination"), header("ack")),
                (Some("/topic/T"), Some("client-individual"))
            );
            assert_eq!(
                (header("activemq.prefetchSize"), header("selector")),
                (Some("7"), Some("a = 1"))
            );
            assert_eq!(
                (header("activemq.subscriptionName"), header("activemq.exclusive")),
                (Some("s"), Some("true"))
            );
            and(receipt(frame), (0..3).map(|number| delivery(frame, number, false)))
        }
        Command::Ack | Command::Nack => {
            seen.lock()
                .unwrap()
                .push((frame.command, frame.headers.get("id").unwrap().to_owned()));
            receipt(frame)
        }
        _ => receipt(frame),
    })
    .await;
    let connection = connect(&broker, Options::default()).await;
    let options = ConsumerOptions {
        prefetch: 7,
        selector: Some("a = 1".into()),
        durable: Some("s".into()),
        exclusive: true,
        ..ConsumerOptions::default()
    };
    let consumer = connection.consumer("topic://T", options).unwrap();
    let messages = [next(&consumer).await, next(&consumer).await, next(&consumer).await];
    assert_eq!(
        messages.each_ref().map(|message| message.text().unwrap()),
        ["0", "1", "2"]
    );
    assert_eq!(
        (
            messages[0].id(),
            messages[0].redelivered(),
            messages[0].delivery_count()
        ),
        ("m0", false, 1)
    );
    consumer.ack(&messages[1]).unwrap();
    consumer.nack(&messages[0]).unwrap();
    timeout(DEADLINE, consumer.flush()).await.unwrap().unwrap();
    assert_eq!(
        *acks.lock().unwrap(),
        [(Command::Ack, "a1".to_owned()), (Command::Nack, "a0".to_owned())]
    );
}

#[tokio::test]
async fn after_a_loss_it_subscribes_anew_and_nothing_stale_is_acknowledged() {
    let acks = Arc::new(Mutex::new(0));
    let seen = acks.clone();
    let broker = Broker::start(move |connection, frame| match frame.command {
        Command::Connect => vec![connected()],
        Command::Subscribe => {
            let first = u32::from(connection > 0);
            and(
                receipt(frame),
                (first..4).map(|number| delivery(frame, number, connection > 0)),
            )
        }
        Command::Ack if connection == 0 => {
            *seen.lock().unwrap() += 1;
            // The first is confirmed, the second not, and the connection is lost.
            if *seen.lock().unwrap() == 1 {
                receipt(frame)
            } else {
                vec![Reply::Close]
            }
        }
        _ => receipt(frame),
    })
    .await;
    let connection = connect(&broker, Options::default()).await;
    let mut events = connection.events();
    let consumer = connection.consumer("Q", ConsumerOptions::default()).unwrap();
    let (first, second) = (next(&consumer).await, next(&consumer).await);
    consumer.ack(&first).unwrap();
    timeout(DEADLINE, consumer.flush()).await.unwrap().unwrap();
    consumer.ack(&second).unwrap();
    assert_eq!(
        timeout(DEADLINE, consumer.flush()).await.unwrap(),
        Err(AckError::Unconfirmed(1))
    );
    assert_eq!(timeout(DEADLINE, consumer.flush()).await.unwrap(), Ok(()));
    timeout(DEADLINE, async {
        while !matches!(events.recv().await, Ok(Event::Reconnected { .. })) {}
    })
    .await
    .unwrap();

    // Messages 2 and 3 waited in the inbox over the old connection: they come once, by the new one.
    let mut again = Vec::new();
    for _ in 1..4 {
        again.push(next(&consumer).await);
    }
    assert_eq!(
        again.iter().map(|message| message.text().unwrap()).collect::<Vec<_>>(),
        ["1", "2", "3"]
    );
    assert!(
        again
            .iter()
            .all(|message| message.redelivered() && message.delivery_count() == 2)
    );
    assert_eq!(consumer.ack(&second), Err(AckError::Stale));
    consumer.ack(&again[0]).unwrap();
    timeout(DEADLINE, consumer.flush()).await.unwrap().unwrap();
    assert!(consumer.try_recv().is_none());
}

#[tokio::test]
async fn a_refused_subscription_is_told() {
    let broker = Broker::start(|_, frame| match frame.command {
        Command::Connect => vec![connected()],
        Command::Subscribe => error(Some(frame), Some("malformed"), "bad selector"),
        _ => receipt(frame),
    })
    .await;
    let connection = connect(&broker, Options::default()).await;
    let consumer = connection.consumer("Q", ConsumerOptions::default()).unwrap();
    let refused = timeout(DEADLINE, consumer.recv()).await.unwrap();
    assert_eq!(refused, Err(ReceiveError::Refused("bad selector".into())));
}

/// P8 on the client's side: what the application does not take stays in the socket.
#[tokio::test]
async fn a_slow_application_stops_the_reading() {
    let large = |subscribe: &Frame| {
        let Reply::Send(frame) = delivery(subscribe, 0, false) else {
            unreachable!()
        };
        Reply::Send(frame.with_body(vec![7; 100_000]))
    };
    let broker = Broker::start(move |_, frame| match frame.command {
        Command::Connect => vec![connected()],
        Command::Subscribe => and(receipt(frame), (0..400).map(|_| large(frame))),
        _ => receipt(frame),
    })
    .await;
    let inbox_bytes_max = 1_000_000;
    let connection = connect(
        &broker,
        Options {
            inbox_bytes_max,
            ..Options::default()
        },
    )
    .await;
    let options = ConsumerOptions {
        ack: AckMode::Auto,
        ..ConsumerOptions::default()
    };
    let consumer = connection.consumer("Q", options).unwrap();
    let mut most = 0;
    for _ in 0..400 {
        // Takes one and then whatever else has come: never more than the limit and one read.
        most = most.max(consumer.waiting_bytes());
        assert_eq!(next(&consumer).await.body().len(), 100_000);
    }
    assert!(most <= inbox_bytes_max + 300_000, "{most}");
}

#[tokio::test]
async fn a_broker_that_falls_silent_is_left() {
    let broker = Broker::start(|connection, frame| match frame.command {
        Command::Connect => {
            let beat = if connection == 0 { "20,20" } else { "0,0" };
            vec![Reply::Send(
                Frame::new(Command::Connected)
                    .with("version", "1.2")
                    .with("heart-beat", beat),
            )]
        }
        _ => receipt(frame),
    })
    .await;
    let options = Options {
        heartbeat: Duration::from_millis(20),
        ..Options::default()
    };
    let connection = connect(&broker, options).await;
    let mut events = connection.events();
    let lost = timeout(DEADLINE, events.recv()).await.unwrap().unwrap();
    assert!(
        matches!(&lost, Event::Lost { reason, .. } if reason.contains("silent")),
        "{lost:?}"
    );
    let back = timeout(DEADLINE, events.recv()).await.unwrap().unwrap();
    assert!(matches!(back, Event::Reconnected { .. }), "{back:?}");
}

#[tokio::test]
async fn the_task_ends_with_its_last_handle() {
    let gone = Arc::new(Mutex::new(false));
    let seen = gone.clone();
    let broker = Broker::start(move |_, frame| match frame.command {
        Command::Connect => vec![connected()],
        Command::Unsubscribe => {
            *seen.lock().unwrap() = true;
            Vec::new()
        }
        _ => receipt(frame),
    })
    .await;
    let connection = connect(&broker, Options::default()).await;
    let mut events = connection.events();
    let consumer = connection.consumer("Q", ConsumerOptions::default()).unwrap();
    let other = connection.consumer("R", ConsumerOptions::default()).unwrap();
    drop(connection);
    drop(other);
    timeout(DEADLINE, async {
        while !*gone.lock().unwrap() {
            tokio::task::yield_now().await
        }
    })
    .await
    .unwrap();
    drop(consumer);
    let ended = timeout(DEADLINE, events.recv()).await.unwrap().unwrap();
    assert!(matches!(ended, Event::Ended { .. }), "{ended:?}");
}

#[tokio::test]
async fn all_that_has_come_is_taken_and_acknowledged_at_once() {
    let acks = Arc::new(Mutex::new(Vec::new()));
    let seen = acks.clone();
    let broker = Broker::start(move |_, frame| match frame.command {
        Command::Connect => vec![connected()],
        Command::Subscribe => and(receipt(frame), (0..50).map(|number| delivery(frame, number, false))),
        Command::Ack => {
            let header = |name| frame.headers.get(name).map(str::to_owned);
            seen.lock().unwrap().push((header("id"), header("receipt")));
            receipt(frame)
        }
        _ => receipt(frame),
    })
    .await;
    let connection = connect(&broker, Options::default()).await;
    let options = ConsumerOptions {
        ack: AckMode::Client,
        ack_receipts: false,
        ..ConsumerOptions::default()
    };
    let consumer = connection.consumer("queue://Q", options).unwrap();
    timeout(DEADLINE, consumer.subscribed()).await.unwrap().unwrap();
    let mut received = Vec::new();
    while received.len() < 50 {
        timeout(DEADLINE, consumer.recv_all(&mut received))
            .await
            .unwrap()
            .unwrap();
    }
    let bodies: Vec<_> = received.iter().filter_map(Received::text).collect();
    assert_eq!(bodies, (0..50).map(|number| number.to_string()).collect::<Vec<_>>());
    assert_eq!(consumer.waiting_bytes(), 0);
    consumer.ack(received.last().unwrap()).unwrap();
    // Nothing waits for the broker's word; that the acknowledgement arrives is known from the end in good order.
    timeout(DEADLINE, consumer.flush()).await.unwrap().unwrap();
    drop(consumer);
    assert!(connection.close(DEADLINE).await);
    assert_eq!(*acks.lock().unwrap(), [(Some("a49".to_owned()), None)]);
}
