//! What the tests of this crate share: names, secrets, and waiting for a condition.

use std::time::{Duration, Instant};

use ferrymq_transport::{MeshSecret, PeerName};

/// Longest wait for anything; only a failing test waits so long.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

pub(crate) fn name(group: &str, node: u64) -> PeerName {
    PeerName::new(group, node).unwrap()
}

pub(crate) fn secret(text: &str) -> MeshSecret {
    MeshSecret::new(&format!("{text}, certainly long enough")).unwrap()
}

#[allow(dead_code, reason = "not every test binary waits")]
/// Lets other tasks run until the condition holds.
pub(crate) async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < DEADLINE, "never: {what}");
        tokio::task::yield_now().await;
    }
}
