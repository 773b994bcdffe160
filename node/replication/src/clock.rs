//! The clock that the lease is measured by: monotonic, and running while the process does not, nor the machine
//! (CLOCK_BOOTTIME of clock_gettime(2); `std::time::Instant` stands still while a virtual machine is suspended). The
//! simulation compiles the lease against a clock of its own.

use std::ops::{Add, Sub};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// A point in time, since the machine was booted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Instant(Duration);

impl Instant {
    /// This moment.
    pub(crate) fn now() -> Instant {
        let now = clock_gettime(ClockId::Boottime);
        // Never negative: it began at zero.
        let since_boot = Duration::new(now.tv_sec as u64, now.tv_nsec as u32);
        #[cfg(test)]
        let since_boot = since_boot + tests::suspended();
        Instant(since_boot)
    }

    /// Since then.
    pub(crate) fn elapsed(&self) -> Duration {
        Self::now().saturating_duration_since(*self)
    }

    /// From `earlier` to this.
    pub(crate) fn saturating_duration_since(&self, earlier: Instant) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<Duration> for Instant {
    type Output = Instant;

    fn add(self, span: Duration) -> Instant {
        Instant(self.0 + span)
    }
}

impl Sub<Duration> for Instant {
    type Output = Instant;

    fn sub(self, span: Duration) -> Instant {
        Instant(self.0.saturating_sub(span))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::cell::Cell;

    use super::*;

    thread_local! {
        static SUSPENDED: Cell<Duration> = const { Cell::new(Duration::ZERO) };
    }

    /// For this thread the machine has been suspended for so long: the time goes on, what `std::time::Instant` shows does
    /// not.
    pub(crate) fn suspend(span: Duration) {
        SUSPENDED.set(SUSPENDED.get() + span);
    }

    pub(crate) fn suspended() -> Duration {
        SUSPENDED.get()
    }

    /// `/proc/uptime` counts suspension, too (proc_uptime(5)).
    #[test]
    fn it_is_the_time_since_the_machine_was_booted() {
        let uptime = std::fs::read_to_string("/proc/uptime").expect("Linux has it");
        let seconds: f64 = uptime
            .split(' ')
            .next()
            .and_then(|word| word.parse().ok())
            .expect("a number");
        let Instant(since_boot) = Instant::now();
        assert!(
            (since_boot.as_secs_f64() - seconds).abs() < 5.0,
            "{since_boot:?}, {seconds}"
        );
    }
}
