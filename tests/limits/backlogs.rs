//! Much that stays: messages that wait, destinations, durable subscriptions.

use std::time::Duration;

use ferrymq_tests::{Frame, Stomp};

use crate::{
    arena::{Arena, size},
    wire::Wire,
};

/// So many requests are sent before the last one's receipt is waited for.
const WINDOW: usize = 500;

#[test]
fn a_backlog_larger_than_memory_costs_disk() {
    let arena = Arena::new("backlog larger than memory", "frame = \"1MiB\"");
    let mut producer = Stomp::connect(&arena.address()).unwrap();
    let messages = size(2_500, 20_000);
    let body = vec![b'x'; 100 << 10];
    for message in 0..messages {
        let frame = Frame::message("/queue/backlog", &body);
        if message % 50 == 49 {
            producer.request(frame).unwrap();
        } else {
            producer.send(&frame).unwrap();
        }
    }
    arena.judge(&format!("{} MiB waiting", messages / 10), 2, 0, &[]);
    // It is all there, in order, and reading it takes no more.
    let mut consumer = Stomp::connect(&arena.address()).unwrap();
    let subscribe = Frame::subscribe("1", "/queue/backlog", "client").with("activemq.prefetchSize", 50);
    consumer.request(subscribe).unwrap();
    for message in 1..=messages {
        let frame = consumer.expect_message();
        if message % 50 == 0 {
            consumer.ack(&frame).unwrap();
        }
    }
    arena.judge(&format!("{} MiB read", messages / 10), 2, 0, &[]);
}

#[test]
fn many_destinations_are_served_up_to_their_bound() {
    let count = size(4_000, 100_000);
    let limits = format!("frame = \"1MiB\"\ndestinations = {}", count + 10);
    let arena = Arena::new("destinations", &limits);
    let mut client = Stomp::connect(&arena.address()).unwrap();
    for queue in 0..count {
        let frame = Frame::message(&format!("/queue/D.{queue:06}"), b"one");
        if queue % WINDOW == WINDOW - 1 {
            client.request(frame).unwrap();
        } else {
            client.send(&frame).unwrap();
        }
    }
    client.request(Frame::message("/queue/D.000000", b"two")).unwrap();
    // The bound is looked at five times a second.
    ferrymq_tests::wait_until("there is no room for another one", Duration::from_secs(30), || {
        let mut other = Stomp::connect(&arena.address()).unwrap();
        let extra = arena.count("accepted");
        match other.request(Frame::message(&format!("/queue/E.{extra}"), b"x")) {
            Ok(()) => false,
            Err(error) => {
                assert!(error.to_string().contains("which is the limit"), "{error}");
                true
            }
        }
    });
    client
        .request(Frame::message("/queue/D.000001", b"known ones are fine"))
        .unwrap();
    let shown = ["destinations_refused"];
    arena.judge(&count.to_string(), 10, count as u64 * 2_048, &shown);
}

#[test]
fn ever_new_producers_are_forgotten_in_the_end() {
    let arena = Arena::new("producers under ever new names", "frame = \"1MiB\"");
    let mut client = Stomp::connect(&arena.address()).unwrap();
    let send = |number: usize, name_bytes: usize| {
        Frame::message("/queue/P", b"x")
            .with("producer-id", format!("{number:0>name_bytes$}"))
            // What comes first leaves a gap, which is remembered, too.
            .with("producer-sequence", 5)
    };
    let count = size(6_000, 250_000);
    for number in 1..=count {
        let frame = send(number, 256);
        if number % WINDOW == 0 {
            client.request(frame).unwrap();
        } else {
            client.send(&frame).unwrap();
        }
    }
    // A resend of one that is remembered is none of them (P5).
    client.request(send(count, 256)).unwrap();
    let status = arena.status();
    let queues = status["master"]["queues"].as_array().unwrap();
    let queue = queues.iter().find(|queue| queue["name"] == "queue://P").unwrap();
    assert_eq!(queue["messages"].as_u64(), Some(count as u64), "{queue}");
    for name_bytes in [257, 30_000] {
        let mut other = Stomp::connect(&arena.address()).unwrap();
        let refused = other.request(send(1, name_bytes)).unwrap_err().to_string();
        assert!(
            refused.contains("a producer-id header has more than 256 bytes"),
            "{refused}"
        );
    }
    let producers = (64 << 20).min(count as u64 * 600);
    arena.judge(
        &count.to_string(),
        3,
        producers + count as u64 * 48,
        &["protocol_errors"],
    );
}

#[test]
fn many_durable_subscriptions_are_kept() {
    let arena = Arena::new("durable subscriptions", "frame = \"1MiB\"\nconnections = 6000");
    let (clients, each) = (size(10, 100), 100);
    let mut wires = Vec::new();
    for client in 0..clients {
        let connect = format!("CONNECT\naccept-version:1.2\nhost:x\nclient-id:c{client}\n\n\0");
        let mut wire = Wire::open(&arena.address()).unwrap();
        wire.write_all(connect.as_bytes()).unwrap();
        assert!(wire.answer(Duration::from_secs(20)).starts_with(b"CONNECTED"));
        let mut text = String::new();
        for number in 0..each {
            text += &format!(
                "SUBSCRIBE\nid:{number}\ndestination:/topic/D.{number}\nack:client\nactivemq.subscriptionName:s{number}\n\n\0"
            );
        }
        text += "SEND\ndestination:/queue/done\nreceipt:done\n\nx\0";
        wire.write_all(text.as_bytes()).unwrap();
        wires.push(wire);
    }
    for wire in &mut wires {
        let answer = wire.answer(Duration::from_secs(60));
        assert!(answer.starts_with(b"RECEIPT"), "{}", String::from_utf8_lossy(&answer));
    }
    let count = clients * each;
    ferrymq_tests::wait_until("all are there", Duration::from_secs(60), || {
        arena.status()["master"]["queues_total"].as_u64() >= Some(count as u64)
    });
    // Each topic's message goes to the backlog of every client, who are away.
    drop(wires);
    let mut publisher = Stomp::connect(&arena.address()).unwrap();
    for topic in 0..each {
        publisher
            .request(Frame::message(&format!("/topic/D.{topic}"), vec![b'x'; 1000]))
            .unwrap();
    }
    let mut back = Stomp::connect_with(&arena.address(), &[("client-id", "c3")]).unwrap();
    let subscribe = Frame::subscribe("1", "/topic/D.7", "client-individual").with("activemq.subscriptionName", "s7");
    back.request(subscribe).unwrap();
    assert_eq!(back.expect_message().get("destination"), Some("/topic/D.7"));
    arena.judge(
        &count.to_string(),
        clients as u64,
        count as u64 * 4_096,
        &["connections"],
    );
}
