//! P2 at its hardest: the power of all six nodes of both groups goes at once, under load.
//!
//! `kill -9` cannot show this, because what was written survives it in the page cache. Each node's data lies on a file
//! system of its own that is shut down as it stands; what was not synced is gone.

#![allow(clippy::unwrap_used)] // Also in what the tests share, where the lint does not see that it is one.

use std::{path::Path, sync::Arc, time::Duration};

use ferrymq_tests::{
    Frame, History, MeshBuilder, Stomp,
    disk::PowerDisk,
    load::{self, Sending},
    scratch::Scratch,
    skip, wait_until,
};

const LOAD_MAX: Duration = Duration::from_secs(180);
const DISK_MB: u64 = 256;

fn disks(dir: &Path, groups: &[(&str, usize)]) -> Vec<Vec<PowerDisk>> {
    let of = |name: &str, nodes: usize| -> Vec<PowerDisk> {
        (1..=nodes)
            .map(|number| PowerDisk::new(dir, &format!("{name}{number}"), DISK_MB))
            .collect()
    };
    groups.iter().map(|(name, nodes)| of(name, *nodes)).collect()
}

#[test]
fn the_test_disk_forgets_what_was_not_synced_and_only_that() {
    if let Some(why) = PowerDisk::missing() {
        return skip::skipped("the_test_disk_forgets_what_was_not_synced_and_only_that", &why);
    }
    let scratch = Scratch::new("disk");
    let disk = PowerDisk::new(scratch.path(), "probe", 32);
    let path = disk.path().join("file");
    let mut file = std::fs::File::create(&path).unwrap();
    std::io::Write::write_all(&mut file, &[1; 10_000]).unwrap();
    file.sync_all().unwrap();
    std::io::Write::write_all(&mut file, &[2; 10_000]).unwrap();
    disk.cut_power();
    drop(file);
    disk.restore_power();
    assert_eq!(std::fs::read(&path).unwrap(), vec![1; 10_000]);
}

#[test]
fn the_power_of_all_six_nodes_is_cut_at_once() {
    if let Some(why) = PowerDisk::missing() {
        return skip::skipped("the_power_of_all_six_nodes_is_cut_at_once", &why);
    }
    let scratch = Scratch::new("power");
    let disks = disks(scratch.path(), &[("north", 3), ("south", 3)]);
    let mut mesh = MeshBuilder::new("power")
        .group("north", 3)
        .group("south", 3)
        .link(0, 1)
        .data(scratch.path())
        .start();
    let history = Arc::new(History::default());
    let (north, south) = (mesh.groups[0].addresses(), mesh.groups[1].addresses());
    let load = |producer: &str, queue: &str, count| Sending {
        producer: producer.into(),
        destination: queue.into(),
        count,
        size: 1024,
    };
    // One queue crosses to the other group, the other one has no consumer yet and fills up.
    let consumer = load::consume(south, "/queue/CROSSING", history.clone());
    let crossing = load::produce(
        north.clone(),
        load("crossing", "/queue/CROSSING", 3_000),
        history.clone(),
    );
    let resting = load::produce(north.clone(), load("resting", "/queue/RESTING", 3_000), history.clone());
    wait_until("the load is under way", LOAD_MAX, || {
        history.receipted() >= 1_500 && history.received() >= 300
    });

    // Nobody says anything any more.
    for node in mesh.groups.iter().flat_map(|group| &group.nodes) {
        node.pause();
    }
    for disk in disks.iter().flatten() {
        disk.cut_power();
    }
    for node in mesh.groups.iter_mut().flat_map(|group| &mut group.nodes) {
        node.kill();
    }
    println!(
        "at the cut: {} receipted, {} consumed",
        history.receipted(),
        history.consumed()
    );
    for disk in disks.iter().flatten() {
        disk.restore_power();
    }
    for group in &mut mesh.groups {
        group.start();
    }
    mesh.wait_linked();

    // The same producers and consumer go on, as applications would.
    crossing.finish("everything is sent", LOAD_MAX);
    resting.finish("everything is sent", LOAD_MAX);
    let second = load::consume(north, "/queue/RESTING", history.clone());
    mesh.drain(&history, 6_000, &["queue://CROSSING", "queue://RESTING"], LOAD_MAX);
    drop((consumer, second));
    let report = history.report();
    println!("{report}");
    report.assert_kept_in_order();

    for node in mesh.groups.iter_mut().flat_map(|group| &mut group.nodes) {
        node.stop();
    }
}

#[test]
fn a_power_cut_of_a_broker_by_itself_keeps_what_it_acknowledged() {
    if let Some(why) = PowerDisk::missing() {
        return skip::skipped("a_power_cut_of_a_broker_by_itself_keeps_what_it_acknowledged", &why);
    }
    let scratch = Scratch::new("power-one");
    let disks = disks(scratch.path(), &[("north", 1)]);
    let mut mesh = MeshBuilder::new("power-one")
        .group("north", 1)
        .data(scratch.path())
        .start();
    for round in 1..=3 {
        let mut stomp = Stomp::connect(&mesh.groups[0].nodes[0].address()).unwrap();
        for n in 1..=100 {
            stomp
                .request(Frame::message("/queue/A", format!("{round}.{n}")))
                .unwrap();
        }
        mesh.groups[0].nodes[0].pause();
        disks[0][0].cut_power();
        mesh.groups[0].nodes[0].kill();
        disks[0][0].restore_power();
        mesh.groups[0].start();
    }
    let mut stomp = Stomp::connect(&mesh.groups[0].nodes[0].address()).unwrap();
    stomp.request(Frame::subscribe("1", "/queue/A", "auto")).unwrap();
    for round in 1..=3 {
        for n in 1..=100 {
            assert_eq!(stomp.expect_message().text(), format!("{round}.{n}"));
        }
    }
    mesh.groups[0].nodes[0].stop();
}
