//! Members with different timers: the master's lease goes by the shortest, and everybody says what differs (P7).

#![allow(clippy::unwrap_used)] // Also in what the tests share, where the lint does not see that it is one.

use std::{fs, process::Command};

use ferrymq_tests::{Frame, GroupOfNodes, Mesh, MeshBuilder, Stomp, binary, node::START_MAX, wait_until};
use serde_json::Value;

const SHORT: &str = "\n[timers]\nheartbeat = \"40ms\"\nelection_min = \"180ms\"\nelection_max = \"260ms\"\n";
const DIFFER: &str = "the timers of members differ";

fn master_is(group: &GroupOfNodes, at: usize) {
    wait_until("that node is the master", START_MAX, || {
        let master = group.master();
        let body = format!("{{\"to\":{}}}", at + 1);
        // It is refused as long as the master does not know that node to be up to date.
        master == at || {
            let admin = group.nodes[master].ports.admin_address();
            ferrymq_tests::http::post_at(admin, "/api/step-down", &body).is_ok() && group.master() == at
        }
    });
}

fn group_status(mesh: &Mesh, node: usize) -> Value {
    mesh.groups[0].nodes[node].status().unwrap_or_default()["group"].clone()
}

#[test]
fn the_lease_goes_by_the_shortest_timer_and_the_difference_is_told_p7() {
    let mut mesh = MeshBuilder::new("timers").group("north", 3).prepare();
    let config = mesh.groups[0].nodes[1].config().to_owned();
    let alike = fs::read_to_string(&config).unwrap();
    fs::write(&config, format!("{alike}{SHORT}")).unwrap();
    mesh.groups[0].start();
    master_is(&mesh.groups[0], 0);
    wait_until("the lease is as short as node 2 demands", START_MAX, || {
        let status = group_status(&mesh, 0);
        status["lease_ms"] == 180 && status["members"][1]["timers"]["election_min_ms"] == 180
    });
    let mut stomp = Stomp::connect(&mesh.groups[0].addresses()[0]).unwrap();
    stomp.request(Frame::message("/queue/A", "it works")).unwrap();
    wait_until("both sides have told it", START_MAX, || {
        let told = |node: usize| mesh.groups[0].nodes[node].log().contains(DIFFER);
        told(0) && told(1)
    });
    let line = mesh.groups[0].nodes[0].log();
    let line = line.lines().find(|line| line.contains(DIFFER)).unwrap();
    for part in ["node 2 has heartbeat 40 ms, election_min 180 ms", "election_min 250 ms"] {
        assert!(line.contains(part), "{part:?}: {line}");
    }
    let admin = format!("http://{}", mesh.groups[0].nodes[0].ports.admin_address());
    let shown = Command::new(binary::ferrymq())
        .args(["status", "--admin", &admin])
        .output()
        .unwrap();
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(shown.contains("TIMERS DIFFER: node 2"), "{shown}");

    // Once for each peer, however often its connections break; and no more when it is mended.
    mesh.groups[0].nodes[1].kill();
    mesh.groups[0].nodes[1].start();
    master_is(&mesh.groups[0], 0);
    mesh.groups[0].nodes[1].kill();
    fs::write(&config, alike).unwrap();
    mesh.groups[0].nodes[1].start();
    wait_until("the lease is as long as all have configured", START_MAX, || {
        master_is(&mesh.groups[0], 0);
        let status = group_status(&mesh, 0);
        status["lease_ms"] == 250 && status["members"][1]["timers"]["election_min_ms"] == 250
    });
    let log = mesh.groups[0].nodes[0].log();
    assert_eq!(log.matches(DIFFER).count(), 1, "{log}");
}
