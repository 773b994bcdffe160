//! Clients that do not read what they have asked for.

use ferrymq_tests::{Frame, Stomp};

use crate::{
    arena::{Arena, size},
    wire::Wire,
};

const LIMITS: &str = "frame = \"1MiB\"\noutbox = \"4MiB\"";

fn subscriptions(destination: &str, prefetch: u32) -> Vec<u8> {
    format!("SUBSCRIBE\nid:1\ndestination:{destination}\nack:client-individual\nactivemq.prefetchSize:{prefetch}\n\n\0")
        .into_bytes()
}

#[test]
fn consumers_that_do_not_read_are_cut_when_memory_is_short() {
    let arena = Arena::new("slow consumers of queues", LIMITS);
    let consumers = size(24, 200);
    let mut slow = Vec::new();
    let mut producer = Stomp::connect(&arena.address()).unwrap();
    let body = vec![b'x'; 256 << 10];
    for consumer in 0..consumers {
        let queue = format!("/queue/slow.{consumer}");
        let mut wire = Wire::log_in(&arena.address()).unwrap();
        wire.write_all(&subscriptions(&queue, 1000)).unwrap();
        slow.push(wire);
        for _ in 0..24 {
            producer.send(&Frame::message(&queue, &body)).unwrap();
        }
        producer.request(Frame::message(&queue, &body)).unwrap();
    }
    arena.wait_count("slow_consumers_cut", 1);
    ferrymq_tests::wait_until("what they held is free", std::time::Duration::from_secs(60), || {
        let outgoing = &arena.status()["clients"]["memory"]["outgoing"];
        outgoing["held"].as_u64() < outgoing["max"].as_u64()
    });
    // What they had not acknowledged is there for others, marked.
    let mut other = Stomp::connect(&arena.address()).unwrap();
    drop(slow);
    other
        .request(Frame::subscribe("1", "/queue/slow.0", "client-individual"))
        .unwrap();
    assert!(other.expect_message().redelivered());
    arena.judge(
        &format!("{consumers} × 6.25 MiB unread"),
        consumers,
        0,
        &["slow_consumers_cut"],
    );
}

#[test]
fn subscribers_that_do_not_read_slow_their_publisher_and_are_cut() {
    let arena = Arena::new("slow subscribers of a topic", LIMITS);
    let subscribers = size(30, 300);
    let mut slow: Vec<Wire> = Vec::new();
    for topic in 0..subscribers {
        let mut wire = Wire::log_in(&arena.address()).unwrap();
        wire.write_all(&subscriptions(&format!("/topic/T.{}", topic % 10), 32_000))
            .unwrap();
        slow.push(wire);
    }
    let mut reader = Stomp::connect(&arena.address()).unwrap();
    reader.request(Frame::subscribe("r", "/topic/T.0", "auto")).unwrap();
    let mut publisher = Stomp::connect(&arena.address()).unwrap();
    let body = vec![b'x'; 64 << 10];
    let published = size(2_000, 8_000);
    let mut read = 0;
    for message in 0..published {
        let topic = format!("/topic/T.{}", message % 10);
        publisher.request(Frame::message(&topic, &body)).unwrap();
        if message % 10 == 0 {
            reader.expect_message();
            read += 1;
        }
    }
    assert_eq!(read, published / 10, "the one that reads has got all of its topic");
    assert!(arena.count("slow_consumers_cut") > 0);
    arena.judge(
        &format!("{subscribers} subscribers, {} MiB published", published / 16),
        subscribers,
        0,
        &["slow_consumers_cut", "producers_slowed"],
    );
}

#[test]
fn a_client_that_reads_no_answers_is_not_listened_to_without_end() {
    let arena = Arena::new("errors and receipts unread", LIMITS);
    let connections = size(8, 64);
    let mut wires: Vec<Wire> = (0..connections)
        .map(|_| Wire::log_in(&arena.address()).unwrap())
        .collect();
    // Each is answered by an ERROR that leaves the connection open.
    let lost = b"ACK\nid:9-9\n\n\0".repeat(4_000);
    let receipts =
        b"SEND\ndestination:/topic/nobody\nreceipt:0123456789012345678901234567890123456789\n\n\0".repeat(1_000);
    for (at, wire) in wires.iter_mut().enumerate() {
        let lasts = Arena::lasts(1, 2);
        if at % 2 == 0 {
            wire.write_all(b"SUBSCRIBE\nid:9\ndestination:/queue/none\nack:client\n\n\0")
                .unwrap();
            wire.pour(&lost, lasts);
        } else {
            wire.pour(&receipts, lasts);
        }
    }
    arena.judge(
        &format!("{connections} connections"),
        connections,
        0,
        &["protocol_errors"],
    );
}
