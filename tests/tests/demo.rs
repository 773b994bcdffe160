//! `ferrymq demo`, as the README tells newcomers to run it: it must keep its promises, and leave nothing behind.

#![allow(clippy::unwrap_used)] // Also in what the tests share, where the lint does not see that it is one.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Command, Stdio},
    time::Duration,
};

use ferrymq_tests::{binary, scratch::Scratch, wait_until};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// The demo's own deadline, in seconds.
const TIMEOUT: &str = "150";

fn demo(scratch: &Scratch, args: &[&str]) -> Command {
    let mut command = Command::new(binary::ferrymq());
    // The demo makes its directory here, so that what it leaves can be seen.
    command
        .env("TMPDIR", scratch.path())
        .arg("demo")
        .args(args)
        .args(["--timeout", TIMEOUT]);
    command
}

fn run(scratch: &Scratch, args: &[&str]) -> Value {
    let output = demo(scratch, args).args(["-o", "json"]).output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    println!("{told}");
    assert_eq!(
        output.status.code(),
        Some(0),
        "{told}{}",
        String::from_utf8_lossy(&output.stdout)
    );
    serde_json::from_slice(&output.stdout).unwrap()
}

fn left_over(scratch: &Scratch) -> Vec<PathBuf> {
    fs::read_dir(scratch.path())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect()
}

/// Nodes that run with a configuration from this directory.
fn processes(scratch: &Scratch) -> Vec<i32> {
    let dir = scratch.path().display().to_string();
    let all = fs::read_dir("/proc").unwrap().flatten();
    all.filter_map(|entry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        let command = fs::read(entry.path().join("cmdline")).ok()?;
        let command = String::from_utf8_lossy(&command).into_owned();
        (command.contains("serve") && command.contains(&dir)).then_some(pid)
    })
    .collect()
}

#[test]
fn both_masters_are_killed_and_every_message_is_accounted_for() {
    let scratch = Scratch::new("demo");
    let account = run(&scratch, &["--messages", "6000"]);
    for (name, expected) in [
        ("sent", 6_000),
        ("acknowledged", 6_000),
        ("received", 6_000),
        ("lost", 0),
        ("doubled", 0),
        ("out_of_order", 0),
        ("damaged", 0),
    ] {
        assert_eq!(account[name], expected, "{name}: {account:#}");
    }
    let kills = account["kills"].as_array().unwrap();
    let groups: Vec<&Value> = kills.iter().map(|kill| &kill["group"]).collect();
    assert_eq!(groups, ["north", "south"], "{account:#}");
    assert!(
        kills.iter().all(|kill| kill["killed"] != kill["successor"]),
        "{account:#}"
    );
    assert_eq!((left_over(&scratch), processes(&scratch)), (vec![], vec![]));
}

#[test]
fn it_also_runs_with_multicast_and_without_kills() {
    let scratch = Scratch::new("demo-multicast");
    let account = run(
        &scratch,
        &[
            "--messages",
            "1000",
            "--size",
            "0",
            "--discovery",
            "multicast",
            "--no-kill",
        ],
    );
    // Redelivered ones are not counted: on a machine that has no time a consumer may lose its connection without a kill.
    assert_eq!(
        (&account["kept"], &account["received"]),
        (&true.into(), &1000.into()),
        "{account:#}"
    );

    assert_eq!(account["kills"], Value::Array(Vec::new()));
}

#[test]
fn an_interrupted_demo_leaves_nothing_behind() {
    let scratch = Scratch::new("demo-interrupted");
    let mut child = demo(&scratch, &["--messages", "100000000"])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let mut told = Vec::new();
    for line in lines.by_ref() {
        told.push(line.unwrap());
        if told.last().is_some_and(|line| line.starts_with("sending")) {
            assert_eq!(processes(&scratch).len(), 6);
            kill_process(Pid::from_child(&child), Signal::INT).unwrap();
            break;
        }
    }
    let mut code = None;
    wait_until("it ends", Duration::from_secs(20), || {
        code = child.try_wait().unwrap();
        code.is_some()
    });
    told.extend(lines.map(Result::unwrap));
    assert_eq!(code.unwrap().code(), Some(1), "{told:?}");
    assert_eq!((left_over(&scratch), processes(&scratch)), (vec![], vec![]));
}

#[test]
fn a_kept_mesh_can_be_used_and_stopped_as_it_says() {
    let scratch = Scratch::new("demo-kept");
    let output = demo(&scratch, &["--messages", "100", "--no-kill", "--keep"])
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(0), "{told}");
    assert_eq!(processes(&scratch).len(), 6, "{told}");
    let admin = told
        .lines()
        .find_map(|line| line.trim().strip_prefix("north1 admin "))
        .expect("it names admin ports");
    let status = Command::new(binary::ferrymq())
        .args(["status", "--admin", admin])
        .output()
        .unwrap();
    let shown = String::from_utf8_lossy(&status.stdout);
    assert!(
        status.status.success() && shown.contains("north") && shown.contains("south"),
        "{shown}"
    );
    let stop = told
        .lines()
        .skip_while(|line| !line.starts_with("Stop it"))
        .nth(1)
        .expect("it tells how to stop");
    // Nodes may still write while they stop: remove what they leave once they are gone.
    let (kill, remove) = stop.split_once("&&").expect("kill && rm");
    assert!(
        Command::new("sh").args(["-c", kill]).status().unwrap().success(),
        "{stop}"
    );
    wait_until("the nodes stop", Duration::from_secs(30), || {
        processes(&scratch).is_empty()
    });
    assert!(
        Command::new("sh").args(["-c", remove]).status().unwrap().success(),
        "{stop}"
    );
    assert_eq!(left_over(&scratch), Vec::<PathBuf>::new());
}
