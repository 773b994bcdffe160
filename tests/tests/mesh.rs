//! Two groups of three, six processes: what is sent on any node of one is consumed on any node of the other, once.

#![allow(clippy::unwrap_used)] // Also in what the tests share, where the lint does not see that it is one.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use ferrymq_tests::{
    Discovery, Frame, History, Mesh, MeshBuilder, Stomp,
    load::{self, Sending},
    mesh::LINK_MAX,
    stomp::{ANSWER_MAX, marker},
    wait_for, wait_until,
};

const LOAD_MAX: Duration = Duration::from_secs(180);
/// P12.
const CONVERGE_MAX: Duration = Duration::from_secs(2);
/// How long a group may take to be elected a master, on a loaded machine.
const FAIL_OVER_MAX: Duration = Duration::from_secs(20);
/// How long another group may take to be linked with it then.
const FOUND_MAX: Duration = Duration::from_secs(2);
const NORTH: usize = 0;
const SOUTH: usize = 1;

fn sending(producer: &str, count: u64) -> Sending {
    Sending {
        producer: producer.into(),
        destination: "/queue/A".into(),
        count,
        size: 512,
    }
}

/// A connection to a slave of the group: the harder way (P10).
fn at_slave(mesh: &Mesh, group: usize) -> Stomp {
    let group = &mesh.groups[group];
    Stomp::connect(&group.nodes[group.slave()].address()).unwrap()
}

/// One message each way, over slaves.
fn exchange(mesh: &Mesh) {
    let (mut north, mut south) = (at_slave(mesh, NORTH), at_slave(mesh, SOUTH));
    for (from, to, queue) in [
        (&mut north, SOUTH, "/queue/TO.SOUTH"),
        (&mut south, NORTH, "/queue/TO.NORTH"),
    ] {
        let mut consumer = at_slave(mesh, to);
        consumer
            .request(Frame::subscribe("1", queue, "client-individual"))
            .unwrap();
        from.request(Frame::message(queue, "across").with("colour", "red"))
            .unwrap();
        let message = consumer.expect_message();
        assert_eq!(
            (&*message.text(), message.get("colour"), message.redelivered()),
            ("across", Some("red"), false)
        );
        consumer.ack(&message).unwrap();
        consumer.expect_no_more_from(from, marker(queue));
    }
    mesh.wait_nothing_in_doubt();
}

#[test]
fn groups_find_each_other_by_a_static_list() {
    exchange(&Mesh::two_groups("static", Discovery::Static));
}

#[test]
fn groups_find_each_other_by_multicast() {
    exchange(&Mesh::two_groups("multicast", Discovery::Multicast));
}

#[test]
fn groups_find_each_other_by_mdns() {
    exchange(&Mesh::two_groups("mdns", Discovery::Mdns));
}

#[test]
fn each_master_is_killed_while_messages_cross() {
    let mut mesh = Mesh::two_groups("kills", Discovery::Static);
    let history = Arc::new(History::default());
    let (north, south) = (mesh.groups[NORTH].addresses(), mesh.groups[SOUTH].addresses());
    let count = 6_000;
    let consumer = load::consume(south, "/queue/A", history.clone());
    let producer = load::produce(north, sending("p", count), history.clone());
    wait_until("a third has been sent", LOAD_MAX, || history.receipted() >= 1_000);
    let killed = mesh.groups[NORTH].kill_master();
    wait_until("half has been sent", LOAD_MAX, || history.receipted() >= 1_500);
    mesh.groups[NORTH].nodes[killed].start();
    wait_until("two thirds have been received", LOAD_MAX, || {
        history.received() >= 2_000
    });
    let killed = mesh.groups[SOUTH].kill_master();
    let before = history.received();
    let pause = wait_until("messages cross again", LOAD_MAX, || history.received() > before + 50);
    println!("from the kill of the receiving master to 50 further deliveries: {pause:?}");
    wait_until("more has been received", LOAD_MAX, || history.received() >= 2_500);
    mesh.groups[SOUTH].nodes[killed].start();
    producer.finish("everything is sent", LOAD_MAX);
    mesh.drain(&history, count as usize, &["queue://A"], LOAD_MAX);
    consumer.stop();
    let report = history.report();
    println!("{report}");
    report.assert_kept_in_order();
}

#[test]
fn both_masters_are_killed_at_once() {
    let mut mesh = Mesh::two_groups("both", Discovery::Static);
    let history = Arc::new(History::default());
    let consumer = load::consume(mesh.groups[SOUTH].addresses(), "/queue/A", history.clone());
    let producer = load::produce(mesh.groups[NORTH].addresses(), sending("p", 2_000), history.clone());
    wait_until("half has been received", LOAD_MAX, || history.received() >= 1_000);
    let killed = [NORTH, SOUTH].map(|group| mesh.groups[group].kill_master());
    for (group, node) in [NORTH, SOUTH].into_iter().zip(killed) {
        mesh.groups[group].master();
        mesh.groups[group].nodes[node].start();
    }
    producer.finish("everything is sent", LOAD_MAX);
    mesh.drain(&history, 2_000, &["queue://A"], LOAD_MAX);
    consumer.stop();
    let report = history.report();
    println!("{report}");
    report.assert_kept();
}

#[test]
fn demand_converges_within_two_seconds() {
    let mesh = Mesh::two_groups("demand", Discovery::Static);
    let mut consumers: Vec<Stomp> = (0..5).map(|_| at_slave(&mesh, SOUTH)).collect();
    for (n, consumer) in consumers.iter_mut().enumerate() {
        let queue = if n < 3 { "/queue/A" } else { "/queue/B" };
        consumer.request(Frame::subscribe("1", queue, "auto")).unwrap();
    }
    let begun = Instant::now();
    mesh.wait_demand(NORTH, "queue://A", 3);
    mesh.wait_demand(NORTH, "queue://B", 2);
    assert!(begun.elapsed() < CONVERGE_MAX, "P12: {:?}", begun.elapsed());
    consumers.truncate(1);
    let begun = Instant::now();
    mesh.wait_demand(NORTH, "queue://A", 1);
    mesh.wait_demand(NORTH, "queue://B", 0);
    assert!(begun.elapsed() < CONVERGE_MAX, "P12: {:?}", begun.elapsed());
}

#[test]
fn a_backlog_follows_its_consumers() {
    let mesh = Mesh::two_groups("follows", Discovery::Static);
    let mut north = at_slave(&mesh, NORTH);
    for n in 1..=200 {
        north.send(&Frame::message("/queue/A", n.to_string())).unwrap();
    }
    north.request(Frame::message("/queue/A", "last")).unwrap();
    // The consumers are in the south, take a part, and move to the north, where the messages came from.
    let mut south = at_slave(&mesh, SOUTH);
    let few = Frame::subscribe("1", "/queue/A", "client-individual").with("activemq.prefetchSize", 50);
    south.request(few.clone()).unwrap();
    for n in 1..=50 {
        let message = south.expect_message();
        assert_eq!(message.text(), n.to_string());
        south
            .send(&Frame::new("ACK").with("id", message.get("ack").unwrap()))
            .unwrap();
    }
    south.request(Frame::new("UNSUBSCRIBE").with("id", "1")).unwrap();
    drop(south);
    let begun = Instant::now();
    north.request(few).unwrap();
    let mut rest = Vec::new();
    while rest.len() < 151 {
        let message = north.expect_message();
        north
            .send(&Frame::new("ACK").with("id", message.get("ack").unwrap()))
            .unwrap();
        rest.push(message.text());
    }
    println!("the rest came within {:?}", begun.elapsed());
    assert!(
        begun.elapsed() < CONVERGE_MAX,
        "stranded messages return: {:?}",
        begun.elapsed()
    );
    rest.sort();
    let mut expected: Vec<String> = (51..=200).map(|n| n.to_string()).chain(["last".to_owned()]).collect();
    expected.sort();
    assert_eq!(rest, expected);
    // Behind whatever the south might hand over twice.
    let mut south = at_slave(&mesh, SOUTH);
    north.expect_no_more_from(&mut south, marker("/queue/A"));
}

#[test]
fn local_consumers_come_first() {
    let mesh = Mesh::two_groups("local", Discovery::Static);
    let (mut north, mut south) = (at_slave(&mesh, NORTH), at_slave(&mesh, SOUTH));
    for consumer in [&mut north, &mut south] {
        consumer.request(Frame::subscribe("1", "/queue/A", "auto")).unwrap();
    }
    mesh.wait_demand(NORTH, "queue://A", 1);
    let mut producer = at_slave(&mesh, NORTH);
    for n in 1..=50 {
        producer.request(Frame::message("/queue/A", n.to_string())).unwrap();
    }
    for n in 1..=50 {
        assert_eq!(north.expect_message().text(), n.to_string());
    }
    // Only now is anything for the south, and it comes behind whatever should not have crossed.
    north.request(Frame::new("UNSUBSCRIBE").with("id", "1")).unwrap();
    south.expect_no_more_from(&mut producer, marker("/queue/A"));
}

#[test]
fn selectors_are_heeded_before_a_message_crosses() {
    let mesh = Mesh::two_groups("selectors", Discovery::Static);
    let mut south = at_slave(&mesh, SOUTH);
    south
        .request(Frame::subscribe("1", "/queue/A", "auto").with("selector", "colour = 'red'"))
        .unwrap();
    mesh.wait_demand(NORTH, "queue://A", 1);
    let mut north = at_slave(&mesh, NORTH);
    for colour in ["blue", "red", "green"] {
        north
            .request(Frame::message("/queue/A", colour).with("colour", colour))
            .unwrap();
    }
    assert_eq!(south.expect_message().text(), "red");
    south.expect_no_more_from(&mut north, marker("/queue/A").with("colour", "red"));
    mesh.wait_nothing_in_doubt();
    assert_eq!(
        mesh.groups[NORTH].messages("queue://A"),
        2,
        "the others stay where they are"
    );
}

#[test]
fn topics_cross_once_and_reach_every_subscriber() {
    let mesh = Mesh::two_groups("topics", Discovery::Static);
    let mut subscribers: Vec<Stomp> = (0..3).map(|_| at_slave(&mesh, SOUTH)).collect();
    for subscriber in &mut subscribers {
        subscriber
            .request(Frame::subscribe("1", "/topic/NEWS", "auto"))
            .unwrap();
    }
    wait_until("the north knows", ANSWER_MAX, || mesh.demand(NORTH, "topic://NEWS") > 0);
    let mut north = at_slave(&mesh, NORTH);
    north.request(Frame::message("/topic/NEWS", "extra")).unwrap();
    // A copy too many would come before the message that follows.
    north.request(Frame::message("/topic/NEWS", "next")).unwrap();
    for subscriber in &mut subscribers {
        assert_eq!(subscriber.expect_message().text(), "extra");
        assert_eq!(subscriber.expect_message().text(), "next");
    }
    wait_until("both are counted", ANSWER_MAX, || mesh.sent(NORTH) >= 2);
    assert_eq!(mesh.sent(NORTH), 2, "each crossed once");
}

#[test]
fn figures_of_links_are_as_fresh_as_those_of_queues() {
    let mesh = Mesh::two_groups("fresh", Discovery::Static);
    let (mut north, mut south) = (at_slave(&mesh, NORTH), at_slave(&mesh, SOUTH));
    south.request(Frame::subscribe("1", "/queue/A", "auto")).unwrap();
    mesh.wait_demand(NORTH, "queue://A", 1);
    for n in 1..=10 {
        north.request(Frame::message("/queue/A", n.to_string())).unwrap();
        assert_eq!(south.expect_message().text(), n.to_string());
        // What has arrived was sent, and whoever asks after that is told so.
        assert_eq!(mesh.sent(NORTH), n);
    }
}

#[test]
fn a_durable_subscription_gets_what_was_published_elsewhere_while_it_was_away() {
    let mesh = Mesh::two_groups("durable", Discovery::Static);
    let group = &mesh.groups[SOUTH];
    let address = group.nodes[group.slave()].address();
    let subscribe = || {
        let mut stomp = Stomp::connect_with(&address, &[("client-id", "me")]).unwrap();
        let frame = Frame::subscribe("d", "/topic/NEWS", "client-individual");
        stomp.request(frame.with("activemq.subscriptionName", "news")).unwrap();
        stomp
    };
    drop(subscribe());
    wait_until("the north knows", ANSWER_MAX, || mesh.demand(NORTH, "topic://NEWS") > 0);
    let mut north = at_slave(&mesh, NORTH);
    for n in 1..=3 {
        north.request(Frame::message("/topic/NEWS", n.to_string())).unwrap();
    }
    let mut back = subscribe();
    for n in 1..=3 {
        let message = back.expect_message();
        assert_eq!(message.text(), n.to_string());
        back.ack(&message).unwrap();
    }
    back.expect_no_more_from(&mut north, marker("/topic/NEWS"));
}

#[test]
fn replies_find_their_temporary_queue_across_groups() {
    let mesh = Mesh::two_groups("replies", Discovery::Static);
    let (mut client, mut server) = (at_slave(&mesh, NORTH), at_slave(&mesh, SOUTH));
    client
        .request(Frame::subscribe("1", "/temp-queue/answers", "auto"))
        .unwrap();
    server.request(Frame::subscribe("1", "/queue/SERVICE", "auto")).unwrap();
    client
        .request(Frame::message("/queue/SERVICE", "2+2").with("reply-to", "/temp-queue/answers"))
        .unwrap();
    let question = server.expect_message();
    server
        .request(Frame::message(question.get("reply-to").unwrap(), "4"))
        .unwrap();
    assert_eq!(client.expect_message().text(), "4");
}

#[test]
fn a_link_that_is_cut_comes_back_and_nothing_is_lost() {
    let mut mesh = Mesh::two_groups("cut", Discovery::Static);
    let history = Arc::new(History::default());
    let consumer = load::consume(mesh.groups[SOUTH].addresses(), "/queue/A", history.clone());
    let producer = load::produce(mesh.groups[NORTH].addresses(), sending("p", 1_500), history.clone());
    wait_until("a third has crossed", LOAD_MAX, || history.received() >= 500);
    // The whole other group is gone for a while; the north goes on taking messages.
    for node in &mut mesh.groups[SOUTH].nodes {
        node.kill();
    }
    producer.finish("the north takes everything meanwhile", LOAD_MAX);
    mesh.groups[SOUTH].start();
    mesh.wait_linked();
    mesh.drain(&history, 1_500, &["queue://A"], LOAD_MAX);
    consumer.stop();
    let report = history.report();
    println!("{report}");
    report.assert_kept_in_order();
}

/// As a site writes it that gives every node the same list.
#[test]
fn lists_that_name_each_other_and_themselves_come_to_rest() {
    let mesh = MeshBuilder::new("rest")
        .group("north", 3)
        .group("south", 3)
        .listing_itself(NORTH)
        .link(NORTH, SOUTH)
        .link(SOUTH, NORTH)
        .listing_itself(SOUTH)
        .start();
    for group in [NORTH, SOUTH] {
        // Whatever is dialled or waits to be dialled again is listed.
        wait_until("nothing but the link is left to do", LINK_MAX, || {
            mesh.links_of(group).len() == 1
        });
    }
    exchange(&mesh);
    for group in [NORTH, SOUTH] {
        let log = mesh.groups[group].nodes[mesh.groups[group].master()].log();
        let own = log.lines().filter(|line| line.contains("of our own group")).count();
        assert_eq!(own, 3, "each of its own addresses is told once");
        assert_eq!(mesh.links_of(group).len(), 1);
    }
}

/// The north alone has a connector, so nobody comes to it when the south has another master.
#[test]
fn a_new_master_of_a_group_that_only_listens_is_found_at_once() {
    let mut mesh = Mesh::two_groups("listening", Discovery::Static);
    let said = |mesh: &Mesh| {
        let log = mesh.groups[NORTH].nodes[mesh.groups[NORTH].master()].log();
        let lines = |what: &str| log.lines().filter(|line| line.contains(what)).count();
        (
            lines("the link with another group is lost"),
            lines("linked with another group"),
        )
    };
    let before = said(&mesh);
    for _ in 0..3 {
        let killed = mesh.groups[SOUTH].kill_master();
        let (_, elected) = wait_for("there is another master", FAIL_OVER_MAX, || {
            let nodes = &mesh.groups[SOUTH].nodes;
            (0..3).find(|&at| at != killed && nodes[at].is_master())
        });
        let found = wait_until("it is linked", FAIL_OVER_MAX, || {
            mesh.linked_to(NORTH, SOUTH)
                .is_some_and(|node| node != killed as u64 + 1)
        });
        println!("elected after {elected:?}, found {found:?} later");
        assert!(found < FOUND_MAX, "{found:?}");
        mesh.groups[SOUTH].nodes[killed].start();
        mesh.groups[SOUTH].settle(FAIL_OVER_MAX);
    }
    let after = said(&mesh);
    assert_eq!(
        (after.0 - before.0, after.1 - before.1),
        (3, 3),
        "one line for each loss and each return"
    );
}

#[test]
fn three_groups_in_a_line() {
    let mesh = MeshBuilder::new("line")
        .group("west", 1)
        .group("middle", 3)
        .group("east", 1)
        .link(1, 0)
        .link(1, 2)
        .start();
    let mut east = Stomp::connect(&mesh.groups[2].nodes[0].address()).unwrap();
    east.request(Frame::subscribe("1", "/queue/A", "client-individual"))
        .unwrap();
    mesh.wait_demand(0, "queue://A", 1);
    let mut west = Stomp::connect(&mesh.groups[0].nodes[0].address()).unwrap();
    for n in 1..=100 {
        west.request(Frame::message("/queue/A", n.to_string())).unwrap();
    }
    for n in 1..=100 {
        let message = east.expect_message();
        assert_eq!(message.text(), n.to_string());
        east.ack(&message).unwrap();
    }
    let mut news = Stomp::connect(&mesh.groups[2].nodes[0].address()).unwrap();
    news.request(Frame::subscribe("1", "/topic/NEWS", "auto")).unwrap();
    wait_until("the west knows", ANSWER_MAX, || mesh.demand(0, "topic://NEWS") > 0);
    west.request(Frame::message("/topic/NEWS", "far")).unwrap();
    assert_eq!(news.expect_message().text(), "far");
    news.expect_no_more_from(&mut west, marker("/topic/NEWS"));
    east.expect_no_more_from(&mut west, marker("/queue/A"));
}
