//! No file descriptors left.

use std::time::Duration;

use ferrymq_tests::{Frame, Stomp, wait_until};
use rustix::process::{Pid, Resource, Rlimit, prlimit};

use crate::{arena::Arena, wire::Wire};

#[test]
fn clients_cannot_take_the_descriptors_of_the_journal_and_the_operator() {
    let arena = Arena::with_open_files("too few file descriptors", "frame = \"1MiB\"", 600);
    assert!(
        arena.node().log().contains("raise the limit of open files"),
        "the operator is told"
    );
    let max = arena.count("connections_max");
    assert!((100..600).contains(&max), "{max}");
    let wires: Vec<Wire> = (0..800).filter_map(|_| Wire::log_in(&arena.address()).ok()).collect();
    assert!(
        wires.len() as u64 >= max - 20 && wires.len() as u64 <= max,
        "{} of {max}",
        wires.len()
    );
    assert_eq!(arena.node().health(), Some(200), "the operator is served");
    assert!(arena.count("refused") > 0);
    // New segments can be made: the healthy client goes on for megabytes.
    let mut wires = wires;
    drop(wires.split_off(10));
    wait_until("their places are free", Duration::from_secs(30), || {
        arena.count("connections") < 20
    });
    let mut client = Stomp::connect(&arena.address()).unwrap();
    for _ in 0..20 {
        client
            .request(Frame::message("/queue/big", vec![b'x'; 900 << 10]))
            .unwrap();
    }
    arena.judge(
        "800 connections, 600 descriptors",
        max,
        0,
        &["refused", "accept_errors"],
    );
}

#[test]
fn the_accept_loop_survives_when_there_is_none_left() {
    let arena = Arena::new("no file descriptor left", "frame = \"1MiB\"");
    let pid = Pid::from_raw(arena.pid() as i32);
    let wires: Vec<Wire> = (0..20).map(|_| Wire::log_in(&arena.address()).unwrap()).collect();
    let open = arena.status()["open_files"].as_u64().unwrap();
    let before = prlimit(pid, Resource::Nofile, limit(open + 2)).unwrap();
    let late: Vec<_> = (0..8).map(|_| Wire::open(&arena.address())).collect();
    // Nobody can ask it now, since that would need one as well; the log tells.
    wait_until("accepting fails", Duration::from_secs(20), || {
        arena.node().log().contains("could not be accepted")
    });
    prlimit(pid, Resource::Nofile, before).unwrap();
    drop((wires, late));
    let mut client = Stomp::connect(&arena.address()).unwrap();
    client.request(Frame::message("/queue/after", b"x")).unwrap();
    assert!(arena.count("accept_errors") > 0);
    arena.judge("28 connections", 30, 0, &["accept_errors"]);
}

fn limit(files: u64) -> Rlimit {
    Rlimit {
        current: Some(files),
        maximum: Some(20_000),
    }
}
