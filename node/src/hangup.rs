//! SIGHUP, which ends a process that says nothing to it: many programs read their configuration anew then, and operators
//! and log rotation send it in that belief. This one cannot yet, and goes on.

use tokio::signal::unix::{SignalKind, signal};

/// Says so at each SIGHUP from here on, until the node ends. Must be called within the runtime.
pub(crate) fn outlive() {
    match signal(SignalKind::hangup()) {
        Ok(mut hangups) => drop(tokio::spawn(async move {
            while hangups.recv().await.is_some() {
                tracing::warn!(
                    "SIGHUP: this node goes on as before; it cannot read its configuration anew while it runs: to change \
                     it, restart the node (see OPERATING.md, \"a node is to be restarted\")"
                );
            }
        })),
        Err(error) => tracing::warn!(%error, "SIGHUP cannot be heard, and would end this node"),
    }
}
