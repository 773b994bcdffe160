//! Nodes whose data went back: an old copy in the place of what they had.

#![allow(clippy::unwrap_used, reason = "test code")]

mod harness;

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use ferrymq_replication::NodeId;
use harness::{Cluster, until};
use tempfile::TempDir;

fn copy_all(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_all(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// A copy of a node's data as they are on its disk now.
fn copy_of(cluster: &Cluster, id: NodeId) -> TempDir {
    let copy = tempfile::tempdir().unwrap();
    copy_all(cluster.nodes[&id].dir.path(), copy.path());
    copy
}

async fn put_back(cluster: &mut Cluster, id: NodeId, copy: TempDir) {
    if cluster.nodes[&id].running.is_some() {
        cluster.stop(id).await;
    }
    cluster.nodes.get_mut(&id).unwrap().dir = copy;
}

/// The master, and the slaves in their order.
async fn parts(cluster: &Cluster) -> (NodeId, NodeId, NodeId) {
    let master = cluster.master().await;
    let mut slaves = (1..=3).filter(|id| *id != master);
    (master, slaves.next().unwrap(), slaves.next().unwrap())
}

async fn restart(cluster: &mut Cluster, id: NodeId) {
    cluster.stop(id).await;
    cluster.start_node(id).await.unwrap();
}

async fn send(cluster: &Cluster, numbers: std::ops::Range<u64>) {
    for number in numbers {
        cluster.send(number).await;
    }
}

async fn says_that_data_went_back(cluster: &Cluster, id: NodeId) {
    until("it says that its data went back", async || {
        let status = cluster.group(id).status();
        let is_said = status.notice.is_some_and(|notice| notice.contains("data went back"));
        (is_said && status.role == "waiting").then_some(())
    })
    .await;
}

async fn all_vote(cluster: &Cluster) {
    until("all vote and have nothing to say", async || {
        let votes = |id: NodeId| {
            let status = cluster.group(id).status();
            status.notice.is_none() && status.members.iter().filter(|member| member.is_voter).count() == 3
        };
        (1..=3).all(votes).then_some(())
    })
    .await;
}

fn no_master(cluster: &Cluster) -> bool {
    cluster
        .running()
        .into_iter()
        .all(|id| !cluster.group(id).role().borrow().is_master())
}

/// Waits out several elections.
async fn elects_nobody(cluster: &Cluster) {
    let since = Instant::now();
    until("several elections could have been", async || {
        assert!(no_master(cluster));
        (since.elapsed() > Duration::from_secs(2)).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_copy_is_no_part_of_a_majority_before_it_has_caught_up_p2() {
    let mut cluster = Cluster::start(3, |_| {}).await;
    send(&cluster, 0..10).await;
    cluster.all_hold(0..10).await;
    let (master, restored, behind) = parts(&cluster).await;
    cluster.stop(restored).await;
    let copy = copy_of(&cluster, restored);
    cluster.start_node(restored).await.unwrap();
    send(&cluster, 10..15).await;
    cluster.all_hold(0..15).await;
    cluster.stop(behind).await;
    send(&cluster, 15..40).await;
    put_back(&mut cluster, restored, copy).await;
    cluster.stop(master).await;
    cluster.start_node(behind).await.unwrap();
    cluster.start_node(restored).await.unwrap();
    says_that_data_went_back(&cluster, restored).await;
    elects_nobody(&cluster).await;
    // Not even after a restart, although that has a number that nobody has heard.
    restart(&mut cluster, restored).await;
    restart(&mut cluster, restored).await;
    says_that_data_went_back(&cluster, restored).await;
    elects_nobody(&cluster).await;
    cluster.start_node(master).await.unwrap();
    cluster.all_hold(0..40).await;
    all_vote(&cluster).await;
    // It counts again: with it alone beside the master, the group goes on.
    let other = if cluster.master().await == behind {
        master
    } else {
        behind
    };
    cluster.stop(other).await;
    restart(&mut cluster, restored).await;
    cluster.send(40).await;
    cluster.start_node(other).await.unwrap();
    cluster.all_hold(0..=40).await;
    all_vote(&cluster).await;
}

/// Such a copy has the number of a start that the others know, and the next start a higher one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_made_of_a_running_node_is_known_by_what_it_has_acknowledged_since_p2() {
    for remembers_by_disk in [false, true] {
        let mut cluster = Cluster::start(3, |_| {}).await;
        send(&cluster, 0..10).await;
        cluster.all_hold(0..10).await;
        let (master, restored, behind) = parts(&cluster).await;
        let copy = copy_of(&cluster, restored);
        cluster.stop(behind).await;
        send(&cluster, 10..30).await;
        if remembers_by_disk {
            // Longer than the notes wait in memory; the next send takes them to the disk.
            let since = Instant::now();
            until("the notes have left", async || {
                (since.elapsed() > Duration::from_millis(2_100)).then_some(())
            })
            .await;
            send(&cluster, 30..31).await;
            restart(&mut cluster, master).await;
        }
        put_back(&mut cluster, restored, copy).await;
        cluster.start_node(restored).await.unwrap();
        says_that_data_went_back(&cluster, restored).await;
        if remembers_by_disk {
            elects_nobody(&cluster).await;
        }
        cluster.start_node(behind).await.unwrap();
        cluster.all_hold(0..if remembers_by_disk { 31 } else { 30 }).await;
        all_vote(&cluster).await;
    }
}

/// It has not heard of the term that began without it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_master_that_was_replaced_and_comes_back_has_lost_nothing() {
    let mut cluster = Cluster::start(3, |_| {}).await;
    send(&cluster, 0..10).await;
    for round in 0..3 {
        let master = cluster.master().await;
        cluster.stop(master).await;
        send(&cluster, 10 + 10 * round..20 + 10 * round).await;
        cluster.start_node(master).await.unwrap();
        cluster.all_hold(0..20 + 10 * round).await;
        all_vote(&cluster).await;
        // One that was taken in anew would have a number more.
        assert!(cluster.group(master).status().start <= 2 + round);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_without_any_data_knows_of_nobodys_loss_and_does_no_harm() {
    let mut cluster = Cluster::start(3, |_| {}).await;
    send(&cluster, 0..10).await;
    let (_, keeper, _) = parts(&cluster).await;
    cluster.stop(keeper).await;
    let copy = copy_of(&cluster, keeper);
    cluster.start_node(keeper).await.unwrap();
    let (_, one, other) = parts(&cluster).await;
    let second = if one == keeper { other } else { one };
    restart(&mut cluster, second).await;
    send(&cluster, 10..20).await;
    // Its notes of the others are old, too: they have been started since.
    put_back(&mut cluster, keeper, copy).await;
    cluster.start_node(keeper).await.unwrap();
    cluster.all_hold(0..20).await;
    all_vote(&cluster).await;
    restart(&mut cluster, second).await;
    let starts = cluster.group(second).status().start;
    assert!(starts >= 3, "{starts}");
    // And now it has no notes at all.
    put_back(&mut cluster, keeper, tempfile::tempdir().unwrap()).await;
    cluster.start_node(keeper).await.unwrap();
    send(&cluster, 20..30).await;
    cluster.all_hold(0..30).await;
    all_vote(&cluster).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_all_data_went_back_the_greatest_log_makes_the_master() {
    let mut cluster = Cluster::start(3, |_| {}).await;
    let mut copies = Vec::new();
    for id in 1..=3 {
        send(&cluster, 10 * (id - 1)..10 * id).await;
        cluster.all_hold(0..10 * id).await;
        cluster.stop(id).await;
        copies.push((id, copy_of(&cluster, id)));
        cluster.start_node(id).await.unwrap();
        cluster.master().await;
        cluster.all_hold(0..10 * id).await;
    }
    send(&cluster, 30..40).await;
    for (id, copy) in copies {
        put_back(&mut cluster, id, copy).await;
    }
    // Two of three that are older than what the third knows of them.
    for id in 1..=3 {
        cluster.start_node(id).await.unwrap();
    }
    until("there is a master again", async || (!no_master(&cluster)).then_some(())).await;
    cluster.all_hold(0..30).await;
    all_vote(&cluster).await;
    send(&cluster, 40..45).await;
    cluster.all_hold((0..30).chain(40..45)).await;
}
