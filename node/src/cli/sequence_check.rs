//! What became of numbered messages: which are lost, which came twice although they must not.
//!
//! P3 allows a message to come again only if it is marked as redelivered, and never once its acknowledgement is
//! confirmed.

use std::collections::BTreeMap;

pub(crate) use ferrymq_protocol::stomp::{PRODUCER, SEQUENCE};

/// Largest number that is followed, so that a stray property cannot fill the memory.
const SEQUENCE_MAX: u64 = 1 << 27;

/// What is known of one message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Unseen,
    Received,
    Acknowledged,
    Confirmed,
}

/// The messages of all producers.
#[derive(Debug, Default)]
pub(crate) struct SequenceCheck {
    producers: BTreeMap<String, Vec<Fate>>,
    /// Received and acknowledged, confirmation outstanding.
    unconfirmed: Vec<(String, u64)>,
    /// Came again without the mark, or after a confirmed acknowledgement.
    doubled: u64,
    redelivered: u64,
    disordered: u64,
    unnumbered: u64,
}

/// What was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Findings {
    /// Different messages.
    pub(crate) distinct: u64,
    /// Numbers below the highest one seen that never came.
    pub(crate) lost: u64,
    /// Broke P3.
    pub(crate) doubled: u64,
    /// Came again, marked, as P3 allows.
    pub(crate) redelivered: u64,
    /// Came for the first time after a later one of the same producer: fine among several consumers (P6).
    pub(crate) disordered: u64,
    /// Without number: not checked.
    pub(crate) unnumbered: u64,
}

impl SequenceCheck {
    /// A message came.
    pub(crate) fn on_received(&mut self, producer: Option<&str>, sequence: Option<&str>, redelivered: bool) {
        self.redelivered += u64::from(redelivered);
        let Some((producer, at)) = key(producer, sequence) else {
            self.unnumbered += 1;
            return;
        };
        if !self.producers.contains_key(producer) {
            self.producers.insert(producer.to_owned(), Vec::new());
        }
        let fates = self.producers.get_mut(producer).expect("it was put there just now");
        if fates.len() <= at {
            fates.resize(at + 1, Fate::Unseen);
        } else if fates[at] == Fate::Unseen {
            self.disordered += 1;
        }
        let again = fates[at] != Fate::Unseen;
        if again && (!redelivered || fates[at] == Fate::Confirmed) {
            self.doubled += 1;
        }
        if fates[at] == Fate::Unseen {
            fates[at] = Fate::Received;
        }
    }

    /// It was acknowledged.
    pub(crate) fn on_acknowledged(&mut self, producer: Option<&str>, sequence: Option<&str>) {
        let Some((producer, at)) = key(producer, sequence) else {
            return;
        };
        if let Some(fate) = self.producers.get_mut(producer).and_then(|fates| fates.get_mut(at))
            && *fate != Fate::Confirmed
        {
            *fate = Fate::Acknowledged;
            self.unconfirmed.push((producer.to_owned(), at as u64));
        }
    }

    /// Every acknowledgement so far was confirmed, or (`false`) some of them may not have been.
    pub(crate) fn on_flushed(&mut self, confirmed: bool) {
        for (producer, at) in self.unconfirmed.drain(..) {
            if let Some(fate) = self
                .producers
                .get_mut(&producer)
                .and_then(|fates| fates.get_mut(at as usize))
            {
                *fate = if confirmed { Fate::Confirmed } else { Fate::Received };
            }
        }
    }

    pub(crate) fn findings(&self) -> Findings {
        let (mut distinct, mut lost) = (0, 0);
        for fates in self.producers.values() {
            let seen = fates.iter().filter(|fate| **fate != Fate::Unseen).count() as u64;
            distinct += seen;
            // Place 0 is nobody's: numbers begin with 1.
            lost += fates.len() as u64 - 1 - seen;
        }
        Findings {
            distinct,
            lost,
            doubled: self.doubled,
            redelivered: self.redelivered,
            disordered: self.disordered,
            unnumbered: self.unnumbered,
        }
    }
}

fn key<'a>(producer: Option<&'a str>, sequence: Option<&str>) -> Option<(&'a str, usize)> {
    let sequence: u64 = sequence?.parse().ok()?;
    let at = usize::try_from(sequence)
        .ok()
        .filter(|_| (1..=SEQUENCE_MAX).contains(&sequence))?;
    Some((producer?, at))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn receive(check: &mut SequenceCheck, sequence: &str, redelivered: bool) {
        check.on_received(Some("p"), Some(sequence), redelivered);
    }

    #[test]
    fn gaps_are_lost_messages() {
        let mut check = SequenceCheck::default();
        for sequence in ["1", "2", "5"] {
            receive(&mut check, sequence, false);
        }
        check.on_received(Some("q"), Some("2"), false);
        let findings = check.findings();
        assert_eq!(
            (findings.distinct, findings.lost, findings.doubled, findings.disordered),
            (4, 3, 0, 0)
        );
        receive(&mut check, "3", false);
        assert_eq!((check.findings().lost, check.findings().disordered), (2, 1));
    }

    #[test]
    fn only_a_marked_and_unconfirmed_message_may_come_again() {
        let mut check = SequenceCheck::default();
        receive(&mut check, "1", false);
        receive(&mut check, "1", true);
        assert_eq!((check.findings().doubled, check.findings().redelivered), (0, 1));
        receive(&mut check, "1", false);
        assert_eq!(check.findings().doubled, 1);

        check.on_acknowledged(Some("p"), Some("1"));
        check.on_flushed(false);
        receive(&mut check, "1", true);
        assert_eq!(check.findings().doubled, 1);

        check.on_acknowledged(Some("p"), Some("1"));
        check.on_flushed(true);
        receive(&mut check, "1", true);
        assert_eq!((check.findings().doubled, check.findings().distinct), (2, 1));
    }

    #[test]
    fn strange_numbers_cost_no_memory() {
        let mut check = SequenceCheck::default();
        for sequence in [Some("0"), Some("18446744073709551615"), Some("x"), None] {
            check.on_received(Some("p"), sequence, false);
        }
        let findings = check.findings();
        assert_eq!((findings.unnumbered, findings.distinct, findings.lost), (4, 0, 0));
    }
}
