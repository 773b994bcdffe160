//! A second node with the number of a member that is there.

#![allow(clippy::unwrap_used)] // Also in what the tests share, where the lint does not see that it is one.

use std::time::Duration;

use ferrymq_tests::{
    Frame, GroupOfNodes, Mesh, NodeProcess, Stomp, config::GroupConfig, ports::Ports, scratch::Scratch,
    stomp::ANSWER_MAX, wait_until,
};

/// To be turned away takes a moment; the rest is for a loaded machine.
const TURNED_AWAY_MAX: Duration = Duration::from_secs(30);

fn send(group: &GroupOfNodes, count: u32) {
    let mut stomp = Stomp::connect(&group.nodes[group.master()].address()).unwrap();
    for number in 0..count {
        stomp.request(Frame::message("/queue/A", format!("{number}"))).unwrap();
    }
}

fn all_vote(group: &GroupOfNodes) -> bool {
    let status = group.status();
    let members = status["group"]["members"].as_array().unwrap();
    members.iter().filter(|member| member["is_voter"] == true).count() == 3
}

#[test]
fn a_second_node_with_a_living_members_number_is_turned_away_by_name_and_address() {
    let mut mesh = Mesh::one_group("intruder", 3);
    let group = &mut mesh.groups[0];
    send(group, 20);
    group.settle(ANSWER_MAX);
    let at = group.slave();
    let number = at + 1;

    let scratch = Scratch::new("intruder");
    let mut free = Ports::take();
    let own = GroupOfNodes::ports(&mut free, 1)[0];
    let mut nodes: Vec<_> = group.nodes.iter().map(|node| node.ports).collect();
    nodes[at] = own;
    let config = GroupConfig {
        name: "north".to_owned(),
        nodes,
        ..GroupConfig::default()
    };
    let data = scratch.path().join("data");
    let text = config.text(number, &data);
    let mut intruder = NodeProcess::new("intruder", scratch.path(), &data, own, &text);
    for _ in 0..2 {
        intruder.spawn();
        let status = intruder.wait_for_end(TURNED_AWAY_MAX);
        assert!(!status.success());
    }

    let member = format!(
        "node {number} of group 'north' at 127.0.0.1:{}",
        group.nodes[at].ports.peer
    );
    let stranger = format!("at 127.0.0.1:{}", own.peer);
    let told = |log: &str| {
        log.lines()
            .any(|line| line.contains(&member) && line.contains(&stranger) && line.contains("is alive"))
    };
    assert!(told(&intruder.log()), "{}", intruder.log());
    let master = group.master();
    assert!(told(&group.nodes[master].log()), "the master says so, too");
    assert!(all_vote(group));
    assert!(
        !group.nodes.iter().any(|node| node.log().contains("joins anew")),
        "nobody was taken out"
    );
    send(group, 20);
    group.settle(ANSWER_MAX);
    assert_eq!(group.messages("queue://A"), 40);

    // The member itself may lose its data and come back, as before.
    group.nodes[at].kill();
    group.nodes[at].wipe();
    group.nodes[at].spawn();
    wait_until("it has everything and votes again", TURNED_AWAY_MAX, || {
        let status = group.nodes[at].status().unwrap_or_default();
        status["group"]["role"] == "slave" && status["group"]["notice"].is_null() && all_vote(group)
    });
    group.settle(ANSWER_MAX);
}
