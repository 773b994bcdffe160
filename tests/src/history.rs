//! What was tried, promised and seen in a test with faults, and whether the promises held (P2–P6).
//!
//! Every message is named by its producer and its number there. Producers note attempts and receipts, consumers note
//! deliveries, acknowledgements that they are about to send and confirmed ones, in the order in which they learn of them;
//! [`History::report`] judges at the end, when everything has been drained.
//!
//! A message is *settled* when an acknowledgement was sent for its last delivery, or one was ever confirmed. Until then
//! the broker owes it: what was delivered, not acknowledged and never came again is as lost as what never came. Whether an
//! acknowledgement on a connection that died counts is open; what comes again after it is owed again.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Mutex, MutexGuard},
    time::{Duration, Instant},
};

/// A message's name.
pub type Name = (String, u64);

/// See the module. Shared by the threads of a test.
#[derive(Debug, Default)]
pub struct History {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// By producer, then by number.
    messages: BTreeMap<String, BTreeMap<u64, Fate>>,
    received: usize,
    consumed: usize,
    /// The highest number first delivered, for each producer.
    highest: BTreeMap<String, u64>,
    reordered: Vec<Name>,
    doubled: Vec<(Name, &'static str)>,
    garbled: Vec<Name>,
    redelivered: u64,
    /// A consumer has gone without telling the broker, which may serve it for a while.
    left_behind: bool,
    /// What shall be delivered as a whole or not at all: producer, first and last number.
    transactions: Vec<(String, u64, u64)>,
    /// Times of receipts, for the longest gap.
    receipts: Vec<Instant>,
    deliveries: Vec<Instant>,
}

#[derive(Debug, Default, Clone, Copy)]
struct Fate {
    attempted: bool,
    /// Its producer does not try again.
    transacted: bool,
    receipted: bool,
    delivered: u32,
    /// An acknowledgement of its last delivery was sent.
    acknowledged: bool,
    confirmed: bool,
}

impl Fate {
    /// The broker has it (it said so, or could only so deliver it), and no consumer has settled it.
    fn is_owed(&self) -> bool {
        (self.receipted || self.delivered > 0) && !self.acknowledged && !self.confirmed
    }

    /// Its producer has gone on without knowing. A node that hung may still carry what it had from that producer, so that
    /// it comes behind what was sent through another one since: the order of these two nobody was promised.
    fn was_given_up(&self) -> bool {
        self.transacted && !self.receipted
    }
}

/// The judgement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Different messages that producers tried to send.
    pub attempted: u64,
    /// Those with a receipt.
    pub receipted: u64,
    /// Those without one: whether the broker has them is open.
    pub unknown: u64,
    /// Unknown ones that were delivered, which is as good as not.
    pub recovered: u64,
    /// Different messages delivered.
    pub received: u64,
    /// Receipted, or delivered once, and not settled by any consumer (P2, P3): none are allowed.
    pub lost: Vec<Name>,
    /// Delivered after a confirmed acknowledgement, or again without the mark (P3, P4, P5): none are allowed.
    pub doubled: Vec<(Name, &'static str)>,
    /// Delivered and never sent: none are allowed.
    pub unexpected: Vec<Name>,
    /// Delivered with other bytes than were sent (P9): none are allowed.
    pub garbled: Vec<Name>,
    /// The first message of each transaction that was delivered in part: none are allowed.
    pub torn: Vec<Name>,
    /// First delivered after a later message of the same producer (P6): none are allowed for a sole consumer.
    pub reordered: Vec<Name>,
    /// Deliveries with the mark.
    pub redelivered: u64,
    /// Longest time between two receipts.
    pub longest_send_gap: Duration,
    /// Longest time between two deliveries.
    pub longest_delivery_gap: Duration,
}

impl History {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("no thread panics while it notes something")
    }

    /// A producer is about to send this one, for the first time or again.
    pub fn attempt(&self, producer: &str, number: u64) {
        self.lock().fate(producer, number).attempted = true;
    }

    /// The producer is about to commit these together, first to last, and will not try again.
    pub fn transaction(&self, producer: &str, first: u64, last: u64) {
        let mut inner = self.lock();
        for number in first..=last {
            let fate = inner.fate(producer, number);
            fate.attempted = true;
            fate.transacted = true;
        }
        inner.transactions.push((producer.to_owned(), first, last));
    }

    /// It has its receipt.
    pub fn receipt(&self, producer: &str, number: u64) {
        let mut inner = self.lock();
        inner.fate(producer, number).receipted = true;
        inner.receipts.push(Instant::now());
    }

    /// It was delivered.
    pub fn delivery(&self, producer: &str, number: u64, redelivered: bool) {
        let mut inner = self.lock();
        inner.deliveries.push(Instant::now());
        inner.redelivered += u64::from(redelivered);
        let fate = inner.fate(producer, number);
        fate.delivered += 1;
        // Whatever was sent on the connection before did not count.
        fate.acknowledged = false;
        let fate = *fate;
        inner.received += usize::from(fate.delivered == 1);
        let name = (producer.to_owned(), number);
        if fate.confirmed {
            inner
                .doubled
                .push((name.clone(), "after its acknowledgement was confirmed"));
        } else if fate.delivered > 1 && !redelivered {
            inner.doubled.push((name.clone(), "again without the redelivered mark"));
        }
        if fate.delivered == 1 {
            let highest = inner.highest.entry(producer.to_owned()).or_default();
            if number > *highest {
                *highest = number;
            } else if !(redelivered && inner.left_behind) {
                inner.reordered.push(name);
            }
        }
    }

    /// A consumer has gone without a word, and the broker may not have noticed: it then has another consumer to serve. What
    /// was given to that one comes back later, and marked; that is not counted as out of order.
    pub fn left_behind(&self) {
        self.lock().left_behind = true;
    }

    /// All that was given to a consumer that went has come back: order counts for everything again.
    pub fn settled(&self) {
        self.lock().left_behind = false;
    }

    /// What was delivered under this name is not what was sent.
    pub fn garbled(&self, producer: &str, number: u64) {
        self.lock().garbled.push((producer.to_owned(), number));
    }

    /// A consumer is about to acknowledge it: by `ACK`, by the `COMMIT` of one, or by taking it where delivery alone
    /// acknowledges (`ack:auto`).
    pub fn acknowledging(&self, producer: &str, number: u64) {
        self.lock().fate(producer, number).acknowledged = true;
    }

    /// The broker has confirmed its acknowledgement.
    pub fn confirmed(&self, producer: &str, number: u64) {
        let mut inner = self.lock();
        let fate = inner.fate(producer, number);
        let is_first = !std::mem::replace(&mut fate.confirmed, true);
        inner.consumed += usize::from(is_first);
    }

    /// Messages with a receipt so far.
    pub fn receipted(&self) -> usize {
        self.lock().receipts.len()
    }

    /// Different messages delivered so far.
    pub fn received(&self) -> usize {
        self.lock().received
    }

    /// Messages whose acknowledgement was confirmed so far.
    pub fn consumed(&self) -> usize {
        self.lock().consumed
    }

    /// Messages that the broker has to deliver yet, or again, as none of its consumers has settled them.
    pub fn owed(&self) -> usize {
        let inner = self.lock();
        let all = inner.messages.values().flat_map(BTreeMap::values);
        all.filter(|fate| fate.is_owed()).count()
    }

    /// The longest time without a receipt, and without a delivery, of those that ended after `from` and began before
    /// `to`.
    pub fn longest_gaps(&self, from: Instant, to: Instant) -> (Duration, Duration) {
        let inner = self.lock();
        (
            longest_gap_between(&inner.receipts, from, to),
            longest_gap_between(&inner.deliveries, from, to),
        )
    }

    /// Judges what was noted.
    pub fn report(&self) -> Report {
        let inner = self.lock();
        let all = || {
            let producers = inner.messages.iter();
            producers.flat_map(|(producer, fates)| fates.iter().map(move |(number, fate)| (producer, *number, fate)))
        };
        let count = |of: fn(&Fate) -> bool| all().filter(|(_, _, fate)| of(fate)).count() as u64;
        let names = |of: fn(&Fate) -> bool| -> Vec<Name> {
            let found = all().filter(|(_, _, fate)| of(fate));
            found.map(|(producer, number, _)| (producer.clone(), number)).collect()
        };
        Report {
            attempted: count(|fate| fate.attempted),
            receipted: count(|fate| fate.receipted),
            unknown: count(|fate| fate.attempted && !fate.receipted),
            recovered: count(|fate| fate.attempted && !fate.receipted && fate.delivered > 0),
            received: count(|fate| fate.delivered > 0),
            lost: names(Fate::is_owed),
            unexpected: names(|fate| fate.delivered > 0 && !fate.attempted),
            doubled: inner.doubled.clone(),
            garbled: inner.garbled.clone(),
            torn: inner.torn(),
            reordered: {
                let given_up = |(producer, number): &&Name| {
                    let fate = inner.messages.get(producer).and_then(|fates| fates.get(number));
                    fate.is_some_and(Fate::was_given_up)
                };
                inner.reordered.iter().filter(|name| !given_up(name)).cloned().collect()
            },
            redelivered: inner.redelivered,
            longest_send_gap: longest_gap(&inner.receipts),
            longest_delivery_gap: longest_gap(&inner.deliveries),
        }
    }
}

impl Inner {
    fn fate(&mut self, producer: &str, number: u64) -> &mut Fate {
        if !self.messages.contains_key(producer) {
            self.messages.insert(producer.to_owned(), BTreeMap::new());
        }
        let fates = self
            .messages
            .get_mut(producer)
            .expect("it was put there if it was missing");
        fates.entry(number).or_default()
    }

    fn torn(&self) -> Vec<Name> {
        let is_delivered = |producer: &str, number: u64| {
            let fate = self.messages.get(producer).and_then(|fates| fates.get(&number));
            fate.is_some_and(|fate| fate.delivered > 0)
        };
        let torn = self.transactions.iter().filter(|(producer, first, last)| {
            let delivered = (*first..=*last).filter(|number| is_delivered(producer, *number));
            !matches!(delivered.count() as u64, 0) && (*first..=*last).any(|number| !is_delivered(producer, number))
        });
        torn.map(|(producer, first, _)| (producer.clone(), *first)).collect()
    }
}

fn longest_gap_between(times: &[Instant], from: Instant, to: Instant) -> Duration {
    // Times are noted in order.
    let after = times.partition_point(|time| *time < from);
    let until = (times.partition_point(|time| *time < to) + 1).min(times.len());
    // What was the last before `from`, else the gap would seem to begin later than it did; but not a rest before it.
    let begin = after.checked_sub(1).map_or(from, |before| times[before].max(from));
    let (mut last, mut longest) = (begin, Duration::ZERO);
    for time in &times[after..until.max(after)] {
        longest = longest.max(time.saturating_duration_since(last));
        last = *time;
    }
    longest.max(to.saturating_duration_since(last))
}

fn longest_gap(times: &[Instant]) -> Duration {
    times
        .windows(2)
        .map(|pair| pair[1].saturating_duration_since(pair[0]))
        .max()
        .unwrap_or_default()
}

impl Report {
    /// Nothing lost, nothing doubled, nothing that was never sent.
    ///
    /// # Panics
    /// With the whole report otherwise.
    #[track_caller]
    pub fn assert_kept(&self) {
        assert!(self.is_kept(), "a promise was broken: {self}");
    }

    /// Nothing lost, doubled, never sent, with wrong bytes, or of a transaction in part.
    pub fn is_kept(&self) -> bool {
        let names = [&self.lost, &self.unexpected, &self.garbled, &self.torn];
        names.iter().all(|names| names.is_empty()) && self.doubled.is_empty()
    }

    /// As [`Report::assert_kept`], and in order.
    ///
    /// # Panics
    /// With the whole report otherwise.
    #[track_caller]
    pub fn assert_kept_in_order(&self) {
        self.assert_kept();
        assert!(self.reordered.is_empty(), "the order was broken (P6): {self}");
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "attempted {}, receipted {}, received {}, unknown {} ({} of them received), redelivered {}, gaps {:?} (sends) {:?} (deliveries)",
            self.attempted,
            self.receipted,
            self.received,
            self.unknown,
            self.recovered,
            self.redelivered,
            self.longest_send_gap,
            self.longest_delivery_gap
        )?;
        some(f, "LOST", &self.lost)?;
        some(f, "DOUBLED", &self.doubled)?;
        some(f, "UNEXPECTED", &self.unexpected)?;
        some(f, "GARBLED", &self.garbled)?;
        some(f, "TORN", &self.torn)?;
        some(f, "reordered", &self.reordered)
    }
}

fn some<T: fmt::Debug>(f: &mut fmt::Formatter<'_>, what: &str, names: &[T]) -> fmt::Result {
    if names.is_empty() {
        return Ok(());
    }
    write!(f, "\n  {what} {}: {:?}", names.len(), &names[..names.len().min(20)])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(numbers: std::ops::RangeInclusive<u64>) -> History {
        let history = History::default();
        for number in numbers {
            history.attempt("p", number);
            history.receipt("p", number);
        }
        history
    }

    fn p(number: u64) -> Name {
        ("p".to_owned(), number)
    }

    /// Delivered and acknowledged.
    fn take(history: &History, number: u64, redelivered: bool) {
        history.delivery("p", number, redelivered);
        history.acknowledging("p", number);
    }

    #[test]
    fn a_good_run_with_a_marked_redelivery() {
        let history = sent(1..=3);
        history.attempt("p", 4);
        for (number, redelivered) in [(1, false), (2, false), (2, true), (3, false)] {
            take(&history, number, redelivered);
        }
        history.confirmed("p", 1);
        let report = history.report();
        report.assert_kept_in_order();
        assert_eq!(
            (report.attempted, report.receipted, report.received, report.redelivered),
            (4, 3, 3, 1)
        );
    }

    #[test]
    fn each_breach_is_seen() {
        let history = sent(1..=4);
        take(&history, 2, false);
        take(&history, 2, false);
        take(&history, 1, false);
        take(&history, 4, false);
        history.confirmed("p", 4);
        history.delivery("p", 4, true);
        history.delivery("q", 1, false);
        history.acknowledging("q", 1);
        let report = history.report();
        assert_eq!(report.lost, [p(3)]);
        assert_eq!(
            report.doubled,
            [
                (p(2), "again without the redelivered mark"),
                (p(4), "after its acknowledgement was confirmed")
            ]
        );
        assert_eq!(report.reordered, [p(1)]);
        assert_eq!(report.unexpected, [("q".to_owned(), 1)]);
        assert!(!report.is_kept());
    }

    #[test]
    fn each_breach_by_itself_is_enough() {
        let lost = sent(1..=1);
        let dropped = sent(1..=1);
        dropped.delivery("p", 1, false);
        let invented = History::default();
        take(&invented, 1, false);
        let garbled = sent(1..=1);
        take(&garbled, 1, false);
        garbled.garbled("p", 1);
        let unmarked = sent(1..=1);
        take(&unmarked, 1, false);
        take(&unmarked, 1, false);
        let served_twice = sent(1..=1);
        take(&served_twice, 1, false);
        served_twice.confirmed("p", 1);
        take(&served_twice, 1, true);
        let torn = History::default();
        torn.transaction("p", 1, 3);
        take(&torn, 2, false);
        for history in [lost, dropped, invented, garbled, unmarked, served_twice, torn] {
            assert!(!history.report().is_kept(), "{}", history.report());
        }
    }

    #[test]
    fn a_transaction_of_unknown_fate_is_there_as_a_whole_or_not_at_all() {
        let history = History::default();
        history.transaction("p", 1, 3);
        history.transaction("p", 4, 6);
        for number in 4..=6 {
            take(&history, number, false);
        }
        let report = history.report();
        report.assert_kept_in_order();
        assert_eq!((report.unknown, report.recovered), (6, 3));
        history.delivery("p", 3, false);
        assert_eq!(history.report().torn, [p(1)]);
    }

    #[test]
    fn only_a_transaction_that_was_given_up_may_come_behind_later_ones() {
        let history = History::default();
        for first in [1, 4, 7] {
            history.transaction("p", first, first + 2);
        }
        (7..=9).for_each(|number| history.receipt("p", number));
        for number in [7, 8, 9, 1, 2, 3, 4, 5, 6] {
            take(&history, number, false);
        }
        assert!(history.report().reordered.is_empty());
        (4..=6).for_each(|number| history.receipt("p", number));
        assert_eq!(history.report().reordered, [p(4), p(5), p(6)]);
    }

    #[test]
    fn what_was_delivered_and_not_acknowledged_is_owed_until_it_comes_again() {
        let history = sent(1..=3);
        (1..=3).for_each(|number| history.delivery("p", number, false));
        assert_eq!(history.owed(), 3);
        history.acknowledging("p", 1);
        history.acknowledging("p", 2);
        // The connection dies: the first acknowledgement has counted, the second one has not, the third was never sent.
        history.delivery("p", 2, true);
        assert_eq!(history.report().lost, [p(2), p(3)]);
        take(&history, 3, true);
        assert_eq!(history.report().lost, [p(2)], "it came again and was dropped then");
        history.acknowledging("p", 2);
        history.report().assert_kept_in_order();
    }

    #[test]
    fn a_confirmation_settles_for_good() {
        let history = sent(1..=1);
        take(&history, 1, false);
        history.confirmed("p", 1);
        history.delivery("p", 1, true);
        let report = history.report();
        assert_eq!((report.lost.len(), report.doubled.len()), (0, 1));
    }

    #[test]
    fn a_transaction_that_was_delivered_and_dropped_is_lost_with_a_receipt_or_without() {
        let history = History::default();
        history.transaction("p", 1, 2);
        history.transaction("p", 3, 4);
        history.transaction("p", 5, 6);
        (1..=2).for_each(|number| history.receipt("p", number));
        (1..=4).for_each(|number| history.delivery("p", number, false));
        history.acknowledging("p", 1);
        history.acknowledging("p", 3);
        let report = history.report();
        assert_eq!((report.lost, report.torn.len()), (vec![p(2), p(4)], 0));
    }

    #[test]
    fn what_one_durable_subscription_has_settled_is_still_owed_to_the_other() {
        let subscriptions = [sent(1..=2), sent(1..=2)];
        for history in &subscriptions {
            take(history, 1, false);
            history.delivery("p", 2, false);
        }
        subscriptions[0].acknowledging("p", 2);
        subscriptions[0].report().assert_kept_in_order();
        assert_eq!(subscriptions[1].report().lost, [p(2)]);
    }

    #[test]
    fn a_gap_is_measured_within_its_bounds() {
        let begun = Instant::now();
        let at = |ms: u64| begun + Duration::from_millis(ms);
        let times = [at(0), at(10), at(500), at(510), at(2_000)];
        let gap = |from, to| longest_gap_between(&times, at(from), at(to)).as_millis();
        assert_eq!(
            gap(5, 600),
            1_490,
            "a gap that has begun within the bounds counts to its end"
        );
        assert_eq!(gap(5, 505), 490);
        assert_eq!(gap(100, 400), 400, "not from before it was looked for");
        assert_eq!(gap(2_500, 3_000), 500, "nothing at all");
        assert_eq!(longest_gap_between(&[], at(0), at(7)), Duration::from_millis(7));
    }

    #[test]
    fn what_comes_back_from_a_consumer_that_was_left_behind_comes_late_and_marked() {
        let history = sent(1..=6);
        history.delivery("p", 2, false);
        history.left_behind();
        history.delivery("p", 1, true);
        assert!(history.report().reordered.is_empty());
        history.delivery("p", 4, false);
        history.delivery("p", 3, false);
        history.settled();
        history.delivery("p", 6, false);
        history.delivery("p", 5, true);
        assert_eq!(history.report().reordered, [p(3), p(5)]);
    }

    #[test]
    fn what_is_owed_is_counted() {
        let history = sent(1..=3);
        take(&history, 2, false);
        history.confirmed("p", 2);
        history.confirmed("p", 2);
        assert_eq!((history.owed(), history.received(), history.consumed()), (2, 1, 1));
    }
}
