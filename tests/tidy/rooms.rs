//! The direction between the rooms: who may name whom (docs/ARCHITECTURE.md).

use std::{collections::BTreeMap, fs};

use crate::sources::{files, none, root};

/// Each room with the rooms of ours that it may see. `node` sees all, and the tests see only the running program.
const MAY_SEE: [(&str, &[&str]); 20] = [
    ("ferrymq-message", &[]),
    ("ferrymq-protocol", &["ferrymq-message"]),
    ("ferrymq-broker", &["ferrymq-message"]),
    (
        "ferrymq-replication",
        &[
            "ferrymq-message",
            "ferrymq-broker",
            "ferrymq-journal",
            "ferrymq-transport",
        ],
    ),
    ("ferrymq-journal", &[]),
    ("ferrymq-dispatch", &["ferrymq-broker", "ferrymq-message"]),
    ("ferrymq-access", &["ferrymq-message"]),
    ("ferrymq-transport", &[]),
    ("ferrymq-console", &[]),
    (
        "ferrymq-client",
        &[
            "ferrymq-message",
            "ferrymq-protocol",
            "ferrymq-discovery",
            // For TLS alone.
            "ferrymq-transport",
        ],
    ),
    ("ferrymq-bench", &["ferrymq-client"]),
    ("ferrymq-discovery", &[]),
    (
        "ferrymq-forwarding",
        &["ferrymq-broker", "ferrymq-transport", "ferrymq-message"],
    ),
    // For the types of their settings and the reading of URIs and hashes alone.
    (
        "ferrymq-conf",
        &[
            "ferrymq-access",
            "ferrymq-discovery",
            "ferrymq-journal",
            "ferrymq-replication",
            "ferrymq-transport",
        ],
    ),
    ("ferrymq-tests", &[]),
    ("ferrymq-fuzz", &[]),
    ("ferrymq-chaos", &["ferrymq-tests"]),
    // What it measures, piece by piece.
    (
        "ferrymq-suite",
        &[
            "ferrymq-bench",
            "ferrymq-broker",
            "ferrymq-client",
            "ferrymq-dispatch",
            "ferrymq-forwarding",
            "ferrymq-journal",
            "ferrymq-message",
            "ferrymq-protocol",
            "ferrymq-tests",
        ],
    ),
    // What it simulates; the sources of node, replication and journal it compiles itself.
    (
        "ferrymq-simulation",
        &[
            "ferrymq-access",
            "ferrymq-broker",
            "ferrymq-dispatch",
            "ferrymq-forwarding",
            "ferrymq-message",
            "ferrymq-protocol",
            "ferrymq-simulated-journal",
        ],
    ),
    ("ferrymq-simulated-journal", &[]),
];

/// Crates that one room alone may name, so that one room alone changes when they do.
const ONLY: [(&str, &[&str]); 7] = [
    ("argon2", &["ferrymq-access"]),
    ("openraft", &["ferrymq-replication"]),
    ("quinn", &["ferrymq-transport"]),
    ("rustls", &["ferrymq-transport"]),
    ("tokio-rustls", &["ferrymq-transport"]),
    ("axum", &["ferrymq-console"]),
    ("mdns-sd", &["ferrymq-discovery"]),
];

struct Manifest {
    name: String,
    dependencies: Vec<String>,
}

fn manifests() -> Vec<Manifest> {
    let root: toml::Table = fs::read_to_string(root().join("Cargo.toml")).unwrap().parse().unwrap();
    let members = root["workspace"]["members"].as_array().unwrap();
    let read = |member: &toml::Value| {
        let path = crate::sources::root().join(member.as_str().unwrap()).join("Cargo.toml");
        let table: toml::Table = fs::read_to_string(path).unwrap().parse().unwrap();
        let names = |key: &str| table.get(key).and_then(toml::Value::as_table).into_iter().flatten();
        Manifest {
            name: table["package"]["name"].as_str().unwrap().to_owned(),
            dependencies: names("dependencies").map(|(name, _)| name.clone()).collect(),
        }
    };
    members.iter().map(read).collect()
}

#[test]
fn a_room_sees_only_what_the_design_lets_it_see() {
    let may_see: BTreeMap<&str, &[&str]> = MAY_SEE.into_iter().collect();
    let mut found = Vec::new();
    for manifest in manifests().iter().filter(|manifest| manifest.name != "ferrymq") {
        let Some(allowed) = may_see.get(manifest.name.as_str()) else {
            found.push(format!(
                "{} has no place in the table of tests/tidy/rooms.rs",
                manifest.name
            ));
            continue;
        };
        let ours = manifest.dependencies.iter().filter(|name| name.starts_with("ferrymq"));
        for seen in ours.filter(|name| !allowed.contains(&name.as_str())) {
            found.push(format!("{} sees {seen}", manifest.name));
        }
    }
    none("rooms that see too much", &found);
}

#[test]
fn some_crates_have_one_room() {
    let mut found = Vec::new();
    for manifest in manifests() {
        for (name, rooms) in ONLY {
            if manifest.dependencies.iter().any(|seen| seen == name) && !rooms.contains(&manifest.name.as_str()) {
                found.push(format!("{} names {name}, which belongs to {rooms:?}", manifest.name));
            }
        }
    }
    none("crates that have spread", &found);
}

#[test]
fn the_other_tls_provider_stays_out() {
    let lock = &files(&["Cargo.lock"])[0];
    let names = lock.text.lines().filter_map(|line| line.strip_prefix("name = "));
    let found: Vec<String> = names
        .filter(|name| name.contains("aws-lc") || name.contains("openssl"))
        .map(Into::into)
        .collect();
    none("ring is the only provider of cryptography", &found);
}

#[test]
fn an_alpha_is_pinned_exactly() {
    let text = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let line = text.lines().find(|line| line.starts_with("openraft")).unwrap();
    assert!(line.contains("version = \"="), "{line}");
}
