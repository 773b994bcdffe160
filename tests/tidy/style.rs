//! How files look.

use crate::sources::{files, none};

/// Longest file of the product, in lines.
const LINES_MAX: usize = 800;

/// Where time may pass in tests: where a condition is waited for with a deadline, load that runs until it is told to
/// stop, consumers whose work takes time, who asks and delays all the time, a line that is slow, and a broker that shall
/// come to rest before it is measured.
const MAY_SLEEP: [&str; 11] = [
    "tests/bench/compare/brokers.rs",
    "tests/chaos/src/netem.rs",
    "tests/chaos/src/stream.rs",
    "tests/chaos/src/watch.rs",
    "tests/src/slow_line.rs",
    "tests/src/wait.rs",
    "tests/src/load.rs",
    "tests/tests/sharing.rs",
    "node/replication/tests/harness/",
    "forwarding/tests/sim/",
    "tests/tidy/style.rs",
];

/// A condition is waited for in so many lines, in which the deadline is looked at too.
const LINES_OF_A_POLL: usize = 12;

#[test]
fn every_file_says_first_what_it_is() {
    let sources = files(&[".rs"]);
    let silent = sources.iter().filter(|source| !source.text.starts_with("//!"));
    none(
        "files without a first word",
        &silent.map(|source| source.path.clone()).collect::<Vec<_>>(),
    );
}

#[test]
fn every_room_says_from_where_to_where_and_what_never() {
    let mut found = Vec::new();
    for source in files(&["lib.rs"])
        .iter()
        .filter(|source| source.path.ends_with("src/lib.rs") && !source.is_test())
    {
        let head: String = source.text.lines().take_while(|line| line.starts_with("//!")).collect();
        let head = head.to_lowercase();
        let missing = ["from", "never"].into_iter().filter(|word| !head.contains(word));
        found.extend(missing.map(|word| format!("{} does not say *{word}*", source.path)));
    }
    none("rooms without a door plate", &found);
}

#[test]
fn files_are_short() {
    let long = |lines: usize| lines > LINES_MAX;
    let found: Vec<String> = files(&[".rs"])
        .iter()
        .filter(|source| !source.is_test())
        .map(|source| (source.path.clone(), source.text.lines().count()))
        .filter(|(_, lines)| long(*lines))
        .map(|(path, lines)| format!("{path} has {lines} lines"))
        .collect();
    none("files that should be several", &found);
}

#[test]
fn no_test_is_switched_off_and_none_waits_for_time_to_pass() {
    let mut found = Vec::new();
    for source in files(&[".rs"]) {
        let tests_begin = if source.is_test() {
            Some(0)
        } else {
            source.text.find("#[cfg(test)]")
        };
        for (at, line) in source.text.lines().enumerate() {
            if line.trim_start().starts_with("#[ignore") {
                found.push(format!("{}:{} is switched off", source.path, at + 1));
            }
        }
        if MAY_SLEEP.iter().any(|path| source.path.starts_with(path)) {
            continue;
        }
        let begin = tests_begin.map_or(usize::MAX, |begin| source.text[..begin].lines().count());
        let lines: Vec<&str> = source.text.lines().collect();
        for (at, line) in lines.iter().enumerate().skip(begin) {
            let before = &lines[at.saturating_sub(LINES_OF_A_POLL)..at];
            let polls = before
                .iter()
                .any(|line| line.contains("elapsed()") || line.contains("deadline"));
            if line.contains("sleep(") && !line.trim_start().starts_with("//") && !polls {
                found.push(format!("{}:{} sleeps in a test", source.path, at + 1));
            }
        }
    }
    none("tests that hide or hope", &found);
}

/// Who sees for a while that nothing happens: a flood and a rest that are measured meanwhile, and nodes without a
/// majority, which nothing follows after.
const MAY_HOLD: [&str; 6] = [
    "tests/bench/",
    "tests/limits/announcements.rs",
    "tests/src/wait.rs",
    "tests/tests/group.rs",
    "tests/tests/restored.rs",
    "tests/tidy/style.rs",
];

/// What is feared may come just after a fixed time, and a loaded machine needs longer for it: tests wait for something
/// that comes after it on the same road (`Stomp::expect_no_more`).
#[test]
fn no_test_sees_by_a_quiet_time_that_nothing_happens() {
    let waits = ["holds_for(", "expect_nothing", "QUIET"];
    let mut found = Vec::new();
    for source in files(&[".rs"]) {
        if MAY_HOLD.iter().any(|path| source.path.starts_with(path)) {
            continue;
        }
        for (at, line) in source.text.lines().enumerate() {
            if waits.iter().any(|wait| line.contains(wait)) {
                found.push(format!("{}:{} waits for nothing", source.path, at + 1));
            }
        }
    }
    none("tests that take silence for an answer", &found);
}

#[test]
fn names_say_what_a_thing_is() {
    let empty = ["Manager", "Helper", "Helpers", "Util", "Utils", "Impl", "Info", "Data"];
    let mut found = Vec::new();
    for source in files(&[".rs"]) {
        for (at, line) in source.product_lines() {
            let words: Vec<&str> = line.split(|c: char| !c.is_alphanumeric() && c != '_').collect();
            for pair in words.windows(2) {
                let declares = ["struct", "enum", "trait", "type"].contains(&pair[0]);
                // `type Data` in an `impl` is a foreign trait's own word.
                let foreign = pair[0] == "type" && line.starts_with(' ');
                if declares && !foreign && empty.iter().any(|word| pair[1].ends_with(word)) {
                    found.push(format!("{}:{at} {}", source.path, pair[1]));
                }
            }
        }
    }
    none("names that say nothing", &found);
}

#[test]
fn nothing_panics_by_choice() {
    let forbidden = [".unwrap()", "todo!(", "unimplemented!(", "dbg!("];
    let mut found = Vec::new();
    for source in files(&[".rs"])
        .iter()
        .filter(|source| !source.is_test() && !source.path.starts_with("tests/"))
    {
        for (at, line) in source.product_lines() {
            let bad = forbidden.iter().filter(|word| line.contains(**word));
            found.extend(bad.map(|word| format!("{}:{at} has {word}", source.path)));
        }
    }
    none("what must not be in the product", &found);
}
