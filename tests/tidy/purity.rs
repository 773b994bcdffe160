//! What the pure rooms keep away from, so that every replica does the same and a test can replay it.

use crate::sources::{Source, files, none};

const PURE: [&str; 5] = [
    "node/message/",
    "node/protocol/",
    "node/broker/",
    "node/dispatch/",
    "node/access/",
];

/// Hash maps that are walked all the same, and why that does no harm.
const WALKED: [(&str, &str); 1] = [
    // Counted.
    ("node/dispatch/src/queue.rs", "flights"),
];

fn pure() -> Vec<Source> {
    let all = files(&[".rs"]).into_iter();
    all.filter(|source| PURE.iter().any(|room| source.path.starts_with(room)) && !source.is_test())
        .collect()
}

#[test]
fn pure_rooms_have_no_clock_no_chance_and_no_io() {
    let forbidden = [
        "tokio",
        "async ",
        "SystemTime",
        "Instant::",
        "time::Instant",
        " rand::",
        "SystemRandom",
        "RandomState",
        "std::fs",
        "std::net",
        "std::io",
        "std::thread",
        "std::env",
        "fs::",
        "println!",
        "tracing",
    ];
    let mut found = Vec::new();
    for source in pure() {
        for (at, line) in source.product_lines() {
            found.extend(
                forbidden
                    .iter()
                    .filter(|word| line.contains(**word))
                    .map(|word| format!("{}:{at} has {word}", source.path)),
            );
        }
    }
    none("pure rooms", &found);
}

#[test]
fn pure_rooms_depend_on_nothing_that_does_io() {
    let allowed = [
        "bytes",
        "thiserror",
        "foldhash",
        "crc32fast",
        "serde",
        // What passwords are checked with: functions of their arguments, too.
        "argon2",
        "base64",
        "ring",
        "subtle",
    ];
    let mut found = Vec::new();
    for source in files(&["Cargo.toml"])
        .iter()
        .filter(|source| PURE.iter().any(|room| source.path.starts_with(room)))
    {
        let manifest: toml::Table = source.text.parse().unwrap();
        for (name, _) in manifest["dependencies"].as_table().unwrap() {
            if !allowed.contains(&name.as_str()) && !name.starts_with("ferrymq-") {
                found.push(format!("{} names {name}", source.path));
            }
        }
    }
    none("dependencies of pure rooms", &found);
}

/// The order inside a hash map is nobody's: to walk over it makes replicas differ.
#[test]
fn pure_rooms_do_not_walk_over_hash_maps() {
    let walks = [
        ".iter()",
        ".iter_mut()",
        ".keys()",
        ".values()",
        ".values_mut()",
        ".drain()",
        ".retain(",
        ".into_iter()",
    ];
    let mut found = Vec::new();
    let mut used = Vec::new();
    for source in pure() {
        let declared = source
            .product_lines()
            .filter(|(_, line)| line.contains(": HashMap<") || line.contains(": HashSet<"));
        let names: Vec<&str> = declared
            .filter_map(|(_, line)| line.split(':').next()?.split_whitespace().last())
            .map(|name| name.trim_start_matches('('))
            .collect();
        for (at, line) in chains(&source) {
            for name in &names {
                let walked = walks.iter().any(|walk| line.contains(&format!("{name}{walk}")))
                    || line.contains(&format!("in &self.{name}"))
                    || line.contains(&format!("in &mut self.{name}"));
                if walked && WALKED.contains(&(source.path.as_str(), name)) {
                    used.push((source.path.clone(), (*name).to_owned()));
                } else if walked {
                    found.push(format!("{}:{at} walks over {name}", source.path));
                }
            }
        }
    }
    none("walks over hash maps", &found);
    for (path, name) in WALKED {
        let still = used.contains(&(path.to_owned(), name.to_owned()));
        assert!(still, "the exception of {path}, {name} is an old one");
    }
}

/// Lines, with the calls that follow on lines of their own.
fn chains(source: &Source) -> Vec<(usize, String)> {
    let mut all: Vec<(usize, String)> = Vec::new();
    for (at, line) in source.product_lines() {
        match all.last_mut() {
            Some((_, chain)) if line.trim_start().starts_with('.') => chain.push_str(line.trim()),
            _ => all.push((at, line.trim_end().to_owned())),
        }
    }
    all
}

/// Inside `apply` there is no master (DESIGN: "the broker never asks whether it is master").
#[test]
fn the_core_does_not_ask_who_is_master() {
    let mut found = Vec::new();
    for source in pure()
        .iter()
        .filter(|source| source.path.starts_with("node/broker/src"))
    {
        let asks = |line: &str| line.contains("is_master") || line.contains("Role::") || line.contains("am_master");
        found.extend(
            source
                .product_lines()
                .filter(|(_, line)| asks(line))
                .map(|(at, _)| format!("{}:{at}", source.path)),
        );
    }
    none("questions that the core must not ask", &found);
}
