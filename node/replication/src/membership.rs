//! Changing who belongs to the group, and handing mastership over. All of it happens on the master.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use openraft::errors::{ChangeMembershipError, ClientWriteError, RaftError};
use openraft::{ChangeMembers, ReadPolicy};

use crate::config::{NodeAddress, NodeId};
use crate::group::Inner;
use crate::joining;
use crate::types::{LogId, Types};

/// Why the membership, or the master, stays as it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MembershipError {
    /// Only the master can.
    #[error("this node is not the master; ask {}", match .0 { Some(master) => format!("node {master}"), None => "again when there is one".into() })]
    NotMaster(Option<NodeId>),
    /// A number stands for one node for ever.
    #[error("node id {0} is in use; give the new node a number that was never used in this group")]
    InUse(NodeId),
    /// No such node.
    #[error("node {0} does not belong to the group")]
    Unknown(NodeId),
    /// The master cannot remove itself.
    #[error("node {0} is the master; let it step down first, then remove it")]
    IsMaster(NodeId),
    /// One change at a time.
    #[error("another change of membership is under way; try again when it is done")]
    InProgress,
    /// One node at a time.
    #[error(
        "node {0} is being added, or taken out again; wait until that has ended, or end it with `ferrymq member remove {0}`"
    )]
    Adding(NodeId),
    /// Nobody answers there, or not the node that should.
    #[error(
        "node {node} is not reached at {address}, so nothing was changed: {reason}; start it first, and check the address"
    )]
    NotReached {
        /// The node to be added.
        node: NodeId,
        /// Where it was looked for.
        address: String,
        /// What was found.
        reason: String,
    },
    /// The name of its group is this one's, but it is another group.
    #[error(
        "node {node} at {address} has a group of its own under the same name, so nothing was changed; stop it, empty its data \
         directory, and start it with the members of this group and a line for itself"
    )]
    Foreign {
        /// The node to be added.
        node: NodeId,
        /// Where it was found.
        address: String,
    },
    /// It was reached, but did not become a member.
    #[error("{0}")]
    Undone(String),
    /// Nobody to hand over to.
    #[error("there is no other voter that could become master")]
    NoSuccessor,
    /// The successor did not take over in time; this node or another is elected as after a failure.
    #[error("node {0} did not become master in time; the group elects a master by itself")]
    NotTaken(NodeId),
    /// The replica has stopped.
    #[error("the replica has stopped: {0}")]
    Stopped(String),
}

/// Learner, catch up, voter: for a node that has asked by itself.
async fn join(inner: &Arc<Inner>, id: NodeId, address: NodeAddress) -> Result<(), MembershipError> {
    if !inner.joining().insert(id) {
        return Err(MembershipError::InProgress);
    }
    let joined = async {
        let joined_at = joining::add_learner(inner, id, address.clone()).await?;
        joining::wait_caught_up(inner, id, &joined_at).await?;
        joining::grant_vote(inner, id, address).await
    }
    .await;
    inner.joining().remove(&id);
    joined
}

/// Takes a node out, voter or not.
pub(crate) async fn remove(inner: &Arc<Inner>, id: NodeId) -> Result<(), MembershipError> {
    ensure_master(inner)?;
    if id == inner.config.node {
        return Err(MembershipError::IsMaster(id));
    }
    let membership = inner.membership();
    if membership.get_node(&id).is_none() {
        return Err(MembershipError::Unknown(id));
    }
    let ids = BTreeSet::from([id]);
    let is_voter = membership.voter_ids().any(|voter| voter == id);
    let change = if is_voter {
        ChangeMembers::RemoveVoters(ids)
    } else {
        ChangeMembers::RemoveNodes(ids)
    };
    self::change(inner, change, false).await.map(drop)
}

/// Returns where in the log the change is.
pub(crate) async fn change(
    inner: &Inner,
    change: ChangeMembers<NodeId, NodeAddress>,
    retain: bool,
) -> Result<LogId, MembershipError> {
    let changed = inner.raft.change_membership(change, retain).await;
    changed
        .map(|written| written.log_id)
        .map_err(|error| refused(inner, error))
}

/// Lets a node take part. Without data it may have forgotten what it voted and acknowledged, so if it was a member it
/// is taken out first, and joins anew when nothing counts on it any more. With data it may be one whose joining was cut
/// short. A node that is no member is only let in here if the configuration names it; otherwise an operator adds it.
pub(crate) async fn admit(inner: &Arc<Inner>, id: NodeId, has_data: bool) -> Result<(), MembershipError> {
    ensure_master(inner)?;
    let linearizable = inner.raft.ensure_linearizable(ReadPolicy::ReadIndex).await;
    linearizable.map_err(|_| MembershipError::NotMaster(None))?;
    if inner.joining().contains(&id) || inner.adding.is_under_way(id) {
        return Ok(());
    }
    let membership = inner.membership();
    let is_voter = membership.voter_ids().any(|voter| voter == id);
    let address = match membership.get_node(&id) {
        // An earlier master was adding it: it is taken out again.
        Some(address) if address.provisional && !is_voter => None,
        Some(_) if has_data && is_voter => None,
        Some(address) if has_data => Some(address.clone()),
        Some(address) => {
            tracing::warn!(node = id, "a member has lost its data; it joins anew");
            remove(inner, id).await?;
            Some(address.clone())
        }
        None if has_data => None, // It was removed.
        None => inner.config.members.get(&id).cloned(),
    };
    if let Some(address) = address {
        let inner = inner.clone();
        tokio::spawn(async move {
            if let Err(error) = join(&inner, id, address).await {
                tracing::warn!(node = id, %error, "a node could not join; it will ask again");
            }
        });
    }
    Ok(())
}

/// Notes new addresses of a member.
pub(crate) async fn move_node(inner: &Arc<Inner>, id: NodeId, address: NodeAddress) -> Result<(), MembershipError> {
    ensure_master(inner)?;
    match inner.membership().get_node(&id) {
        None => Err(MembershipError::Unknown(id)),
        Some(known) if *known == address => Ok(()),
        Some(_) => {
            let change = ChangeMembers::SetNodes(BTreeMap::from([(id, address)]));
            self::change(inner, change, false).await.map(drop)
        }
    }
}

/// Hands over to `to`, or to the voter that has caught up best.
pub(crate) async fn step_down(inner: &Arc<Inner>, to: Option<NodeId>) -> Result<NodeId, MembershipError> {
    ensure_master(inner)?;
    let me = inner.config.node;
    let voters: BTreeSet<NodeId> = inner.membership().voter_ids().filter(|id| *id != me).collect();
    let to = match to {
        Some(to) if voters.contains(&to) => to,
        Some(to) => return Err(MembershipError::Unknown(to)),
        None => best_caught_up(inner, &voters).ok_or(MembershipError::NoSuccessor)?,
    };
    // The successor does not wait for this master's lease to run out, so the lease ends here and now (P7).
    let term = inner.hand_over();
    let stopped = |error: openraft::errors::Fatal<Types>| MembershipError::Stopped(error.to_string());
    inner.raft.trigger().transfer_leader(to).await.map_err(stopped)?;
    let patience = Duration::from_millis(2 * inner.config.election_timeout_max_ms);
    if let Ok(master) = tokio::time::timeout(patience, inner.next_master(term)).await {
        return Ok(master.unwrap_or(to));
    }
    // openraft proposes nothing more in this term; a new term ends that, whoever wins it.
    inner.raft.trigger().elect(false).await.map_err(stopped)?;
    Err(MembershipError::NotTaken(to))
}

fn best_caught_up(inner: &Inner, voters: &BTreeSet<NodeId>) -> Option<NodeId> {
    let metrics = inner.metrics();
    let matched = |id: &NodeId| {
        metrics
            .replication
            .as_ref()
            .and_then(|all| all.get(id).cloned().flatten())
    };
    let heard_ms = inner.lease.heard_ms_ago();
    let is_alive = |id: &&NodeId| {
        heard_ms
            .get(id)
            .is_some_and(|ago| *ago < inner.config.election_timeout_min_ms)
    };
    voters.iter().filter(is_alive).max_by_key(|id| matched(id)).copied()
}

pub(crate) fn ensure_master(inner: &Inner) -> Result<(), MembershipError> {
    if inner.role.borrow().is_master() {
        Ok(())
    } else {
        Err(MembershipError::NotMaster(inner.master().map(|m| m.0)))
    }
}

fn refused(inner: &Inner, error: RaftError<Types, ClientWriteError<Types>>) -> MembershipError {
    match error {
        RaftError::APIError(ClientWriteError::ChangeMembershipError(ChangeMembershipError::InProgress(_))) => {
            MembershipError::InProgress
        }
        RaftError::APIError(ClientWriteError::ForwardToLeader(_) | ClientWriteError::LogEntryDiscarded(_)) => {
            MembershipError::NotMaster(inner.master().map(|master| master.0))
        }
        other => MembershipError::Stopped(other.to_string()),
    }
}
