//! The group's time: what messages' lives are measured by. Pure: this machine's time since boot and the members' wall clocks
//! are arguments.
//!
//! It goes on from what the log has noted, by the master's monotonic clock, and is slewed towards the median of the
//! members' wall clocks. It never goes back, and follows no clock that jumps while the master is in office: messages are
//! given lives of minutes, and a minute that passes at once kills them. Only when a master learns what a majority's clocks
//! show, which is at the beginning of its term, it steps forward to their median: nobody can tell otherwise how long the
//! whole group was off.
//!
//! Of an even number of clocks the lower one of the middle counts: a message that lives too long is a nuisance, one that
//! dies too early is lost.

/// See the file's head.
#[derive(Debug)]
pub(super) struct GroupTime {
    /// Time since boot and group time at the last correction. What is slewed in a second is less than a millisecond.
    anchor_boot_ms: i64,
    anchor_us: i64,
    /// How much faster it runs than this machine's clock, in millionths.
    slew_ppm: i64,
    /// Most clocks that were known at one time in this term; none while a majority's are not.
    known: usize,
    /// Neither the log nor a majority has told the time.
    is_unknown: bool,
    /// How far the median was ahead at the last correction.
    behind_ms: Option<i64>,
}

/// Smaller differences are errors of measurement.
const EXACT_MS: i64 = 20;
/// From this on it steps at the beginning of a term; less is slewed.
const STEP_MS: i64 = 1_000;
/// Slower it is never slewed: faster than clocks drift.
const SLEW_MIN_PPM: i64 = 500;
/// A difference is halved in this time or less, as long as the bounds allow it.
const SLEW_MS: i64 = 3_600_000;
/// A message with ten minutes to live has nine at least.
const FASTER_MAX_PPM: i64 = 100_000;
/// Messages live longer, which is no loss, and what clients give an end that is over already live sooner again.
const SLOWER_MAX_PPM: i64 = 500_000;

impl GroupTime {
    /// At the beginning of a term, from what the log has noted last.
    pub(super) fn new(noted_ms: Option<u64>, boot_ms: i64) -> Self {
        Self {
            anchor_boot_ms: boot_ms,
            // Until the time is known nothing is over.
            anchor_us: noted_ms.map_or(0, |noted_ms| micros(noted_ms as i64)),
            slew_ppm: 0,
            known: 0,
            is_unknown: noted_ms.is_none(),
            behind_ms: None,
        }
    }

    /// Milliseconds since 1970.
    pub(super) fn now_ms(&self, boot_ms: i64) -> i64 {
        self.now_us(boot_ms) / 1_000
    }

    fn now_us(&self, boot_ms: i64) -> i64 {
        let elapsed_ms = (boot_ms - self.anchor_boot_ms).max(0);
        // Parts of a thousandth of a millisecond are lost once in a correction.
        let slewed_us = elapsed_ms.saturating_mul(self.slew_ppm) / 1_000;
        self.anchor_us
            .saturating_add(micros(elapsed_ms))
            .saturating_add(slewed_us)
    }

    /// Where it may be noted in the log and told: not while it is only what an earlier master has noted, or less.
    pub(super) fn is_settled(&self) -> bool {
        self.known > 0
    }

    /// How far the members' clocks were ahead of it at the last correction; none where a majority's were not known.
    pub(super) fn behind_ms(&self) -> Option<i64> {
        self.behind_ms
    }

    /// Takes in what the wall clocks show at this moment of those voters that are known, among so many. Returns by how much
    /// it has stepped forward, if it has.
    pub(super) fn correct(&mut self, boot_ms: i64, wall_clocks_ms: &[i64], voters: usize) -> Option<i64> {
        let now_ms = self.now_ms(boot_ms);
        (self.anchor_us, self.anchor_boot_ms, self.slew_ppm) = (self.now_us(boot_ms), boot_ms, 0);
        self.behind_ms = None;
        let median_ms = median(wall_clocks_ms).filter(|_| 2 * wall_clocks_ms.len() > voters)?;
        if std::mem::take(&mut self.is_unknown) {
            (self.anchor_us, self.known) = (micros(median_ms), wall_clocks_ms.len());
            self.behind_ms = Some(0);
            return None;
        }
        let behind_ms = median_ms.saturating_sub(now_ms);
        // More clocks may make another median.
        if wall_clocks_ms.len() > self.known {
            self.known = wall_clocks_ms.len();
            if behind_ms >= STEP_MS {
                self.anchor_us = micros(median_ms);
                self.behind_ms = Some(0);
                return Some(behind_ms);
            }
        }
        self.behind_ms = Some(behind_ms);
        if behind_ms.abs() > EXACT_MS {
            let ppm = (i128::from(behind_ms) * 1_000_000 / i128::from(SLEW_MS))
                .clamp(i128::from(-SLOWER_MAX_PPM), i128::from(FASTER_MAX_PPM)) as i64;
            self.slew_ppm = match behind_ms > 0 {
                true => ppm.max(SLEW_MIN_PPM),
                false => ppm.min(-SLEW_MIN_PPM),
            };
        }
        None
    }
}

fn micros(ms: i64) -> i64 {
    ms.saturating_mul(1_000)
}

/// The lower one, of an even number.
pub(super) fn median(values: &[i64]) -> Option<i64> {
    let mut values = values.to_vec();
    values.sort_unstable();
    values.get(values.len().checked_sub(1)? / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000;
    const MINUTE: i64 = 60 * SECOND;
    const HOUR: i64 = 60 * MINUTE;
    const DAY: i64 = 24 * HOUR;
    /// The right time at boot.
    const TRUE_MS: i64 = 1_800_000_000_000;

    /// A group's clocks, each so far ahead of the right time.
    struct Case {
        time: GroupTime,
        boot_ms: i64,
        ahead_ms: Vec<i64>,
        voters: usize,
    }

    impl Case {
        /// The log has noted a time so far ahead of the right one.
        fn new(noted_ahead_ms: Option<i64>, ahead_ms: &[i64]) -> Self {
            Self {
                time: GroupTime::new(noted_ahead_ms.map(|ahead_ms| (TRUE_MS + ahead_ms) as u64), 0),
                boot_ms: 0,
                ahead_ms: ahead_ms.to_vec(),
                voters: ahead_ms.len(),
            }
        }

        /// How far it is ahead of the right time.
        fn ahead_ms(&self) -> i64 {
            self.time.now_ms(self.boot_ms) - TRUE_MS - self.boot_ms
        }

        fn correct(&mut self) -> Option<i64> {
            let walls: Vec<i64> = self
                .ahead_ms
                .iter()
                .map(|ahead| TRUE_MS + self.boot_ms + ahead)
                .collect();
            let before = self.time.now_ms(self.boot_ms);
            let was_unknown = self.time.is_unknown;
            let stepped = self.time.correct(self.boot_ms, &walls, self.voters);
            assert!(was_unknown || self.time.now_ms(self.boot_ms) >= before, "it went back");
            stepped
        }

        /// Lets time pass, with a correction each second; it must never go back.
        fn pass(&mut self, ms: i64) {
            let end_ms = self.boot_ms + ms;
            while self.boot_ms < end_ms {
                let before = self.time.now_ms(self.boot_ms);
                self.boot_ms += SECOND;
                assert!(self.time.now_ms(self.boot_ms) > before, "it stood still or went back");
                assert_eq!(self.correct(), None, "it jumped");
            }
        }
    }

    #[test]
    fn one_mad_clock_changes_nothing() {
        for mad in [2 * HOUR, -2 * HOUR, 365 * DAY, -TRUE_MS] {
            for place in 0..3 {
                let mut case = Case::new(Some(-5), &[0, 0, 0]);
                case.ahead_ms[place] = mad;
                assert_eq!(case.correct(), None);
                case.pass(HOUR);
                assert!(case.ahead_ms().abs() <= EXACT_MS, "{mad}: {}", case.ahead_ms());
            }
        }
    }

    #[test]
    fn a_master_that_is_hours_ahead_goes_on_from_where_the_last_one_was() {
        // With one slave that can be asked, and with two.
        for others in [vec![0], vec![0, 10]] {
            let mut case = Case::new(Some(-300), &[2 * HOUR]);
            case.ahead_ms.extend(others);
            case.voters = 3;
            assert_eq!(case.correct(), None);
            case.pass(10 * MINUTE);
            assert!(case.ahead_ms() <= 10, "{}", case.ahead_ms());
        }
    }

    #[test]
    fn it_waits_for_a_majority() {
        let mut case = Case::new(Some(0), &[2 * HOUR]);
        case.voters = 3;
        assert_eq!(case.correct(), None);
        assert!(!case.time.is_settled());
        case.pass(MINUTE);
        assert_eq!(case.ahead_ms(), 0, "its own clock is one of three");
    }

    #[test]
    fn after_a_day_off_it_steps_to_the_median() {
        let mut case = Case::new(Some(-DAY), &[-100, 0, 5 * HOUR]);
        assert_eq!(case.correct(), Some(DAY));
        assert_eq!(case.ahead_ms(), 0);
        // Of two the lower one; when the third is known, it is their median.
        let mut case = Case::new(Some(-DAY), &[-HOUR, 0]);
        case.voters = 3;
        assert_eq!(case.correct(), Some(DAY - HOUR));
        case.ahead_ms.push(0);
        assert_eq!(case.correct(), Some(HOUR));
        case.ahead_ms[1] = 2 * HOUR;
        case.ahead_ms[2] = 2 * HOUR;
        case.pass(MINUTE);
        assert!(case.ahead_ms() <= MINUTE / 10, "nothing steps later in a term");
    }

    #[test]
    fn the_first_time_ever_is_the_median() {
        let mut case = Case::new(None, &[0, -2 * HOUR, 40]);
        assert!(
            case.time.now_ms(case.boot_ms) < MINUTE,
            "nothing is over before it is known"
        );
        case.correct();
        assert!(case.time.is_settled());
        assert_eq!(case.ahead_ms(), 0);
    }

    #[test]
    fn a_jump_of_the_only_clock_is_slewed() {
        let mut case = Case::new(Some(0), &[0]);
        case.correct();
        case.ahead_ms[0] = 2 * HOUR;
        case.pass(10 * MINUTE);
        assert!((1..=MINUTE + SECOND).contains(&case.ahead_ms()), "{}", case.ahead_ms());
        case.pass(4 * DAY);
        assert!((case.ahead_ms() - 2 * HOUR).abs() < SECOND, "{}", case.ahead_ms());
        case.ahead_ms[0] = 0;
        case.pass(4 * HOUR);
        assert!(case.ahead_ms() < HOUR, "{}", case.ahead_ms());
        case.pass(12 * HOUR);
        assert!(case.ahead_ms() < SECOND, "{}", case.ahead_ms());
    }

    #[test]
    fn clocks_that_drift_are_followed() {
        // All wall clocks gain 50 ppm against the master's monotonic one.
        let mut case = Case::new(Some(0), &[0, 0, 0]);
        case.correct();
        for _ in 0..24 {
            case.pass(HOUR);
            case.ahead_ms.iter_mut().for_each(|ahead| *ahead += 180);
        }
        case.pass(HOUR);
        assert!((case.ahead_ms() - case.ahead_ms[0]).abs() <= 30, "{}", case.ahead_ms());
    }
}
