//! The sample files: each is good, and those of one folder agree with each other.

#![allow(clippy::unwrap_used)] // Also in what the tests share, where the lint does not see that it is one.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    path::{Path, PathBuf},
};

use ferrymq_conf::{Limits, Log, Node, Store, Timers, load};

fn samples(folder: &str) -> BTreeMap<String, Node> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("samples").join(folder);
    let mut nodes = BTreeMap::new();
    for file in std::fs::read_dir(&dir).unwrap() {
        let path = file.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            let loaded = load(&path, []).unwrap_or_else(|problems| panic!("{problems}"));
            assert_eq!(loaded.warnings, [], "{name}");
            nodes.insert(name, loaded.node);
        }
    }
    nodes
}

/// Addresses that a static list names.
fn listed(uri: &str) -> Vec<SocketAddr> {
    uri.split(['(', ')', ','])
        .filter_map(|part| part.trim().strip_prefix("tcp://"))
        .map(|a| a.parse().unwrap())
        .collect()
}

fn agree(nodes: &BTreeMap<String, Node>) {
    let mut ports = BTreeSet::new();
    let mut directories = BTreeSet::new();
    let mut members: BTreeMap<&str, &Node> = BTreeMap::new();
    for (name, node) in nodes {
        assert_eq!(*name, format!("{}{}", node.group, node.node));
        assert!(directories.insert(&node.data), "{name}");
        for address in [node.listen.stomp, node.listen.peer, node.listen.link, node.listen.admin] {
            assert!(ports.insert(address.unwrap()), "{name}: {address:?} is taken twice");
        }
        let first = members.entry(&node.group).or_insert(node);
        if !node.is_alone() {
            assert_eq!(first.members, node.members, "{name}");
        }
        assert_eq!(first.mesh, node.mesh, "{name}");
        let me = node.me();
        let text = |address: Option<SocketAddr>| address.map(|address| address.to_string());
        assert_eq!(Some(&me.peer), text(node.listen.peer).as_ref(), "{name}");
        assert_eq!(
            (&me.stomp, &me.link),
            (&text(node.listen.stomp), &text(node.listen.link)),
            "{name}"
        );
        assert_eq!(me.admin, text(node.listen.admin), "{name}");
    }
    let secrets: BTreeSet<&str> = nodes
        .values()
        .map(|n| n.mesh.secret.as_ref().unwrap().expose())
        .collect();
    assert_eq!(secrets.len(), 1);
    for node in nodes.values() {
        for address in node.mesh.connectors.iter().flat_map(|connector| listed(&connector.uri)) {
            let other = nodes.values().find(|other| other.listen.link == Some(address));
            assert!(
                other.is_some_and(|other| other.group != node.group),
                "{address} is another group's link"
            );
        }
    }
}

fn groups(nodes: &BTreeMap<String, Node>) -> Vec<(&str, usize)> {
    let mut groups: BTreeMap<&str, usize> = BTreeMap::new();
    nodes
        .values()
        .for_each(|node| *groups.entry(&node.group).or_default() += 1);
    groups.into_iter().collect()
}

#[test]
fn two_groups_with_static_lists() {
    let nodes = samples("two-groups-static");
    assert_eq!(groups(&nodes), [("north", 3), ("south", 3)]);
    agree(&nodes);
    for node in nodes.values() {
        assert_eq!(listed(&node.mesh.connectors[0].uri).len(), 3);
    }
}

#[test]
fn two_groups_with_multicast() {
    let nodes = samples("two-groups-multicast");
    assert_eq!(groups(&nodes), [("north", 3), ("south", 3)]);
    agree(&nodes);
    for node in nodes.values() {
        assert_eq!(node.mesh.connectors[0].uri, "multicast://default?group=samples");
    }
}

#[test]
fn three_groups_in_line() {
    let nodes = samples("three-in-line");
    assert_eq!(groups(&nodes), [("east", 1), ("middle", 3), ("west", 1)]);
    agree(&nodes);
    let middle = &nodes["middle1"].mesh.connectors;
    let names: Vec<&str> = middle.iter().map(|connector| connector.name.as_str()).collect();
    assert_eq!(names, ["to-west", "to-east"]);
    assert_eq!(middle[0].excluded, ["queue://LOCAL.>"]);
}

/// The sample of a single node spells the defaults out, so it must say the same as a file without them.
#[test]
fn the_single_nodes_sample_tells_the_true_defaults() {
    let sample = samples("").remove("single").unwrap();
    let short = ferrymq_conf::read("short.toml", "group = \"single\"\ndata = \"./data/single\"\n", []).unwrap();
    assert_eq!(short.node, sample);
    assert_eq!(short.warnings, []);
    let Store {
        segment_bytes,
        limit_bytes,
        ..
    } = sample.store;
    assert_eq!((segment_bytes, limit_bytes), (64 << 20, 100 << 30));
    let Limits {
        frame_bytes_max,
        prefetch,
        redeliveries_max,
        ..
    } = sample.limits;
    assert_eq!((frame_bytes_max, prefetch, redeliveries_max), (32 << 20, 1_000, 6));
    let Timers {
        heartbeat,
        election_min,
        election_max,
        fast_failover,
        ..
    } = sample.timers;
    assert_eq!(
        [heartbeat, election_min, election_max].map(|t| t.as_millis()),
        [60, 250, 400]
    );
    assert!(fast_failover);
    assert_eq!(sample.log, Log { level: "info".into() });
    assert_eq!(sample.data, PathBuf::from("./data/single"));
    assert_eq!(sample.listen.link, None);
}

#[test]
fn the_sample_with_users_asks_everybody() {
    let sample = samples("").remove("users").unwrap();
    assert!(!sample.access.anonymous);
    let users: Vec<_> = sample
        .access
        .users
        .iter()
        .map(|user| (&*user.name, &*user.groups[0]))
        .collect();
    assert_eq!(users, [("app", "shop"), ("admin", "admins")]);
    assert!(sample.access.users.iter().all(|user| user.password.is_some()));
    assert_eq!(sample.access.permissions[0].destination, "queue://orders.>");
    assert_eq!((sample.listen.peer, sample.listen.link), (None, None));
    // Left out, it is the same: no door that nobody asks at.
    let users = "[[users]]\nname = \"a\"\npassword = \"$argon2id$v=19$m=19456,t=2,p=1$BwcHBwcHBwcHBwcHBwcHBw$\
                 AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\"\n";
    let short = ferrymq_conf::read("short.toml", &format!("group = \"g\"\ndata = \"d\"\n{users}"), []).unwrap();
    assert_eq!(short.node.listen.peer, None);
    assert!(!format!("{short:?}").contains("BwcHBw"));
}
