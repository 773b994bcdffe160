//! Nodes that lag, join, leave, or have lost everything.

#![allow(clippy::unwrap_used, reason = "test code")]

mod harness;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ferrymq_replication::{Config, MembershipError, NodeId};
use harness::{Cluster, DEADLINE, Node, acknowledge, free_address, until};

/// Snapshots soon, and nothing kept behind them.
fn small(config: &mut Config) {
    config.snapshot_log_entries = 25;
    config.log_keep_bytes = 0;
    config.stragglers_interval_ms = 200;
    config.disk_reserve_bytes = 1024 * 1024;
}

/// Waits until the master's log no longer reaches back to `index`.
async fn purged_beyond(cluster: &Cluster, index: u64) {
    until("the log is purged", async || {
        let master = cluster.master().await;
        (cluster.group(master).status().purged_index > index).then_some(())
    })
    .await;
}

async fn voters(cluster: &Cluster) -> BTreeSet<NodeId> {
    let master = cluster.master().await;
    cluster
        .group(master)
        .status()
        .members
        .iter()
        .filter(|member| member.is_voter)
        .map(|member| member.node)
        .collect()
}

/// Acknowledges the first `count` messages.
async fn consume(cluster: &Cluster, count: usize) {
    let master = cluster.master().await;
    let command = acknowledge(cluster.group(master), count);
    cluster.submit(master, &command).await.unwrap();
}

async fn slave(cluster: &Cluster) -> NodeId {
    let master = cluster.master().await;
    cluster.running().into_iter().find(|id| *id != master).unwrap()
}

/// P9: it would try for ever, and the slave would never catch up.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_master_that_cannot_read_what_a_slave_needs_ends_and_says_why() {
    let mut cluster = Cluster::start(3, small).await;
    let lagging = slave(&cluster).await;
    cluster.stop(lagging).await;
    for number in 0..600 {
        cluster.send(number).await;
    }
    purged_beyond(&cluster, 500).await;
    let master = cluster.master().await;
    // In a sealed segment, and out of the cache.
    cluster.flip_bit_of(master, "message 100 ");
    cluster.start_node(lagging).await.unwrap();
    let seen = cluster.seen(master);
    let reason = until("the master ends", async || seen.lock().unwrap().fatal.clone()).await;
    assert!(reason.contains("cannot be read") && reason.contains(".seg"), "{reason}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slave_that_lags_far_gets_a_snapshot_with_the_living_bodies() {
    let mut cluster = Cluster::start(3, small).await;
    for number in 0..10 {
        cluster.send(number).await;
    }
    cluster.all_hold(0..10).await;
    let lagging = slave(&cluster).await;
    let has = cluster.group(lagging).status().last_index;
    cluster.stop(lagging).await;
    for number in 10..150 {
        cluster.send(number).await;
    }
    consume(&cluster, 60).await;
    for number in 150..200 {
        cluster.send(number).await;
    }
    purged_beyond(&cluster, has).await;
    cluster.start_node(lagging).await.unwrap();
    cluster.all_hold(60..200).await;
    // The state is there a moment before the status says how it came.
    until("it has caught up by a snapshot", async || {
        (cluster.group(lagging).status().snapshot_index > has).then_some(())
    })
    .await;
    // What arrived is on its disk: alone with one other it is still all there after a restart.
    cluster.stop(lagging).await;
    let other = slave(&cluster).await;
    cluster.stop(other).await;
    cluster.start_node(lagging).await.unwrap();
    cluster.send(200).await;
    cluster.all_hold(60..=200).await;
}

/// After a start the state in memory is newer than the one on disk, which all that is cut off the log must be in. Found
/// by a node that was killed soon after its restart and could not be started any more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_node_does_not_cut_the_log_beyond_its_state_on_disk() {
    let mut cluster = Cluster::start(1, |config| {
        config.log_keep_bytes = 0;
        config.disk_reserve_bytes = 1024 * 1024;
    })
    .await;
    for number in 0..5 {
        cluster.send(number).await;
    }
    cluster.group(1).snapshot().await.unwrap();
    let on_disk = until("a snapshot is on disk and the log is cut", async || {
        let status = cluster.group(1).status();
        (status.purged_index > 0).then_some(status.snapshot_index)
    })
    .await;
    for number in 5..30 {
        cluster.send(number).await;
    }
    cluster.stop(1).await;
    cluster.start_node(1).await.unwrap();
    // Longer than between two looks of the housekeeping.
    let begun = Instant::now();
    until("the housekeeping has looked", async || {
        let purged = cluster.group(1).status().purged_index;
        assert!(
            purged <= on_disk,
            "cut up to {purged}, but the state on disk ends at {on_disk}"
        );
        (begun.elapsed() > Duration::from_millis(1_200)).then_some(())
    })
    .await;
    cluster.stop(1).await;
    cluster.start_node(1).await.unwrap();
    cluster.all_hold(0..30).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_after_snapshots_keeps_bodies_and_lets_dead_segments_go() {
    let mut cluster = Cluster::start(1, small).await;
    for number in 0..20 {
        cluster.send(number * 100 + 1_999).await;
    }
    for round in 0..40 {
        for number in 0..10 {
            cluster.send(10_000 + round * 10 + number).await;
        }
        let master = cluster.master().await;
        // All but the first twenty.
        let acknowledge = harness::acknowledge_after(cluster.group(master), 20);
        cluster.submit(master, &acknowledge).await.unwrap();
    }
    let first: Vec<u64> = (0..20).map(|number| number * 100 + 1_999).collect();
    cluster.all_hold(first.clone()).await;
    cluster.group(1).snapshot().await.unwrap();
    until("few segments are left", async || {
        (cluster.group(1).status().journal["segments"] <= 4).then_some(())
    })
    .await;
    cluster.stop(1).await;
    cluster.start_node(1).await.unwrap();
    cluster.all_hold(first).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_joins_while_messages_flow_and_another_leaves() {
    let mut cluster = Cluster::start(3, small).await;
    for number in 0..60 {
        cluster.send(number).await;
    }
    let address = free_address();
    cluster.members.insert(4, address.clone());
    cluster.nodes.insert(
        4,
        Node {
            id: 4,
            dir: tempfile::tempdir().unwrap(),
            running: None,
        },
    );
    cluster.start_node(4).await.unwrap();
    let master = cluster.master().await;
    assert_eq!(
        cluster.group(master).add_node(2, address.clone()).await,
        Err(MembershipError::InUse(2))
    );
    let group = cluster.group(master).clone();
    let add = tokio::spawn(async move { group.add_node(4, address).await });
    for number in 60..90 {
        cluster.send(number).await;
    }
    tokio::time::timeout(DEADLINE, add).await.unwrap().unwrap().unwrap();
    assert_eq!(voters(&cluster).await, BTreeSet::from([1, 2, 3, 4]));
    cluster.all_hold(0..90).await;

    let leaving = cluster
        .running()
        .into_iter()
        .find(|id| *id != master && *id != 4)
        .unwrap();
    let master = cluster.master().await;
    assert_eq!(
        cluster.group(master).remove_node(master).await,
        Err(MembershipError::IsMaster(master))
    );
    assert_eq!(
        cluster.group(master).remove_node(9).await,
        Err(MembershipError::Unknown(9))
    );
    if leaving != master {
        cluster.group(master).remove_node(leaving).await.unwrap();
        cluster.stop(leaving).await;
        assert!(!voters(&cluster).await.contains(&leaving));
    }
    cluster.send(90).await;
    cluster.all_hold(0..=90).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_lost_its_disk_joins_anew_and_does_not_vote_before() {
    let mut cluster = Cluster::start(3, small).await;
    for number in 0..60 {
        cluster.send(number).await;
    }
    let lost = slave(&cluster).await;
    cluster.stop(lost).await;
    cluster.nodes.get_mut(&lost).unwrap().dir = tempfile::tempdir().unwrap();
    cluster.start_node(lost).await.unwrap();
    for number in 60..70 {
        cluster.send(number).await;
    }
    cluster.all_hold(0..70).await;
    until("it votes again", async || {
        voters(&cluster).await.contains(&lost).then_some(())
    })
    .await;
    until("it has nothing more to say", async || {
        cluster.group(lost).status().notice.is_none().then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_without_data_and_without_a_master_waits_and_says_so() {
    let mut cluster = Cluster::start(3, |_| {}).await;
    cluster.send(1).await;
    cluster.all_hold([1]).await;
    let lost = slave(&cluster).await;
    for id in 1..=3 {
        cluster.stop(id).await;
    }
    cluster.nodes.get_mut(&lost).unwrap().dir = tempfile::tempdir().unwrap();
    cluster.start_node(lost).await.unwrap();
    let other = (1..=3).find(|id| *id != lost).unwrap();
    cluster.start_node(other).await.unwrap();
    // The other one alone is no majority, and the one without data must not make it one.
    let notice = until("it says why it waits", async || {
        let status = cluster.group(lost).status();
        status
            .notice
            .filter(|notice| notice.contains("no data") && status.role == "waiting")
    })
    .await;
    assert!(notice.contains("waiting for a master"), "{notice}");
    assert!(!cluster.group(other).role().borrow().is_master());
    let third = (1..=3).find(|id| *id != lost && *id != other).unwrap();
    cluster.start_node(third).await.unwrap();
    cluster.send(2).await;
    cluster.all_hold([1, 2]).await;
}

/// openraft's issue 2116: a purge that belongs to an installed snapshot must not meet applying. Each round cuts a slave
/// or the master (with entries of its own that nobody else has) off under load until the log is purged beyond it, lets it
/// back, and breaks its connections again and again while it installs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn installing_snapshots_under_load_never_ends_a_replica() {
    const ROUNDS: u64 = 8;
    let cluster = Cluster::start(3, |config| {
        small(config);
        config.snapshot_log_entries = 10;
    })
    .await;
    for round in 0..ROUNDS {
        let master = cluster.master().await;
        let lagging = if round % 4 == 3 { master } else { slave(&cluster).await };
        let has = cluster.group(lagging).status().last_index;
        let stop = Arc::new(AtomicBool::new(false));
        let loads: Vec<_> = (1..=3)
            .map(|id| {
                let from = (round * 3 + id) * 1_000_000;
                tokio::spawn(harness::load(cluster.group(id).clone(), from, stop.clone()))
            })
            .collect();
        cluster.wall_in(lagging);
        until("the log is purged beyond the one that lags", async || {
            let is_purged = |id: NodeId| id != lagging && cluster.group(id).status().purged_index > has + 20;
            (1..=3).any(is_purged).then_some(())
        })
        .await;
        cluster.unwall();
        let begun = Instant::now();
        until("it has caught up by a snapshot", async || {
            if begun.elapsed() < Duration::from_millis(400) {
                cluster.cut(lagging);
            }
            let ended: Vec<_> = (1..=3)
                .filter_map(|id| cluster.seen(id).lock().unwrap().fatal.clone())
                .collect();
            assert!(ended.is_empty(), "round {round}: {ended:?}");
            (cluster.group(lagging).status().snapshot_index > has).then_some(())
        })
        .await;
        stop.store(true, Ordering::Relaxed);
        for load in loads {
            load.await.unwrap();
        }
        let master = cluster.master().await;
        cluster.begin_anew(master);
        until("all agree", async || {
            let applied: BTreeSet<u64> = (1..=3).map(|id| cluster.group(id).status().applied_index).collect();
            (applied.len() == 1).then_some(())
        })
        .await;
        let command = acknowledge(cluster.group(master), usize::MAX);
        let _ = cluster.submit(master, &command).await;
        for id in 1..=3 {
            cluster.seen(id).lock().unwrap().results.clear();
        }
    }
}
