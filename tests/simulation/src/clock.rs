//! The clocks of the node whose turn it is. The world sets them before it lets a node do anything.

use std::{cell::Cell, time::Duration};

thread_local! {
    static WALL_MS: Cell<i64> = const { Cell::new(0) };
    static MONOTONIC_US: Cell<u64> = const { Cell::new(0) };
}

/// It is this node's turn: its wall clock, which may jump, and its monotonic one, which may only run fast or slow.
pub(crate) fn set(wall_ms: i64, monotonic_us: u64) {
    WALL_MS.set(wall_ms);
    MONOTONIC_US.set(monotonic_us);
}

/// Milliseconds of its monotonic clock.
pub(crate) fn boot_ms() -> i64 {
    (MONOTONIC_US.get() / 1_000) as i64
}

/// Milliseconds since 1970, as the node believes.
pub(crate) fn now_ms() -> i64 {
    WALL_MS.get()
}

/// A point on the node's monotonic clock, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Instant(pub(crate) u64);

impl Instant {
    /// This moment.
    pub(crate) fn now() -> Self {
        Self(MONOTONIC_US.get())
    }

    /// Since then.
    pub(crate) fn elapsed(&self) -> Duration {
        Self::now().saturating_duration_since(*self)
    }

    /// From `earlier` to this.
    pub(crate) fn saturating_duration_since(&self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

// For the tests in the product's sources, which are compiled here with them and run there.
impl std::ops::Add<Duration> for Instant {
    type Output = Self;

    fn add(self, span: Duration) -> Self {
        Self(self.0 + span.as_micros() as u64)
    }
}

impl std::ops::Sub<Duration> for Instant {
    type Output = Self;

    fn sub(self, span: Duration) -> Self {
        Self(self.0.saturating_sub(span.as_micros() as u64))
    }
}

/// For the lease's own tests, as in `node/replication/src/clock.rs`.
#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// The time goes on without anybody having noticed.
    pub(crate) fn suspend(span: Duration) {
        MONOTONIC_US.set(MONOTONIC_US.get() + span.as_micros() as u64);
    }
}
