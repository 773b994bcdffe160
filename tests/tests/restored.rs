//! Copies of data directories that are put back: on one member of a group, and on all.

#![allow(clippy::unwrap_used)] // Also in what the tests share, where the lint does not see that it is one.

use std::{path::Path, process::Command, time::Duration};

use ferrymq_tests::{
    Frame, GroupOfNodes, Mesh, Stomp, node::NodeProcess, scratch::Scratch, stomp::ANSWER_MAX, wait::holds_for,
    wait_until,
};

/// For a group to find itself again, on a loaded machine.
const WELL_MAX: Duration = Duration::from_secs(60);

fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-a").arg(from).arg(to).status();
    assert!(copied.unwrap().success(), "{} cannot be copied", from.display());
}

/// Puts a copy in the place of a stopped node's data.
fn put_back(node: &NodeProcess, copy_of_it: &Path) {
    std::fs::remove_dir_all(node.data()).unwrap();
    copy(copy_of_it, node.data());
}

fn send(group: &GroupOfNodes, numbers: std::ops::Range<u32>) {
    let mut stomp = Stomp::connect(&group.nodes[group.master()].address()).unwrap();
    for number in numbers {
        stomp.request(Frame::message("/queue/A", format!("{number}"))).unwrap();
    }
}

/// Waits for so many messages, and for nothing more to be said about any node.
fn is_well(group: &GroupOfNodes, messages: u64) {
    wait_until(&format!("{messages} messages are there"), WELL_MAX, || {
        group.messages("queue://A") == messages
    });
    wait_until("every node votes and has nothing to say", WELL_MAX, || {
        let votes = |status: &serde_json::Value| {
            let members = status["group"]["members"].as_array();
            let voters = members.map_or(0, |all| all.iter().filter(|member| member["is_voter"] == true).count());
            voters == 3 && status["group"]["notice"].is_null()
        };
        group
            .nodes
            .iter()
            .all(|node| node.status().is_some_and(|status| votes(&status)))
    });
    group.settle(WELL_MAX);
}

fn notice(node: &NodeProcess) -> String {
    let status = node.status().unwrap_or_default();
    status["group"]["notice"].as_str().unwrap_or_default().to_owned()
}

/// One that was the master, one whose data will go back, one that has not heard of all that was sent.
fn parts(group: &GroupOfNodes) -> (usize, usize, usize) {
    let master = group.master();
    let mut slaves = (0..3).filter(|at| *at != master);
    (master, slaves.next().unwrap(), slaves.next().unwrap())
}

#[test]
fn a_copy_put_back_on_one_member_takes_nothing_away_that_had_a_receipt_p2() {
    let scratch = Scratch::new("copies");
    let mut mesh = Mesh::one_group("restored", 3);
    let group = &mut mesh.groups[0];
    send(group, 0..10);
    let (_, restored, _) = parts(group);
    group.nodes[restored].stop();
    let old = scratch.path().join("old");
    copy(group.nodes[restored].data(), &old);
    group.start();
    group.settle(ANSWER_MAX);
    let (master, behind) = {
        let master = group.master();
        assert_ne!(master, restored, "it came last");
        (master, 3 - master - restored)
    };

    // The master and the one whose data will go back are the majority that has them.
    group.nodes[behind].stop();
    send(group, 10..60);
    group.nodes[restored].stop();
    put_back(&group.nodes[restored], &old);
    group.nodes[master].kill();
    group.nodes[restored].spawn();
    group.nodes[behind].spawn();
    wait_until("the two have met", WELL_MAX, || {
        // The latter is what must not be.
        notice(&group.nodes[restored]).contains("data went back") || group.nodes.iter().any(NodeProcess::is_master)
    });
    holds_for(
        "there is no master without the one that has it all",
        Duration::from_secs(2),
        || !group.nodes.iter().any(NodeProcess::is_master),
    );
    let log = group.nodes[behind].log();
    assert!(log.contains("has lost data"), "the one that knows it says so");

    group.nodes[master].spawn();
    is_well(group, 60);
    send(group, 60..61);
    is_well(group, 61);
}

#[test]
fn a_copy_put_back_beside_a_living_master_is_brought_up_to_date_and_votes_again() {
    let scratch = Scratch::new("copies");
    let mut mesh = Mesh::one_group("caught-up", 3);
    let group = &mut mesh.groups[0];
    send(group, 0..10);
    let (_, restored, _) = parts(group);
    group.nodes[restored].stop();
    let old = scratch.path().join("old");
    copy(group.nodes[restored].data(), &old);
    group.start();
    send(group, 10..60);
    group.settle(ANSWER_MAX);
    group.nodes[restored].kill();
    put_back(&group.nodes[restored], &old);
    group.nodes[restored].spawn();
    wait_until("it has seen that its data went back", WELL_MAX, || {
        group.nodes[restored].log().contains("data went back")
    });
    is_well(group, 60);
    // From here on it is a member like any other, through restarts too.
    group.nodes[restored].kill();
    group.nodes[restored].spawn();
    is_well(group, 60);
    let told = group.nodes[restored].log().matches("data went back").count();
    let (master, _, _) = parts(group);
    let other = 3 - master - restored;
    if master != restored {
        group.nodes[other].stop();
        send(group, 60..61);
        group.nodes[other].spawn();
        is_well(group, 61);
    }
    assert_eq!(group.nodes[restored].log().matches("data went back").count(), told);
}

#[test]
fn copies_of_different_days_put_back_on_all_members_make_a_group_with_the_latest() {
    let scratch = Scratch::new("copies");
    let mut mesh = Mesh::one_group("all-restored", 3);
    let group = &mut mesh.groups[0];
    let copies: Vec<_> = (0..3).map(|at| scratch.path().join(at.to_string())).collect();
    for (day, copy_of_it) in copies.iter().enumerate() {
        send(group, 10 * day as u32..10 * day as u32 + 10);
        group.settle(ANSWER_MAX);
        group.nodes[day].stop();
        copy(group.nodes[day].data(), copy_of_it);
        group.start();
        group.settle(ANSWER_MAX);
    }
    send(group, 30..40);
    for (node, copy_of_it) in group.nodes.iter_mut().zip(&copies) {
        node.stop();
        put_back(node, copy_of_it);
    }
    // The third has the latest; two that are older by what it knows are no majority without each other.
    group.start();
    is_well(group, 30);
}
