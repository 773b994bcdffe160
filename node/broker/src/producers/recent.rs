//! Digests of a producer's latest numbers: what was sent under each, so that nothing but a resend is taken for one.

use std::collections::VecDeque;

use ferrymq_message::NO_DIGEST;

/// Digests kept for one producer at most: as many messages as it may have unanswered when its connection is lost.
pub const DIGESTS_MAX: usize = 4096;
/// As many are kept where memory is short, as long as others have been silent for longer.
pub(crate) const DIGESTS_MIN: usize = 1024;
/// What a digest takes: its number, itself, and a quarter that growing leaves unused.
const DIGEST_BYTES: usize = 20;
/// Room for so many is taken at once.
const ROOM_MIN: usize = 4;

/// The number was passed over: nothing is stored under it, and it may still be used.
pub(crate) const VOID: u64 = NO_DIGEST;

/// By number, increasing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Recent {
    digests: VecDeque<(u64, u64)>,
}

impl Recent {
    pub(crate) fn len(&self) -> usize {
        self.digests.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.digests.is_empty()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (u64, u64)> {
        self.digests.iter().copied()
    }

    /// What they take, in bytes.
    pub(super) fn bytes(&self) -> usize {
        if self.is_empty() {
            0
        } else {
            self.len().max(ROOM_MIN) * DIGEST_BYTES
        }
    }

    pub(super) fn get(&self, number: u64) -> Option<u64> {
        if self.digests.front().is_none_or(|&(first, _)| number < first) {
            return None;
        }
        let at = self.digests.binary_search_by_key(&number, |&(number, _)| number).ok()?;
        Some(self.digests[at].1)
    }

    /// Notes a number's digest; the lowest number goes where there are too many.
    pub(crate) fn put(&mut self, number: u64, digest: u64) {
        if self.digests.back().is_none_or(|&(last, _)| last < number) {
            self.make_room();
            return self.digests.push_back((number, digest));
        }
        match self.digests.binary_search_by_key(&number, |&(number, _)| number) {
            Ok(at) => self.digests[at].1 = digest,
            Err(0) if self.len() >= DIGESTS_MAX => {}
            Err(at) => {
                let before = self.len();
                self.make_room();
                self.digests.insert(at - (before - self.len()), (number, digest));
            }
        }
    }

    /// Keeps those of the highest numbers.
    pub(super) fn keep(&mut self, count: usize) {
        let beyond = self.len().saturating_sub(count);
        self.digests.drain(..beyond);
        if self.digests.capacity() > 2 * self.len() {
            self.digests.shrink_to_fit();
        }
    }

    fn make_room(&mut self) {
        if self.len() >= DIGESTS_MAX {
            self.digests.pop_front();
        } else if self.len() == self.digests.capacity() {
            // Doubling would take more than is reckoned.
            self.digests.reserve_exact((self.len() / 4).max(ROOM_MIN));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_numbers_are_kept_in_any_order() {
        let mut recent = Recent::default();
        assert_eq!((recent.get(1), recent.bytes()), (None, 0));
        let most = DIGESTS_MAX as u64;
        for number in (1..=most).rev() {
            recent.put(2 * number, number);
        }
        assert_eq!(
            (recent.len(), recent.get(2), recent.get(3)),
            (DIGESTS_MAX, Some(1), None)
        );
        recent.put(1, 7);
        assert_eq!(
            (recent.len(), recent.get(1)),
            (DIGESTS_MAX, None),
            "lower than all that are kept"
        );
        recent.put(5, 8);
        recent.put(2 * most + 1, 9);
        recent.put(6, 10);
        assert_eq!(recent.len(), DIGESTS_MAX);
        assert_eq!(
            [2, 4, 5, 6, 2 * most + 1].map(|number| recent.get(number)),
            [None, None, Some(8), Some(10), Some(9)]
        );
        let numbers: Vec<u64> = recent.iter().map(|(number, _)| number).collect();
        assert!(numbers.is_sorted());
        recent.keep(2);
        assert_eq!(recent.iter().collect::<Vec<_>>(), [(2 * most, most), (2 * most + 1, 9)]);
        assert!(recent.digests.capacity() <= 2 * ROOM_MIN);
    }

    #[test]
    fn no_more_room_is_taken_than_is_reckoned() {
        let mut recent = Recent::default();
        for number in 0..DIGESTS_MAX as u64 {
            recent.put(number, 1);
            let taken = recent.digests.capacity() * size_of::<(u64, u64)>();
            assert!(
                taken <= recent.bytes() + 2 * ROOM_MIN * size_of::<(u64, u64)>(),
                "{number}"
            );
        }
    }
}
