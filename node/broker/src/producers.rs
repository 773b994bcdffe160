//! The numbers that each producer's messages had, by which a resend is recognised (P5).
//!
//! Numbers mostly come one after the other, so the highest one and the gaps below it say everything. Gaps matter: a
//! message that was refused (a full disk) or waits in a transaction comes after its successors, and to take it for a
//! resend would lose it.
//!
//! What is remembered is bounded in number and in bytes (P8); beyond that the longest silent are forgotten. Which ones
//! follows from what is remembered alone, so that a replica that has read it from a snapshot forgets the same ones as
//! one that has seen it grow: the bytes are reckoned from the content and are not part of the snapshot, and all whose
//! latest message came with the same log entry are forgotten together, since nothing orders them.

use std::{collections::HashMap, sync::Arc};

use foldhash::fast::FixedState;

mod line;
mod seen;

use line::{At, Line};
pub(crate) use seen::{Admission, GAPS_MAX, Seen};

/// Producers remembered at most.
pub const PRODUCERS_MAX: usize = 100_000;
/// Memory for them at most, in bytes: enough for all of them with the longest ids
/// ([`ferrymq_message::Producer::ID_BYTES_MAX`]) and one gap each.
pub const PRODUCERS_BYTES_MAX: usize = 64 << 20;

/// What a producer takes beside its id and its gaps: its place in the line, in the map, and what they leave unused.
const PRODUCER_BYTES: usize = 288;
/// What a gap takes; a vector may have room for as many again.
const GAP_BYTES: usize = 32;

/// Each producer's numbers.
#[derive(Debug, Clone)]
pub struct Producers {
    by_id: HashMap<Arc<str>, At, FixedState>,
    line: Line,
    /// What all of them take.
    bytes: usize,
    bounds: Bounds,
}

#[derive(Debug, Clone, Copy)]
struct Bounds {
    producers: usize,
    bytes: usize,
}

impl Default for Producers {
    fn default() -> Self {
        Self::within(Bounds {
            producers: PRODUCERS_MAX,
            bytes: PRODUCERS_BYTES_MAX,
        })
    }
}

/// Of the same content; where in memory it lies does not matter.
impl PartialEq for Producers {
    fn eq(&self, other: &Self) -> bool {
        let mut all = self.line.iter();
        self.len() == other.len() && self.bytes == other.bytes && all.all(|(id, seen)| other.find(id) == Some(seen))
    }
}

impl Producers {
    fn within(bounds: Bounds) -> Self {
        Self {
            by_id: HashMap::default(),
            line: Line::default(),
            bytes: 0,
            bounds,
        }
    }

    /// What a snapshot holds.
    ///
    /// # Errors
    /// The id that is there twice.
    pub(crate) fn restore(all: Vec<(Arc<str>, Seen)>) -> Result<Self, Arc<str>> {
        Self::default().filled(all)
    }

    fn filled(mut self, mut all: Vec<(Arc<str>, Seen)>) -> Result<Self, Arc<str>> {
        all.sort_by_key(|(_, seen)| seen.index);
        for (id, seen) in all {
            if self.by_id.contains_key(&id) {
                return Err(id);
            }
            self.push(id, seen);
        }
        Ok(self)
    }

    /// What the number is; a new one is remembered.
    pub(crate) fn admit(&mut self, id: &str, sequence: u64, index: u64) -> Admission {
        let Some(&at) = self.by_id.get(id) else {
            let index = self.no_earlier(index);
            let at = self.push(id.into(), Seen::first(sequence, index));
            self.forget_the_longest_silent(at);
            return Admission::New;
        };
        let seen = self.line.seen_mut(at);
        let gaps = seen.gaps.len();
        let admission = seen.admit(sequence);
        if admission == Admission::New {
            self.changed(at, gaps, index);
        }
        admission
    }

    /// Whether a message of this number has come.
    pub fn has(&self, id: &str, sequence: u64) -> bool {
        self.find(id).is_some_and(|seen| seen.has(sequence))
    }

    /// Messages of these numbers have come, and did not take the log.
    pub(crate) fn pass(&mut self, id: &str, first: u64, last: u64, index: u64) {
        if first > last || self.admit(id, first, index) == Admission::TooManyGaps {
            return;
        }
        if let Some(&at) = self.by_id.get(id) {
            let seen = self.line.seen_mut(at);
            let gaps = seen.gaps.len();
            seen.pass(first, last);
            self.changed(at, gaps, index);
        }
    }

    /// Producers remembered.
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// True where none is remembered.
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// The memory that they take, in bytes, by a generous estimate.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// In the order of their ids.
    pub(crate) fn sorted(&self) -> Vec<(&Arc<str>, &Seen)> {
        let mut all: Vec<_> = self.line.iter().collect();
        all.sort_unstable_by(|a, b| a.0.cmp(b.0));
        all
    }

    fn find(&self, id: &str) -> Option<&Seen> {
        self.by_id.get(id).map(|&at| self.line.seen(at))
    }

    fn push(&mut self, id: Arc<str>, seen: Seen) -> At {
        self.bytes += bytes(&id, &seen);
        let at = self.line.push(id.clone(), seen);
        self.by_id.insert(id, at);
        at
    }

    /// A producer that had so many gaps has another number now.
    fn changed(&mut self, at: At, gaps_before: usize, index: u64) {
        let index = self.no_earlier(index);
        let seen = self.line.seen_mut(at);
        seen.index = index;
        self.bytes = self.bytes + seen.gaps.len() * GAP_BYTES - gaps_before * GAP_BYTES;
        self.line.make_last(at);
        self.forget_the_longest_silent(at);
    }

    /// Entries come in the order of their numbers, which the line relies on; a snapshot that says otherwise is not
    /// worth more than that.
    fn no_earlier(&self, index: u64) -> u64 {
        self.line
            .last()
            .map_or(index, |last| index.max(self.line.seen(last).index))
    }

    /// Down to the bounds; but for this one, which is the last of the line.
    fn forget_the_longest_silent(&mut self, but: At) {
        while self.len() > self.bounds.producers || self.bytes > self.bounds.bytes {
            let Some(silent_since) = self.line.first().map(|first| self.line.seen(first).index) else {
                return;
            };
            while let Some(first) = self.line.first()
                && self.line.seen(first).index == silent_since
            {
                if first == but {
                    return;
                }
                let (id, seen) = self.line.remove(first);
                self.bytes -= bytes(&id, &seen);
                self.by_id.remove(&id);
            }
        }
    }
}

fn bytes(id: &str, seen: &Seen) -> usize {
    PRODUCER_BYTES + id.len() + seen.gaps.len() * GAP_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;

    use proptest::{collection::vec, option, prelude::*};

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
        assert_eq!(producers.len(), PRODUCERS_MAX);
        assert!(!producers.has("p", 1), "the longest silent is forgotten");
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
        assert_eq!(producers.find("p").unwrap().gaps, vec![(0, 4)]);
        assert!(producers.is_new("p", 0, 2) && producers.is_new("p", u64::MAX, 3));
        assert!(!producers.is_new("p", u64::MAX, 4));
    }

    #[test]
    fn numbers_that_took_another_way_have_come_and_leave_no_gap() {
        let mut producers = Producers::default();
        assert!(producers.is_new("p", 3, 1));
        producers.pass("p", 4, 9, 2);
        assert!(producers.is_new("p", 10, 3));
        assert_eq!(producers.find("p").unwrap().gaps, vec![(0, 2)]);
        producers.pass("p", 1, 5, 4);
        producers.pass("p", 20, 22, 5);
        assert_eq!(
            (&producers.find("p").unwrap().gaps, producers.find("p").unwrap().highest),
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
        assert_eq!(producers.find("q").unwrap().gaps, vec![(0, 4)]);
        assert!(!producers.has("q", 4) && !producers.has("r", 0));
        producers.pass("q", 9, 8, 8);
        assert_eq!(producers.find("q").unwrap().highest, 7, "an empty range says nothing");
    }

    #[test]
    fn gaps_are_bounded_and_one_more_is_refused_not_guessed() {
        let mut producers = Producers::default();
        let most = 2 * GAPS_MAX as u64;
        for sequence in (1..most).step_by(2) {
            assert!(producers.is_new("p", sequence, 1), "{sequence}");
        }
        assert_eq!(producers.find("p").unwrap().gaps.len(), GAPS_MAX);
        assert_eq!(producers.admit("p", most + 5, 2), Admission::TooManyGaps);
        assert!(producers.is_new("p", 2, 2), "what waits in a gap is still taken");
        assert!(producers.is_new("p", most + 5, 3), "and makes room for another one");
    }

    #[test]
    fn bytes_are_bounded_and_the_longest_silent_go_first() {
        let room_for_three = 3 * (PRODUCER_BYTES + 1 + GAP_BYTES);
        let mut producers = Producers::within(Bounds {
            producers: 100,
            bytes: room_for_three,
        });
        for (index, id) in (1..).zip(["a", "b", "c"]) {
            assert!(producers.is_new(id, 1, index));
        }
        assert_eq!((producers.len(), producers.bytes()), (3, room_for_three));
        assert!(producers.is_new("a", 2, 4));
        assert!(producers.is_new("c", 9, 5), "one more gap");
        assert!(!producers.has("b", 1) && producers.has("a", 2) && producers.has("c", 9));
        assert!(producers.is_new(&"d".repeat(PRODUCER_BYTES), 1, 6));
        assert!(!producers.has("a", 2) && producers.has("c", 9));
        // However much it takes, the one that is talking stays.
        assert!(producers.is_new(&"e".repeat(room_for_three), 1, 7));
        assert_eq!(producers.len(), 1);
        assert!(producers.is_new("f", 0, 8));
        assert_eq!((producers.len(), producers.bytes()), (1, PRODUCER_BYTES + 1));
    }

    #[test]
    fn as_many_as_may_be_have_room_with_the_longest_ids() {
        let each = PRODUCER_BYTES + ferrymq_message::Producer::ID_BYTES_MAX + GAP_BYTES;
        assert!(PRODUCERS_MAX * each <= PRODUCERS_BYTES_MAX);
    }

    #[test]
    fn memory_of_gaps_that_were_filled_is_given_back() {
        let mut producers = Producers::default();
        for sequence in (1..2 * GAPS_MAX as u64).step_by(2) {
            producers.admit("p", sequence, 1);
            producers.admit("q", sequence, 1);
        }
        let most = producers.bytes();
        assert!(most > 2 * GAPS_MAX * GAP_BYTES);
        for sequence in (0..2 * GAPS_MAX as u64).step_by(2) {
            producers.admit("p", sequence, 2);
        }
        producers.pass("q", 0, 2 * GAPS_MAX as u64, 2);
        assert_eq!(producers.bytes(), 2 * (PRODUCER_BYTES + 1));
        for id in ["p", "q"] {
            let kept = producers.find(id).unwrap().gaps.capacity();
            assert!(kept <= 4, "{id} keeps room for {kept} gaps");
        }
    }

    /// A message, or a stretch of them that did not take the log.
    #[derive(Debug, Clone)]
    struct Said {
        id: String,
        first: u64,
        more: Option<u64>,
    }

    fn said() -> impl Strategy<Value = Said> {
        ("[a-h]{1,3}", 0..40u64, option::of(0..9u64)).prop_map(|(id, first, more)| Said { id, first, more })
    }

    impl Producers {
        fn hear(&mut self, said: &Said, index: u64) -> Option<Admission> {
            match said.more {
                None => Some(self.admit(&said.id, said.first, index)),
                Some(more) => {
                    self.pass(&said.id, said.first, said.first + more, index);
                    None
                }
            }
        }

        /// As a replica has it that reads it from a snapshot.
        fn read_again(&self) -> Self {
            let all = self.sorted().into_iter().map(|(id, seen)| (id.clone(), seen.clone()));
            Self::within(self.bounds).filled(all.collect()).unwrap()
        }
    }

    proptest! {
        /// Entries of several messages: whoever has read a snapshot after any of them forgets the same producers from
        /// then on as whoever has heard everything.
        #[test]
        fn replicas_agree_whichever_way_they_came_to_their_state(
            entries in vec(vec(said(), 1..6), 1..60),
            (producers, bytes) in (1..12usize, 400..6_000usize),
        ) {
            let mut one = Producers::within(Bounds { producers, bytes });
            let mut other = one.clone();
            for (index, entry) in (1..).zip(&entries) {
                for said in entry {
                    prop_assert_eq!(one.hear(said, index), other.hear(said, index));
                    prop_assert!(one.len() == 1 || (one.len() <= producers && one.bytes() <= bytes));
                }
                prop_assert_eq!(&one, &other);
                other = other.read_again();
                prop_assert_eq!(&one, &other, "the account follows from the content");
            }
        }
    }
}
