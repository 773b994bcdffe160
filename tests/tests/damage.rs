//! P9: a flipped bit on a disk is found, told with its place and cure, and never served; the group goes on.

#![allow(clippy::unwrap_used)] // Also in what the tests share, where the lint does not see that it is one.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use ferrymq_tests::{Frame, Mesh, Stomp, binary, node::START_MAX};

/// Flips a bit in the body of the message that contains `needle`; the file in which it was found.
fn flip_a_bit(dir: &Path, needle: &[u8]) -> PathBuf {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            continue;
        }
        let mut bytes = fs::read(&path).unwrap();
        if let Some(at) = bytes.windows(needle.len()).position(|window| window == needle) {
            bytes[at] ^= 1;
            fs::write(&path, bytes).unwrap();
            return path;
        }
    }
    panic!("the message lies in no file of {}", dir.display());
}

fn send(stomp: &mut Stomp, from: u32, to: u32) {
    for n in from..=to {
        stomp
            .request(Frame::message("/queue/A", format!("message {n}.")))
            .unwrap();
    }
}

#[test]
fn a_damaged_slave_stops_with_place_and_cure_and_is_made_anew_by_its_group() {
    let mut mesh = Mesh::one_group("damage", 3);
    let group = &mut mesh.groups[0];
    let slave = group.slave();
    let mut stomp = Stomp::connect(&group.nodes[group.master()].address()).unwrap();
    send(&mut stomp, 1, 200);
    group.settle(START_MAX);
    group.nodes[slave].stop();
    let journal = group.nodes[slave].data().join("journal");
    let file = flip_a_bit(&journal, b"message 100.");

    let check = Command::new(binary::ferrymq())
        .args(["journal", "check"])
        .arg(&journal)
        .output()
        .unwrap();
    assert_eq!(
        check.status.code(),
        Some(4),
        "{}",
        String::from_utf8_lossy(&check.stdout)
    );
    let before = group.nodes[slave].log().len();
    group.nodes[slave].spawn();
    let status = group.nodes[slave].wait_for_end(Duration::from_secs(20));
    let said = group.nodes[slave].log()[before..].to_owned();
    assert_eq!(status.code(), Some(1), "{said}");
    let name = file.file_name().unwrap().to_string_lossy().into_owned();
    assert!(
        said.contains("damaged at byte") && said.contains(&name) && said.contains("Cure:"),
        "{said}"
    );

    // The others never noticed.
    send(&mut stomp, 201, 210);
    // The cure, as it was told.
    fs::rename(&journal, journal.with_extension("damaged")).unwrap();
    group.nodes[slave].start();
    group.settle(START_MAX);
    stomp.request(Frame::subscribe("1", "/queue/A", "auto")).unwrap();
    for n in 1..=210 {
        assert_eq!(stomp.expect_message().text(), format!("message {n}."));
    }
}

#[test]
fn a_torn_tail_is_cut_and_nothing_acknowledged_is_missing() {
    let mut mesh = Mesh::one_group("torn", 1);
    let node = &mesh.groups[0].nodes[0];
    let mut stomp = Stomp::connect(&node.address()).unwrap();
    send(&mut stomp, 1, 50);
    mesh.groups[0].nodes[0].kill();
    // As if the last write had got no further than this: garbage where the next record would begin.
    let journal = mesh.groups[0].nodes[0].data().join("journal");
    for entry in fs::read_dir(&journal).unwrap() {
        let path = entry.unwrap().path();
        let Ok(mut bytes) = fs::read(&path) else { continue };
        if let Some(at) = bytes.windows(11).position(|window| window == b"message 50.") {
            let end = bytes[at..]
                .windows(64)
                .position(|window| window == [0; 64])
                .map(|zeros| at + zeros);
            let end = end.expect("the file was allocated ahead");
            bytes[end + 16..end + 40].fill(0xA5);
            fs::write(&path, bytes).unwrap();
        }
    }
    mesh.groups[0].start();
    let mut stomp = Stomp::connect(&mesh.groups[0].nodes[0].address()).unwrap();
    stomp.request(Frame::subscribe("1", "/queue/A", "auto")).unwrap();
    for n in 1..=50 {
        assert_eq!(stomp.expect_message().text(), format!("message {n}."));
    }
}
