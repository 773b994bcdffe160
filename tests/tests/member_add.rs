//! `ferrymq member add`: a vote only for a node that was reached, is who it shall be, and has caught up; whatever does not
//! succeed leaves the group as it was (P2).

#![allow(clippy::unwrap_used)] // Also in what the tests share, where the lint does not see that it is one.

use std::{
    io::{BufRead, BufReader},
    net::TcpListener,
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use ferrymq_tests::{
    Frame, GroupOfNodes, Mesh, MeshBuilder, NodeProcess, Stomp, binary, config::GroupConfig, node::START_MAX,
    ports::Ports, scratch::Scratch, slow_line::SlowLine, wait_until,
};
use serde_json::Value;

/// A refusal shall not keep an operator waiting.
const REFUSED_WITHIN: Duration = Duration::from_secs(10);
/// What a slow node may take in all.
const JOIN_MAX: Duration = Duration::from_secs(90);
/// Of one message, in bytes.
const BODY_BYTES: usize = 32 << 10;
/// As much backlog as takes [`SLOW`] a quarter of a minute.
const BACKLOG: usize = 100;
/// Bytes a second of a slow line.
const SLOW: u64 = 220 << 10;
/// Of one that lets nothing but greetings pass in the time of a test.
const NEARLY_NOTHING: u64 = 4 << 10;

/// A group and what it takes to start further nodes.
struct Trial {
    mesh: Mesh,
    ports: Ports,
    scratch: Scratch,
}

impl Trial {
    fn new(name: &str, nodes: usize) -> Self {
        Self {
            mesh: Mesh::one_group(name, nodes),
            ports: Ports::take(),
            scratch: Scratch::new(name),
        }
    }

    fn group(&self) -> &GroupOfNodes {
        &self.mesh.groups[0]
    }

    /// The next node, running, with the same members and a line for itself.
    fn newcomer(&mut self) -> NodeProcess {
        let mut nodes: Vec<_> = self.group().nodes.iter().map(|node| node.ports).collect();
        nodes.extend(GroupOfNodes::ports(&mut self.ports, 1));
        let (number, ports) = (nodes.len(), nodes[nodes.len() - 1]);
        let config = GroupConfig {
            name: self.group().name.clone(),
            nodes,
            ..GroupConfig::default()
        };
        let (dir, data) = (self.scratch.path(), self.scratch.path().join(format!("north{number}")));
        let mut node = NodeProcess::new(
            &format!("north{number}"),
            dir,
            &data,
            ports,
            &config.text(number, &data),
        );
        node.start();
        node
    }

    /// More than a slow line carries at once.
    fn fill(&self) {
        let mut stomp = Stomp::connect(&self.group().addresses()[self.group().master()]).unwrap();
        for _ in 0..BACKLOG {
            stomp
                .request(Frame::message("/queue/BACKLOG", vec![b'x'; BODY_BYTES]))
                .unwrap();
        }
    }

    fn command(&self, words: &[&str]) -> Command {
        let admin = self.group().nodes[self.group().master()].ports.admin_address();
        let mut command = Command::new(binary::ferrymq());
        command
            .arg("member")
            .args(words)
            .args(["--admin", &format!("http://{admin}")])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Runs `ferrymq member …` to its end.
    fn run(&self, words: &[&str]) -> Said {
        self.command(words).output().unwrap().into()
    }

    /// `ferrymq member add`, under way: it has told that the node is catching up.
    fn begin(&self, number: &str, peer: &str) -> UnderWay {
        let mut child = self.command(&["add", number, "--peer", peer]).spawn().unwrap();
        let mut told = BufReader::new(child.stderr.take().unwrap());
        let mut first = String::new();
        while !first.contains("catching up") {
            let before = first.len();
            told.read_line(&mut first).unwrap();
            assert!(first.len() > before, "it has ended without catching up: {first}");
        }
        UnderWay { child, told, first }
    }

    fn members(&self) -> Vec<Value> {
        let status = self.group().status();
        status["group"]["members"].as_array().cloned().unwrap_or_default()
    }

    /// The group has so many members, all of them voters, and does its work.
    #[track_caller]
    fn assert_whole(&self, nodes: usize) {
        wait_until(&format!("there are {nodes} members, who all vote"), START_MAX, || {
            let members = self.members();
            members.len() == nodes && members.iter().all(|member| member["is_voter"] == true)
        });
        let mut stomp = Stomp::connect(&self.group().addresses()[self.group().master()]).unwrap();
        stomp.request(Frame::message("/queue/AFTER", "still here")).unwrap();
    }
}

/// What a command has said.
#[derive(Debug)]
struct Said {
    code: i32,
    text: String,
}

impl From<Output> for Said {
    fn from(output: Output) -> Self {
        let text = [output.stdout, output.stderr].concat();
        Self {
            code: output.status.code().unwrap_or(-1),
            text: String::from_utf8_lossy(&text).into_owned(),
        }
    }
}

impl Said {
    #[track_caller]
    fn assert_refused(&self, word: &str) {
        assert_eq!(self.code, 1, "{self:?}");
        assert!(self.text.contains(word), "{word:?} is not said: {self:?}");
    }
}

struct UnderWay {
    child: Child,
    told: BufReader<std::process::ChildStderr>,
    first: String,
}

impl UnderWay {
    #[track_caller]
    fn end(mut self) -> Said {
        wait_until("member add ends", JOIN_MAX, || self.child.try_wait().unwrap().is_some());
        let mut said = Said::from(self.child.wait_with_output().unwrap());
        let rest: String = self.told.lines().map_while(Result::ok).collect::<Vec<_>>().join("\n");
        said.text = format!("{}{rest}{}", self.first, said.text);
        said
    }
}

#[test]
fn an_address_where_nobody_listens_gets_no_vote_p2() {
    let mut trial = Trial::new("add-nobody", 1);
    let nobody = format!("127.0.0.1:{}", trial.ports.free());
    let begun = Instant::now();
    let said = trial.run(&["add", "2", "--peer", &nobody]);
    assert!(begun.elapsed() < REFUSED_WITHIN, "{:?}", begun.elapsed());
    said.assert_refused(&nobody);
    trial.assert_whole(1);
}

#[test]
fn a_port_that_says_nothing_gets_no_vote_p2() {
    let trial = Trial::new("add-mute", 1);
    let mute = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = mute.local_addr().unwrap().to_string();
    let begun = Instant::now();
    let said = trial.run(&["add", "2", "--peer", &address]);
    assert!(begun.elapsed() < REFUSED_WITHIN, "{:?}", begun.elapsed());
    said.assert_refused(&address);
    trial.assert_whole(1);
}

#[test]
fn somebody_else_gets_no_vote_p2() {
    let mut trial = Trial::new("add-else", 1);
    let other = trial.newcomer();
    let peer = |node: &NodeProcess| format!("127.0.0.1:{}", node.ports.peer);
    trial
        .run(&["add", "3", "--peer", &peer(&other)])
        .assert_refused("node 2");

    let south = MeshBuilder::new("add-south").group("south", 1).start();
    let stranger = peer(&south.groups[0].nodes[0]);
    trial.run(&["add", "3", "--peer", &stranger]).assert_refused("'south'");

    // Of the same name, but founded by itself.
    let data = trial.scratch.path().join("alone");
    let alone = GroupConfig {
        name: "north".into(),
        nodes: GroupOfNodes::ports(&mut trial.ports, 1),
        ..GroupConfig::default()
    };
    let text = alone.text(1, &data).replacen("node = 1", "node = 4", 1);
    let mut alone = NodeProcess::new("alone", trial.scratch.path(), &data, alone.nodes[0], &text);
    alone.start();
    wait_until("it has founded a group", START_MAX, || alone.is_master());
    trial
        .run(&["add", "4", "--peer", &peer(&alone)])
        .assert_refused("of its own");
    trial.assert_whole(1);
    assert!(alone.is_master());
}

#[test]
fn the_right_address_gets_a_vote() {
    let mut trial = Trial::new("add-right", 1);
    trial.fill();
    let node = trial.newcomer();
    let said = trial.run(&["add", "2", "--peer", &format!("127.0.0.1:{}", node.ports.peer)]);
    assert_eq!(said.code, 0, "{said:?}");
    trial.assert_whole(2);
    trial
        .run(&["add", "2", "--peer", "127.0.0.1:1"])
        .assert_refused("in use");
    let said = trial.run(&["remove", "2"]);
    assert_eq!(said.code, 0, "{said:?}");
    drop(node);
    trial.assert_whole(1);
}

#[test]
fn it_is_waited_for_as_long_as_it_takes_and_a_second_one_is_refused() {
    let mut trial = Trial::new("add-slow", 1);
    trial.fill();
    let node = trial.newcomer();
    let line = SlowLine::to(node.ports.peer, SLOW);
    let begun = Instant::now();
    let adding = trial.begin("2", &line.address());
    let said = trial.run(&["add", "3", "--peer", "127.0.0.1:1"]);
    said.assert_refused("node 2 is being added");
    let said = adding.end();
    assert_eq!(said.code, 0, "{said:?}");
    // The admin port and the command once gave up after ten seconds and left the change under way.
    assert!(
        begun.elapsed() > Duration::from_secs(11),
        "{:?}: not slow enough",
        begun.elapsed()
    );
    assert!(said.text.matches("catching up").count() > 2, "{said:?}");
    trial.assert_whole(2);
}

#[test]
fn a_node_that_is_lost_while_it_catches_up_is_taken_out_again_p2() {
    let mut trial = Trial::new("add-lost", 1);
    trial.fill();
    let mut node = trial.newcomer();
    let line = SlowLine::to(node.ports.peer, NEARLY_NOTHING);
    let adding = trial.begin("2", &line.address());
    node.kill();
    let said = adding.end();
    said.assert_refused("taken out again");
    trial.assert_whole(1);

    // The same node may try again, with what it has got.
    node.start();
    line.set_bytes_per_second(u64::MAX);
    let said = trial.run(&["add", "2", "--peer", &line.address()]);
    assert_eq!(said.code, 0, "{said:?}");
    trial.assert_whole(2);
}

#[test]
fn a_node_can_be_removed_while_it_catches_up() {
    let mut trial = Trial::new("add-removed", 1);
    trial.fill();
    let node = trial.newcomer();
    let line = SlowLine::to(node.ports.peer, NEARLY_NOTHING);
    let adding = trial.begin("2", &line.address());
    let said = trial.run(&["remove", "2"]);
    assert_eq!(said.code, 0, "{said:?}");
    adding.end().assert_refused("removed");
    trial.assert_whole(1);
}

#[test]
fn when_the_master_changes_a_node_that_catches_up_is_taken_out_again_p2() {
    let mut trial = Trial::new("add-change", 3);
    trial.fill();
    let node = trial.newcomer();
    let line = SlowLine::to(node.ports.peer, NEARLY_NOTHING);
    let adding = trial.begin("4", &line.address());
    let master = trial.group().master();
    assert_ne!(trial.group().step_down(), master);
    let said = adding.end();
    said.assert_refused("taken out again");
    trial.assert_whole(3);

    line.set_bytes_per_second(u64::MAX);
    let said = trial.run(&["add", "4", "--peer", &line.address()]);
    assert_eq!(said.code, 0, "{said:?}");
    trial.assert_whole(4);
}

#[test]
fn a_group_of_one_that_is_killed_while_a_node_catches_up_goes_on_alone_p2() {
    let mut trial = Trial::new("add-killed", 1);
    trial.fill();
    let node = trial.newcomer();
    let line = SlowLine::to(node.ports.peer, NEARLY_NOTHING);
    let adding = trial.begin("2", &line.address());
    trial.mesh.groups[0].nodes[0].kill();
    trial.mesh.groups[0].nodes[0].start();
    adding.end().assert_refused("taken out again");
    trial.assert_whole(1);
}
