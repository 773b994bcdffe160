//! The numbers that each producer's messages had, by which a resend is recognised (P5).
//!
//! Numbers mostly come one after the other, so the highest one and the gaps below it say everything. Gaps matter: a
//! message that was refused (a full disk) or waits in a transaction comes after its successors, and to take it for a
//! resend would lose it.

use std::{collections::HashMap, sync::Arc};

use foldhash::fast::FixedState;

/// Producers remembered at most; the longest silent are forgotten first.
pub const PRODUCERS_MAX: usize = 100_000;
/// Gaps remembered for one producer at most; what was in the lowest ones counts as seen.
pub const GAPS_MAX: usize = 16;

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

    fn admit(&mut self, sequence: u64, index: u64) -> bool {
        let new = if sequence > self.highest {
            if sequence - self.highest > 1 {
                self.gaps.push((self.highest + 1, sequence - 1));
            }
            self.highest = sequence;
            true
        } else {
            self.fill(sequence)
        };
        if new {
            self.index = index;
            if self.gaps.len() > GAPS_MAX {
                self.gaps.remove(0);
            }
        }
        new
    }

    /// Takes the number out of its gap; false where it is in none.
    fn fill(&mut self, sequence: u64) -> bool {
        let at = self.gaps.partition_point(|&(_, last)| last < sequence);
        let Some(&(first, last)) = self.gaps.get(at).filter(|&&(first, _)| first <= sequence) else {
            return false;
        };
        let below = (first < sequence).then(|| (first, sequence - 1));
        let above = (sequence < last).then(|| (sequence + 1, last));
        self.gaps.splice(at..=at, below.into_iter().chain(above));
        true
    }
}

impl Producers {
    /// True where the number is new, which is remembered; false for a resend.
    pub(crate) fn admit(&mut self, id: &str, sequence: u64, index: u64) -> bool {
        if let Some(seen) = self.seen.get_mut(id) {
            return seen.admit(sequence, index);
        }
        if self.seen.len() >= PRODUCERS_MAX {
            self.forget_the_longest_silent();
        }
        self.seen.insert(id.into(), Seen::first(sequence, index));
        true
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

    #[test]
    fn a_resend_is_recognised_and_the_table_is_bounded() {
        let mut producers = Producers::default();
        assert!(producers.admit("p", 1, 1));
        assert!(!producers.admit("p", 1, 2));
        assert!(producers.admit("p", 2, 3));
        assert!(!producers.admit("p", 2, 4));
        for i in 0..PRODUCERS_MAX as u64 {
            producers.admit(&format!("q{i}"), 1, 10 + i);
        }
        assert!(producers.len() <= PRODUCERS_MAX);
        assert!(
            !producers.admit(&format!("q{}", PRODUCERS_MAX - 1), 1, 1 << 40),
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
            assert_eq!(producers.admit("p", sequence, 1), new, "{sequence}");
        }
        assert_eq!(producers.seen["p"].gaps, vec![(0, 4)]);
        assert!(producers.admit("p", 0, 2) && producers.admit("p", u64::MAX, 3));
        assert!(!producers.admit("p", u64::MAX, 4));
    }

    #[test]
    fn gaps_are_bounded_and_the_lowest_count_as_seen() {
        let mut producers = Producers::default();
        for sequence in (0..200).step_by(2) {
            assert!(producers.admit("p", sequence, 1));
        }
        assert_eq!(producers.seen["p"].gaps.len(), GAPS_MAX);
        assert!(!producers.admit("p", 1, 2));
        assert!(producers.admit("p", 197, 2));
    }
}
