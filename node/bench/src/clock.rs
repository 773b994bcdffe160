//! Time since the load began, in nanoseconds: what bodies carry and what is subtracted.

use std::time::{Duration, Instant};

/// Nanoseconds since the load began; 584 years fit in.
pub(crate) type Nanos = u64;

/// A point in time from which everything is counted.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    began: Instant,
}

impl Clock {
    pub(crate) fn start() -> Self {
        Self { began: Instant::now() }
    }

    pub(crate) fn now(&self) -> Nanos {
        nanos(self.began.elapsed())
    }

    pub(crate) fn instant(&self, at: Nanos) -> Instant {
        self.began + Duration::from_nanos(at)
    }
}

pub(crate) fn nanos(duration: Duration) -> Nanos {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

pub(crate) fn seconds(nanos: Nanos) -> f64 {
    nanos as f64 / 1e9
}
