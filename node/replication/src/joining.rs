//! Adding a node that an operator has named: it is reached and asked who it is, catches up without a vote, and only then
//! votes. What does not succeed is undone, by this master or the next one: such a node's address is marked as
//! provisional in the membership until it votes.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ferrymq_transport::PeerError;
use openraft::{ChangeMembers, LogIdOptionExt};
use serde::Serialize;
use tokio::sync::{oneshot, watch};

use crate::config::{NodeAddress, NodeId};
use crate::founding::Knowledge;
use crate::group::Inner;
use crate::membership::{MembershipError, change, ensure_master, remove};
use crate::rpc::Rpc;
use crate::types::LogId;
use crate::wire::kind;

/// How far a node is on its way to being a member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum JoinProgress {
    /// Its address is dialled.
    Reaching,
    /// It is sent what it lacks, and does not vote.
    CatchingUp {
        /// Entries of the log that it is not known to have.
        lag_entries: u64,
        /// Since it gave the last sign of life.
        heard_ms_ago: u64,
        /// What it says that it waits for.
        notice: Option<String>,
    },
    /// The members agree upon its vote.
    Voting,
    /// It votes.
    Voter,
    /// It was not added; it is no member, or none any more in a moment.
    Failed {
        /// Why, in words.
        reason: String,
    },
}

impl JoinProgress {
    fn is_under_way(&self) -> bool {
        !matches!(self, JoinProgress::Voter | JoinProgress::Failed { .. })
    }
}

/// The node that is being added, or was last. One at a time.
pub(crate) struct Joining {
    latest: watch::Sender<Option<(NodeId, JoinProgress)>>,
}

impl Joining {
    pub(crate) fn new() -> Joining {
        Joining {
            latest: watch::Sender::new(None),
        }
    }

    /// Whether this node is being added by this master.
    pub(crate) fn is_under_way(&self, id: NodeId) -> bool {
        self.under_way() == Some(id)
    }

    fn under_way(&self) -> Option<NodeId> {
        let latest = self.latest.borrow();
        latest
            .as_ref()
            .filter(|(_, progress)| progress.is_under_way())
            .map(|(id, _)| *id)
    }

    fn begin(&self, id: NodeId) -> Result<(), MembershipError> {
        let mut other = None;
        self.latest.send_if_modified(|latest| {
            other = latest
                .as_ref()
                .filter(|(_, progress)| progress.is_under_way())
                .map(|(id, _)| *id);
            if other.is_none() {
                *latest = Some((id, JoinProgress::Reaching));
            }
            other.is_none()
        });
        other.map_or(Ok(()), |other| Err(MembershipError::Adding(other)))
    }

    fn set(&self, id: NodeId, progress: JoinProgress) {
        self.latest.send_replace(Some((id, progress)));
    }
}

/// Why a node did not become a voter.
enum Why {
    NotMaster,
    Removed,
    Silent(Duration),
    Other(MembershipError),
}

/// Reaches the node and makes it a learner; the rest goes on by itself, whether or not the caller still waits.
pub(crate) async fn begin(inner: &Arc<Inner>, id: NodeId, address: NodeAddress) -> Result<(), MembershipError> {
    ensure_master(inner)?;
    let membership = inner.membership();
    let is_learner = !membership.voter_ids().any(|voter| voter == id);
    match membership.get_node(&id) {
        Some(known) if known.provisional && is_learner => return Err(MembershipError::Adding(id)),
        Some(_) => return Err(MembershipError::InUse(id)),
        None if id == 0 || inner.joining().contains(&id) => return Err(MembershipError::InUse(id)),
        None => {}
    }
    inner.adding.begin(id)?;
    let (begun, answered) = oneshot::channel();
    tokio::spawn(run(inner.clone(), id, address, begun));
    answered
        .await
        .unwrap_or_else(|_| Err(MembershipError::Stopped("the node is stopping".to_owned())))
}

/// Waits for the end of what [`begin`] began.
pub(crate) async fn ended(inner: &Arc<Inner>, id: NodeId) -> Result<(), MembershipError> {
    let mut latest = inner.adding.latest.subscribe();
    let is_over = |latest: &Option<(NodeId, JoinProgress)>| {
        !latest
            .as_ref()
            .is_some_and(|(node, progress)| *node == id && progress.is_under_way())
    };
    match latest.wait_for(is_over).await.as_deref() {
        Ok(Some((node, JoinProgress::Failed { reason }))) if *node == id => {
            Err(MembershipError::Undone(reason.clone()))
        }
        _ => Ok(()),
    }
}

/// How far that node is; none for one that is no member and was not added last. Only the master knows.
pub(crate) fn progress(inner: &Inner, id: NodeId) -> Result<Option<JoinProgress>, MembershipError> {
    ensure_master(inner)?;
    let latest = inner.adding.latest.borrow().clone().filter(|(node, _)| *node == id);
    let membership = inner.membership();
    Ok(match (latest, membership.get_node(&id)) {
        (Some((_, progress)), _) if progress.is_under_way() => Some(progress),
        (_, Some(_)) if membership.voter_ids().any(|voter| voter == id) => Some(JoinProgress::Voter),
        (_, Some(address)) if address.provisional => Some(JoinProgress::Failed {
            reason: format!("the master has changed while node {id} was catching up; it is taken out again"),
        }),
        (_, Some(_)) => Some(JoinProgress::CatchingUp {
            lag_entries: lag(inner, id).1,
            heard_ms_ago: heard_ms_ago(inner, id).unwrap_or(0),
            notice: None,
        }),
        (latest, None) => latest.map(|(_, progress)| progress),
    })
}

async fn run(inner: Arc<Inner>, id: NodeId, address: NodeAddress, begun: oneshot::Sender<Result<(), MembershipError>>) {
    let learner = async {
        reach(&inner, id, &address).await?;
        let provisional = NodeAddress {
            provisional: true,
            ..address.clone()
        };
        add_learner(&inner, id, provisional).await
    };
    let joined_at = match learner.await {
        Ok(log_id) => log_id,
        Err(error) => {
            let reason = error.to_string();
            inner.adding.set(id, JoinProgress::Failed { reason });
            // Whoever asked may be gone.
            let _ = begun.send(Err(error));
            return;
        }
    };
    tracing::info!(
        node = id,
        peer = address.peer,
        "a node is reached; it catches up before it votes"
    );
    let _ = begun.send(Ok(()));
    let outcome = match catch_up_and_vote(&inner, id, address, joined_at).await {
        Ok(()) => JoinProgress::Voter,
        Err(why) => {
            let reason = told(id, &why);
            undo(&inner, id).await;
            JoinProgress::Failed { reason }
        }
    };
    tracing::info!(node = id, ?outcome, "adding a node has ended");
    inner.adding.set(id, outcome);
}

fn told(id: NodeId, why: &Why) -> String {
    match why {
        Why::NotMaster => format!("the master has changed while node {id} was catching up; it is taken out again"),
        Why::Removed => format!("node {id} was removed while it was catching up"),
        Why::Silent(time) => format!(
            "node {id} gave no sign of life for {} s while it was catching up; it is taken out again",
            time.as_secs()
        ),
        Why::Other(error) => format!("node {id} gets no vote and is taken out again: {error}"),
    }
}

/// Whether somebody answers at that address, who is that very node and belongs to no other group.
async fn reach(inner: &Inner, id: NodeId, address: &NodeAddress) -> Result<(), MembershipError> {
    let not_reached = |reason: String| MembershipError::NotReached {
        node: id,
        address: address.peer.clone(),
        reason,
    };
    let mut last = None;
    let asking = async {
        let mut rpc = Rpc::new(inner.dial.clone(), id, address.peer.clone());
        loop {
            match rpc.ask_json::<Knowledge>(kind::ASK, &()).await {
                Ok(known) => return Ok(known),
                // It may just be starting.
                Err(error) if may_pass(&error) => last = Some(error),
                Err(error) => return Err(error),
            }
            tokio::time::sleep(REACH_AGAIN).await;
        }
    };
    let known = match tokio::time::timeout(REACH_WITHIN, asking).await {
        Ok(Ok(known)) => known,
        Ok(Err(error)) => return Err(not_reached(error.to_string())),
        Err(_) => {
            let reason = last.map_or_else(|| "no answer".to_owned(), |error| error.to_string());
            return Err(not_reached(reason));
        }
    };
    let own = inner.replica.read().broker.group();
    let is_foreign = own != 0 && known.group_id != 0 && known.group_id != own;
    if is_foreign || known.master.is_some_and(|(master, _)| master == id) {
        return Err(MembershipError::Foreign {
            node: id,
            address: address.peer.clone(),
        });
    }
    Ok(())
}

fn may_pass(error: &io::Error) -> bool {
    let peer = error.get_ref().and_then(|inner| inner.downcast_ref::<PeerError>());
    matches!(peer, None | Some(PeerError::Io(_) | PeerError::Timeout))
}

async fn catch_up_and_vote(inner: &Arc<Inner>, id: NodeId, address: NodeAddress, joined_at: LogId) -> Result<(), Why> {
    let patience = Duration::from_millis(inner.config.join_patience_ms);
    loop {
        catch_up(inner, id, &address, &joined_at, patience).await?;
        inner.adding.set(id, JoinProgress::Voting);
        match grant_vote(inner, id, address.clone()).await {
            Ok(()) => return Ok(()),
            Err(MembershipError::InProgress) => tokio::time::sleep(TICK).await,
            Err(MembershipError::NotMaster(_)) => return Err(Why::NotMaster),
            Err(error) => return Err(Why::Other(error)),
        }
    }
}

/// Waits until the node lacks next to nothing, as long as it gives signs of life.
async fn catch_up(
    inner: &Arc<Inner>,
    id: NodeId,
    address: &NodeAddress,
    joined_at: &LogId,
    patience: Duration,
) -> Result<(), Why> {
    let mut rpc = Rpc::new(inner.dial.clone(), id, address.peer.clone());
    let mut alive = Instant::now();
    let mut had = None;
    let mut notice = None;
    while !is_caught_up(inner, id, joined_at)? {
        let (matched, lag_entries) = lag(inner, id);
        if matched > had || heard_ms_ago(inner, id).is_some_and(|ms| ms < FRESH_MS) {
            alive = Instant::now();
            notice = None;
        } else if let Ok(Ok(known)) = tokio::time::timeout(ASK_WITHIN, rpc.ask_json::<Knowledge>(kind::ASK, &())).await
        {
            alive = Instant::now();
            notice = known.notice;
        }
        had = matched;
        if alive.elapsed() > patience {
            return Err(Why::Silent(patience));
        }
        let progress = JoinProgress::CatchingUp {
            lag_entries,
            heard_ms_ago: alive.elapsed().as_millis() as u64,
            notice: notice.clone(),
        };
        inner.adding.set(id, progress);
        tokio::time::sleep(TICK).await;
    }
    Ok(())
}

/// Whether it has all of the log but what a slave that keeps up may lack, and answers.
fn is_caught_up(inner: &Inner, id: NodeId, joined_at: &LogId) -> Result<bool, Why> {
    if !inner.role.borrow().is_master() {
        return Err(Why::NotMaster);
    }
    if inner.membership().get_node(&id).is_none() {
        return Err(Why::Removed);
    }
    let (matched, lag_entries) = lag(inner, id);
    let is_heard = heard_ms_ago(inner, id).is_some_and(|ms| ms < inner.config.election_timeout_min_ms);
    Ok(matched >= Some(joined_at.index) && lag_entries <= LAG_ENTRIES_MAX && is_heard)
}

/// For a node that has asked by itself: waits as long as this node is master.
pub(crate) async fn wait_caught_up(inner: &Inner, id: NodeId, joined_at: &LogId) -> Result<(), MembershipError> {
    loop {
        match is_caught_up(inner, id, joined_at) {
            Ok(true) => return Ok(()),
            Ok(false) => tokio::time::sleep(TICK).await,
            Err(Why::Removed) => return Err(MembershipError::Unknown(id)),
            Err(_) => return Err(MembershipError::NotMaster(None)),
        }
    }
}

/// What the node is known to have, and how many entries it lacks.
fn lag(inner: &Inner, id: NodeId) -> (Option<u64>, u64) {
    let metrics = inner.metrics();
    let matched = metrics
        .replication
        .as_ref()
        .and_then(|all| all.get(&id))
        .and_then(|log_id| log_id.index());
    let last = metrics.last_log_index.unwrap_or(0);
    (
        matched,
        matched.map_or(last + 1, |matched| last.saturating_sub(matched)),
    )
}

fn heard_ms_ago(inner: &Inner, id: NodeId) -> Option<u64> {
    inner.lease.heard_ms_ago().get(&id).copied()
}

/// A learner that votes for nothing yet. Returns where in the log it is one.
pub(crate) async fn add_learner(inner: &Inner, id: NodeId, address: NodeAddress) -> Result<LogId, MembershipError> {
    change(inner, ChangeMembers::AddNodes(BTreeMap::from([(id, address)])), true).await
}

/// Makes a learner a voter, and its address one that stays.
pub(crate) async fn grant_vote(inner: &Inner, id: NodeId, address: NodeAddress) -> Result<(), MembershipError> {
    let settled = NodeAddress {
        provisional: false,
        ..address
    };
    let both = ChangeMembers::Batch(vec![
        ChangeMembers::SetNodes(BTreeMap::from([(id, settled)])),
        ChangeMembers::AddVoterIds(BTreeSet::from([id])),
    ]);
    change(inner, both, true).await.map(drop)
}

/// Takes a learner out again, as long as this node is master; then it is for the next one.
async fn undo(inner: &Arc<Inner>, id: NodeId) {
    while inner.role.borrow().is_master() && is_provisional(inner, id) && !inner.is_closing() {
        match remove(inner, id).await {
            // From here on it may be added anew.
            Ok(()) => return tracing::info!(node = id, "a node that was not added is taken out again"),
            Err(error) => tracing::debug!(node = id, %error, "it cannot be taken out yet"),
        }
        tokio::time::sleep(TICK).await;
    }
}

fn is_provisional(inner: &Inner, id: NodeId) -> bool {
    provisional(inner).contains(&id)
}

fn provisional(inner: &Inner) -> Vec<NodeId> {
    let membership = inner.membership();
    let voters: BTreeSet<NodeId> = membership.voter_ids().collect();
    let nodes = membership
        .nodes()
        .filter(|(id, address)| address.provisional && !voters.contains(id));
    nodes.map(|(id, _)| *id).collect()
}

/// Finishes what an earlier master has left half done: takes out nodes that it was adding, and ends a change of voters that
/// both majorities have agreed upon. Runs until the replica ends.
pub(crate) async fn tidy_up(inner: Arc<Inner>) {
    let mut joint_since = None;
    loop {
        tokio::time::sleep(LOOK).await;
        if !inner.role.borrow().is_master() {
            continue;
        }
        for id in provisional(&inner) {
            if !inner.adding.is_under_way(id) {
                undo(&inner, id).await;
            }
        }
        let metrics = inner.metrics();
        let membership = &metrics.membership_config;
        let is_joint = membership.membership().get_joint_config().len() > 1;
        let is_agreed = *membership.log_id() <= metrics.last_applied;
        joint_since = joint_since
            .filter(|_| is_joint && is_agreed)
            .or_else(|| (is_joint && is_agreed).then(Instant::now));
        if joint_since.is_some_and(|since: Instant| since.elapsed() > JOINT_MAX) {
            joint_since = None;
            let nothing_more = ChangeMembers::AddVoterIds(BTreeSet::new());
            if let Err(error) = change(&inner, nothing_more, false).await {
                tracing::debug!(%error, "a change of voters cannot be ended yet");
            }
        }
    }
}

/// Beyond what a connection in the same house takes; an operator waits for it.
const REACH_WITHIN: Duration = Duration::from_secs(5);
const REACH_AGAIN: Duration = Duration::from_millis(200);
/// For one question while it catches up.
const ASK_WITHIN: Duration = Duration::from_secs(1);
/// How often it is looked at how far it is.
const TICK: Duration = Duration::from_millis(100);
/// A node that was heard since is alive.
const FRESH_MS: u64 = 1_000;
/// How often a master looks for what an earlier one has left.
const LOOK: Duration = Duration::from_millis(500);
/// The second half of a change of voters follows at once, unless the master that began it is gone.
const JOINT_MAX: Duration = Duration::from_secs(5);
/// What a joining node may lack when it gets its vote. An entry is a batch of up to a mebibyte, so that a node a thousand
/// entries behind may have nothing of a large backlog; a slave that keeps up lacks a few.
const LAG_ENTRIES_MAX: u64 = 16;
