//! Frames that are too large, endless, or none at all, at every port.

use std::{net::UdpSocket, time::Duration};

use ferrymq_tests::Stomp;

use crate::{
    arena::{Arena, size},
    wire::{CONNECT, Wire},
};

const ANSWER: Duration = Duration::from_secs(10);

#[test]
fn bad_stomp_frames_end_their_own_connection_with_an_error() {
    let arena = Arena::new("malformed frames", "frame = \"1MiB\"");
    let long = "x".repeat(40 << 10);
    let many: String = (0..600).map(|n| format!("h{n}:v\n")).collect();
    let heavy: String = (0..400).map(|n| format!("h{n}:{}\n", "v".repeat(900))).collect();
    let bad: Vec<(&str, Vec<u8>)> = vec![
        (
            "content-length is not a number",
            b"SEND\ndestination:/queue/A\ncontent-length:-1\n\nx\0".into(),
        ),
        (
            "content-length is not a number",
            b"SEND\ndestination:/queue/A\ncontent-length:1e9\n\nx\0".into(),
        ),
        (
            "more than 1048576 bytes",
            b"SEND\ndestination:/queue/A\ncontent-length:4294967296\n\nx\0".into(),
        ),
        (
            "more than 1048576 bytes",
            b"SEND\ndestination:/queue/A\ncontent-length:99999999999999999999999\n\nx\0".into(),
        ),
        (
            "more than 1048576 bytes",
            [b"SEND\ndestination:/queue/A\n\n".to_vec(), vec![b'x'; 3 << 20]].concat(),
        ),
        (
            "no NUL follows",
            b"SEND\ndestination:/queue/A\ncontent-length:1\n\nabc\0".into(),
        ),
        (
            "a header line has more than",
            format!("SEND\nlong:{long}\n\n\0").into_bytes(),
        ),
        (
            "a header line has more than",
            [b"SEND\n".to_vec(), vec![b'a'; 1 << 20]].concat(),
        ),
        ("more than 500 headers", format!("SEND\n{many}\n\0").into_bytes()),
        (
            "the headers of a frame have more than",
            format!("SEND\n{heavy}\n\0").into_bytes(),
        ),
        (
            "a NUL stands among",
            b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03\n".into(),
        ),
        ("unknown command", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".into()),
        ("a header line needs", b"SEND\nnothing\n\n\0".into()),
        ("undefined escape", b"SEND\na:\\t\n\n\0".into()),
        ("not UTF-8", b"SEND\na:\xff\xfe\n\n\0".into()),
        ("NUL stands among the headers", b"SEND\na:b\0".into()),
        ("already connected", CONNECT.into()),
        ("has no place here", b"CONNECTED\n\n\0".into()),
        (
            "receipt header has more than",
            format!("SEND\ndestination:/queue/A\nreceipt:{}\n\n\0", "r".repeat(2000)).into_bytes(),
        ),
    ];
    for (expected, bytes) in &bad {
        for logged_in in [true, false] {
            let mut wire = if logged_in {
                Wire::log_in(&arena.address()).unwrap()
            } else {
                Wire::open(&arena.address()).unwrap()
            };
            // The node closes as soon as it has seen enough, so not all of it may be taken.
            let _ = wire.write_all(bytes);
            if !logged_in && *bytes == CONNECT {
                continue;
            }
            let answer = String::from_utf8_lossy(&wire.answer(ANSWER)).into_owned();
            // What comes over a connection that is closed with bytes unread may be lost on the way.
            if logged_in && bytes.len() < (64 << 10) {
                assert!(
                    answer.starts_with("ERROR") && answer.contains(expected),
                    "{expected}: {answer}"
                );
            }
            ferrymq_tests::wait_until("the connection ends", ANSWER, || wire.is_closed());
        }
    }
    assert!(arena.count("protocol_errors") >= bad.len() as u64);
    arena.judge(
        &format!("{} kinds, with and without log-in", bad.len()),
        40,
        0,
        &["protocol_errors"],
    );
}

#[test]
fn endless_headers_and_bodies_of_strangers_take_no_memory() {
    let arena = Arena::new("endless heads and bodies", "frame = \"1MiB\"\nconnections = 400");
    let count = size(40, 300);
    let mut wires: Vec<Wire> = (0..count).map(|_| Wire::open(&arena.address()).unwrap()).collect();
    let head = b"CONNECT\n".to_vec();
    let endless = b"name:value of an endless head\n".repeat(1000);
    let lasts = Arena::lasts(3, 10);
    for (at, wire) in wires.iter_mut().enumerate() {
        let _ = wire.write_all(&head);
        if at % 2 == 0 {
            wire.pour(&endless, || false);
            let _ = wire.write_all(&endless);
            let _ = wire.write_all(&endless);
        } else {
            let _ = wire.write_all(b"content-length:33000000\n\n");
            let _ = wire.write_all(&endless);
        }
        if !lasts() {
            break;
        }
    }
    ferrymq_tests::wait_until("each of them is closed", Duration::from_secs(30), || {
        wires.iter_mut().all(Wire::is_closed)
    });
    arena.judge(&format!("{count} connections"), count, 0, &["protocol_errors"]);
}

#[test]
fn frames_that_are_begun_and_not_completed_share_what_there_is() {
    let arena = Arena::new("unfinished frames", "frame = \"4MiB\"");
    let count = size(40, 400);
    let mut wires: Vec<Wire> = (0..count).map(|_| Wire::log_in(&arena.address()).unwrap()).collect();
    let part = vec![b'x'; 3 << 20];
    for wire in &mut wires {
        let _ = wire.write_all(b"SEND\ndestination:/queue/A\ncontent-length:4000000\n\n");
        // As much as is taken within the time for one write.
        let _ = wire.write_all(&part);
    }
    // Memory is short; the healthy client goes on, and those that do not complete their frame have to go.
    arena.wait_count("slow_senders_cut", 1);
    let mut late = Stomp::connect(&arena.address()).unwrap();
    late.request(ferrymq_tests::Frame::message("/queue/B", vec![b'y'; 1 << 20]))
        .unwrap();
    arena.judge(&format!("{count} × 3 MiB"), count, 0, &["slow_senders_cut"]);
}

#[test]
fn garbage_at_the_other_ports_does_no_harm() {
    let arena = Arena::new("garbage at peer, link and admin", "frame = \"1MiB\"");
    let ports = arena.node().ports;
    let noise: Vec<u8> = (0..64 << 10)
        .map(|n: u32| (n.wrapping_mul(2_654_435_761) >> 13) as u8)
        .collect();
    let peer = format!("{}:{}", ports.host, ports.peer);
    let admin = format!("{}:{}", ports.host, ports.admin);
    let mut held: Vec<Wire> = Vec::new();
    for number in 0..size(150, 1_000) {
        for (address, head) in [
            (&peer, &b"FMQP\x01\0"[..]),
            (&admin, b"GET /api/status HTTP/1.1\r\nHost: localhost\r\nX: "),
        ] {
            let Ok(mut wire) = Wire::open(address) else { continue };
            let _ = wire.write_all(if number % 2 == 0 { head } else { b"" });
            if number % 3 != 0 {
                let _ = wire.write_all(&noise[number..]);
            }
            // Half of them stay open and say no more; the admin port's share of that is below.
            if number % 2 == 0 && *address == peer {
                held.push(wire);
            }
        }
    }
    let udp = UdpSocket::bind((ports.host, 0)).unwrap();
    for number in 0..size(20_000, 200_000) {
        let at = number % 60_000;
        // A full send buffer is no reason to stop.
        let _ = udp.send_to(&noise[at..at + 1 + number % 1400], (ports.host, ports.link));
    }
    assert_eq!(arena.node().health(), Some(200));
    arena.judge("150 each and 20,000 datagrams or more", 300, 0, &[]);
    // That the nodes of its group still get in is looked at in doors.rs, where there are some.
    ferrymq_tests::wait_until("unfinished handshakes end", Duration::from_secs(30), || {
        held.iter_mut().all(Wire::is_closed)
    });
    assert!(arena.turned_away("peer", "garbage") > 0 && arena.turned_away("peer", "unfinished") > 0);
    assert_eq!(
        arena.turned_away("link", "untrusted"),
        0,
        "garbage does not even begin a handshake"
    );
    assert_eq!(arena.node().health(), Some(200));
}

#[test]
fn slow_requests_do_not_shut_the_operator_out() {
    let arena = Arena::new("slow requests at the admin port", "frame = \"1MiB\"");
    let ports = arena.node().ports;
    let admin = format!("{}:{}", ports.host, ports.admin);
    // More than the port holds at one time.
    let mut slow: Vec<Wire> = (0..size(100, 300)).filter_map(|_| Wire::open(&admin).ok()).collect();
    slow.iter_mut()
        .for_each(|wire| drop(wire.write_all(b"GET /api/status HTTP/1.1\r\nHost: ")));
    ferrymq_tests::wait_until("the operator is answered", Duration::from_secs(40), || {
        arena.node().health() == Some(200)
    });
    ferrymq_tests::wait_until("those that were cut are counted", Duration::from_secs(40), || {
        arena.turned_away("admin", "cut") >= 60
    });
    arena.judge(&format!("{} unfinished requests", slow.len()), 300, 0, &[]);
}
