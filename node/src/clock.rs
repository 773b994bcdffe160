//! The clocks of this machine. Messages live by the group's time (leader/group_time.rs), leases and deadlines by the monotonic
//! clock; the wall clock is for what people read.

use std::time::{SystemTime, UNIX_EPOCH};

/// Milliseconds since this machine's boot, suspensions included. Never goes back and never jumps.
pub(crate) fn boot_ms() -> i64 {
    ferrymq_replication::boot_ms()
}

/// Milliseconds since 1970, UTC.
pub(crate) fn now_ms() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_millis() as i64)
}
