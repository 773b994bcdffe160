//! How fast a queue's consumers finish messages while they have some: what another group may send ahead, so that they do
//! not stand idle while it hears that they have room again.

/// See the file's head. Time is counted for each consumer that has something unacknowledged, so that the figure does not
/// depend on how much of the time they had nothing to do.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    /// Consumers at work since `since_ms`.
    at_work: u32,
    since_ms: i64,
    /// Thousandths of messages that were finished, and consumers' time at work, in milliseconds; both are halved with each
    /// window.
    finished_milli: u64,
    work_ms: u64,
    window_from_ms: i64,
    /// Most consumers at work at a time, in this window and in the one before.
    most: [u32; 2],
}

/// After so long what was before counts half.
const WINDOW_MS: i64 = 500;

impl Pace {
    /// A consumer has finished messages.
    pub(crate) fn finished(&mut self, messages: usize) {
        self.finished_milli += 1_000 * messages as u64;
    }

    /// So many consumers are at work from now on; until now it were those of the last call.
    pub(crate) fn look(&mut self, at_work: u32, now_ms: i64) {
        if self.is_idle() {
            self.window_from_ms = now_ms;
        }
        // A clock that was set back, or far ahead, has measured nothing.
        let elapsed_ms = (now_ms - self.since_ms).clamp(0, WINDOW_MS) as u64;
        self.work_ms += elapsed_ms * u64::from(self.at_work);
        self.since_ms = now_ms;
        if !(0..WINDOW_MS).contains(&(now_ms - self.window_from_ms)) {
            self.window_from_ms = now_ms;
            self.finished_milli /= 2;
            self.work_ms /= 2;
            self.most = [self.at_work, self.most[0]];
            if self.most == [0, 0] {
                (self.finished_milli, self.work_ms) = (0, 0);
            }
        }
        self.at_work = at_work;
        self.most[0] = self.most[0].max(at_work);
    }

    /// Nobody has done anything for a while.
    pub(crate) fn is_idle(&self) -> bool {
        self.at_work == 0 && self.most == [0, 0] && self.finished_milli == 0
    }

    /// Consumers that have been at work lately.
    pub(crate) fn busy(&self) -> u32 {
        self.most[0].max(self.most[1])
    }

    /// Messages that all of these finish in a second while they are at work.
    pub(crate) fn per_second(&self) -> u32 {
        let each = self.finished_milli / self.work_ms.max(1);
        u32::try_from(each.saturating_mul(u64::from(self.busy()))).unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_time_does_not_count() {
        let mut pace = Pace::default();
        pace.look(0, 1_000);
        // Two consumers, each of which takes 10 ms for a message and waits 90 ms for the next one.
        for round in 0..20 {
            let from_ms = 1_000 + round * 100;
            pace.look(2, from_ms);
            pace.finished(2);
            pace.look(0, from_ms + 10);
        }
        assert_eq!(pace.busy(), 2);
        assert!((190..=210).contains(&pace.per_second()), "{pace:?}");
    }

    #[test]
    fn who_does_nothing_is_forgotten_and_who_is_stuck_is_not() {
        let mut pace = Pace::default();
        pace.look(1, 1_000);
        pace.finished(1);
        pace.look(0, 1_010);
        let mut now_ms = 1_010;
        while !pace.is_idle() {
            now_ms += 100;
            pace.look(0, now_ms);
            assert!(now_ms < 3_000, "{pace:?}");
        }
        assert_eq!((pace.busy(), pace.per_second()), (0, 0));
        for _ in 0..100 {
            now_ms += 100;
            pace.look(1, now_ms);
        }
        assert_eq!((pace.busy(), pace.per_second()), (1, 0));
    }

    #[test]
    fn a_clock_that_is_set_measures_nothing_absurd() {
        let mut pace = Pace::default();
        pace.look(1, 1_000_000);
        pace.finished(10);
        pace.look(1, 1_000);
        pace.look(1, 1_100);
        pace.look(1, 9_000_000);
        assert!(pace.work_ms <= 600, "{pace:?}");
    }
}
