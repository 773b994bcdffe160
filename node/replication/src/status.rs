//! What a group reports of itself: for the console, the CLI and metrics.

use std::collections::BTreeMap;

use openraft::LogIdOptionExt;
use serde::Serialize;

use crate::config::{NodeAddress, NodeId};
use crate::failover::ElectedBy;
use crate::group::Inner;
use crate::role::Role;
use crate::timers::Timers;

/// A snapshot of a group as this node sees it.
#[derive(Debug, Clone, Serialize)]
pub struct GroupStatus {
    /// The group's name.
    pub group: String,
    /// This node.
    pub node: NodeId,
    /// How many times this node was started with its data, this time included; see docs/adr/0014.
    pub start: u64,
    /// `"master"`, `"slave"`, `"founding"` or `"waiting"` (see [`GroupStatus::notice`]).
    pub role: &'static str,
    /// The highest term known here.
    pub term: u64,
    /// The master, when known.
    pub master: Option<NodeId>,
    /// How this node came to be master; none on a slave.
    pub elected_by: Option<ElectedBy>,
    /// Last index in this node's log.
    pub last_index: u64,
    /// Last index known to be committed.
    pub committed_index: u64,
    /// Last index applied here.
    pub applied_index: u64,
    /// The newest snapshot's index.
    pub snapshot_index: u64,
    /// Log is gone up to here.
    pub purged_index: u64,
    /// Everybody in the group, as replicated.
    pub members: Vec<MemberStatus>,
    /// `quorum_disk`, …
    pub sync: &'static str,
    /// Whether this master may act now (P7).
    pub lease_valid: bool,
    /// How long the lease lasts after a majority was last heard: the shortest `election_min` of any voter, as far as they have
    /// told.
    pub lease_ms: u64,
    /// What this node goes by.
    pub timers: Timers,
    /// Proposals of this node.
    pub batches: BatchStatus,
    /// Submitted and not yet applied.
    pub backlog_bytes: usize,
    /// The journal's numbers.
    pub journal: JournalStatus,
    /// What an operator should know or do, if anything.
    pub notice: Option<String>,
}

/// One node of the group.
#[derive(Debug, Clone, Serialize)]
pub struct MemberStatus {
    /// Its number.
    pub node: NodeId,
    /// Where it is reached.
    pub address: NodeAddress,
    /// False for a node that is still catching up, and until the change of membership that makes it a voter needs no
    /// majority of the old voters any more: from then on any minority may fail.
    pub is_voter: bool,
    /// What the master knows it to have; only known on the master.
    pub matched_index: Option<u64>,
    /// Entries it lacks; only known on the master.
    pub lag_entries: Option<u64>,
    /// Since the last request that it has answered was sent; only known on the master.
    pub heard_ms_ago: Option<u64>,
    /// What it goes by, as far as it has told; it should be the same everywhere.
    pub timers: Option<Timers>,
}

/// How well commands are packed, and how long they take from proposal to apply.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct BatchStatus {
    /// Applied batches proposed here.
    pub count: u64,
    /// Commands per batch.
    pub commands_average: f64,
    /// Half of the batches were faster.
    pub commit_p50_micros: u64,
    /// 99 of 100 batches were faster.
    pub commit_p99_micros: u64,
}

/// The journal's numbers by name, as the journal itself reports them.
pub type JournalStatus = BTreeMap<&'static str, u64>;

/// Gathers the numbers.
pub(crate) fn collect(inner: &Inner) -> GroupStatus {
    let metrics = inner.metrics();
    let role = inner.role.borrow().clone();
    let index = |log_id: &Option<crate::types::LogId>| log_id.index().unwrap_or(0);
    let heard_ms = inner.lease.heard_ms_ago();
    let from_master = |node: &NodeId| match &role {
        Role::Slave {
            master: Some((master, _)),
            ..
        } if master == node => inner.lease.master_heard_ms_ago(),
        _ => None,
    };
    let last_index = metrics.last_log_index.unwrap_or(0);
    let membership = metrics.membership_config.membership();
    let members = membership.nodes().map(|(node, address)| {
        let is_self = *node == inner.config.node;
        let matched = metrics.replication.as_ref().and_then(|all| all.get(node)).map(index);
        MemberStatus {
            node: *node,
            address: address.clone(),
            is_voter: membership.get_joint_config().iter().all(|voters| voters.contains(node)),
            matched_index: if is_self { Some(last_index) } else { matched },
            lag_entries: if is_self {
                Some(0)
            } else {
                matched.map(|matched| last_index.saturating_sub(matched))
            },
            heard_ms_ago: if is_self {
                Some(0)
            } else {
                heard_ms.get(node).copied().or_else(|| from_master(node))
            },
            timers: if is_self {
                Some(inner.comparison.own)
            } else {
                inner.comparison.timers(*node)
            },
        }
    });
    GroupStatus {
        group: inner.config.group.clone(),
        node: inner.config.node,
        start: inner.meetings.start(),
        role: match &role {
            Role::Master { .. } => "master",
            Role::Slave { .. } if !inner.admission.is_given() => "waiting",
            Role::Slave { .. } if last_index == 0 && metrics.last_log_index.is_none() => "founding",
            Role::Slave { .. } => "slave",
        },
        // Of which it is master: the role follows a moment after a higher term was heard of.
        term: match role {
            Role::Master { term } => term,
            Role::Slave { .. } => metrics.current_term,
        },
        master: metrics.current_leader,
        elected_by: role.is_master().then(|| inner.failover.elected_by(role.term())),
        last_index,
        committed_index: index(&metrics.local_committed),
        applied_index: index(&metrics.last_applied),
        snapshot_index: index(&metrics.snapshot),
        purged_index: index(&metrics.purged),
        members: members.collect(),
        sync: inner.config.sync.name(),
        lease_valid: inner.lease.holds(),
        lease_ms: inner.lease.lasts().as_millis() as u64,
        timers: inner.comparison.own,
        batches: inner.pipeline.status(),
        backlog_bytes: inner.pipeline.backlog_bytes(),
        journal: journal(inner),
        notice: inner.notice(),
    }
}

fn journal(inner: &Inner) -> JournalStatus {
    let stats = inner.replica.journal.stats();
    BTreeMap::from([
        ("segments", stats.segments as u64),
        ("bytes_on_disk", stats.bytes_on_disk),
        ("spare_bytes", stats.spare_bytes),
        ("live_bytes", stats.live_bytes),
        ("cache_bytes", stats.cache_bytes as u64),
        ("syncs", stats.syncs),
        ("bytes_written", stats.bytes_written),
    ])
}
