//! What happens now and then: a snapshot after much log, and living messages moved out of mostly dead segments.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use ferrymq_broker::Broker;
use tokio::sync::oneshot;
use tokio::time::{Instant, MissedTickBehavior};

use crate::group::Inner;
use crate::replica::{Replica, journal_place};

/// How often the amount of log since the last snapshot is looked at.
const LOOK: Duration = Duration::from_millis(500);

/// Runs until the group shuts down.
pub(crate) async fn run(inner: Arc<Inner>) {
    let mut look = tokio::time::interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let between = Duration::from_millis(inner.config.stragglers_interval_ms);
    let mut stragglers_at = Instant::now() + between;
    loop {
        look.tick().await;
        let (snapshot_log_bytes, log_keep_bytes) = thresholds(&inner);
        let due = inner.replica.growth().take_due(snapshot_log_bytes);
        if due && let Err(error) = inner.raft.trigger().snapshot().await {
            tracing::debug!(%error, "no snapshot");
        }
        let cut = inner.replica.growth().cut(inner.replica.on_disk(), log_keep_bytes);
        if let Some(index) = cut
            && let Err(error) = inner.raft.trigger().purge_log(index).await
        {
            tracing::debug!(%error, "the log is not cut");
        }
        if Instant::now() >= stragglers_at {
            stragglers_at = Instant::now() + between;
            if let Err(error) = move_stragglers(&inner.replica).await {
                tracing::warn!(%error, "living messages could not be moved out of sparse segments");
            }
        }
    }
}

/// After how much a snapshot is made, and how much log stays behind it, in bytes. Where space is short, thresholds that
/// are far apart for speed would keep what was consumed for good: nothing more comes that would reach them.
fn thresholds(inner: &Inner) -> (u64, u64) {
    let (snapshot_log_bytes, log_keep_bytes) = (inner.config.snapshot_log_bytes, inner.config.log_keep_bytes);
    if !inner.replica.is_short_of_room() {
        return (snapshot_log_bytes, log_keep_bytes);
    }
    let short = inner.replica.short_of_room_bytes();
    (snapshot_log_bytes.min(short), log_keep_bytes.min(short / 4))
}

/// Copies what lives in sparse segments forward, after which the journal lets the files go. A slave that installs a
/// snapshot meanwhile loses nothing: its copies then count for nothing.
pub(crate) async fn move_stragglers(replica: &Arc<Replica>) -> io::Result<()> {
    let indexes: BTreeSet<u64> = replica
        .journal
        .sparse_segments()
        .into_iter()
        .flat_map(|s| s.indexes)
        .collect();
    if indexes.is_empty() {
        return Ok(());
    }
    let looking = replica.clone();
    let look = move || {
        let state = looking.read();
        // A snapshot that is being sent holds bodies that the state no longer knows.
        if looking.is_pinned() {
            Vec::new()
        } else {
            references(&state.broker, &indexes)
        }
    };
    let places = tokio::task::spawn_blocking(look).await.map_err(io::Error::other)?;
    if places.is_empty() {
        return Ok(());
    }
    tracing::debug!(places = places.len(), "moving living messages out of sparse segments");
    let (done, copied) = oneshot::channel();
    replica
        .journal
        .copy_forward(places, Box::new(move |result| drop(done.send(result))));
    copied.await.map_err(io::Error::other)?.map_err(io::Error::other)
}

/// Every reference into these entries; a message on several backlogs counts once for each.
fn references(broker: &Broker, indexes: &BTreeSet<u64>) -> Vec<ferrymq_journal::Place> {
    let places = broker
        .queues()
        .iter()
        .flat_map(|queue| queue.iter_from(0))
        .map(|(_, slot)| slot.place);
    places
        .filter(|place| indexes.contains(&place.index))
        .map(journal_place)
        .collect()
}
