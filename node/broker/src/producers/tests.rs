//! What a number is, in the log's first form and in the present one, and what is forgotten.

use super::*;

use proptest::{collection::vec, option, prelude::*};

/// The digest that most tests mean.
const SAME: u64 = 7;

fn nobody(id: &str) -> Who<'_> {
    Who { user: None, id }
}

fn user<'a>(user: &'a str, id: &'a str) -> Who<'a> {
    Who { user: Some(user), id }
}

impl Producers {
    fn find_undigested(&self, id: &str) -> Option<&Seen> {
        self.find(nobody(id))
    }

    fn has(&self, id: &str, sequence: u64) -> bool {
        self.find_undigested(id).is_some_and(|seen| seen.has(sequence))
    }

    fn is_new(&mut self, id: &str, sequence: u64, index: u64) -> bool {
        self.admit_undigested(id, sequence, index) == Admission::New
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
    assert_eq!(producers.find_undigested("p").unwrap().gaps, vec![(0, 4)]);
    assert!(producers.is_new("p", 0, 2) && producers.is_new("p", u64::MAX, 3));
    assert!(!producers.is_new("p", u64::MAX, 4));
}

#[test]
fn numbers_that_took_another_way_have_come_and_leave_no_gap() {
    let mut producers = Producers::default();
    assert!(producers.is_new("p", 3, 1));
    producers.pass_undigested("p", 4, 9, 2);
    assert!(producers.is_new("p", 10, 3));
    assert_eq!(producers.find_undigested("p").unwrap().gaps, vec![(0, 2)]);
    producers.pass_undigested("p", 1, 5, 4);
    producers.pass_undigested("p", 20, 22, 5);
    assert_eq!(
        (
            &producers.find_undigested("p").unwrap().gaps,
            producers.find_undigested("p").unwrap().highest
        ),
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
    producers.pass_undigested("q", 5, 7, 7);
    assert_eq!(producers.find_undigested("q").unwrap().gaps, vec![(0, 4)]);
    assert!(!producers.has("q", 4) && !producers.has("r", 0));
    producers.pass_undigested("q", 9, 8, 8);
    assert_eq!(
        producers.find_undigested("q").unwrap().highest,
        7,
        "an empty range says nothing"
    );
}

#[test]
fn gaps_are_bounded_and_one_more_is_refused_not_guessed() {
    let mut producers = Producers::default();
    let most = 2 * GAPS_MAX as u64;
    for sequence in (1..most).step_by(2) {
        assert!(producers.is_new("p", sequence, 1), "{sequence}");
    }
    assert_eq!(producers.find_undigested("p").unwrap().gaps.len(), GAPS_MAX);
    assert_eq!(producers.admit_undigested("p", most + 5, 2), Admission::TooManyGaps);
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
        producers.admit_undigested("p", sequence, 1);
        producers.admit_undigested("q", sequence, 1);
    }
    let most = producers.bytes();
    assert!(most > 2 * GAPS_MAX * GAP_BYTES);
    for sequence in (0..2 * GAPS_MAX as u64).step_by(2) {
        producers.admit_undigested("p", sequence, 2);
    }
    producers.pass_undigested("q", 0, 2 * GAPS_MAX as u64, 2);
    assert_eq!(producers.bytes(), 2 * (PRODUCER_BYTES + 1));
    for id in ["p", "q"] {
        let kept = producers.find_undigested(id).unwrap().gaps.capacity();
        assert!(kept <= 4, "{id} keeps room for {kept} gaps");
    }
}

#[test]
fn nothing_but_a_resend_is_taken_for_one() {
    let mut producers = Producers::default();
    let anna = user("anna", "p");
    assert_eq!(producers.admit(anna, 1, SAME, 1), Admission::New);
    assert_eq!(producers.admit(anna, 1, SAME, 2), Admission::Seen);
    assert_eq!(producers.admit(anna, 1, SAME + 1, 2), Admission::Other);
    for who in [
        user("bert", "p"),
        user("anna", "q"),
        user("ann", "ap"),
        user("", "annap"),
    ] {
        assert_eq!(producers.admit(who, 1, SAME + 2, 3), Admission::New, "{who:?}");
    }
    assert_eq!(
        producers.look(anna, 1, SAME),
        Admission::Seen,
        "the others have not touched it"
    );
    assert_eq!(producers.highest(anna), Some(1));
}

#[test]
fn what_is_too_old_to_tell_is_neither_a_resend_nor_new() {
    let mut producers = Producers::default();
    let who = user("u", "p");
    let most = DIGESTS_MAX as u64;
    for sequence in 1..=most + 1 {
        assert_eq!(producers.admit(who, sequence, SAME, sequence), Admission::New);
    }
    assert_eq!(producers.look(who, 1, SAME), Admission::TooOld);
    assert_eq!(producers.look(who, 2, SAME), Admission::Seen);
    assert_eq!(producers.look(who, 0, SAME), Admission::New, "it has not come yet");
}

#[test]
fn nobody_is_refused_for_gaps() {
    let mut producers = Producers::default();
    let who = user("u", "p");
    let most = GAPS_MAX as u64;
    for sequence in (1..4 * most).step_by(2) {
        assert_eq!(producers.admit(who, sequence, SAME, 1), Admission::New, "{sequence}");
    }
    assert_eq!(producers.find(who).unwrap().gaps.len(), GAPS_MAX);
    assert_eq!(producers.look(who, 4 * most - 2, SAME), Admission::New);
    assert_eq!(
        producers.look(who, 0, SAME),
        Admission::TooOld,
        "the lowest gap is forgotten"
    );
}

#[test]
fn numbers_that_will_not_come_leave_no_gap_and_may_come_all_the_same() {
    let mut producers = Producers::default();
    let who = user("u", "p");
    producers.skip(who, &[(1, 2)], 1);
    assert!(producers.is_empty(), "nothing is known of it");
    assert_eq!(producers.admit(who, 0, SAME, 1), Admission::New);
    producers.skip(who, &[(1, 3), (4, 4)], 2);
    let seen = producers.find(who).unwrap();
    assert_eq!((seen.highest, &seen.gaps), (4, &vec![]));
    assert_eq!(producers.admit(who, 5, SAME, 3), Admission::New);
    assert_eq!(
        producers.admit(who, 2, SAME, 3),
        Admission::New,
        "its producer has thought again"
    );
    assert_eq!(producers.admit(who, 2, SAME, 3), Admission::Seen);
    producers.skip(who, &[(2, 5)], 4);
    assert_eq!(producers.look(who, 5, SAME), Admission::Seen, "what has come, has come");
    assert_eq!(producers.look(who, 3, SAME), Admission::New);
    // More than can be kept: the lowest of them cannot be told from used ones.
    producers.skip(who, &[(10, u64::MAX - 1)], 5);
    assert_eq!(producers.look(who, 10, SAME), Admission::TooOld);
    assert_eq!(producers.look(who, u64::MAX - 1, SAME), Admission::New);
    assert_eq!(producers.admit(who, u64::MAX, SAME, 6), Admission::New);
}

#[test]
fn numbers_that_came_without_the_log_are_judged_by_their_digests() {
    let mut producers = Producers::default();
    let who = user("u", "p");
    producers.come(who, &[(7, 9), (3, 4)], &[(8, SAME), (9, SAME + 1), (99, SAME)], 1);
    let looks = |producers: &Producers, sequence| producers.look(who, sequence, SAME);
    assert_eq!(looks(&producers, 8), Admission::Seen);
    assert_eq!(looks(&producers, 9), Admission::Other);
    assert_eq!(looks(&producers, 7), Admission::TooOld);
    assert_eq!(looks(&producers, 3), Admission::TooOld);
    for sequence in [0, 2, 5, 6, 10, 99] {
        assert_eq!(looks(&producers, sequence), Admission::New, "{sequence}");
    }
}

#[test]
fn what_came_before_users_were_noted_is_nobody_elses_resend() {
    let mut producers = Producers::default();
    assert!(producers.is_new("p", 5, 1));
    let who = user("u", "p");
    assert_eq!(producers.admit(who, 5, SAME, 2), Admission::TooOld);
    assert_eq!(producers.admit(who, 6, SAME, 2), Admission::New);
    assert_eq!(producers.admit(who, 5, SAME, 2), Admission::TooOld, "not even then");
    assert_eq!(producers.admit(who, 4, SAME, 2), Admission::New, "it has not come");
    assert_eq!(producers.admit(user("u", "q"), 5, SAME, 2), Admission::New);
}

#[test]
fn digests_are_forgotten_before_numbers_and_those_of_the_longest_silent_first() {
    let most = DIGESTS_MAX;
    let mut producers = Producers::within(Bounds {
        producers: 100,
        bytes: 2 * (PRODUCER_BYTES + 2) + most * 20 + 40 * DIGESTS_MIN,
    });
    let (a, b, c) = (user("u", "a"), user("u", "b"), user("u", "c"));
    let send = |producers: &mut Producers, who, count: usize, index| {
        for sequence in 0..count as u64 {
            producers.admit(who, sequence, SAME, index + sequence);
        }
    };
    send(&mut producers, a, most, 1);
    send(&mut producers, b, 2 * DIGESTS_MIN, 10_000);
    let kept = |producers: &Producers, who| producers.find(who).map(|seen| seen.recent.len());
    assert_eq!(
        (kept(&producers, a), kept(&producers, b)),
        (Some(most), Some(2 * DIGESTS_MIN))
    );
    send(&mut producers, b, 2 * DIGESTS_MIN + 1, 20_000);
    assert_eq!(kept(&producers, b), Some(DIGESTS_MIN), "who sends keeps so many");
    send(&mut producers, c, 2 * DIGESTS_MIN, 30_000);
    assert_eq!(kept(&producers, a), Some(0), "a was silent for longest");
    assert_eq!(
        producers.look(a, 0, SAME),
        Admission::TooOld,
        "but its numbers are known"
    );
    assert_eq!(producers.look(b, 2 * DIGESTS_MIN as u64, SAME), Admission::Seen);
    send(&mut producers, a, most + 1, 40_000);
    assert_eq!(kept(&producers, a), Some(1));
}

/// What one producer does.
#[derive(Debug, Clone)]
struct Said {
    user: Option<&'static str>,
    id: String,
    first: u64,
    more: Option<u64>,
    digest: u64,
    skips: bool,
}

fn said() -> impl Strategy<Value = Said> {
    (
        prop_oneof![Just(None), Just(Some("u")), Just(Some("v"))],
        "[a-h]{1,3}",
        0..40u64,
        option::of(0..9u64),
        1..3u64,
        any::<bool>(),
    )
        .prop_map(|(user, id, first, more, digest, skips)| Said {
            user,
            id,
            first,
            more,
            digest,
            skips,
        })
}

impl Producers {
    fn hear(&mut self, said: &Said, index: u64) -> Option<Admission> {
        let Said { id, first, digest, .. } = said;
        let who = Who { user: said.user, id };
        match (said.user, said.more) {
            (None, None) => return Some(self.admit_undigested(id, *first, index)),
            (None, Some(more)) => self.pass_undigested(id, *first, first + more, index),
            (Some(_), None) => return Some(self.admit(who, *first, *digest, index)),
            (Some(_), Some(more)) if said.skips => self.skip(who, &[(*first, first + more)], index),
            (Some(_), Some(more)) => self.come(who, &[(*first, first + more)], &[(first + more, *digest)], index),
        }
        None
    }

    /// As a replica has it that reads it from a snapshot.
    fn read_again(&self) -> Self {
        let all = self.sorted().into_iter().map(|(key, seen)| (key.clone(), seen.clone()));
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
                prop_assert!(one.len() <= 1 || (one.len() <= producers && one.bytes() <= bytes));
            }
            prop_assert_eq!(&one, &other);
            other = other.read_again();
            prop_assert_eq!(&one, &other, "the account follows from the content");
        }
    }
}
