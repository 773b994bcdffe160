//! The account of every message: what was delivered, how often, and whether it was allowed to be (P2–P5).

/// One entry per message, by its number from 1. Pure, so that it can be tested.
#[derive(Debug)]
pub(super) struct Ledger {
    seen: Vec<u8>,
    /// The broker may believe for a while that the consumer is there twice, and give what the first one had later.
    was_left_behind: bool,
    pub(super) counts: Counts,
}

/// What is told at the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Counts {
    /// Different messages delivered.
    pub(super) received: u64,
    /// Deliveries with the redelivered mark: allowed after a failure (P3).
    pub(super) redelivered: u64,
    /// Deliveries after the acknowledgement was confirmed, or again without the mark: never allowed.
    pub(super) doubled: u64,
    /// Deliveries of what was never sent, or with another body: never allowed.
    pub(super) damaged: u64,
    /// Different messages first delivered after a later one: not allowed for a sole consumer (P6).
    pub(super) disordered: u64,
    highest: u64,
}

const DELIVERED: u8 = 1;
const CONFIRMED: u8 = 2;

impl Ledger {
    pub(super) fn new(messages: u64) -> Self {
        Self {
            seen: vec![0; messages as usize],
            was_left_behind: false,
            counts: Counts::default(),
        }
    }

    /// The consumer has lost its connection. What it had comes to the next one marked, and after later messages where
    /// the broker did not notice in time: P6 speaks of a sole consumer.
    pub(super) fn consumer_lost(&mut self) {
        self.was_left_behind = true;
    }

    /// Message `number` was delivered.
    pub(super) fn deliver(&mut self, number: u64, redelivered: bool, whole: bool) {
        let counts = &mut self.counts;
        counts.redelivered += u64::from(redelivered);
        let seen = number
            .checked_sub(1)
            .and_then(|at| self.seen.get_mut(usize::try_from(at).ok()?));
        let Some(seen) = seen.filter(|_| whole) else {
            counts.damaged += 1;
            return;
        };
        if *seen & CONFIRMED != 0 || (*seen & DELIVERED != 0 && !redelivered) {
            counts.doubled += 1;
        }
        if *seen & DELIVERED == 0 {
            *seen |= DELIVERED;
            counts.received += 1;
            let excused = self.was_left_behind && redelivered;
            if number < counts.highest && !excused {
                counts.disordered += 1;
            }
            counts.highest = counts.highest.max(number);
        }
    }

    /// The broker has confirmed the acknowledgement of message `number`.
    pub(super) fn confirm(&mut self, number: u64) {
        if let Some(seen) = number.checked_sub(1).and_then(|at| self.seen.get_mut(at as usize)) {
            *seen |= CONFIRMED;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_marked_redelivery_is_allowed_until_it_is_confirmed() {
        let mut ledger = Ledger::new(3);
        for (number, redelivered) in [(1, false), (2, false), (2, true), (3, false)] {
            ledger.deliver(number, redelivered, true);
        }
        let Counts {
            received,
            redelivered,
            doubled,
            damaged,
            disordered,
            ..
        } = ledger.counts;
        assert_eq!((received, redelivered, doubled, damaged, disordered), (3, 1, 0, 0, 0));
        ledger.confirm(2);
        ledger.deliver(2, true, true);
        assert_eq!(ledger.counts.doubled, 1);
    }

    #[test]
    fn only_what_a_lost_connection_had_may_come_late_and_only_marked() {
        let late = |lost: bool, redelivered: bool| {
            let mut ledger = Ledger::new(3);
            ledger.deliver(3, false, true);
            if lost {
                ledger.consumer_lost();
            }
            ledger.deliver(1, redelivered, true);
            ledger.counts.disordered
        };
        assert_eq!(late(true, true), 0);
        assert_eq!([late(true, false), late(false, true), late(false, false)], [1, 1, 1]);
    }

    #[test]
    fn each_breach_is_counted() {
        let mut ledger = Ledger::new(3);
        ledger.deliver(2, false, true);
        ledger.deliver(2, false, true);
        ledger.deliver(1, false, true);
        ledger.deliver(0, false, true);
        ledger.deliver(4, false, true);
        ledger.deliver(3, false, false);
        let Counts {
            received,
            doubled,
            damaged,
            disordered,
            ..
        } = ledger.counts;
        assert_eq!((received, doubled, damaged, disordered), (2, 1, 3, 1));
    }
}
