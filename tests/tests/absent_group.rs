//! A group that cannot be reached: what it was promised is kept through everything that happens to the others, until its own
//! word or the operator's ends it; and it stops nobody else's work meanwhile.

#![allow(clippy::unwrap_used)] // Also in what the tests share, where the lint does not see that it is one.

use std::{
    collections::BTreeSet,
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use ferrymq_tests::{Frame, GroupOfNodes, Mesh, MeshBuilder, Stomp, binary, wait_until};
use serde_json::Value;

const WAIT_MAX: Duration = Duration::from_secs(60);
const WEST: usize = 0;
const MID: usize = 1;
const EAST: usize = 2;

fn configured(mut mesh: Mesh, variables: &[(&str, &str)]) -> Mesh {
    for node in mesh.groups.iter_mut().flat_map(|group| &mut group.nodes) {
        for (name, value) in variables {
            node.set_environment(name, value);
        }
    }
    mesh.groups.iter_mut().for_each(GroupOfNodes::start);
    mesh.wait_linked();
    mesh
}

/// West – mid – east, where what is not wanted any more goes after a second.
fn line(name: &str, mid: usize) -> Mesh {
    let mesh = MeshBuilder::new(name)
        .group("west", 1)
        .group("mid", mid)
        .group("east", 1)
        .link(MID, WEST)
        .link(MID, EAST);
    configured(mesh.prepare(), &[("FERRYMQ_MESH_TOPIC_LINGER", "1s")])
}

fn connect(group: &GroupOfNodes) -> Stomp {
    Stomp::connect(&group.nodes[group.master()].address()).unwrap()
}

fn subscribe_durably(group: &GroupOfNodes) -> Stomp {
    let mut stomp = Stomp::connect_with(&group.nodes[group.master()].address(), &[("client-id", "me")]).unwrap();
    let frame = Frame::subscribe("d", "/topic/NEWS", "client-individual");
    stomp.request(frame.with("activemq.subscriptionName", "news")).unwrap();
    stomp
}

fn publish(group: &GroupOfNodes, texts: &[&str]) {
    let mut stomp = connect(group);
    for text in texts {
        stomp.request(Frame::message("/topic/NEWS", text)).unwrap();
    }
}

/// What is kept of a topic for other groups.
fn kept(group: &GroupOfNodes, topic: &str) -> u64 {
    let status = group.status();
    let name = format!("topic://{topic} for group ");
    let queues = status["master"]["queues"].as_array().cloned().unwrap_or_default();
    let backlogs = queues
        .iter()
        .filter(|queue| queue["name"].as_str().unwrap().starts_with(&name));
    backlogs.filter_map(|queue| queue["messages"].as_u64()).sum()
}

fn has_backlog(group: &GroupOfNodes, topic: &str) -> bool {
    let status = group.status();
    let name = format!("topic://{topic} for group ");
    let queues = status["master"]["queues"].as_array().cloned().unwrap_or_default();
    queues
        .iter()
        .any(|queue| queue["name"].as_str().unwrap().starts_with(&name))
}

/// Takes the east away, and waits until the others know: what they publish from then on is offered to nobody, so that no
/// offer under way holds what is kept for it.
fn lose_east(mesh: &mut Mesh) {
    mesh.groups[EAST].nodes[0].kill();
    for at in [WEST, MID] {
        wait_until("the east is known to be away", WAIT_MAX, || {
            let status = mesh.groups[at].status();
            let demand = status["master"]["mesh"]["demand"]
                .as_array()
                .cloned()
                .unwrap_or_default();
            let news = demand.iter().filter(|row| row["destination"] == "topic://NEWS");
            let mut groups = news.flat_map(|row| row["groups"].as_array().cloned().unwrap_or_default());
            groups.any(|group| group["group"] == "east" && group["linked"] == false)
        });
    }
}

/// Lets a topic that one group wanted of another become unwanted, after whatever else was to become so: once its backlog has
/// gone, theirs would have.
fn let_linger_pass(mesh: &Mesh, wanted_by: usize, kept_by: usize, topic: &str) {
    let mut subscriber = connect(&mesh.groups[wanted_by]);
    subscriber
        .request(Frame::subscribe("c", &format!("/topic/{topic}"), "auto"))
        .unwrap();
    wait_until("the control is wanted", WAIT_MAX, || {
        has_backlog(&mesh.groups[kept_by], topic)
    });
    drop(subscriber);
    wait_until("the control is dropped", WAIT_MAX, || {
        !has_backlog(&mesh.groups[kept_by], topic)
    });
}

#[track_caller]
fn expect_all(subscriber: &mut Stomp, texts: &[&str]) {
    let mut expected: BTreeSet<String> = texts.iter().map(|text| (*text).to_owned()).collect();
    while !expected.is_empty() {
        let message = subscriber.expect_message();
        assert!(expected.remove(&message.text()), "{} was not to come", message.text());
        subscriber.ack(&message).unwrap();
    }
}

#[test]
fn what_an_absent_group_was_promised_outlives_a_restart_on_the_way_p2() {
    let mut mesh = line("absent-restart", 1);
    drop(subscribe_durably(&mesh.groups[EAST]));
    for at in [WEST, MID] {
        mesh.wait_demand(at, "topic://NEWS", 1);
    }
    lose_east(&mut mesh);
    publish(&mesh.groups[WEST], &["w1", "w2", "w3", "w4", "w5"]);
    publish(&mesh.groups[MID], &["m1", "m2", "m3", "m4", "m5"]);
    mesh.groups[MID].nodes[0].kill();
    mesh.groups[MID].start();
    let_linger_pass(&mesh, MID, WEST, "CONTROL.WEST");
    let_linger_pass(&mesh, WEST, MID, "CONTROL.MID");
    // Whoever publishes only now publishes for it, too.
    publish(&mesh.groups[WEST], &["w6"]);
    publish(&mesh.groups[MID], &["m6"]);
    for at in [WEST, MID] {
        assert_eq!(kept(&mesh.groups[at], "NEWS"), 6, "group {at}");
        let status = mesh.groups[at].status();
        let kept = status["master"]["mesh"]["kept"].as_array().unwrap().clone();
        let east = kept.iter().find(|kept| kept["group"] == "east").unwrap();
        assert_eq!(
            (&east["linked"], east["messages"].as_u64()),
            (&Value::Bool(false), Some(6))
        );
        assert!(east["away_since_ms"].is_i64(), "{east}");
    }
    mesh.groups[EAST].start();
    let mut subscriber = subscribe_durably(&mesh.groups[EAST]);
    let all = ["w1", "w2", "w3", "w4", "w5", "w6", "m1", "m2", "m3", "m4", "m5", "m6"];
    expect_all(&mut subscriber, &all);
    let forget = Frame::new("UNSUBSCRIBE")
        .with("id", "d")
        .with("activemq.subscriptionName", "news");
    subscriber.request(forget).unwrap();
    for at in [WEST, MID] {
        wait_until("its own word ends it", WAIT_MAX, || {
            !has_backlog(&mesh.groups[at], "NEWS")
        });
    }
}

#[test]
fn what_an_absent_group_was_promised_outlives_a_change_of_master_on_the_way_p2() {
    let mut mesh = line("absent-master", 3);
    drop(subscribe_durably(&mesh.groups[EAST]));
    for at in [WEST, MID] {
        mesh.wait_demand(at, "topic://NEWS", 1);
    }
    lose_east(&mut mesh);
    publish(&mesh.groups[WEST], &["w1"]);
    publish(&mesh.groups[MID], &["m1"]);
    mesh.groups[MID].step_down();
    mesh.groups[MID].master();
    let_linger_pass(&mesh, MID, WEST, "CONTROL.WEST");
    let_linger_pass(&mesh, WEST, MID, "CONTROL.MID");
    assert_eq!([WEST, MID].map(|at| kept(&mesh.groups[at], "NEWS")), [1, 1]);
    mesh.groups[EAST].start();
    expect_all(&mut subscribe_durably(&mesh.groups[EAST]), &["w1", "m1"]);
}

/// Runs `ferrymq` against the admin port of a group of one; its exit code and what it said.
fn ferrymq(group: &GroupOfNodes, arguments: &[&str]) -> (i32, String) {
    let admin = format!("http://{}", group.nodes[0].ports.admin_address());
    let output = Command::new(binary::ferrymq())
        .args(arguments)
        .args(["--admin", &admin])
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap(), String::from_utf8(text).unwrap())
}

/// North and south, and a durable subscription in the south, which is lost then.
fn with_lost_south(name: &str, when_full: &str) -> Mesh {
    let mesh = MeshBuilder::new(name).group("north", 1).group("south", 1).link(0, 1);
    let variables = [
        ("FERRYMQ_MESH_BACKLOG", "64KiB"),
        ("FERRYMQ_MESH_BACKLOG_FULL", when_full),
        ("FERRYMQ_MESH_TOPIC_LINGER", "1s"),
    ];
    let mut mesh = configured(mesh.prepare(), &variables);
    drop(subscribe_durably(&mesh.groups[1]));
    mesh.wait_demand(0, "topic://NEWS", 1);
    mesh.groups[1].nodes[0].kill();
    wait_until("the loss is noticed", WAIT_MAX, || {
        let status = mesh.groups[0].status();
        let links = status["master"]["mesh"]["links"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        links.iter().all(|link| link["state"] != "up")
    });
    mesh
}

#[test]
fn a_group_that_is_lost_for_good_holds_up_its_topic_alone_until_it_is_forgotten_p8() {
    let mut mesh = with_lost_south("lost", "wait");
    let north = &mesh.groups[0];
    let mut producer = connect(north);
    let body = "x".repeat(4096);
    for n in 0..30 {
        let frame = Frame::message("/topic/NEWS", &body).with("receipt", format!("news-{n}"));
        producer.send(&frame).unwrap();
    }
    wait_until("it waits", WAIT_MAX, || {
        north.status()["master"]["waiting_for_groups"] == 1
    });
    // The same connection goes on with other work, and so do others.
    producer.request(Frame::message("/queue/WORK", "1")).unwrap();
    let mut other = connect(north);
    other.request(Frame::message("/queue/WORK", "2")).unwrap();
    other.request(Frame::subscribe("1", "/topic/OTHER", "auto")).unwrap();
    other.request(Frame::message("/topic/OTHER", "3")).unwrap();
    assert_eq!(other.expect_message().text(), "3");
    let before = kept(north, "NEWS");
    assert!((14..24).contains(&before), "about 64 KiB are kept: {before}");

    let (exit, text) = ferrymq(north, &["reclaim", "--group", "south"]);
    assert_eq!(exit, 0, "{text}");
    assert!(text.contains(&format!("{before} messages are kept for it")), "{text}");
    let (exit, text) = ferrymq(north, &["group", "forget", "nobody"]);
    assert!(exit == 1 && text.contains("south"), "{text}");
    let (exit, text) = ferrymq(north, &["group", "forget", "south", "--dry-run"]);
    assert!(
        exit == 0 && text.contains("would forget south") && text.contains(&format!("{before} messages")),
        "{text}"
    );
    assert_eq!(kept(north, "NEWS"), before, "nothing was done");
    let (exit, text) = ferrymq(north, &["group", "forget", "south"]);
    assert!(exit == 0 && text.contains("forgot south"), "{text}");
    let mut receipts = 0;
    while receipts < 30 {
        let frame = producer.next(WAIT_MAX).unwrap().expect("all that waited is taken");
        assert_eq!(frame.command, "RECEIPT", "{frame:?}");
        receipts += 1;
    }
    assert!(!has_backlog(north, "NEWS"));

    // A new group of that name has another id.
    mesh.groups[1].nodes[0].wipe();
    mesh.groups[1].start();
    mesh.wait_linked();
    drop(subscribe_durably(&mesh.groups[1]));
    mesh.wait_demand(0, "topic://NEWS", 1);
    publish(&mesh.groups[0], &["again"]);
    expect_all(&mut subscribe_durably(&mesh.groups[1]), &["again"]);
    let (exit, text) = ferrymq(&mesh.groups[0], &["group", "forget", "south"]);
    assert_eq!(exit, 0, "the one that is lost: {text}");
    assert!(text.contains(": 0 messages"), "{text}");
    assert!(has_backlog(&mesh.groups[0], "NEWS"), "not the one that is linked");
    let id = {
        let status = mesh.groups[0].status();
        status["master"]["mesh"]["kept"][0]["id"].as_str().unwrap().to_owned()
    };
    for command in [&["group", "forget", &id][..], &["reclaim", "--group", &id]] {
        let (exit, text) = ferrymq(&mesh.groups[0], command);
        assert!(exit == 1 && text.contains("is linked"), "{text}");
    }
}

#[test]
fn sends_to_a_topic_of_which_too_much_is_kept_are_refused_where_that_is_the_policy_p8() {
    let mesh = with_lost_south("lost-refused", "refuse");
    let north = &mesh.groups[0];
    let mut producer = connect(north);
    let body = "x".repeat(4096);
    let refused = (0..40).find_map(|_| producer.request(Frame::message("/topic/NEWS", &body)).err());
    let text = refused.expect("one is refused").to_string();
    assert!(
        text.contains("wait for group south") && text.contains("group forget"),
        "{text}"
    );
    connect(north).request(Frame::message("/queue/WORK", "1")).unwrap();
}

#[test]
fn what_is_forgotten_while_messages_are_published_is_not_kept_anew_p8() {
    const MESSAGES_MAX: usize = 20_000;
    let mut mesh = line("forgotten-anew", 1);
    drop(subscribe_durably(&mesh.groups[EAST]));
    for at in [WEST, MID] {
        mesh.wait_demand(at, "topic://NEWS", 1);
    }
    let lost = mesh.groups[EAST].status()["master"]["group_id"]
        .as_str()
        .unwrap()
        .to_owned();
    lose_east(&mut mesh);
    mesh.groups[EAST].nodes[0].wipe();
    // One of the same name takes its place, and wants the same.
    mesh.groups[EAST].start();
    mesh.wait_linked();
    let _subscriber = subscribe_durably(&mesh.groups[EAST]);
    let addresses = [WEST, MID].map(|at| mesh.groups[at].nodes[0].address());
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        for address in &addresses {
            scope.spawn(|| {
                let mut stomp = Stomp::connect(address).unwrap();
                for _ in (0..MESSAGES_MAX).take_while(|_| !is_over.load(Ordering::Relaxed)) {
                    stomp.request(Frame::message("/topic/NEWS", "x")).unwrap();
                }
            });
        }
        for at in [WEST, MID] {
            wait_until("the lost group is forgotten", WAIT_MAX, || {
                ferrymq(&mesh.groups[at], &["group", "forget", &lost]).0 == 0
            });
        }
        is_over.store(true, Ordering::Relaxed);
    });
    for at in [WEST, MID] {
        // Whatever was to be kept anew stands in the log before this.
        publish(&mesh.groups[at], &["last"]);
        let status = mesh.groups[at].status();
        let queues = status["master"]["queues"].as_array().cloned().unwrap();
        let kept = queues
            .iter()
            .filter(|queue| queue["name"].as_str().unwrap().contains(&lost));
        assert_eq!(kept.count(), 0, "group {at}: {queues:#?}");
    }
}
