//! A group whose data were put back to an older copy: what was sent before the copy and after it arrives, and nothing stays
//! in doubt on either side (P4).

#![allow(clippy::unwrap_used)] // Also in what the tests share, where the lint does not see that it is one.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use ferrymq_tests::{Frame, GroupOfNodes, Mesh, MeshBuilder, Stomp, binary, wait_until};

const WAIT_MAX: Duration = Duration::from_secs(60);
const NORTH: usize = 0;
const SOUTH: usize = 1;

fn north_and_south(name: &str) -> Mesh {
    MeshBuilder::new(name)
        .group("north", 1)
        .group("south", 1)
        .link(NORTH, SOUTH)
        .start()
}

fn connect(group: &GroupOfNodes) -> Stomp {
    Stomp::connect(&group.nodes[group.master()].address()).unwrap()
}

fn send(group: &GroupOfNodes, queue: &str, prefix: &str, count: usize) {
    let mut stomp = connect(group);
    for number in 0..count {
        stomp
            .request(Frame::message(queue, format!("{prefix}{number}")))
            .unwrap();
    }
}

fn consume(group: &GroupOfNodes, queue: &str) -> Stomp {
    let mut stomp = connect(group);
    stomp
        .request(Frame::subscribe("c", queue, "client-individual"))
        .unwrap();
    stomp
}

/// So many deliveries of this prefix, each acknowledged; how often each text came.
fn take(consumer: &mut Stomp, prefix: &str, count: usize) -> BTreeMap<String, u32> {
    let mut taken = BTreeMap::new();
    while taken.len() < count {
        let message = consumer.expect_message();
        consumer.ack(&message).unwrap();
        if message.text().starts_with(prefix) {
            *taken.entry(message.text()).or_insert(0) += 1;
        }
    }
    taken
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().flatten() {
        let (path, target) = (entry.path(), to.join(entry.file_name()));
        if path.is_dir() {
            copy(&path, &target);
        } else {
            fs::copy(&path, &target).unwrap();
        }
    }
}

/// Stops a group of one and copies its data.
fn back_up(mesh: &mut Mesh, group: usize) -> PathBuf {
    let copied = mesh.dir().join(format!("copy-of-{}", mesh.groups[group].name));
    let node = &mut mesh.groups[group].nodes[0];
    node.stop();
    copy(node.data(), &copied);
    node.start();
    mesh.wait_linked();
    copied
}

/// Stops a group of one and puts a copy back in the place of its data.
fn put_back(mesh: &mut Mesh, group: usize, copied: &Path) {
    let node = &mut mesh.groups[group].nodes[0];
    node.stop();
    node.wipe();
    copy(copied, node.data());
    node.start();
    mesh.wait_linked();
}

fn incarnation(mesh: &Mesh, group: usize) -> u64 {
    mesh.groups[group].status()["master"]["incarnation"].as_u64().unwrap()
}

#[test]
fn an_owner_that_was_put_back_loses_nothing_that_it_sends_p4() {
    let mut mesh = north_and_south("restored-owner");
    let mut consumer = consume(&mesh.groups[SOUTH], "/queue/A");
    send(&mesh.groups[NORTH], "/queue/A", "before ", 20);
    take(&mut consumer, "before", 20);
    mesh.wait_nothing_in_doubt();
    let copied = back_up(&mut mesh, NORTH);
    send(&mesh.groups[NORTH], "/queue/A", "lost ", 40);
    take(&mut consumer, "lost", 40);
    mesh.wait_nothing_in_doubt();
    put_back(&mut mesh, NORTH, &copied);

    send(&mesh.groups[NORTH], "/queue/A", "after ", 60);
    let taken = take(&mut consumer, "after", 60);
    assert!(taken.values().all(|times| *times == 1), "{taken:?}");
    mesh.wait_nothing_in_doubt();
    assert_eq!(mesh.groups[NORTH].messages("queue://A"), 0);
    assert_eq!(incarnation(&mesh, NORTH), 1, "its life has begun anew, once");
    assert_eq!(incarnation(&mesh, SOUTH), 0);
    let seen = mesh.links_of(SOUTH)[0]["incarnation"].clone();
    assert_eq!(seen, 1, "and is known by its neighbour");
    let log = mesh.groups[NORTH].nodes[0].log();
    assert_eq!(log.matches("log of this group went back").count(), 1, "{log}");

    // The same copy once more: two lives are lost now, and one of them was renewed.
    put_back(&mut mesh, NORTH, &copied);
    send(&mesh.groups[NORTH], "/queue/A", "again ", 60);
    let taken = take(&mut consumer, "again", 60);
    assert!(taken.values().all(|times| *times == 1), "{taken:?}");
    mesh.wait_nothing_in_doubt();
    assert_eq!(incarnation(&mesh, NORTH), 2);
}

#[test]
fn a_receiver_that_was_put_back_takes_all_that_comes_p4() {
    let mut mesh = north_and_south("restored-receiver");
    let mut consumer = consume(&mesh.groups[SOUTH], "/queue/A");
    send(&mesh.groups[NORTH], "/queue/A", "before ", 20);
    take(&mut consumer, "before", 20);
    mesh.wait_nothing_in_doubt();
    drop(consumer);
    let copied = back_up(&mut mesh, SOUTH);
    let mut consumer = consume(&mesh.groups[SOUTH], "/queue/A");
    send(&mesh.groups[NORTH], "/queue/A", "lost ", 40);
    take(&mut consumer, "lost", 40);
    mesh.wait_nothing_in_doubt();
    drop(consumer);
    put_back(&mut mesh, SOUTH, &copied);

    let mut consumer = consume(&mesh.groups[SOUTH], "/queue/A");
    send(&mesh.groups[NORTH], "/queue/A", "after ", 60);
    let taken = take(&mut consumer, "after", 60);
    assert!(taken.values().all(|times| *times == 1), "{taken:?}");
    mesh.wait_nothing_in_doubt();
    // And the other way.
    let mut northern = consume(&mesh.groups[NORTH], "/queue/B");
    send(&mesh.groups[SOUTH], "/queue/B", "back ", 60);
    let taken = take(&mut northern, "back", 60);
    assert!(taken.values().all(|times| *times == 1), "{taken:?}");
    mesh.wait_nothing_in_doubt();
}

#[test]
fn a_group_behind_a_hub_hears_a_group_that_was_put_back_p4() {
    let mut mesh = MeshBuilder::new("restored-behind")
        .group("west", 1)
        .group("mid", 1)
        .group("east", 1)
        .link(1, 0)
        .link(1, 2)
        .start();
    let copied = back_up(&mut mesh, 2);
    let durable = |mesh: &Mesh, topic: &str| {
        let address = mesh.groups[2].nodes[0].address();
        let mut stomp = Stomp::connect_with(&address, &[("client-id", topic)]).unwrap();
        let frame = Frame::subscribe("d", &format!("/topic/{topic}"), "client-individual");
        stomp.request(frame.with("activemq.subscriptionName", topic)).unwrap();
        stomp
    };
    let knows = |mesh: &Mesh, topic: &str| {
        wait_until("the west knows of the subscription", WAIT_MAX, || {
            mesh.demand(0, &format!("topic://{topic}")) == 1
        });
    };
    // Some terms, and words of demand, that the copy does not know of.
    drop(durable(&mesh, "OLD"));
    for _ in 0..3 {
        mesh.groups[2].nodes[0].stop();
        mesh.groups[2].nodes[0].start();
        mesh.wait_linked();
    }
    knows(&mesh, "OLD");
    put_back(&mut mesh, 2, &copied);
    let mut subscriber = durable(&mesh, "NEW");
    knows(&mesh, "NEW");
    wait_until("what only the lost state wanted is wanted no more", WAIT_MAX, || {
        mesh.demand(0, "topic://OLD") == 0
    });
    let mut publisher = connect(&mesh.groups[0]);
    publisher.request(Frame::message("/topic/NEW", "news")).unwrap();
    assert_eq!(subscriber.expect_message().text(), "news");
    assert_eq!(incarnation(&mesh, 2), 1);
}

#[test]
fn the_operator_can_say_that_a_copy_was_put_back() {
    let mut mesh = north_and_south("restored-by-word");
    let node = &mut mesh.groups[NORTH].nodes[0];
    node.stop();
    let renew = |dir: &Path| {
        let mut command = Command::new(binary::ferrymq());
        command.args(["journal", "renew"]).arg(dir).output().unwrap()
    };
    let nowhere = renew(&node.data().join("nowhere"));
    assert_eq!(nowhere.status.code(), Some(1), "{nowhere:?}");
    let told = renew(node.data());
    assert!(told.status.success(), "{told:?}");
    node.start();
    wait_until("the group begins a new life", WAIT_MAX, || {
        let status = mesh.groups[NORTH].status();
        status["master"]["incarnation"] == 1
    });
    // The link that comes up meanwhile may be the last one of the old life.
    wait_until("its neighbour knows it", WAIT_MAX, || {
        let links = mesh.links_of(SOUTH);
        links
            .iter()
            .any(|link| link["state"] == "up" && link["incarnation"] == 1)
    });
    let noted = mesh.groups[NORTH].nodes[0].data().join("renew");
    wait_until("the word is used up", WAIT_MAX, || !noted.exists());
    mesh.groups[NORTH].nodes[0].stop();
    mesh.groups[NORTH].nodes[0].start();
    mesh.wait_linked();
    let mut consumer = consume(&mesh.groups[SOUTH], "/queue/A");
    send(&mesh.groups[NORTH], "/queue/A", "after ", 10);
    take(&mut consumer, "after", 10);
    assert_eq!(incarnation(&mesh, NORTH), 1, "once");
}
