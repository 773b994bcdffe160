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
