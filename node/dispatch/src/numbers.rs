//! The producers' numbers of messages that this master handed out without the log, and of which the log was not told
//! (P5): within one term a resend of them is recognised.

use std::collections::{BTreeMap, VecDeque};

use ferrymq_broker::{
    Admission, Command, Numbered, Passed,
    producers::{Key, Named},
};

/// Producers of whom something is noted here, at most; the log is told of what is beyond.
const PRODUCERS_MAX: usize = 10_000;
/// Stretches of numbers noted of one producer, at most.
const STRETCHES_MAX: usize = 32;
/// Digests noted of one producer, at most: as many messages as it may have unanswered when its connection is lost.
const DIGESTS_MAX: usize = 4096;
/// Digests noted of all producers; beyond that each keeps few.
const ALL_DIGESTS_MAX: usize = 1 << 19;
const DIGESTS_MIN: usize = 64;

/// See the file's head.
#[derive(Debug, Default)]
pub(crate) struct Numbers {
    by_producer: BTreeMap<Key, Noted>,
    digests: usize,
}

/// What is noted of one producer.
#[derive(Debug, Default)]
struct Noted {
    stretches: Vec<(u64, u64)>,
    /// (number, digest) of the latest ones, in the order in which they came.
    digests: VecDeque<(u64, u64)>,
}

impl Numbers {
    pub(crate) fn is_empty(&self) -> bool {
        self.by_producer.is_empty()
    }

    /// What a message with this number would be.
    pub(crate) fn look(&self, numbered: &Numbered) -> Admission {
        let Some(noted) = self.by_producer.get(&numbered.who() as &dyn Named) else {
            return Admission::New;
        };
        let number = numbered.producer.sequence;
        let mut latest_first = noted.stretches.iter().rev();
        if !latest_first.any(|&(first, last)| (first..=last).contains(&number)) {
            return Admission::New;
        }
        let mut latest_first = noted.digests.iter().rev();
        match latest_first.find(|&&(noted, _)| noted == number) {
            Some(&(_, digest)) if digest == numbered.digest => Admission::Seen,
            Some(_) => Admission::Other,
            None => Admission::TooOld,
        }
    }

    /// Notes a new number. Returns what the log is to be told, so that not too much is noted.
    pub(crate) fn add(&mut self, numbered: &Numbered) -> Option<Command> {
        let number = numbered.producer.sequence;
        if let Some(noted) = self.by_producer.get_mut(&numbered.who() as &dyn Named) {
            match noted.stretches.last_mut() {
                Some((_, last)) if last.checked_add(1) == Some(number) => *last = number,
                _ => noted.stretches.push((number, number)),
            }
            noted.digests.push_back((number, numbered.digest));
            self.digests += 1;
            let most = if self.digests > ALL_DIGESTS_MAX {
                DIGESTS_MIN
            } else {
                DIGESTS_MAX
            };
            let beyond = noted.digests.len().saturating_sub(most);
            noted.digests.drain(..beyond);
            self.digests -= beyond;
            let is_long = noted.stretches.len() > STRETCHES_MAX;
            return if is_long { self.take(numbered) } else { None };
        }
        let first = (self.by_producer.len() >= PRODUCERS_MAX).then(|| self.by_producer.pop_first());
        let noted = Noted {
            stretches: vec![(number, number)],
            digests: VecDeque::from([(number, numbered.digest)]),
        };
        self.by_producer.insert(Key::new(numbered.who()), noted);
        self.digests += 1;
        let (key, noted) = first.flatten()?;
        Some(self.told(&key, noted))
    }

    /// What the log has to know before it hears of this producer again; it is not noted here any more.
    pub(crate) fn take(&mut self, numbered: &Numbered) -> Option<Command> {
        let (key, noted) = self.by_producer.remove_entry(&numbered.who() as &dyn Named)?;
        Some(self.told(&key, noted))
    }

    fn told(&mut self, key: &Key, noted: Noted) -> Command {
        self.digests -= noted.digests.len();
        let who = key.who();
        Command::Passed(Passed {
            user: who.user.unwrap_or_default().to_owned(),
            producer: who.id.to_owned(),
            numbers: noted.stretches,
            digests: noted.digests.into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use ferrymq_message::Producer;

    use super::*;

    fn number(id: &str, sequence: u64) -> Numbered {
        Numbered {
            user: "u".into(),
            producer: Producer {
                id: id.into(),
                sequence,
            },
            digest: sequence ^ 7,
        }
    }

    fn is_new(numbers: &Numbers, id: &str, sequence: u64) -> bool {
        numbers.look(&number(id, sequence)) == Admission::New
    }

    #[test]
    fn what_was_noted_is_known_until_the_log_is_told() {
        let mut numbers = Numbers::default();
        for sequence in [1, 2, 3, 7, 8, u64::MAX, 0] {
            assert!(is_new(&numbers, "p", sequence));
            assert_eq!(numbers.add(&number("p", sequence)), None);
            assert_eq!(numbers.look(&number("p", sequence)), Admission::Seen);
        }
        assert!(is_new(&numbers, "p", 4) && is_new(&numbers, "q", 1));
        let mut other = number("p", 7);
        other.digest += 1;
        assert_eq!(numbers.look(&other), Admission::Other);
        other.user = "v".into();
        assert_eq!(numbers.look(&other), Admission::New);
        let passed = Passed {
            user: "u".into(),
            producer: "p".into(),
            numbers: vec![(1, 3), (7, 8), (u64::MAX, u64::MAX), (0, 0)],
            digests: [1, 2, 3, 7, 8, u64::MAX, 0].map(|n: u64| (n, n ^ 7)).to_vec(),
        };
        assert_eq!(numbers.take(&number("p", 9)), Some(Command::Passed(passed)));
        assert!(numbers.is_empty() && numbers.take(&number("p", 9)).is_none());
        assert_eq!(numbers.digests, 0);
    }

    #[test]
    fn what_is_noted_is_bounded_and_the_log_is_told_of_the_rest() {
        let mut numbers = Numbers::default();
        let told = (0..100u64)
            .filter(|n| numbers.add(&number("p", n * 2)).is_some())
            .count();
        assert_eq!(told, 100 / (STRETCHES_MAX + 1));
        for n in 0..2 * PRODUCERS_MAX {
            numbers.add(&number(&format!("q{n}"), 1));
        }
        assert_eq!(numbers.by_producer.len(), PRODUCERS_MAX);
        for n in 0..=DIGESTS_MAX as u64 {
            numbers.add(&number("z", n));
        }
        assert_eq!(numbers.look(&number("z", 0)), Admission::TooOld);
        assert_eq!(numbers.look(&number("z", 1)), Admission::Seen);
        let noted: usize = numbers.by_producer.values().map(|noted| noted.digests.len()).sum();
        assert_eq!(numbers.digests, noted);
    }
}
