//! Watches who is master, renews what depends on it, and notices the end of the replica.

use std::sync::Arc;
use std::time::{Duration, Instant};

use openraft::ServerState;
use openraft::async_runtime::watch::WatchReceiver;

use crate::config::NodeId;
use crate::event::GroupEvent;
use crate::group::Inner;
use crate::role::Role;
use crate::types::Types;

/// Runs until the replica ends.
pub(crate) async fn watch(inner: Arc<Inner>) {
    let mut metrics = inner.raft.metrics();
    let mut seen = None;
    let mut doubt = Doubt::default();
    let mut is_master;
    let tick = Duration::from_millis(inner.config.heartbeat_ms);
    loop {
        {
            let now = metrics.borrow_and_update();
            if let Err(error) = &now.running_state {
                if !inner.is_closing() {
                    inner.fatal(format!("replication has stopped: {error}"));
                }
                return;
            }
            let key = (
                now.current_term,
                is_leader(inner.config.node, &now),
                *now.membership_config.log_id(),
            );
            if seen != Some(key) {
                seen = Some(key);
                update_lease(&inner, &now);
            }
            if let Some(matched) = &now.replication {
                inner.meetings.acknowledged(now.current_term, matched);
            }
            let is_doubtful = doubt.lasts(&inner, is_leader(inner.config.node, &now));
            let role = role(&inner, &now, is_doubtful);
            is_master = role.is_master();
            inner.role.send_if_modified(|last| {
                let changed = *last != role;
                if changed {
                    tracing::info!(group = inner.config.group, node = inner.config.node, ?role, "role");
                    *last = role;
                }
                changed
            });
        }
        let changed = tokio::select! {
            changed = metrics.changed() => changed.is_ok(),
            // A lease runs out without anything else happening.
            () = tokio::time::sleep(tick), if doubt.is_raised() || is_master => true,
        };
        if !changed {
            if !inner.is_closing() {
                inner
                    .replica
                    .tell(GroupEvent::Fatal("replication has ended".to_owned()));
            }
            return;
        }
    }
}

type Metrics = openraft::RaftMetrics<Types>;

fn is_leader(me: NodeId, metrics: &Metrics) -> bool {
    metrics.state == ServerState::Leader && metrics.vote.committed && metrics.current_leader == Some(me)
}

fn update_lease(inner: &Inner, metrics: &Metrics) {
    if is_leader(inner.config.node, metrics) && !inner.is_handing_over(metrics.current_term) {
        let voters = metrics.membership_config.membership().get_joint_config().clone();
        inner.lease.begin(metrics.current_term, voters);
    } else {
        inner.lease.end();
    }
}

/// How long openraft's leader has had no lease. It stays leader in its own eyes; its clients had better look elsewhere.
#[derive(Default)]
struct Doubt(Option<Instant>);

impl Doubt {
    /// Whether a majority has been silent for so long that another master may have been elected.
    fn lasts(&mut self, inner: &Inner, is_leader: bool) -> bool {
        if !is_leader || inner.lease.holds() {
            self.0 = None;
            return false;
        }
        let since = *self.0.get_or_insert_with(Instant::now);
        since.elapsed() >= Duration::from_millis(inner.config.election_timeout_max_ms)
    }

    fn is_raised(&self) -> bool {
        self.0.is_some()
    }
}

/// Master only once the first entry of its own term is applied: then everything of earlier terms is.
fn role(inner: &Inner, metrics: &Metrics, is_doubtful: bool) -> Role {
    let term = metrics.current_term;
    if is_leader(inner.config.node, metrics) {
        let has_applied = metrics
            .last_applied
            .as_ref()
            .is_some_and(|log_id| log_id.leader_id.term == term);
        let is_ready = has_applied && !is_doubtful && !inner.is_handing_over(term);
        return if is_ready {
            Role::Master { term }
        } else {
            Role::Slave { term, master: None }
        };
    }
    let master = metrics.current_leader.and_then(|leader| {
        let address = metrics.membership_config.membership().get_node(&leader)?;
        Some((leader, address.clone()))
    });
    Role::Slave { term, master }
}
