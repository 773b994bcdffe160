//! Many connections: idle, fleeting, silent, trickling.

use std::{
    thread,
    time::{Duration, Instant},
};

use ferrymq_tests::{Stomp, wait_until};

use crate::{
    arena::{Arena, is_full_size, size},
    wire::Wire,
};

#[test]
fn thousands_of_idle_clients_cost_little() {
    let arena = Arena::new("idle connections", "frame = \"1MiB\"\nconnections = 6000");
    let count = size(600, 5_000);
    let idle: Vec<Wire> = (0..count).map(|_| Wire::log_in(&arena.address()).unwrap()).collect();
    assert!(arena.count("connections") >= count);
    assert_eq!(arena.count("not_logged_in"), 0);
    arena.judge(&count.to_string(), count, 0, &["connections"]);
    drop(idle);
    wait_until("their places are free", Duration::from_secs(30), || {
        arena.count("connections") < 10
    });
}

#[test]
fn a_flood_of_connections_that_come_and_go_is_survived() {
    let arena = Arena::new("connection flood", "frame = \"1MiB\"\nconnections = 400");
    let lasts = Arena::lasts(3, 20);
    let floods: Vec<_> = (0..4)
        .map(|number| {
            let (address, lasts) = (arena.address(), lasts.clone());
            thread::spawn(move || {
                let mut opened = 0u64;
                while lasts() {
                    if let Ok(mut wire) = Wire::open(&address) {
                        opened += 1;
                        // Some say half a word, some log in, most say nothing.
                        match (number + opened) % 4 {
                            0 => drop(wire.write_all(b"CONNE")),
                            1 => drop(wire.write_all(crate::wire::CONNECT)),
                            _ => {}
                        }
                    }
                }
                opened
            })
        })
        .collect();
    let opened: u64 = floods.into_iter().map(|flood| flood.join().unwrap()).sum();
    wait_until("all of them are gone", Duration::from_secs(30), || {
        arena.count("connections") < 10
    });
    arena.judge(
        &format!("{opened} opened and closed"),
        400,
        0,
        &["accepted", "refused", "strangers_cut"],
    );
}

#[test]
fn who_says_nothing_yields_its_place_and_is_cut_in_time() {
    let arena = Arena::new(
        "half-open connections",
        "frame = \"1MiB\"\nconnections = 100\nlogin_wait = \"3s\"",
    );
    let mut silent: Vec<Wire> = Vec::new();
    let begun = Instant::now();
    // Far more than there are places. Those that are refused are closed at once.
    for _ in 0..size(300, 2_000) {
        silent.extend(Wire::open(&arena.address()));
    }
    wait_until("all places are taken", Duration::from_secs(10), || {
        arena.count("connections") >= 99 || begun.elapsed() > Duration::from_secs(3)
    });
    // Strangers are as many as there may be, and still every client gets in. Each of these keeps its place.
    let clients: Vec<Stomp> = (0..50).map(|_| log_in_soon(&arena.address())).collect();
    assert!(arena.count("strangers_cut") > 0);
    for mut client in clients {
        client.request(ferrymq_tests::Frame::message("/queue/A", b"x")).unwrap();
    }
    // And those that nobody pushes out end by the deadline.
    wait_until("strangers are gone after login_wait", Duration::from_secs(20), || {
        arena.count("not_logged_in") == 0
    });
    assert!(silent.iter_mut().all(Wire::is_closed));
    arena.judge(
        &format!("{} silent", silent.len()),
        100,
        0,
        &["strangers_cut", "refused", "protocol_errors"],
    );
}

/// As a client with fail-over does it: again, where there was no place just now.
fn log_in_soon(address: &str) -> Stomp {
    ferrymq_tests::wait_for("a client gets in", Duration::from_secs(10), || {
        Stomp::connect(address).ok()
    })
    .0
}

#[test]
fn bytes_that_trickle_do_not_hold_a_place_for_long() {
    let arena = Arena::new("slowloris", "frame = \"1MiB\"\nconnections = 1000\nlogin_wait = \"2s\"");
    let count = size(200, 900);
    let mut slow: Vec<Wire> = (0..count).map(|_| Wire::open(&arena.address()).unwrap()).collect();
    let begun = Instant::now();
    let mut word = b"CONNECT\nlogin:".iter().chain([b'a'].iter().cycle());
    wait_until("each is closed, however it goes on", Duration::from_secs(30), || {
        let byte = [*word.next().unwrap()];
        // Those that are closed already take no more.
        slow.iter_mut().for_each(|wire| drop(wire.write_all(&byte)));
        slow.iter_mut().all(Wire::is_closed)
    });
    assert!(begun.elapsed() >= Duration::from_secs(1), "they had their time");
    arena.judge(&format!("{count} trickling"), count, 0, &["protocol_errors"]);
}

#[test]
fn one_address_has_no_more_than_its_share() {
    let arena = Arena::new("one address", "frame = \"1MiB\"\nconnections_per_address = 20");
    let wires: Vec<Wire> = (0..60).filter_map(|_| Wire::log_in(&arena.address()).ok()).collect();
    assert_eq!(wires.len(), 19, "the healthy client has the twentieth");
    assert!(arena.count("refused_address") >= 41);
    arena.judge("60", 20, 0, &["refused_address"]);
    if is_full_size() {
        println!("one address: {} places used", wires.len());
    }
}
