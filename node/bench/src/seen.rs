//! Which numbers of one sender have arrived; what lies behind an unbroken row costs nothing.

use std::collections::VecDeque;

/// A set of numbers that mostly come in order.
///
/// Invariant: every number below `floor` is in it; `words` holds 64 numbers each from `floor` on, the first word not
/// full.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    floor: u64,
    words: VecDeque<u64>,
    /// Numbers in it.
    count: u64,
}

impl Seen {
    /// `false` where the number is there already. Its memory grows with the distance of the number from the floor: the
    /// caller sees to it that the number is one that was sent.
    pub(crate) fn insert(&mut self, number: u64) -> bool {
        let Some(ahead) = number.checked_sub(self.floor) else {
            return false;
        };
        let (word, bit) = ((ahead / 64) as usize, 1 << (ahead % 64));
        if word >= self.words.len() {
            self.words.resize(word + 1, 0);
        }
        if self.words[word] & bit != 0 {
            return false;
        }
        self.words[word] |= bit;
        self.count += 1;
        while self.words.front() == Some(&u64::MAX) {
            self.words.pop_front();
            self.floor += 64;
        }
        true
    }

    /// Whether the number is less than `ahead_max` above the floor.
    pub(crate) fn is_near(&self, number: u64, ahead_max: u64) -> bool {
        number < self.floor.saturating_add(ahead_max)
    }

    pub(crate) fn contains(&self, number: u64) -> bool {
        let Some(ahead) = number.checked_sub(self.floor) else {
            return true;
        };
        let word = usize::try_from(ahead / 64).ok().and_then(|word| self.words.get(word));
        word.is_some_and(|word| word & (1 << (ahead % 64)) != 0)
    }

    /// How many are in it.
    #[cfg(test)]
    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// How many of those in it are `first` or above.
    pub(crate) fn count_from(&self, first: u64) -> u64 {
        if first <= self.floor {
            return self.count - first;
        }
        let skipped = first - self.floor;
        let (word, bit) = ((skipped / 64) as usize, skipped % 64);
        let rest = self.words.iter().skip(word).enumerate();
        rest.map(|(at, bits)| if at == 0 { bits >> bit } else { *bits })
            .map(|bits| u64::from(bits.count_ones()))
            .sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_found_once_in_whatever_order() {
        let mut seen = Seen::default();
        for number in [3, 0, 200, 1] {
            assert!(seen.insert(number));
            assert!(!seen.insert(number));
            assert!(seen.contains(number));
        }
        assert!(!seen.contains(2));
        assert_eq!((seen.count(), seen.count_from(0), seen.count_from(2)), (4, 4, 2));
        assert_eq!((seen.count_from(200), seen.count_from(201)), (1, 0));
    }

    #[test]
    fn an_unbroken_row_takes_no_room() {
        let mut seen = Seen::default();
        (0..100_000).for_each(|number| assert!(seen.insert(number)));
        assert_eq!((seen.floor, seen.words.len()), (99_968, 1));
        assert!(!seen.insert(5));
        assert!(seen.contains(5));
        assert_eq!((seen.count_from(0), seen.count_from(99_990)), (100_000, 10));
        assert_eq!(seen.count_from(1_000), 99_000);
    }
}
