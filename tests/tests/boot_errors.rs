//! A node that cannot start says why and how to cure it, with the right exit code, before it has touched anything.

#![allow(clippy::unwrap_used)] // Also in what the tests share, where the lint does not see that it is one.

use std::{fs, net::TcpListener, process::Command, time::Duration};

use ferrymq_tests::{GroupOfNodes, Mesh, MeshBuilder, binary};

/// Refusing takes no time; the rest is for a loaded machine.
const REFUSE_MAX: Duration = Duration::from_secs(10);

/// Starts the only node, waits for its end, and returns its exit code with what it said.
#[track_caller]
fn refusal(group: &mut GroupOfNodes) -> (Option<i32>, String) {
    group.nodes[0].spawn();
    let status = group.nodes[0].wait_for_end(REFUSE_MAX);
    (status.code(), group.nodes[0].log())
}

fn rewrite(mesh: &Mesh, from: &str, to: &str) {
    let config = mesh.groups[0].nodes[0].config();
    let text = fs::read_to_string(config).unwrap();
    assert!(text.contains(from), "{text}");
    fs::write(config, text.replace(from, to)).unwrap();
}

fn prepared(test: &str) -> Mesh {
    MeshBuilder::new(test).group("north", 1).prepare()
}

#[test]
fn every_mistake_is_named_with_its_line() {
    let mut mesh = prepared("mistakes");
    rewrite(&mesh, "group = ", "grup = ");
    rewrite(&mesh, "[store]", "[store]\nsync = \"sometimes\"");
    let (code, said) = refusal(&mut mesh.groups[0]);
    assert_eq!(code, Some(2), "{said}");
    assert!(
        said.contains("north1.toml:2:1") && said.contains("did you mean \"group\"?"),
        "{said}"
    );
    assert!(said.contains("sometimes") && said.contains("quorum_disk"), "{said}");
    assert!(!mesh.groups[0].nodes[0].data().exists(), "nothing was touched");
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let output = Command::new(binary::ferrymq())
        .args(["serve", "--config", "/nowhere/x.toml"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("/nowhere/x.toml"), "{said}");
}

#[test]
fn a_port_in_use_is_named_with_its_key() {
    let mut mesh = prepared("ports");
    let ports = mesh.groups[0].nodes[0].ports;
    for (port, key) in [(ports.stomp, "stomp"), (ports.admin, "admin")] {
        let taken = TcpListener::bind(("127.0.0.1", port)).unwrap();
        let (code, said) = refusal(&mut mesh.groups[0]);
        assert_eq!(code, Some(1), "{said}");
        assert!(
            said.contains(&port.to_string()) && said.to_lowercase().contains(key),
            "{said}"
        );
        drop(taken);
    }
    mesh.groups[0].start();
}

#[test]
fn another_nodes_data_is_refused() {
    let mut mesh = prepared("foreign");
    mesh.groups[0].start();
    mesh.groups[0].nodes[0].stop();
    rewrite(&mesh, "group = \"north\"", "group = \"south\"");
    let (code, said) = refusal(&mut mesh.groups[0]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("north") && said.contains("south"), "{said}");
    rewrite(&mesh, "group = \"south\"", "group = \"north\"");
    mesh.groups[0].start();
}

#[test]
fn a_second_process_on_the_same_data_is_refused() {
    let mut mesh = prepared("twice");
    mesh.groups[0].start();
    let text = fs::read_to_string(mesh.groups[0].nodes[0].config()).unwrap();
    // Other ports, the same directory.
    let ports = mesh.groups[0].nodes[0].ports;
    let mut other = text;
    for port in [ports.stomp, ports.peer, ports.admin] {
        other = other.replace(&format!(":{port}\""), &format!(":{}\"", port + 10));
    }
    let config = mesh.dir().join("twin.toml");
    fs::write(&config, other).unwrap();
    let output = Command::new(binary::ferrymq())
        .args(["serve", "--config"])
        .arg(&config)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("north1"), "it names the directory: {said}");
    assert!(mesh.groups[0].nodes[0].is_master(), "the first one goes on");
}

#[test]
fn an_open_port_where_nobody_is_asked_is_refused() {
    for key in ["stomp", "admin"] {
        let mut mesh = prepared(&format!("open-{key}"));
        let ports = mesh.groups[0].nodes[0].ports;
        let port = if key == "stomp" { ports.stomp } else { ports.admin };
        rewrite(&mesh, &format!("127.0.0.1:{port}"), &format!("0.0.0.0:{port}"));
        let (code, said) = refusal(&mut mesh.groups[0]);
        assert_eq!(code, Some(2), "{said}");
        assert!(
            said.contains("[[users]]") && said.contains("anonymous = true"),
            "{said}"
        );
        // Said in so many words, it is as the operator wants it.
        rewrite(&mesh, "[store]", "[access]\nanonymous = true\n\n[store]");
        mesh.groups[0].start();
        assert!(mesh.groups[0].nodes[0].log().contains("not asked who they are"));
    }
}

#[test]
fn an_open_peer_port_without_a_secret_is_refused() {
    let mut mesh = prepared("open-peer");
    let port = mesh.groups[0].nodes[0].ports.peer;
    rewrite(&mesh, &format!("127.0.0.1:{port}"), &format!("0.0.0.0:{port}"));
    let (code, said) = refusal(&mut mesh.groups[0]);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("secret"), "{said}");
}
