//! Clients that send more than there is room for: on disk, in memory, in transactions.

use std::{
    thread,
    time::{Duration, Instant},
};

use ferrymq_tests::{Frame, Stomp, wait_until};

use crate::{
    arena::{Arena, size},
    wire::Wire,
};

fn send_frame(destination: &str, bytes: usize, more: &str) -> Vec<u8> {
    let head = format!("SEND\ndestination:{destination}\npersistent:true\ncontent-length:{bytes}\n{more}\n");
    [head.into_bytes(), vec![b'x'; bytes], vec![0]].concat()
}

#[test]
fn producers_that_are_faster_than_the_disk_are_slowed() {
    let arena = Arena::new("producers faster than the disk", "frame = \"1MiB\"");
    let lasts = Arena::lasts(4, 20);
    let count = size(16, 64);
    let floods: Vec<_> = (0..count)
        .map(|number| {
            let (address, lasts) = (arena.address(), lasts.clone());
            thread::spawn(move || {
                let frame = send_frame(&format!("/queue/flood.{number}"), 100 << 10, "");
                Wire::log_in(&address).unwrap().pour(&frame, lasts)
            })
        })
        .collect();
    let sent: u64 = floods.into_iter().map(|flood| flood.join().unwrap()).sum();
    arena.judge(&format!("{count} producers, {} MiB taken", sent >> 20), count, 0, &[]);
}

#[test]
fn a_full_store_holds_producers_back_and_lets_acknowledgements_through() {
    let mut arena = Arena::with_store(
        "full store",
        "frame = \"1MiB\"",
        "limit = \"16MiB\"\nsnapshot_log = \"1MiB\"",
    );
    // The healthy client would wait as everybody does.
    arena.rest();
    let mut consumer = Stomp::connect(&arena.address()).unwrap();
    let subscribe = Frame::subscribe("1", "/queue/full", "client-individual").with("activemq.prefetchSize", 100);
    consumer.request(subscribe).unwrap();
    let floods: Vec<Wire> = (0..size(20, 100))
        .map(|_| {
            let mut wire = Wire::log_in(&arena.address()).unwrap();
            let begun = Instant::now();
            let frame = send_frame("/queue/full", 200 << 10, "");
            wire.pour(&frame, || begun.elapsed() < Duration::from_millis(300));
            wire
        })
        .collect();
    wait_until("the store is full", Duration::from_secs(60), || {
        arena.status()["master"]["store_full"] == true
    });
    // The consumer sends an answer, for which there is no room, and then acknowledges on the same connection.
    let first = consumer.expect_message();
    consumer
        .send(&Frame::message("/queue/answers", vec![b'a'; 1000]).with("receipt", "answer"))
        .unwrap();
    wait_until("the answer waits for room", Duration::from_secs(20), || {
        arena.status()["master"]["waiting_for_room"].as_u64() > Some(floods.len() as u64 / 2)
    });
    consumer
        .ack(&first)
        .expect("an acknowledgement does not wait behind it");
    assert!(arena.count("producers_slowed") > 0);
    arena.judge_memory("16 MiB of disk", floods.len() as u64, 0, &["producers_slowed"], false);
    // As the rest is taken, there is room, and the answer goes through.
    drop(floods);
    let mut answered = false;
    wait_until("there is room again", Duration::from_secs(120), || {
        match consumer.next(Duration::from_millis(200)).unwrap() {
            Some(frame) if frame.command == "MESSAGE" => consumer
                .send(&Frame::new("ACK").with("id", frame.get("ack").unwrap()))
                .unwrap(),
            Some(frame) => answered |= frame.get("receipt-id") == Some("answer"),
            None => {}
        }
        answered
    });
}

#[test]
fn an_acknowledgement_does_not_overtake_what_the_client_will_not_hear_of() {
    let mut arena = Arena::with_store(
        "order behind a send without receipt",
        "frame = \"1MiB\"\nbacklog = \"1MiB\"",
        "",
    );
    arena.rest();
    let mut consumer = Stomp::connect(&arena.address()).unwrap();
    let subscribe = Frame::subscribe("1", "/queue/many", "client-individual");
    consumer.request(subscribe).unwrap();
    // A megabyte of places is some twenty thousand messages.
    let mut producer = Wire::log_in(&arena.address()).unwrap();
    let frames = send_frame("/queue/many", 10, "").repeat(2_000);
    wait_until("too many messages wait", Duration::from_secs(60), || {
        let begun = Instant::now();
        producer.pour(&frames, || begun.elapsed() < Duration::from_millis(100));
        arena.status()["master"]["store_full"] == true
    });
    let message = consumer.expect_message();
    consumer.send(&Frame::message("/queue/out", b"no receipt")).unwrap();
    consumer
        .send(
            &Frame::new("ACK")
                .with("id", message.get("ack").unwrap())
                .with("receipt", "ack"),
        )
        .unwrap();
    let deadline = Instant::now() + Duration::from_secs(2);
    while Instant::now() < deadline {
        if let Some(frame) = consumer.next(Duration::from_millis(100)).unwrap() {
            assert_ne!(frame.get("receipt-id"), Some("ack"), "it has overtaken the send");
        }
    }
    let status = arena.status();
    assert!(status["master"]["backlog_bytes"].as_u64() > status["master"]["backlog_bytes_max"].as_u64());
    arena.judge_memory("20,000 messages", 3, 0, &["producers_slowed"], false);
}

#[test]
fn transactions_share_what_there_is_and_idle_ones_have_to_go() {
    let arena = Arena::new("huge transactions", "frame = \"1MiB\"\ntransaction = \"4MiB\"");
    let count = size(12, 100);
    let frame = send_frame("/queue/T", 500 << 10, "transaction:t\n");
    let mut refused = 0;
    let mut open = Vec::new();
    for _ in 0..count {
        let mut wire = Wire::log_in(&arena.address()).unwrap();
        wire.write_all(b"BEGIN\ntransaction:t\n\n\0").unwrap();
        for _ in 0..7 {
            if wire.write_all(&frame).is_err() {
                break;
            }
        }
        let said = wire.answer(Duration::from_millis(300));
        if said.starts_with(b"ERROR") {
            let text = String::from_utf8_lossy(&said).into_owned();
            assert!(text.contains("refusal:full") && text.contains("transactions"), "{text}");
            refused += 1;
        }
        open.push(wire);
    }
    assert!(refused > 0, "a quarter of memory is not enough for all of them");
    assert!(arena.count("keeps_refused") > 0);
    arena.wait_count("idle_transactions_cut", 1);
    // There is room for somebody who gets on with it.
    let mut client = Stomp::connect(&arena.address()).unwrap();
    client.request(Frame::new("BEGIN").with("transaction", "u")).unwrap();
    let part = Frame::message("/queue/U", vec![b'y'; 500 << 10]).with("transaction", "u");
    client.request(part).unwrap();
    client.request(Frame::new("COMMIT").with("transaction", "u")).unwrap();
    arena.judge(
        &format!("{count} × 3.5 MiB"),
        count,
        0,
        &["keeps_refused", "idle_transactions_cut"],
    );
}

#[test]
fn a_flood_of_requests_that_cost_nothing_to_send_is_bounded() {
    let arena = Arena::new("subscribe and unsubscribe", "frame = \"1MiB\"\ndestinations = 2000");
    let lasts = Arena::lasts(3, 15);
    let floods: Vec<_> = (0..size(4, 16))
        .map(|number| {
            let (address, lasts) = (arena.address(), lasts.clone());
            thread::spawn(move || {
                let mut text = String::new();
                for at in 0..500 {
                    let queue = (at + number * 37) % 300;
                    text += &format!("SUBSCRIBE\nid:{at}\ndestination:/queue/S.{queue}\nselector:a = {at}\n\n\0UNSUBSCRIBE\nid:{at}\n\n\0");
                    text += "BEGIN\ntransaction:t\n\n\0ABORT\ntransaction:t\n\n\0";
                }
                Wire::log_in(&address).unwrap().pour(text.as_bytes(), lasts)
            })
        })
        .collect();
    let sent: u64 = floods.into_iter().map(|flood| flood.join().unwrap()).sum();
    arena.judge(&format!("{} MiB of frames", sent >> 20), 16, 0, &[]);
}
