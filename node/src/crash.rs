//! Places where a test lets this process die, to prove that what lies before and after is enough.
//!
//! Only with the feature `crash-points`, which no release has: `FERRYMQ_CRASH_AT=accept-committed:3` aborts the process
//! when the point of that name is passed the third time. Without the feature a point is nothing.

/// Dies here, if a test wants that.
#[cfg(feature = "crash-points")]
pub(crate) fn point(name: &str) {
    use std::sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    };
    static WANTED: OnceLock<Option<(String, u64)>> = OnceLock::new();
    static PASSED: AtomicU64 = AtomicU64::new(0);
    let wanted = WANTED.get_or_init(|| {
        let text = std::env::var("FERRYMQ_CRASH_AT").ok()?;
        let (name, time) = text.split_once(':')?;
        Some((name.to_owned(), time.parse().ok()?))
    });
    if let Some((at, time)) = wanted
        && at == name
        && PASSED.fetch_add(1, Ordering::Relaxed) + 1 == *time
    {
        eprintln!("crash point {name}, pass {time}");
        std::process::abort();
    }
}

/// Nothing.
#[cfg(not(feature = "crash-points"))]
pub(crate) fn point(_name: &str) {}
