//! P8 between groups: a group that is full takes nothing from another one, lets consumers in, and drains by itself.

#![allow(clippy::unwrap_used)] // Also in what the tests share, where the lint does not see that it is one.

use std::{sync::Arc, time::Duration};

use ferrymq_tests::{
    Frame, History, Mesh, MeshBuilder, Stomp,
    disk::PowerDisk,
    load::{self, Sending},
    scratch::Scratch,
    skip, wait_until,
};

const NORTH: usize = 0;
const SOUTH: usize = 1;
const LOAD_MAX: Duration = Duration::from_secs(120);
const BODY_BYTES: usize = 64 << 10;

fn sending(producer: &str, queue: &str, count: u64) -> Sending {
    Sending {
        producer: producer.into(),
        destination: queue.into(),
        count,
        size: BODY_BYTES,
    }
}

fn is_full(mesh: &Mesh, group: usize) -> bool {
    mesh.groups[group].status()["master"]["store_full"] == true
}

/// What the north may send to consumers of a queue elsewhere.
fn credit(mesh: &Mesh, queue: &str) -> u64 {
    let status = mesh.groups[NORTH].status();
    let demand = status["master"]["mesh"]["demand"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let rows = demand.iter().filter(|row| row["destination"] == queue);
    rows.flat_map(|row| row["groups"].as_array().cloned().unwrap_or_default())
        .filter_map(|group| group["credit"].as_u64())
        .sum()
}

/// A consumer that takes and acknowledges nothing.
fn idle_consumer(mesh: &Mesh, queue: &str) -> Stomp {
    let mut consumer = Stomp::connect(&mesh.groups[SOUTH].addresses()[0]).unwrap();
    let subscribe = Frame::subscribe("1", queue, "client-individual");
    consumer
        .request(subscribe.with("activemq.prefetchSize", 1_000))
        .unwrap();
    consumer
}

#[test]
fn a_full_group_takes_nothing_from_another_until_it_has_room_p8() {
    let mesh = MeshBuilder::new("full")
        .group("north", 1)
        .group("south", 1)
        .link(0, 1)
        .more(
            "\n[store]\nsegment = \"1MiB\"\nreserve = \"4MiB\"\ncache = \"1MiB\"\nlimit = \"6MiB\"\n\n[limits]\nframe = \
             \"512KiB\"\n",
        )
        .start();
    let history = Arc::new(History::default());
    // Far more than fits: its producer waits.
    let filler = load::produce(
        mesh.groups[SOUTH].addresses(),
        sending("filler", "/queue/REST", 200),
        history.clone(),
    );
    wait_until("the south is full", LOAD_MAX, || is_full(&mesh, SOUTH));

    let mut idle = idle_consumer(&mesh, "/queue/ACROSS");
    mesh.wait_demand(NORTH, "queue://ACROSS", 1);
    wait_until("the north sees no credit", LOAD_MAX, || {
        credit(&mesh, "queue://ACROSS") == 0
    });
    let mut north = Stomp::connect(&mesh.groups[NORTH].addresses()[0]).unwrap();
    for n in 1..=40 {
        let message = Frame::message("/queue/ACROSS", vec![b'x'; BODY_BYTES]);
        north.request(message.with("p", "across").with("n", n)).unwrap();
    }
    // Whatever had been sent would be there before the word of these.
    for (n, queue) in ["/queue/B", "/queue/C", "/queue/D"].into_iter().enumerate() {
        idle.request(Frame::subscribe(&format!("more{n}"), queue, "auto"))
            .unwrap();
        mesh.wait_demand(NORTH, &queue.replace("/queue/", "queue://"), 1);
    }
    assert_eq!(mesh.groups[SOUTH].messages("queue://ACROSS"), 0, "it was full");
    assert_eq!(mesh.groups[NORTH].messages("queue://ACROSS"), 40);

    // Its own consumers make room, and nobody else has to do anything.
    let drain = load::consume(mesh.groups[SOUTH].addresses(), "/queue/REST", history.clone());
    filler.finish("the producer goes on", LOAD_MAX);
    for n in 1..=40 {
        let message = idle.expect_message();
        assert_eq!(message.get("n"), Some(&*n.to_string()));
        idle.ack(&message).unwrap();
    }
    wait_until("everything is consumed", LOAD_MAX, || history.received() >= 200);
    wait_until("the south has room", LOAD_MAX, || !is_full(&mesh, SOUTH));
    mesh.wait_nothing_in_doubt();
    drain.stop();
}

/// Each is full of what only the other one's consumers want.
#[test]
fn two_full_groups_do_not_wait_for_each_other_for_ever() {
    let mesh = MeshBuilder::new("both-full")
        .group("north", 1)
        .group("south", 1)
        .link(0, 1)
        .more(
            "\n[store]\nsegment = \"1MiB\"\nreserve = \"4MiB\"\ncache = \"1MiB\"\nlimit = \"6MiB\"\n\n[limits]\nframe = \
             \"512KiB\"\n",
        )
        .start();
    let history = Arc::new(History::default());
    let queues = ["/queue/TO.SOUTH", "/queue/TO.NORTH"];
    let producers = [NORTH, SOUTH].map(|group| {
        let sending = sending(queues[group], queues[group], 150);
        load::produce(mesh.groups[group].addresses(), sending, history.clone())
    });
    for group in [NORTH, SOUTH] {
        wait_until("both are full", LOAD_MAX, || is_full(&mesh, group));
    }
    let consumers = [NORTH, SOUTH].map(|group| {
        let from = queues[1 - group];
        load::consume(mesh.groups[group].addresses(), from, history.clone())
    });
    for producer in producers {
        producer.finish("everything is sent", LOAD_MAX);
    }
    mesh.drain(&history, 300, &["queue://TO.SOUTH", "queue://TO.NORTH"], LOAD_MAX);
    drop(consumers);
    history.report().assert_kept();
}

/// Messages for a consumer that takes all and acknowledges none come until the disks of its group are full.
#[test]
fn a_small_disk_is_filled_from_another_group_and_nobody_dies_of_it_p8() {
    if let Some(why) = PowerDisk::missing() {
        let name = "a_small_disk_is_filled_from_another_group_and_nobody_dies_of_it_p8";
        return skip::skipped(name, &why);
    }
    let scratch = Scratch::new("small-disk");
    let disks: Vec<PowerDisk> = (1..=3)
        .map(|number| PowerDisk::new(scratch.path(), &format!("south{number}"), 64))
        .collect();
    let mesh = MeshBuilder::new("small-disk")
        .group("north", 1)
        .group("south", 3)
        .link(0, 1)
        .data(scratch.path())
        .more(
            "\n[store]\nsegment = \"2MiB\"\nreserve = \"4MiB\"\ncache = \"1MiB\"\n\n[limits]\nframe = \"1MiB\"\ntransaction \
             = \"1MiB\"\n",
        )
        .start();
    let history = Arc::new(History::default());
    let idle = idle_consumer(&mesh, "/queue/ACROSS");
    mesh.wait_demand(NORTH, "queue://ACROSS", 1);
    let count = 2_000;
    let producer = load::produce(
        mesh.groups[NORTH].addresses(),
        sending("p", "/queue/ACROSS", count),
        history.clone(),
    );
    wait_until("the south is full", LOAD_MAX, || is_full(&mesh, SOUTH));
    producer.finish("the north takes everything", LOAD_MAX);
    assert!(is_full(&mesh, SOUTH));
    drop(idle);

    // Somebody comes who acknowledges. The disks have not grown.
    let consumer = load::consume(mesh.groups[SOUTH].addresses(), "/queue/ACROSS", history.clone());
    mesh.drain(&history, count as usize, &["queue://ACROSS"], LOAD_MAX);
    consumer.stop();
    let report = history.report();
    println!("{report}");
    report.assert_kept();
    let mut terms = 0;
    for node in &mesh.groups[SOUTH].nodes {
        node.assert_alive();
        terms += node.log().matches("this node is the master").count();
    }
    println!("{terms} terms");
    assert!(terms <= 3, "{terms} terms of masters");
    drop(mesh);
    drop(disks);
}
