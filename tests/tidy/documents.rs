//! Documents name what is there, and nothing of the machine on which they were written.

use std::path::Path;

use crate::sources::{files, none, root};

/// What every repository of ours has for its readers.
const EXPECTED: [&str; 6] = [
    "README.md",
    "docs/ARCHITECTURE.md",
    "docs/OPERATING.md",
    "docs/GLOSSARY.md",
    "docs/CONTRIBUTING.md",
    "docs/adr/0001-openraft-version.md",
];

#[test]
fn the_documents_are_there() {
    let missing = EXPECTED.iter().filter(|path| !root().join(path).exists());
    none(
        "documents that are not there",
        &missing.map(ToString::to_string).collect::<Vec<_>>(),
    );
}

/// Links of the form `[text](path)` to files of the repository.
#[test]
fn links_lead_somewhere() {
    let mut found = Vec::new();
    for source in files(&[".md"]) {
        let folder = root().join(Path::new(&source.path).parent().unwrap());
        for link in source
            .text
            .split("](")
            .skip(1)
            .filter_map(|rest| rest.split(')').next())
        {
            let target = link.split('#').next().unwrap_or("");
            let elsewhere = target.is_empty() || target.contains("://") || target.starts_with("mailto:");
            if !elsewhere && !folder.join(target).exists() {
                found.push(format!("{} links to {target}", source.path));
            }
        }
    }
    none("links that lead nowhere", &found);
}

/// Paths in back quotes that begin with one of our folders.
#[test]
fn files_that_the_documents_name_exist() {
    let folders = ["node/", "conf/", "discovery/", "forwarding/", "tests/", "docs/", ".ci/"];
    let mut found = Vec::new();
    for source in files(&[".md"]) {
        let quoted = source.text.split('`').skip(1).step_by(2);
        for path in quoted.filter(|path| folders.iter().any(|folder| path.starts_with(folder))) {
            let plain = path.chars().all(|c| c.is_alphanumeric() || "/._-".contains(c));
            if plain && !root().join(path).exists() {
                found.push(format!("{} names {path}", source.path));
            }
        }
    }
    none("files that documents name and that are not there", &found);
}

#[test]
fn nothing_tells_of_the_machine_on_which_it_was_written() {
    // Put together here, so that this file does not find itself.
    let forbidden = [
        ["/wor", "k/"],
        ["/tmp/fer", "ry"],
        ["/ro", "ot/"],
        ["/home", "/"],
        ["pypi.", "internal"],
    ]
    .map(|parts| parts.concat());
    let mut found = Vec::new();
    for source in files(&[".rs", ".md", ".toml", ".txt", ".sh", ".py", "run", ".yml", ".yaml"]) {
        for (at, line) in source.text.lines().enumerate() {
            let bad = forbidden.iter().filter(|word| line.contains(word.as_str()));
            found.extend(bad.map(|word| format!("{}:{} has {word}", source.path, at + 1)));
        }
    }
    none("traces of a machine", &found);
}
