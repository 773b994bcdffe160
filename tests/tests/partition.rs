//! Networks that break: nodes on machines of their own (network namespaces), between which packets silently vanish.

#![allow(clippy::unwrap_used)] // Also in what the tests share, where the lint does not see that it is one.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use ferrymq_tests::{
    Discovery, Frame, History, Mesh, MeshBuilder, Stomp,
    load::{self, Sending},
    net::Net,
    node::START_MAX,
    skip,
    stomp::ANSWER_MAX,
    wait_for, wait_until,
};

const LOAD_MAX: Duration = Duration::from_secs(120);

fn sending(count: u64) -> Sending {
    Sending {
        producer: "p".into(),
        destination: "/queue/A".into(),
        count,
        size: 256,
    }
}

fn is_skipped(test: &str) -> bool {
    let missing = Net::missing();
    missing.iter().for_each(|why| skip::skipped(test, why));
    missing.is_some()
}

fn group_of_three(test: &str) -> Mesh {
    MeshBuilder::new(test).group("north", 3).on_machines().start()
}

/// Another node than `old` is master.
fn successor(mesh: &Mesh, old: usize) -> usize {
    let nodes = &mesh.groups[0].nodes;
    wait_for("another node is master", START_MAX, || {
        (0..3).find(|&at| at != old && nodes[at].is_master())
    })
    .0
}

fn term(mesh: &Mesh, node: usize) -> u64 {
    let status = mesh.groups[0].nodes[node].status().expect("the node answers");
    status["group"]["term"].as_u64().unwrap()
}

#[test]
fn a_master_cut_off_from_its_slaves_is_replaced_and_acknowledges_nothing() {
    if is_skipped("a_master_cut_off_from_its_slaves_is_replaced_and_acknowledges_nothing") {
        return;
    }
    let mesh = group_of_three("cut-master");
    let net = mesh.net.as_ref().unwrap();
    let group = &mesh.groups[0];
    let history = Arc::new(History::default());
    let producer = load::produce(group.addresses(), sending(1_500), history.clone());
    let consumer = load::consume(group.addresses(), "/queue/A", history.clone());
    wait_until("a third is sent", LOAD_MAX, || history.receipted() >= 500);

    let old = group.master();
    let mut loyal = Stomp::connect(&group.nodes[old].address()).unwrap();
    let others: Vec<usize> = (0..3).filter(|at| *at != old).collect();
    net.part(&[old], &others);
    let new = successor(&mesh, old);
    // P7: its lease has run out before anybody else became master. A receipt would be a lie.
    let _ = loyal.send(&Frame::message("/queue/B", "too late").with("receipt", "too late"));
    match loyal.next(ANSWER_MAX) {
        Ok(Some(frame)) => assert_eq!(frame.command, "ERROR", "P7: {frame:?}"),
        Ok(None) => panic!("a master that hears nobody keeps its clients waiting"),
        Err(_) => {}
    }
    assert!(
        !group.nodes[old].is_master(),
        "P7: the old master knows that it is none"
    );
    let before = history.receipted();
    wait_until("sends go on with the majority", LOAD_MAX, || {
        history.receipted() > before
    });

    net.heal();
    wait_until("the old master follows the new one", START_MAX, || {
        group.nodes[old]
            .status()
            .is_some_and(|s| s["group"]["role"] == "slave" && s["group"]["master"] == new as u64 + 1)
    });
    producer.finish("everything is sent", LOAD_MAX);
    mesh.drain(&history, 1_500, &["queue://A"], LOAD_MAX);
    consumer.stop();
    let report = history.report();
    println!("{report}");
    report.assert_kept_in_order();
    group.settle(START_MAX);
}

#[test]
fn a_master_that_is_heard_but_hears_nobody_steps_aside() {
    if is_skipped("a_master_that_is_heard_but_hears_nobody_steps_aside") {
        return;
    }
    let mesh = group_of_three("deaf-master");
    let net = mesh.net.as_ref().unwrap();
    let group = &mesh.groups[0];
    let mut stomp = Stomp::connect(&group.nodes[group.master()].address()).unwrap();
    stomp.request(Frame::message("/queue/A", "before")).unwrap();
    let old = group.master();
    for slave in (0..3).filter(|at| *at != old) {
        net.cut(slave, old);
    }
    let new = successor(&mesh, old);
    assert!(!group.nodes[old].is_master());
    let mut stomp = Stomp::connect(&group.nodes[new].address()).unwrap();
    stomp.request(Frame::message("/queue/A", "after")).unwrap();
    net.heal();
    group.settle(START_MAX);
    stomp.request(Frame::subscribe("1", "/queue/A", "auto")).unwrap();
    assert_eq!(
        (stomp.expect_message().text(), stomp.expect_message().text()),
        ("before".into(), "after".into())
    );
}

#[test]
fn a_slave_that_was_cut_off_disturbs_nobody_when_it_is_back() {
    if is_skipped("a_slave_that_was_cut_off_disturbs_nobody_when_it_is_back") {
        return;
    }
    let mesh = group_of_three("cut-slave");
    let net = mesh.net.as_ref().unwrap();
    let group = &mesh.groups[0];
    let (master, slave) = (group.master(), group.slave());
    let before = term(&mesh, master);
    let others: Vec<usize> = (0..3).filter(|at| *at != slave).collect();
    net.part(&[slave], &others);
    let applied = |node: usize| group.nodes[node].status().map(|s| s["group"]["applied_index"].as_u64());
    let behind = applied(slave);
    let mut stomp = Stomp::connect(&group.nodes[master].address()).unwrap();
    for n in 1..=100 {
        stomp.request(Frame::message("/queue/A", n.to_string())).unwrap();
    }
    // Whoever looks for a node to connect to must see that this one leads nowhere. It says so after several election
    // timeouts, in which the slave would have liked to be master itself.
    wait_until("the cut-off slave says that it is", Duration::from_secs(10), || {
        assert_eq!((term(&mesh, master), applied(slave)), (before, behind));
        group.nodes[slave].health() == Some(503) && group.nodes[master].health() == Some(200)
    });
    net.heal();
    wait_until("it is a good door again", START_MAX, || {
        group.nodes[slave].health() == Some(200)
    });
    group.settle(START_MAX);
    assert_eq!(
        (group.master(), term(&mesh, master)),
        (master, before),
        "no election was held"
    );
    // The same connection goes on.
    stomp.request(Frame::message("/queue/A", "101")).unwrap();
}

#[test]
fn a_link_that_flaps_loses_and_doubles_nothing() {
    if is_skipped("a_link_that_flaps_loses_and_doubles_nothing") {
        return;
    }
    let mesh = MeshBuilder::new("flap")
        .group("north", 3)
        .group("south", 3)
        .link(0, 1)
        .on_machines()
        .start();
    let net = mesh.net.as_ref().unwrap();
    let history = Arc::new(History::default());
    let consumer = load::consume(mesh.groups[1].addresses(), "/queue/A", history.clone());
    let producer = load::produce(mesh.groups[0].addresses(), sending(3_000), history.clone());
    for round in 1..=3 {
        wait_until("messages cross", LOAD_MAX, || history.received() >= round * 600);
        net.part(&[0, 1, 2], &[3, 4, 5]);
        // North goes on by itself meanwhile.
        let goal = (history.receipted() + 200).min(3_000);
        wait_until("north takes messages without the link", LOAD_MAX, || {
            history.receipted() >= goal
        });
        wait_until("the link is known to be down", START_MAX, || {
            let status = mesh.groups[0].status();
            let links = status["master"]["mesh"]["links"]
                .as_array()
                .cloned()
                .unwrap_or_default();
            links.iter().all(|link| link["state"] != "up")
        });
        net.heal();
        mesh.wait_linked();
    }
    producer.finish("everything is sent", LOAD_MAX);
    mesh.drain(&history, 3_000, &["queue://A"], LOAD_MAX);
    consumer.stop();
    let report = history.report();
    println!("{report}");
    report.assert_kept_in_order();
}

#[test]
fn a_link_that_is_cut_is_given_up_on_both_sides_at_the_same_time() {
    const TEST: &str = "a_link_that_is_cut_is_given_up_on_both_sides_at_the_same_time";
    /// 3 s of silence, and room for a loaded machine.
    const GIVEN_UP_MAX: Duration = Duration::from_millis(4_500);
    if is_skipped(TEST) {
        return;
    }
    let mesh = MeshBuilder::new("given-up")
        .group("north", 1)
        .group("south", 1)
        .link(0, 1)
        .on_machines()
        .start();
    let net = mesh.net.as_ref().unwrap();
    for (what, ways) in [
        ("both ways", &[(0, 1), (1, 0)][..]),
        ("to the south", &[(0, 1)]),
        ("to the north", &[(1, 0)]),
    ] {
        mesh.wait_linked();
        ways.iter().for_each(|&(from, to)| net.cut(from, to));
        let begun = Instant::now();
        let mut given_up = [None; 2];
        wait_until("both sides have given it up", Duration::from_secs(20), || {
            for (at, when) in given_up.iter_mut().enumerate() {
                if when.is_none() && mesh.linked_to(at, 1 - at).is_none() {
                    *when = Some(begun.elapsed());
                }
            }
            given_up.iter().all(Option::is_some)
        });
        println!("cut {what}: given up in the north and in the south after {given_up:?}");
        assert!(begun.elapsed() < GIVEN_UP_MAX, "cut {what}: {given_up:?}");
        net.heal();
    }
}

/// Between machines a killed process is not always refused: systems answer few datagrams a second to a closed port, and
/// those that were under way use the answers up.
#[test]
fn a_new_master_of_a_group_that_only_listens_is_found_soon_from_another_machine() {
    const TEST: &str = "a_new_master_of_a_group_that_only_listens_is_found_soon_from_another_machine";
    const FOUND_MAX: Duration = Duration::from_secs(2);
    if is_skipped(TEST) {
        return;
    }
    let mut mesh = MeshBuilder::new("listening-machines")
        .group("north", 1)
        .group("south", 3)
        .link(0, 1)
        .on_machines()
        .start();
    let history = Arc::new(History::default());
    let consumer = load::consume(mesh.groups[1].addresses(), "/queue/A", history.clone());
    let producer = load::produce(mesh.groups[0].addresses(), sending(6_000), history.clone());
    for round in 1..=3 {
        wait_until("messages cross", LOAD_MAX, || history.received() >= round * 500);
        let killed = mesh.groups[1].kill_master();
        let begun = Instant::now();
        wait_until("the next master is linked", LOAD_MAX, || {
            mesh.linked_to(0, 1).is_some_and(|node| node != killed as u64 + 1)
        });
        let found = begun.elapsed();
        println!("linked with the next master after {found:?}");
        assert!(found < FOUND_MAX, "{found:?}");
        mesh.groups[1].nodes[killed].start();
        mesh.groups[1].settle(START_MAX);
    }
    producer.finish("everything is sent", LOAD_MAX);
    mesh.drain(&history, 6_000, &["queue://A"], LOAD_MAX);
    consumer.stop();
    history.report().assert_kept();
}

#[test]
fn groups_on_different_machines_find_each_other() {
    if is_skipped("groups_on_different_machines_find_each_other") {
        return;
    }
    for discovery in [Discovery::Multicast, Discovery::Mdns] {
        let mesh = MeshBuilder::new("machines")
            .group("north", 3)
            .group("south", 1)
            .link(0, 1)
            .discovery(discovery)
            .on_machines()
            .start();
        let mut south = Stomp::connect(&mesh.groups[1].nodes[0].address()).unwrap();
        south.request(Frame::subscribe("1", "/queue/A", "auto")).unwrap();
        let north = &mesh.groups[0];
        let mut north = Stomp::connect(&north.nodes[north.slave()].address()).unwrap();
        north.request(Frame::message("/queue/A", "across")).unwrap();
        assert_eq!(south.expect_message().text(), "across", "{discovery:?}");
        wait_until("it is gone from the north", ANSWER_MAX, || {
            mesh.groups[0].messages("queue://A") == 0
        });
    }
}
