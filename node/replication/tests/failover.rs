//! A master that is dead for certain is replaced on evidence; one that is not is left alone; and wrong evidence loses
//! nothing.

mod harness;

use ferrymq_replication::{ElectedBy, NodeId};
use harness::{Cluster, enqueue, until};

fn term(cluster: &Cluster, id: NodeId) -> u64 {
    cluster.group(id).status().term
}

fn slaves(cluster: &Cluster, master: NodeId) -> Vec<NodeId> {
    cluster.running().into_iter().filter(|id| *id != master).collect()
}

/// Every running node has everything, so that each of them could be master.
async fn settle(cluster: &Cluster) {
    until("all have applied the same", async || {
        let applied: Vec<u64> = cluster
            .running()
            .into_iter()
            .map(|id| cluster.group(id).status().applied_index)
            .collect();
        applied.windows(2).all(|pair| pair[0] == pair[1]).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dead_masters_are_replaced_on_evidence_one_after_the_other() {
    let mut cluster = Cluster::start(3, |_| {}).await;
    let mut number = 0;
    for round in 0..4 {
        for _ in 0..5 {
            cluster.send(number).await;
            number += 1;
        }
        let lost = cluster.master().await;
        let before = term(&cluster, lost);
        cluster.stop(lost).await;
        let master = cluster.master().await;
        let status = cluster.group(master).status();
        assert_eq!(status.elected_by, Some(ElectedBy::Evidence), "round {round}");
        assert!(status.term <= before + 2, "two candidates: {before} → {}", status.term);
        cluster.send(number).await;
        number += 1;
        cluster.start_node(lost).await.unwrap();
        settle(&cluster).await;
    }
    cluster.all_hold(0..number).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_fast_failover_the_timer_decides() {
    let mut cluster = Cluster::start(3, |config| config.fast_failover = false).await;
    cluster.send(0).await;
    let lost = cluster.master().await;
    cluster.stop(lost).await;
    let master = cluster.master().await;
    assert_eq!(cluster.group(master).status().elected_by, Some(ElectedBy::Timer));
    cluster.send(1).await;
    cluster.all_hold([0, 1]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hand_over_is_told_from_an_election() {
    let cluster = Cluster::start(3, |_| {}).await;
    cluster.send(0).await;
    let first = cluster.master().await;
    assert_eq!(cluster.group(first).status().elected_by, Some(ElectedBy::Timer));
    cluster.group(first).step_down(None).await.unwrap();
    let second = cluster.master().await;
    assert_eq!(cluster.group(second).status().elected_by, Some(ElectedBy::HandOver));
    assert_eq!(cluster.group(first).status().elected_by, None, "it is a slave");
}

/// P6: else the resend of what was refused would come behind what its producer sent later.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn behind_what_was_not_taken_nothing_is_taken_until_another_loop_begins() {
    let cluster = Cluster::start(3, |_| {}).await;
    cluster.send(0).await;
    let first = cluster.master().await;
    cluster.group(first).step_down(None).await.unwrap();
    let refused = cluster.submit(first, &enqueue(1)).await;
    assert!(refused.is_err(), "it is a slave now: {refused:?}");
    settle(&cluster).await;
    let second = cluster.master().await;
    cluster.group(second).step_down(Some(first)).await.unwrap();
    until("it is master again", async || {
        (cluster.master().await == first).then_some(())
    })
    .await;
    let behind = cluster.submit(first, &enqueue(2)).await;
    assert!(behind.is_err(), "{behind:?}");
    cluster.begin_anew(first);
    for number in [1, 2] {
        cluster.submit(first, &enqueue(number)).await.unwrap();
    }
    cluster.all_hold(0..3).await;
}

/// The trap: connections end for many reasons, and an election each time would make a group that never works.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_master_that_still_listens_stays_master_though_its_connections_break() {
    let cluster = Cluster::start(3, |_| {}).await;
    cluster.send(0).await;
    let master = cluster.master().await;
    let before = term(&cluster, master);
    for number in 1..20 {
        for slave in slaves(&cluster, master) {
            cluster.cut(slave);
        }
        cluster.send(number).await;
    }
    assert_eq!((cluster.master().await, term(&cluster, master)), (master, before));
    cluster.all_hold(0..20).await;
}

/// A firewall that resets and refuses: the master lives, and is replaced all the same. It does not act any more when the
/// other one does, nothing that was acknowledged is lost, and nothing is stored twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_evidence_loses_nothing() {
    let cluster = Cluster::start(3, |_| {}).await;
    let mut number = 0;
    for round in 0..5 {
        for _ in 0..5 {
            cluster.send(number).await;
            number += 1;
        }
        let old = cluster.master().await;
        let before = term(&cluster, old);
        cluster.wall_in(old);
        let new = until("there is another master", async || {
            let is_master = |id: &NodeId| cluster.group(*id).role().borrow().is_master();
            slaves(&cluster, old).into_iter().find(is_master)
        })
        .await;
        assert!(!cluster.group(old).lease_valid(), "P7 in round {round}");
        let status = cluster.group(new).status();
        assert_eq!(status.elected_by, Some(ElectedBy::Evidence), "round {round}");
        assert!(status.term <= before + 2, "{before} → {}", status.term);
        cluster.send(number).await;
        number += 1;
        cluster.unwall();
        settle(&cluster).await;
    }
    cluster.all_hold(0..number).await;
}
