//! What gathers while earlier batches are being agreed upon, and when it goes.
//!
//! A round of agreement costs the same whether it carries one command or a hundred: a sync and several wake-ups on each
//! node. So a small batch does not overtake the one under way, and after a round those whose commands were answered by
//! it are given a moment to come back with their next ones: eight producers that each wait for their receipt then share
//! one round instead of chasing each other through eight. A batch that is worth a round by its size goes at once, up to
//! the bound of batches in flight.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;
use ferrymq_broker::{BatchBuilder, stores_messages};

/// So many bytes are worth a round of their own beside the one under way.
const WORTH_A_ROUND_BYTES: usize = 64 * 1024;
/// Longest wait for those who were answered by the last round.
const COMEBACK_MAX: Duration = Duration::from_millis(4);
/// Longest wait for the next of them after one has come back.
const GAP_MAX: Duration = Duration::from_millis(1);
/// Shorter waits cost more than they bring.
const GAP_MIN: Duration = Duration::from_micros(50);
/// How long commands that nobody waits for wait for company.
pub(crate) const RIDE: Duration = Duration::from_millis(3);

/// A batch's commands and whom they are to be answered.
#[derive(Default)]
pub(crate) struct Gathered {
    pub(crate) batch: BatchBuilder,
    pub(crate) tokens: Vec<u64>,
    /// Commands that somebody waits for.
    pub(crate) awaited: usize,
    /// There are messages to be stored among them.
    pub(crate) stores: bool,
}

/// What to do now.
pub(crate) enum Next {
    /// Propose this.
    Go(Gathered),
    /// Ask again at that time, or when something happens.
    At(Instant),
    /// Ask again when something happens.
    Wait,
}

/// Who may come back soon after a round has answered them.
struct Comeback {
    /// With those who are here already.
    expected: usize,
    /// Until when they are waited for at most.
    until: Instant,
    /// Until how long after the last one came.
    gap: Duration,
    /// How many were here already.
    were_here: usize,
}

/// Rounds without a wait after several waits in vain, at most.
const REST_MAX: u32 = 31;

/// Commands on their way into a batch.
pub(crate) struct Gathering {
    full: VecDeque<Gathered>,
    open: Gathered,
    /// When the first command of `open` came, as long as nobody waits for any of them.
    riding_since: Option<Instant>,
    comeback: Option<Comeback>,
    /// So many rounds nobody is waited for, since it was in vain.
    resting: u32,
    /// How many that will be after the next wait in vain.
    rest_next: u32,
    /// When the last command came.
    last_came: Instant,
    bytes_max: usize,
    commands_max: usize,
    in_flight_max: usize,
}

impl Gathering {
    pub(crate) fn new(bytes_max: usize, commands_max: usize, in_flight_max: usize) -> Gathering {
        Gathering {
            full: VecDeque::new(),
            open: Gathered::default(),
            riding_since: None,
            comeback: None,
            resting: 0,
            rest_next: 1,
            last_came: Instant::now(),
            bytes_max,
            commands_max,
            in_flight_max,
        }
    }

    /// Adds a command. One that is not `awaited` may wait up to [`RIDE`] for company.
    pub(crate) fn push(&mut self, command: &Bytes, token: u64, awaited: bool, now: Instant) {
        let open = &self.open;
        let is_full = open.batch.len() + command.len() > self.bytes_max || open.tokens.len() >= self.commands_max;
        if is_full && !open.tokens.is_empty() {
            self.full.push_back(std::mem::take(&mut self.open));
        }
        if self.open.tokens.is_empty() {
            self.riding_since = Some(now);
        }
        self.open.batch.push(command);
        self.open.tokens.push(token);
        self.open.awaited += usize::from(awaited);
        self.open.stores |= stores_messages(command);
        self.last_came = now;
    }

    /// A round is over, which took so long and answered so many who were waiting.
    pub(crate) fn round_over(&mut self, awaited: usize, took: Duration, now: Instant) {
        let gap = (took / 2).min(GAP_MAX);
        let rests = self.resting > 0;
        self.resting = self.resting.saturating_sub(1);
        self.comeback = (gap >= GAP_MIN && awaited > 0 && !rests).then(|| Comeback {
            expected: self.open.awaited + awaited,
            until: now + (2 * took).min(COMEBACK_MAX),
            gap,
            were_here: self.open.awaited,
        });
        // Those who are here have been waiting for the round, not for the others.
        self.last_came = now;
    }

    /// The next batch, if it is time for one.
    pub(crate) fn next(&mut self, in_flight: usize, now: Instant) -> Next {
        if in_flight >= self.in_flight_max {
            return Next::Wait;
        }
        if let Some(full) = self.full.pop_front() {
            return Next::Go(full);
        }
        if self.open.tokens.is_empty() {
            return Next::Wait;
        }
        if self.open.batch.len() >= WORTH_A_ROUND_BYTES {
            return self.go();
        }
        if in_flight > 0 {
            return Next::Wait;
        }
        let wait_until = match (self.open.awaited, &self.comeback) {
            (0, _) => self.riding_since.map(|since| since + RIDE),
            (here, Some(comeback)) if here < comeback.expected => {
                Some(comeback.until.min(self.last_came + comeback.gap))
            }
            _ => None,
        };
        match wait_until {
            Some(until) if now < until => Next::At(until),
            _ => {
                self.learn();
                self.go()
            }
        }
    }

    /// Whether it was worth while to wait: at least half of those who were answered have come back.
    fn learn(&mut self) {
        let Some(comeback) = self.comeback.as_ref().filter(|_| self.open.awaited > 0) else {
            return;
        };
        let answered = comeback.expected - comeback.were_here;
        let came = self.open.awaited.saturating_sub(comeback.were_here);
        if 2 * came >= answered {
            self.rest_next = 1;
        } else {
            self.resting = self.rest_next;
            self.rest_next = (2 * self.rest_next + 1).min(REST_MAX);
        }
    }

    /// Whatever is there, because it is to be refused.
    pub(crate) fn take(&mut self) -> Option<Gathered> {
        self.full
            .pop_front()
            .or_else(|| (!self.open.tokens.is_empty()).then(|| std::mem::take(&mut self.open)))
    }

    fn go(&mut self) -> Next {
        self.comeback = None;
        self.riding_since = None;
        Next::Go(std::mem::take(&mut self.open))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROUND: Duration = Duration::from_micros(600);

    fn small() -> Bytes {
        Bytes::from_static(&[7; 1000])
    }

    struct Case {
        gathering: Gathering,
        now: Instant,
    }

    impl Case {
        fn new() -> Case {
            Case {
                gathering: Gathering::new(1 << 20, 4096, 2),
                now: Instant::now(),
            }
        }

        fn push(&mut self, count: u64, awaited: bool) {
            for token in 0..count {
                self.gathering.push(&small(), token, awaited, self.now);
            }
        }

        /// The size of the batch that goes now.
        fn goes(&mut self, in_flight: usize) -> Option<usize> {
            match self.gathering.next(in_flight, self.now) {
                Next::Go(gathered) => Some(gathered.tokens.len()),
                Next::At(at) => {
                    assert!(at > self.now, "would ask again at once, for ever");
                    None
                }
                Next::Wait => None,
            }
        }
    }

    #[test]
    fn a_command_in_a_quiet_moment_goes_at_once() {
        let mut case = Case::new();
        assert_eq!(case.goes(0), None, "nothing is there");
        case.push(1, true);
        assert_eq!(case.goes(0), Some(1));
    }

    #[test]
    fn small_batches_do_not_overtake_and_large_ones_do() {
        let mut case = Case::new();
        case.push(8, true);
        assert_eq!(case.goes(1), None);
        case.push(60, true);
        assert_eq!(case.goes(1), Some(68));
        case.push(68, true);
        assert_eq!(case.goes(2), None, "two are in flight");
    }

    #[test]
    fn those_who_were_answered_share_the_next_round() {
        let mut case = Case::new();
        case.gathering.round_over(8, ROUND, case.now);
        case.push(7, true);
        assert_eq!(case.goes(0), None, "one is missing");
        case.push(1, true);
        assert_eq!(case.goes(0), Some(8));

        case.gathering.round_over(8, ROUND, case.now);
        for _ in 0..7 {
            case.now += ROUND / 4;
            case.push(1, true);
            assert_eq!(case.goes(0), None, "they keep coming");
        }
        case.now += ROUND / 2;
        assert_eq!(case.goes(0), Some(7), "one has not come back");
        case.now += ROUND;
        case.gathering.round_over(7, ROUND, case.now);
        case.push(7, true);
        assert_eq!(case.goes(0), Some(7), "it is not expected any more");
    }

    #[test]
    fn two_crowds_become_one() {
        let mut case = Case::new();
        case.push(3, true);
        case.gathering.round_over(5, ROUND, case.now);
        case.now += ROUND / 8;
        case.push(4, true);
        assert_eq!(case.goes(0), None);
        case.push(1, true);
        assert_eq!(case.goes(0), Some(8));
    }

    #[test]
    fn a_wait_in_vain_makes_the_next_ones_rarer() {
        let mut case = Case::new();
        let mut waits = 0;
        for _ in 0..100 {
            // One of four comes back while the others think.
            case.gathering.round_over(4, ROUND, case.now);
            case.push(1, true);
            if case.goes(0).is_none() {
                waits += 1;
                case.now += ROUND;
                assert_eq!(case.goes(0), Some(1));
            }
            case.now += ROUND;
        }
        assert!((4..=8).contains(&waits), "{waits} waits");
        // They do come back now: it is tried again in the end, and stays so.
        let mut waited = Vec::new();
        for _ in 0..100 {
            case.gathering.round_over(4, ROUND, case.now);
            case.push(3, true);
            let waits = case.goes(0).is_none();
            if waits {
                case.push(1, true);
                assert_eq!(case.goes(0), Some(4));
            }
            waited.push(waits);
            case.now += ROUND;
        }
        assert!(waited[REST_MAX as usize + 1..].iter().all(|waits| *waits));
    }

    #[test]
    fn the_wait_has_an_end() {
        let mut case = Case::new();
        let round = Duration::from_millis(8);
        case.gathering.round_over(50, round, case.now);
        let begin = case.now;
        let went = loop {
            case.push(1, true);
            if let Some(count) = case.goes(0) {
                break count;
            }
            case.now += Duration::from_micros(300);
        };
        assert!(case.now - begin <= COMEBACK_MAX + Duration::from_micros(300));
        assert!((2..50).contains(&went), "{went}");
    }

    #[test]
    fn nobody_is_waited_for_after_a_round_that_was_hardly_one() {
        let mut case = Case::new();
        case.gathering.round_over(8, Duration::from_micros(80), case.now);
        case.push(1, true);
        assert_eq!(case.goes(0), Some(1));
    }

    #[test]
    fn what_nobody_waits_for_rides_along() {
        let mut case = Case::new();
        case.gathering.round_over(1, ROUND, case.now);
        case.push(3, false);
        assert_eq!(case.goes(0), None);
        case.push(1, true);
        assert_eq!(case.goes(0), Some(4), "with the next one");

        case.push(3, false);
        case.now += RIDE - Duration::from_millis(1);
        case.push(1, false);
        assert_eq!(case.goes(0), None);
        case.now += Duration::from_millis(1);
        assert_eq!(case.goes(0), Some(4), "alone, counted from the first");
    }

    #[test]
    fn bounds_hold() {
        let mut case = Case::new();
        case.gathering = Gathering::new(10_000, 4, 8);
        case.push(6, true);
        assert_eq!(case.goes(0), Some(4), "by count");
        assert_eq!(case.goes(0), Some(2));
        let large = Bytes::from(vec![1; 9_000]);
        case.gathering.push(&small(), 1, true, case.now);
        case.gathering.push(&small(), 2, true, case.now);
        case.gathering.push(&large, 3, true, case.now);
        assert_eq!(case.goes(0), Some(2), "by bytes");
        assert_eq!(case.goes(0), Some(1));
        case.push(5, false);
        assert_eq!(case.gathering.take().map(|gathered| gathered.tokens.len()), Some(4));
        assert_eq!(case.gathering.take().map(|gathered| gathered.tokens.len()), Some(1));
        assert!(case.gathering.take().is_none());
    }
}
