//! What was tried, promised and seen in a test with faults, and whether the promises held (P2–P6).
//!
//! Every message is named by its producer and its number there. Producers note attempts and receipts, consumers note
//! deliveries, acknowledgements that they are about to send and confirmed ones, in the order in which they learn of them;
//! [`History::report`] judges at the end, when everything has been drained.
//!
//! A message is *settled* when an acknowledgement was sent for its last delivery, or one was ever confirmed. Until then
//! the broker owes it: what was delivered, not acknowledged and never came again is as lost as what never came. Whether an
//! acknowledgement on a connection that died counts is open; what comes again after it is owed again.
//!
//! A group of one may be put back to an older copy of its state. [`History::copied`] notes what there is when the copy is
//! made, [`History::put_back`] that the group has become it: what only the lost state had is not owed, and what was settled
//! since the copy may come again, marked. See there for what exactly that is.

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

/// What of a message's way led through the group that is put back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// Its producer is connected to that group: what has a receipt is there, unless it has gone on already.
    From,
    /// Only its consumer is: it is elsewhere until the group has taken it over. Whoever marks waits before until the group
    /// has delivered all that it took over, so that what it had is known.
    To,
}

/// What a group is put back to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Older {
    /// The state of [`History::copied`].
    Copy,
    /// Nothing: it has the name of the lost one alone.
    Empty,
}

/// How a message was when the copy was made.
#[derive(Debug, Default, Clone, Copy)]
struct Copied {
    attempted: bool,
    receipted: bool,
    delivered: bool,
    confirmed: bool,
}

/// How a message may come once more, although it was delivered or settled.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Again {
    #[default]
    Never,
    Marked,
    /// Sent again to a state that has lost its number (P5).
    Anyhow,
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
    copied: Copied,
    /// Only a state that is lost had it.
    excused: bool,
    again: Again,
}

impl Fate {
    /// The broker has it (it said so, or could only so deliver it), and no consumer has settled it.
    fn is_owed(&self) -> bool {
        !self.excused && (self.receipted || self.delivered > 0) && !self.acknowledged && !self.confirmed
    }

    fn copy(&mut self) {
        self.copied = Copied {
            attempted: self.attempted,
            receipted: self.receipted,
            delivered: self.delivered > 0,
            confirmed: self.confirmed,
        };
    }

    fn put_back(&mut self, way: Way, to: Older) {
        let copied = match to {
            Older::Copy => self.copied,
            Older::Empty => Copied {
                confirmed: self.copied.confirmed,
                ..Copied::default()
            },
        };
        self.again = match way {
            Way::From if !self.receipted => Again::Anyhow,
            Way::From if copied.confirmed || !copied.attempted => Again::Never,
            Way::To if copied.confirmed || self.delivered == 0 => Again::Never,
            Way::From | Way::To => Again::Marked,
        };
        self.excused = match way {
            Way::From => !copied.receipted,
            Way::To => self.delivered > 0 && !copied.delivered,
        };
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
        let fate = inner.fate(producer, number);
        fate.receipted = true;
        // Whoever says so now has it; what was delivered before may have been settled in what it has.
        fate.excused &= fate.delivered > 0;
        inner.receipts.push(Instant::now());
    }

    /// It was delivered.
    pub fn delivery(&self, producer: &str, number: u64, redelivered: bool) {
        let mut inner = self.lock();
        inner.deliveries.push(Instant::now());
        inner.redelivered += u64::from(redelivered);
        let fate = inner.fate(producer, number);
        fate.delivered += 1;
        fate.excused = false;
        let again = std::mem::take(&mut fate.again);
        if again == Again::Anyhow || (again == Again::Marked && redelivered) {
            fate.confirmed = false;
        }
        // Whatever was sent on the connection before did not count.
        fate.acknowledged = false;
        let fate = *fate;
        inner.received += usize::from(fate.delivered == 1);
        let name = (producer.to_owned(), number);
        if fate.confirmed {
            inner
                .doubled
                .push((name.clone(), "after its acknowledgement was confirmed"));
        } else if fate.delivered > 1 && !redelivered && again != Again::Anyhow {
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

    /// A group through which these messages go, stopped just now, is copied.
    pub fn copied(&self) {
        self.lock().fates().for_each(Fate::copy);
    }

    /// That group, stopped just now, has become its copy again, or an empty one in its place. From here on
    ///
    /// - what had no receipt at the copy, on the way [`Way::From`] it, is not owed, as only the lost state had it: until it is
    ///   delivered or gets its receipt after all;
    /// - what was first delivered after the copy, on the way [`Way::To`] it, is not owed, if nobody acknowledged it: the lost
    ///   state had it;
    /// - what was settled after the copy, and may be in the copy or in doubt with another group, may come once more, marked;
    /// - what its producer has no receipt for and sends again may come once more, also without the mark: its number is
    ///   forgotten.
    ///
    /// All else is owed as before, and what was confirmed before the copy never comes again.
    pub fn put_back(&self, way: Way, to: Older) {
        self.lock().fates().for_each(|fate| fate.put_back(way, to));
    }

    /// An operator has made the others forget whom all that is not delivered yet was kept for: it is not owed any more.
    pub fn forgotten(&self) {
        let mut inner = self.lock();
        let kept = inner.fates().filter(|fate| fate.delivered == 0);
        kept.for_each(|fate| fate.excused = true);
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

    /// Whether this one has its receipt.
    pub fn has_receipt(&self, producer: &str, number: u64) -> bool {
        let inner = self.lock();
        let fate = inner.messages.get(producer).and_then(|fates| fates.get(&number));
        fate.is_some_and(|fate| fate.receipted)
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
    fn fates(&mut self) -> impl Iterator<Item = &mut Fate> {
        self.messages.values_mut().flat_map(BTreeMap::values_mut)
    }

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

    /// Sent and settled before, and put back: what of it is wrong.
    fn put_back(history: &History, way: Way, to: Older) -> usize {
        history.put_back(way, to);
        history.owed()
    }

    #[test]
    fn what_only_the_lost_state_had_is_not_owed() {
        let history = sent(1..=3);
        take(&history, 1, false);
        history.delivery("p", 2, false);
        history.copied();
        history.delivery("p", 3, false);
        history.attempt("p", 4);
        history.receipt("p", 4);
        history.attempt("p", 5);
        history.receipt("p", 5);
        history.delivery("p", 5, false);
        assert_eq!(put_back(&history, Way::From, Older::Copy), 2, "2 and 3 are in the copy");
        history.attempt("p", 6);
        history.receipt("p", 6);
        assert_eq!(history.report().lost, [p(2), p(3), p(6)], "what comes after is owed");
        assert_eq!(put_back(&history, Way::From, Older::Empty), 0);
        // It comes all the same, and is dropped then.
        history.delivery("p", 4, true);
        assert_eq!(history.report().lost, [p(4)]);
    }

    #[test]
    fn what_a_group_has_not_taken_over_is_owed_whatever_becomes_of_the_group() {
        let history = sent(1..=4);
        history.delivery("p", 1, false);
        history.copied();
        history.delivery("p", 2, false);
        assert_eq!(put_back(&history, Way::To, Older::Copy), 3);
        assert_eq!(
            history.report().lost,
            [p(1), p(3), p(4)],
            "it has 1, and never took over 3 and 4"
        );
        assert_eq!(put_back(&history, Way::To, Older::Empty), 2);
        history.forgotten();
        assert_eq!(history.owed(), 0, "an operator's word");
    }

    #[test]
    fn what_was_settled_after_the_copy_may_come_again_once_and_marked() {
        for way in [Way::From, Way::To] {
            let history = sent(1..=3);
            take(&history, 1, false);
            history.confirmed("p", 1);
            history.copied();
            for number in 2..=3 {
                take(&history, number, false);
                history.confirmed("p", number);
            }
            history.put_back(way, Older::Copy);
            take(&history, 2, true);
            history.report().assert_kept_in_order();
            history.confirmed("p", 2);
            for (number, redelivered) in [(2, true), (3, false), (1, true)] {
                take(&history, number, redelivered);
            }
            let doubled = history.report().doubled.into_iter().map(|(name, _)| name);
            assert_eq!(doubled.collect::<Vec<_>>(), [p(2), p(3), p(1)]);
        }
    }

    #[test]
    fn what_was_sent_after_the_copy_does_not_come_again_but_for_a_resend() {
        let history = History::default();
        history.copied();
        for number in 1..=2 {
            history.attempt("p", number);
            take(&history, number, false);
            history.confirmed("p", number);
        }
        history.receipt("p", 1);
        history.put_back(Way::From, Older::Copy);
        take(&history, 2, false);
        history.receipt("p", 2);
        history.report().assert_kept_in_order();
        take(&history, 1, true);
        assert_eq!(history.report().doubled.len(), 1);
    }

    #[test]
    fn a_receipt_after_the_copy_was_put_back_counts() {
        let history = History::default();
        history.copied();
        history.attempt("p", 1);
        assert_eq!(put_back(&history, Way::From, Older::Copy), 0);
        history.receipt("p", 1);
        assert_eq!(history.report().lost, [p(1)]);
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
