//! The numbers that each producer's messages had, by which a resend is recognised (P5).
//!
//! Numbers mostly come one after the other, so the highest one and the gaps below it say everything. Gaps matter: a
//! message that was refused (a full disk) or waits in a transaction comes after its successors, and to take it for a
//! resend would lose it.

use std::{collections::HashMap, sync::Arc};

use foldhash::fast::FixedState;

/// Producers remembered at most; the longest silent are forgotten first.
pub const PRODUCERS_MAX: usize = 100_000;
/// Gaps remembered for one producer at most; a message that would open one more is refused, because to guess about it
/// later would lose or double another.
pub const GAPS_MAX: usize = 1024;

/// What a number is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Admission {
    /// New, and remembered now.
    New,
    /// That of a resend.
    Seen,
    /// New, and more than can be remembered.
    TooManyGaps,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    /// The highest number so far.
    pub(crate) highest: u64,
    /// The log entry that brought the latest message: the state's own measure of time.
    pub(crate) index: u64,
    /// Numbers below `highest` that have not come: (first, last), increasing and apart.
    pub(crate) gaps: Vec<(u64, u64)>,
}

/// Each producer's numbers.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Producers {
    seen: HashMap<Arc<str>, Seen, FixedState>,
}

impl Seen {
    /// Whatever number is the first one, those below it may still come.
    fn first(sequence: u64, index: u64) -> Self {
        let gaps = if sequence == 0 {
            Vec::new()
        } else {
            vec![(0, sequence - 1)]
        };
        Self {
            highest: sequence,
            index,
            gaps,
        }
    }

    fn admit(&mut self, sequence: u64, index: u64) -> Admission {
        if sequence > self.highest {
            if sequence - self.highest > 1 {
                if self.gaps.len() >= GAPS_MAX {
                    return Admission::TooManyGaps;
                }
                self.gaps.push((self.highest + 1, sequence - 1));
            }
            self.highest = sequence;
        } else {
            match self.fill(sequence) {
                Admission::New => {}
                other => return other,
            }
        }
        self.index = index;
        Admission::New
    }

    /// True for a number that has come.
    fn has(&self, sequence: u64) -> bool {
        let at = self.gaps.partition_point(|&(_, last)| last < sequence);
        let in_a_gap = self.gaps.get(at).is_some_and(|&(first, _)| first <= sequence);
        sequence <= self.highest && !in_a_gap
    }

    /// All of these have come; the first one is noted already. Where a gap cannot be cut in two, because there are too
    /// many, nothing is noted: that at worst doubles a message, a gap left out would lose one.
    fn pass(&mut self, first: u64, last: u64) {
        let mut gaps = Vec::with_capacity(self.gaps.len() + 1);
        for &(from, to) in &self.gaps {
            if to < first || from > last {
                gaps.push((from, to));
                continue;
            }
            if from < first {
                gaps.push((from, first - 1));
            }
            if to > last {
                gaps.push((last + 1, to));
            }
        }
        if gaps.len() <= GAPS_MAX {
            self.gaps = gaps;
            self.highest = self.highest.max(last);
        }
    }

    /// Takes the number out of its gap.
    fn fill(&mut self, sequence: u64) -> Admission {
        let at = self.gaps.partition_point(|&(_, last)| last < sequence);
        let Some(&(first, last)) = self.gaps.get(at).filter(|&&(first, _)| first <= sequence) else {
            return Admission::Seen;
        };
        let below = (first < sequence).then(|| (first, sequence - 1));
        let above = (sequence < last).then(|| (sequence + 1, last));
        if below.is_some() && above.is_some() && self.gaps.len() >= GAPS_MAX {
            return Admission::TooManyGaps;
        }
        self.gaps.splice(at..=at, below.into_iter().chain(above));
        Admission::New
    }
}

impl Producers {
    /// What the number is; a new one is remembered.
    pub(crate) fn admit(&mut self, id: &str, sequence: u64, index: u64) -> Admission {
        if let Some(seen) = self.seen.get_mut(id) {
            return seen.admit(sequence, index);
        }
        if self.seen.len() >= PRODUCERS_MAX {
            self.forget_the_longest_silent();
        }
        self.seen.insert(id.into(), Seen::first(sequence, index));
        Admission::New
    }

    /// Whether a message of this number has come.
    pub fn has(&self, id: &str, sequence: u64) -> bool {
        self.seen.get(id).is_some_and(|seen| seen.has(sequence))
    }

    /// Messages of these numbers have come, and did not take the log.
    pub(crate) fn pass(&mut self, id: &str, first: u64, last: u64, index: u64) {
        if first > last || self.admit(id, first, index) == Admission::TooManyGaps {
            return;
        }
        if let Some(seen) = self.seen.get_mut(id) {
            seen.pass(first, last);
            seen.index = index;
        }
    }

    /// Producers remembered.
    pub fn len(&self) -> usize {
        self.seen.len()
    }

    /// True where none is remembered.
    pub fn is_empty(&self) -> bool {
        self.seen.is_empty()
    }

    /// Drops a tenth. The order is total (index, then id), so every replica drops the same ones whatever the order
    /// inside its hash map.
    fn forget_the_longest_silent(&mut self) {
        let mut all: Vec<(u64, Arc<str>)> = self.seen.iter().map(|(id, seen)| (seen.index, id.clone())).collect();
        all.sort();
        for (_, id) in all.into_iter().take(PRODUCERS_MAX / 10) {
            self.seen.remove(&id);
        }
    }

    /// In the order of their ids.
    pub(crate) fn sorted(&self) -> Vec<(&Arc<str>, &Seen)> {
        let mut all: Vec<_> = self.seen.iter().collect();
        all.sort_by(|a, b| a.0.cmp(b.0));
        all
    }

    pub(crate) fn insert(&mut self, id: &str, seen: Seen) {
        self.seen.insert(id.into(), seen);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Producers {
        fn is_new(&mut self, id: &str, sequence: u64, index: u64) -> bool {
            self.admit(id, sequence, index) == Admission::New
        }
    }

    #[test]
    fn a_resend_is_recognised_and_the_table_is_bounded() {
        let mut producers = Producers::default();
        assert!(producers.is_new("p", 1, 1));
        assert!(!producers.is_new("p", 1, 2));
        assert!(producers.is_new("p", 2, 3));
        assert!(!producers.is_new("p", 2, 4));
        for i in 0..PRODUCERS_MAX as u64 {
            producers.is_new(&format!("q{i}"), 1, 10 + i);
        }
        assert!(producers.len() <= PRODUCERS_MAX);
        assert!(
            !producers.is_new(&format!("q{}", PRODUCERS_MAX - 1), 1, 1 << 40),
            "the newest are kept"
        );
    }

    #[test]
    fn a_message_that_comes_after_its_successors_is_no_resend() {
        let mut producers = Producers::default();
        for (sequence, new) in [
            (5, true),
            (9, true),
            (7, true),
            (7, false),
            (6, true),
            (8, true),
            (8, false),
            (6, false),
        ] {
            assert_eq!(producers.is_new("p", sequence, 1), new, "{sequence}");
        }
        assert_eq!(producers.seen["p"].gaps, vec![(0, 4)]);
        assert!(producers.is_new("p", 0, 2) && producers.is_new("p", u64::MAX, 3));
        assert!(!producers.is_new("p", u64::MAX, 4));
    }

    #[test]
    fn numbers_that_took_another_way_have_come_and_leave_no_gap() {
        let mut producers = Producers::default();
        assert!(producers.is_new("p", 3, 1));
        producers.pass("p", 4, 9, 2);
        assert!(producers.is_new("p", 10, 3));
        assert_eq!(producers.seen["p"].gaps, vec![(0, 2)]);
        producers.pass("p", 1, 5, 4);
        producers.pass("p", 20, 22, 5);
        assert_eq!(
            (&producers.seen["p"].gaps, producers.seen["p"].highest),
            (&vec![(0, 0), (11, 19)], 22)
        );
        let come: Vec<u64> = (0..24).filter(|&sequence| producers.has("p", sequence)).collect();
        assert_eq!(come, (1..=10).chain(20..=22).collect::<Vec<_>>());
        for sequence in 0..24 {
            assert_eq!(
                producers.is_new("p", sequence, 6),
                !come.contains(&sequence),
                "{sequence}"
            );
        }
        producers.pass("q", 5, 7, 7);
        assert_eq!(producers.seen["q"].gaps, vec![(0, 4)]);
        assert!(!producers.has("q", 4) && !producers.has("r", 0));
        producers.pass("q", 9, 8, 8);
        assert_eq!(producers.seen["q"].highest, 7, "an empty range says nothing");
    }

    #[test]
    fn gaps_are_bounded_and_one_more_is_refused_not_guessed() {
        let mut producers = Producers::default();
        let most = 2 * GAPS_MAX as u64;
        for sequence in (1..most).step_by(2) {
            assert!(producers.is_new("p", sequence, 1), "{sequence}");
        }
        assert_eq!(producers.seen["p"].gaps.len(), GAPS_MAX);
        assert_eq!(producers.admit("p", most + 5, 2), Admission::TooManyGaps);
        assert!(producers.is_new("p", 2, 2), "what waits in a gap is still taken");
        assert!(producers.is_new("p", most + 5, 3), "and makes room for another one");
    }
}
