//! Timers of the members, compared when they meet (meeting.rs): the master's lease trusts that nobody stands for election earlier than
//! it ends (P7), so it goes by the shortest that any voter has told, and a difference is told once.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::config::{Config, NodeId};
use crate::lease::Lease;

/// What a node goes by, in milliseconds; see [`Config`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timers {
    /// The master's pulse.
    pub heartbeat_ms: u64,
    /// Shortest silence after which it stands for election.
    pub election_min_ms: u64,
    /// How long it votes for nobody else after it has heard a master.
    pub election_max_ms: u64,
}

impl Timers {
    pub(crate) fn of(config: &Config) -> Timers {
        Timers {
            heartbeat_ms: config.heartbeat_ms,
            election_min_ms: config.election_timeout_min_ms,
            election_max_ms: config.election_timeout_max_ms,
        }
    }
}

impl std::fmt::Display for Timers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "heartbeat {} ms, election_min {} ms, election_max {} ms",
            self.heartbeat_ms, self.election_min_ms, self.election_max_ms
        )
    }
}

/// What this node knows of the others' timers.
pub(crate) struct Comparison {
    node: NodeId,
    pub(crate) own: Timers,
    lease: Arc<Lease>,
    told: Mutex<BTreeMap<NodeId, Timers>>,
}

impl Comparison {
    pub(crate) fn new(config: &Config, lease: Arc<Lease>) -> Comparison {
        Comparison {
            node: config.node,
            own: Timers::of(config),
            lease,
            told: Mutex::new(BTreeMap::new()),
        }
    }

    /// That node has told its timers.
    pub(crate) fn told(&self, node: NodeId, timers: Timers) {
        let before = self.lock().insert(node, timers);
        self.lease
            .stands_after(node, Duration::from_millis(timers.election_min_ms));
        if timers != self.own && before != Some(timers) {
            tracing::warn!(
                node,
                "the timers of members differ: node {node} has {timers}; this node, {}, has {}; set [timers] alike on all \
                 nodes. Until then the lease of a master goes by the shortest election_min",
                self.node,
                self.own
            );
        }
    }

    /// As that node has told.
    pub(crate) fn timers(&self, node: NodeId) -> Option<Timers> {
        self.lock().get(&node).copied()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<NodeId, Timers>> {
        self.told.lock().expect("no code panics under this lock")
    }
}
