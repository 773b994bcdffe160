//! A timer that is exact to some microseconds: tokio's own counts whole milliseconds, which is longer than a round of
//! agreement takes.

use std::time::{Duration, Instant};

/// From here on tokio's timer is exact enough, and needs no system call.
const LONG: Duration = Duration::from_millis(2);

#[cfg(target_os = "linux")]
pub(crate) use linux::Alarm;

#[cfg(target_os = "linux")]
mod linux {
    use std::io;
    use std::os::fd::OwnedFd;

    use rustix::time::{
        Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
    };
    use tokio::io::unix::AsyncFd;

    use super::{Instant, LONG};

    /// One alarm, set anew for each wait.
    pub(crate) struct Alarm(AsyncFd<OwnedFd>);

    impl Alarm {
        /// Must be called inside a tokio runtime.
        pub(crate) fn new() -> io::Result<Alarm> {
            let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
            let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
            #[expect(
                deprecated,
                reason = "sound for an OwnedFd, whose number cannot change; its successor needs unsafe code"
            )]
            let timer = AsyncFd::new(timer)?;
            Ok(Alarm(timer))
        }

        /// Waits until then. Dropping the future gives the wait up.
        pub(crate) async fn wait_until(&self, at: Instant) -> io::Result<()> {
            let wait = at.saturating_duration_since(Instant::now());
            if wait >= LONG {
                tokio::time::sleep(wait).await;
                return Ok(());
            }
            // Zero would disarm it.
            let nanos = i64::from(wait.subsec_nanos().max(u32::from(wait.is_zero())));
            let spec = Itimerspec {
                it_interval: Timespec { tv_sec: 0, tv_nsec: 0 },
                it_value: Timespec {
                    tv_sec: wait.as_secs() as i64,
                    tv_nsec: nanos,
                },
            };
            // Setting it also takes back an earlier alarm that nobody has read.
            timerfd_settime(self.0.get_ref(), TimerfdTimerFlags::empty(), &spec)?;
            loop {
                let mut guard = self.0.readable().await?;
                let mut count = [0; 8];
                match guard.try_io(|timer| Ok(rustix::io::read(timer.get_ref(), &mut count)?)) {
                    Ok(read) => return read.map(|_| ()),
                    Err(_would_block) => {}
                }
            }
        }
    }
}

/// Where there is no such timer, a wait is rounded up to a millisecond.
#[cfg(not(target_os = "linux"))]
pub(crate) struct Alarm;

#[cfg(not(target_os = "linux"))]
impl Alarm {
    pub(crate) fn new() -> std::io::Result<Alarm> {
        Ok(Alarm)
    }

    pub(crate) async fn wait_until(&self, at: Instant) -> std::io::Result<()> {
        tokio::time::sleep_until(at.into()).await;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn it_rings_each_time_it_is_set_and_not_before() {
        let alarm = Alarm::new().unwrap();
        for micros in [0, 1, 300, 1_999, 2_100] {
            let at = Instant::now() + Duration::from_micros(micros);
            alarm.wait_until(at).await.unwrap();
            assert!(Instant::now() >= at);
        }
        let never = Instant::now() + Duration::from_secs(3600);
        let given_up = tokio::time::timeout(Duration::from_millis(1), alarm.wait_until(never)).await;
        assert!(given_up.is_err());
        let at = Instant::now() + Duration::from_micros(200);
        alarm.wait_until(at).await.unwrap();
        assert!(Instant::now() >= at);
    }
}
