//! The producers' numbers of messages that this master handed out without the log, and of which the log was not told
//! (P5): within one term a resend of them is recognised.

use std::collections::BTreeMap;

use ferrymq_broker::{Command, Pass};
use ferrymq_message::Producer;

/// Producers of whom something is noted here, at most; the log is told of what is beyond.
const PRODUCERS_MAX: usize = 10_000;
/// Stretches of numbers noted of one producer, at most.
const STRETCHES_MAX: usize = 32;

/// See the file's head.
#[derive(Debug, Default)]
pub(crate) struct Numbers {
    by_producer: BTreeMap<String, Vec<(u64, u64)>>,
}

impl Numbers {
    pub(crate) fn is_empty(&self) -> bool {
        self.by_producer.is_empty()
    }

    pub(crate) fn has(&self, producer: &Producer) -> bool {
        self.by_producer.get(&producer.id).is_some_and(|stretches| {
            let mut latest_first = stretches.iter().rev();
            latest_first.any(|&(first, last)| (first..=last).contains(&producer.sequence))
        })
    }

    /// Notes a new number. Returns what the log is to be told, so that not too much is noted.
    pub(crate) fn add(&mut self, producer: &Producer) -> Option<Command> {
        let Producer { id, sequence } = producer;
        let sequence = *sequence;
        if let Some(stretches) = self.by_producer.get_mut(id) {
            match stretches.last_mut() {
                Some((_, last)) if last.checked_add(1) == Some(sequence) => *last = sequence,
                _ => stretches.push((sequence, sequence)),
            }
            let is_long = stretches.len() > STRETCHES_MAX;
            return if is_long { self.take(id) } else { None };
        }
        let first = (self.by_producer.len() >= PRODUCERS_MAX).then(|| self.by_producer.pop_first());
        self.by_producer.insert(id.clone(), vec![(sequence, sequence)]);
        let (producer, numbers) = first.flatten()?;
        Some(Command::Pass(Pass { producer, numbers }))
    }

    /// What the log has to know before it hears of this producer again; it is not noted here any more.
    pub(crate) fn take(&mut self, producer: &str) -> Option<Command> {
        let (producer, numbers) = self.by_producer.remove_entry(producer)?;
        Some(Command::Pass(Pass { producer, numbers }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(id: &str, sequence: u64) -> Producer {
        Producer {
            id: id.into(),
            sequence,
        }
    }

    #[test]
    fn what_was_noted_is_known_until_the_log_is_told() {
        let mut numbers = Numbers::default();
        for sequence in [1, 2, 3, 7, 8, u64::MAX, 0] {
            assert!(!numbers.has(&number("p", sequence)));
            assert_eq!(numbers.add(&number("p", sequence)), None);
            assert!(numbers.has(&number("p", sequence)));
        }
        assert!(!numbers.has(&number("p", 4)) && !numbers.has(&number("q", 1)));
        let pass = Pass {
            producer: "p".into(),
            numbers: vec![(1, 3), (7, 8), (u64::MAX, u64::MAX), (0, 0)],
        };
        assert_eq!(numbers.take("p"), Some(Command::Pass(pass)));
        assert!(numbers.is_empty() && numbers.take("p").is_none());
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
    }
}
