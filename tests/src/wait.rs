//! Waiting for a condition, with a deadline; the only place where a test lets time pass.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

/// How often a condition is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Somebody wants everything to end.
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Every wait of this process panics from here on, so that all that was made is taken down in good order.
pub fn interrupt() {
    INTERRUPTED.store(true, Ordering::Relaxed);
}

/// Whether [`interrupt`] was called.
pub fn is_interrupted() -> bool {
    INTERRUPTED.load(Ordering::Relaxed)
}

/// Polls until `condition` yields something, and returns it with the time that it took.
///
/// # Panics
/// Past the deadline, with `what`.
#[track_caller]
pub fn wait_for<T>(what: &str, deadline: Duration, mut condition: impl FnMut() -> Option<T>) -> (T, Duration) {
    let begun = Instant::now();
    loop {
        if let Some(found) = condition() {
            return (found, begun.elapsed());
        }
        assert!(!is_interrupted(), "interrupted while waiting: {what}");
        assert!(begun.elapsed() < deadline, "not within {deadline:?}: {what}");
        thread::sleep(LOOK_EVERY);
    }
}

/// Polls until `condition` holds, and returns the time that it took.
///
/// # Panics
/// Past the deadline, with `what`.
#[track_caller]
pub fn wait_until(what: &str, deadline: Duration, mut condition: impl FnMut() -> bool) -> Duration {
    wait_for(what, deadline, || condition().then_some(())).1
}

/// That a condition goes on holding for a while: for what must *not* happen.
///
/// # Panics
/// As soon as it does not hold, with `what`.
#[track_caller]
pub fn holds_for(what: &str, time: Duration, mut condition: impl FnMut() -> bool) {
    let begun = Instant::now();
    while begun.elapsed() < time {
        assert!(condition(), "after {:?}: {what}", begun.elapsed());
        assert!(!is_interrupted(), "interrupted while waiting: {what}");
        thread::sleep(LOOK_EVERY);
    }
}
