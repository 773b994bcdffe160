//! Strangers at the ports of a group of three: those for other nodes, and a slave's for clients.

use std::{
    fs,
    time::{Duration, Instant},
};

use ferrymq_tests::{Frame, Mesh, MeshBuilder, NodeProcess, Stomp, wait_for, wait_until};

use crate::{arena::size, pulse::Pulse, strangers::Strangers};

/// As many as a peer port holds unproven.
const PEER_PLACES: usize = 64;
/// How long a client that a slave carries may wait to be served.
const CARRIED_MAX: Duration = Duration::from_secs(2);
/// And a healthy one that is there already, for a round.
const ROUND_MAX: Duration = Duration::from_secs(3);
/// How long a node may take that comes back, and a group that has lost its master.
const BACK_MAX: Duration = Duration::from_secs(20);

fn three(test: &str, limits: &str) -> Mesh {
    let more = format!("\n[limits]\nframe = \"1MiB\"\n{limits}\n\n[log]\nlevel = \"info\"\n");
    let mut mesh = MeshBuilder::new(test).group("north", 3).secret().more(&more).prepare();
    mesh.groups[0].start();
    mesh
}

fn peer_port(node: &NodeProcess) -> String {
    format!("{}:{}", node.ports.host, node.ports.peer)
}

fn turned_away(node: &NodeProcess, reason: &str) -> u64 {
    let status = node.status().expect("the admin port answers");
    status["turned_away"]["peer"][reason]
        .as_u64()
        .unwrap_or_else(|| panic!("status tells nothing of {reason}"))
}

fn open_files(node: &NodeProcess) -> usize {
    let pid = node.pid().expect("it runs");
    fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count)
}

/// The longest of several times from connecting to the receipt of a send.
fn served(address: &str, times: usize) -> Duration {
    let once = |_| {
        let begun = Instant::now();
        let mut client = Stomp::connect(address).expect("a client is carried");
        client.request(Frame::message("/queue/carried", b"x")).unwrap();
        begun.elapsed()
    };
    (0..times).map(once).max().unwrap()
}

#[test]
fn strangers_at_the_peer_ports_keep_out_neither_members_nor_carried_clients() {
    for (how, word) in [("silent", &b""[..]), ("with half a greeting", b"FMQP\x01\0\x11")] {
        let mut mesh = three("limits-strangers", "");
        let group = &mut mesh.groups[0];
        let (master, slave) = (group.master(), group.slave());
        let other = 3 - master - slave;
        let pulse = Pulse::start(&group.nodes[slave].address());
        pulse.take(20);
        let files = open_files(&group.nodes[master]);
        let at = |node: &NodeProcess| Strangers::at(&peer_port(node), PEER_PLACES + 1, word);
        let strangers: Vec<Strangers> = group.nodes.iter().map(at).collect();
        for node in &group.nodes {
            wait_until("all places are taken", BACK_MAX, || turned_away(node, "yielded") > 0);
        }
        let carried = served(&group.nodes[slave].address(), size(10, 50));
        assert!(carried <= CARRIED_MAX, "{how}: a carried client waited {carried:?}");

        group.nodes[other].kill();
        group.nodes[other].start();
        let (_, back) = wait_for("a member comes back", BACK_MAX, || {
            let followed = group.nodes[other].status()?["group"]["applied_index"].as_u64()?;
            let ahead = group.nodes[master].status()?["group"]["members"].as_array()?.clone();
            let lag = ahead.iter().find(|member| member["node"] == other + 1)?["lag_entries"].as_u64()?;
            (followed > 0 && lag < 50 && group.nodes[other].health() == Some(200)).then_some(())
        });
        let taken = open_files(&group.nodes[master]);
        assert!(taken < files + PEER_PLACES + 30, "{how}: {files} → {taken} descriptors");
        let during = pulse.take(1);
        assert!(during.worst <= ROUND_MAX, "{how}: a healthy client waited {during:?}");
        drop(pulse);

        let begun = Instant::now();
        group.nodes[master].kill();
        let (next, elected) = wait_for("another master", BACK_MAX, || {
            group.nodes.iter().position(NodeProcess::is_master)
        });
        let door = 3 - master - next;
        wait_for("clients are carried to it", BACK_MAX, || {
            let mut client = Stomp::connect(&group.nodes[door].address()).ok()?;
            client.request(Frame::message("/queue/carried", b"y")).ok()
        });
        let renewed: u64 = strangers.iter().map(Strangers::renewed).sum();
        println!(
            "{how}, {renewed} times: carried {carried:?}, a member back {back:?}, {during:?}, master elected {elected:?}, \
             carried to it {:?}",
            begun.elapsed()
        );
        drop(strangers);
    }
}

#[test]
fn strangers_at_a_slaves_door_keep_no_client_out() {
    let mesh = three("limits-slave-door", "connections = 100");
    let group = &mesh.groups[0];
    let slave = &group.nodes[group.slave()];
    let pulse = Pulse::start(&slave.address());
    pulse.take(20);
    let strangers = [
        Strangers::at(&slave.address(), size(150, 1_000), b""),
        Strangers::at(&slave.address(), size(150, 1_000), b"CONNECT\nlogin:"),
    ];
    wait_until("strangers yield", BACK_MAX, || {
        let status = slave.status().expect("the admin port answers");
        status["clients"]["strangers_cut"].as_u64() > Some(100)
    });
    let (_, first) = wait_for("a client gets in", BACK_MAX, || Stomp::connect(&slave.address()).ok());
    let during = pulse.take(20);
    assert!(during.worst <= ROUND_MAX, "a healthy client waited {during:?}");
    let files = open_files(slave);
    assert!(files < 2 * 100 + 100, "{files} descriptors for 100 places");
    let renewed: u64 = strangers.iter().map(Strangers::renewed).sum();
    println!("{renewed} strangers at a slave's door: {during:?}, a client got in after {first:?}, {files} descriptors");
}
