//! Variables of the environment go before the file, and are checked as strictly.

#![allow(clippy::unwrap_used)] // Also in what the tests share, where the lint does not see that it is one.

use std::{os::unix::fs::PermissionsExt, time::Duration};

use ferrymq_conf::{Loaded, Problems, Sync, read};

const FILE: &str = "group = \"g\"\ndata = \"d\"\n[listen]\nstomp = \"127.0.0.1:1000\"\n";

fn with(variables: &[(&str, &str)]) -> Result<Loaded, Problems> {
    read(
        "a.toml",
        FILE,
        variables
            .iter()
            .map(|(name, text)| ((*name).to_owned(), (*text).to_owned())),
    )
}

#[test]
fn every_type_of_value_can_be_given() {
    let node = with(&[
        ("FERRYMQ_NODE", "2"),
        ("FERRYMQ_GROUP", "south"),
        ("FERRYMQ_MEMBERS_1", "127.0.0.1:2001"),
        ("FERRYMQ_MEMBERS_2", "127.0.0.1:2002"),
        ("FERRYMQ_MEMBERS_3", "127.0.0.1:2003"),
        ("FERRYMQ_LISTEN_STOMP", "127.0.0.1:2000"),
        ("FERRYMQ_LISTEN_ADMIN", "off"),
        ("FERRYMQ_MESH_SECRET", "0123456789abcdef"),
        (
            "FERRYMQ_MESH_CONNECTORS",
            "[\"mdns:\", \"static:(tcp://127.0.0.1:9,tcp://127.0.0.1:8)\"]",
        ),
        ("FERRYMQ_STORE_SYNC", "quorum_mem"),
        ("FERRYMQ_STORE_SEGMENT", "32MiB"),
        ("FERRYMQ_TIMERS_HEARTBEAT", "50ms"),
        ("FERRYMQ_LIMITS_EXPIRED_TO_DEAD_LETTER", "false"),
        // What Kubernetes makes for a service called ferrymq, and what is not ours at all.
        ("FERRYMQ_PORT", "tcp://10.0.0.1:61613"),
        ("FERRYMQ_SERVICE_HOST", "10.0.0.1"),
        ("PATH", "/bin"),
    ])
    .unwrap()
    .node;
    assert_eq!((node.node, node.group.as_str(), node.members.len()), (2, "south", 3));
    assert_eq!(node.listen.peer, Some("127.0.0.1:2002".parse().unwrap()));
    assert_eq!(node.listen.stomp, Some("127.0.0.1:2000".parse().unwrap()));
    assert_eq!(node.listen.admin, None);
    assert_eq!(node.mesh.connectors.len(), 2);
    assert_eq!(node.mesh.connectors[0].uri, "mdns:");
    assert_eq!((node.store.sync, node.store.segment_bytes), (Sync::QuorumMem, 32 << 20));
    assert_eq!(node.timers.heartbeat, Duration::from_millis(50));
    assert!(!node.limits.expired_to_dead_letter);
}

#[test]
fn errors_name_the_variable() {
    let problems = with(&[
        ("FERRYMQ_LISTEN_STOP", "127.0.0.1:2000"),
        ("FERRYMQ_STORE_SEGMENT", "huge"),
        ("FERRYMQ_NODE", "zero"),
        ("FERRYMQ_MEMBERS_X", "127.0.0.1:2000"),
    ])
    .unwrap_err();
    assert_eq!(
        problems.to_string(),
        "FERRYMQ_LISTEN_STOP: unknown variable; did you mean \"FERRYMQ_LISTEN_STOMP\"?\n\
         FERRYMQ_MEMBERS_X: members: \"X\" is not the number of a node; write a line such as \
         2 = \"10.0.0.2:61617\" for each\n\
         FERRYMQ_NODE: node: must be between 1 and 65535\n\
         FERRYMQ_STORE_SEGMENT: store.segment: \"huge\" is not a size; write it as \"64MiB\", \"64MB\" or in bytes"
    );
}

#[test]
fn a_secret_comes_from_a_file_and_is_never_shown() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("secret");
    std::fs::write(&path, "0123456789abcdef\n").unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o604)).unwrap();
    let loaded = with(&[("FERRYMQ_MESH_SECRET_FILE", path.to_str().unwrap())]).unwrap();
    assert!(
        loaded.warnings[0]
            .to_string()
            .contains("every user of this machine can read"),
        "{:?}",
        loaded.warnings
    );
    assert_eq!(loaded.node.mesh.secret.as_ref().unwrap().expose(), "0123456789abcdef");
    assert!(!format!("{loaded:?}").contains("0123456789abcdef"));
    assert_eq!(loaded.node.listen.link, Some("127.0.0.1:61618".parse().unwrap()));

    let problems = with(&[("FERRYMQ_MESH_SECRET", "hunter2")]).unwrap_err().to_string();
    assert!(
        problems.contains("has 7 bytes, at least 16") && !problems.contains("hunter2"),
        "{problems}"
    );
}
