//! The last number that each producer's messages had, by which a resend is recognised (P5).

use std::{collections::HashMap, sync::Arc};

use foldhash::fast::FixedState;

/// Producers remembered at most; the longest silent are forgotten first.
pub const PRODUCERS_MAX: usize = 100_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Last {
    pub(crate) sequence: u64,
    /// The log entry that brought it: the state's own measure of time.
    pub(crate) index: u64,
}

/// Each producer's last number.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Producers {
    last: HashMap<Arc<str>, Last, FixedState>,
}

impl Producers {
    /// True where the number is new, which is remembered; false for a resend.
    pub(crate) fn admit(&mut self, id: &str, sequence: u64, index: u64) -> bool {
        if let Some(last) = self.last.get_mut(id) {
            let new = sequence > last.sequence;
            if new {
                *last = Last { sequence, index };
            }
            return new;
        }
        if self.last.len() >= PRODUCERS_MAX {
            self.forget_the_longest_silent();
        }
        self.last.insert(id.into(), Last { sequence, index });
        true
    }

    /// Producers remembered.
    pub fn len(&self) -> usize {
        self.last.len()
    }

    /// True where none is remembered.
    pub fn is_empty(&self) -> bool {
        self.last.is_empty()
    }

    /// Drops a tenth. The order is total (index, then id), so every replica drops the same ones whatever the order
    /// inside its hash map.
    fn forget_the_longest_silent(&mut self) {
        let mut all = self.sorted();
        all.sort_by(|(a_id, a), (b_id, b)| (a.index, a_id).cmp(&(b.index, b_id)));
        for (id, _) in all.into_iter().take(PRODUCERS_MAX / 10) {
            self.last.remove(&id);
        }
    }

    /// In the order of their ids.
    pub(crate) fn sorted(&self) -> Vec<(Arc<str>, Last)> {
        let mut all: Vec<_> = self.last.iter().map(|(id, &last)| (id.clone(), last)).collect();
        all.sort_by(|a, b| a.0.cmp(&b.0));
        all
    }

    pub(crate) fn insert(&mut self, id: &str, last: Last) {
        self.last.insert(id.into(), last);
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
        assert!(producers.admit("p", 3, 3));
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
}
