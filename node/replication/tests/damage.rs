//! What ends a replica: damage found while reading (P9), and a journal that no longer writes.

#![allow(clippy::unwrap_used, reason = "test code")]

mod harness;

use std::fs;
use std::path::PathBuf;

use ferrymq_broker::Settings;
use ferrymq_journal::Journal;
use ferrymq_replication::{Config, Group, GroupEvent, NodeAddress, PeerDial, ReadError, StartError, StateFileError};
use harness::{Cluster, DEADLINE, body, contents, enqueue, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flipped_bit_in_the_log_keeps_the_node_from_starting() {
    let mut cluster = Cluster::start(1, |_| {}).await;
    for number in 0..50 {
        cluster.send(number * 1_000 + 1_999).await;
    }
    cluster.stop(1).await;
    let flipped = flip_in_the_middle_of(&cluster, &body(1_999));
    let Err(error) = cluster.start_node(1).await else {
        panic!("it started")
    };
    let text = error.to_string();
    assert!(
        text.contains(flipped.to_str().unwrap()) && text.contains("damaged at byte"),
        "{text}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flipped_bit_in_an_old_body_is_never_served_and_ends_the_replica() {
    let mut cluster = Cluster::start(1, |config| {
        config.snapshot_log_entries = 20;
        config.log_keep_bytes = 0;
    })
    .await;
    for number in 0..120 {
        cluster.send(number * 1_000 + 1_999).await;
    }
    until("the first messages are behind the log", async || {
        (cluster.group(1).status().purged_index > 60).then_some(())
    })
    .await;
    cluster.stop(1).await;
    flip_in_the_middle_of(&cluster, &body(1_999));
    cluster.start_node(1).await.unwrap();
    let seen = cluster.seen(1);
    let reason = until("it is found", async || {
        let texts = contents(cluster.group(1));
        let is_right =
            |text: &String| text.starts_with("message") && !text.contains('y') || text.starts_with("unreadable");
        assert!(texts.iter().all(is_right), "{texts:?}");
        seen.lock().unwrap().fatal.clone()
    })
    .await;
    assert!(
        reason.contains("damaged at byte") && reason.contains("Cure"),
        "{reason}"
    );
    assert!(!cluster.group(1).lease_valid());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_state_file_keeps_the_node_from_starting() {
    let mut cluster = Cluster::start(1, |config| config.snapshot_log_entries = 10).await;
    for number in 0..40 {
        cluster.send(number).await;
    }
    let state = cluster.nodes[&1].dir.path().join("state");
    let file = until("a snapshot is on disk", async || {
        fs::read_dir(&state)
            .unwrap()
            .map(|e| e.unwrap().path())
            .find(|p| p.extension().is_some_and(|e| e == "state"))
    })
    .await;
    cluster.stop(1).await;
    let file = if file.exists() {
        file
    } else {
        fs::read_dir(&state).unwrap().next().unwrap().unwrap().path()
    };
    let mut bytes = fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 4;
    fs::write(&file, bytes).unwrap();
    let Err(error) = cluster.start_node(1).await else {
        panic!("it started")
    };
    assert!(
        matches!(error, StartError::State(StateFileError::Damaged { .. })),
        "{error}"
    );
    assert!(
        error.to_string().contains("fetches everything from its group"),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_journal_that_no_longer_writes_is_fatal() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(harness::journal_config(dir.path().join("journal"))).unwrap();
    let auth = ferrymq_transport::PeerAuth::new(ferrymq_transport::PeerName::new("north", 1).unwrap());
    let dial = std::sync::Arc::new(PeerDial::new(auth, DEADLINE));
    let members = [(1, NodeAddress::new("127.0.0.1:1"))].into();
    let config = Config::new("north", 1, members, dir.path().join("state"));
    let (group, mut events) = Group::start(config, journal.clone(), Settings::default(), dial)
        .await
        .unwrap();
    let mut role = group.role();
    tokio::time::timeout(DEADLINE, role.wait_for(|role| role.is_master()))
        .await
        .unwrap()
        .unwrap();
    journal.close();
    group.submit(enqueue(1).encode(), 1);
    let fatal = tokio::time::timeout(DEADLINE, async {
        loop {
            match events.recv().await.expect("the replica tells before it is gone") {
                GroupEvent::Fatal(reason) => return reason,
                GroupEvent::Applied { results, .. } | GroupEvent::Done { results } => {
                    assert!(results.iter().all(|(_, result)| result.is_err()), "{results:?}");
                }
            }
        }
    });
    assert!(fatal.await.unwrap().contains("closed"));
    assert!(!group.lease_valid());
    group.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_place_that_is_gone_is_no_damage() {
    let cluster = Cluster::start(1, |_| {}).await;
    cluster.send(1).await;
    let nowhere = ferrymq_broker::Place {
        index: 1_000_000,
        offset: 0,
        len: 10,
    };
    assert!(matches!(cluster.group(1).read(nowhere), Err(ReadError::Gone)));
    assert_eq!(cluster.seen(1).lock().unwrap().fatal, None);
}

/// Flips a bit where this text lies in the journal; returns the file.
fn flip_in_the_middle_of(cluster: &Cluster, text: &str) -> PathBuf {
    for file in fs::read_dir(cluster.nodes[&1].dir.path().join("journal")).unwrap() {
        let path = file.unwrap().path();
        let mut bytes = fs::read(&path).unwrap();
        if let Some(at) = bytes.windows(text.len()).position(|window| window == text.as_bytes()) {
            bytes[at + text.len() / 2] ^= 1; // An x becomes a y.
            fs::write(&path, bytes).unwrap();
            return path;
        }
    }
    panic!("the text is not in the journal");
}
