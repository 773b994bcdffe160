//! What was tried, promised and seen in a test with faults, and whether the promises held (P2–P6).
//!
//! Every message is named by its producer and its number there. Producers note attempts and receipts, consumers note
//! deliveries and confirmed acknowledgements, in the order in which they learn of them; [`History::report`] judges at
//! the end, when everything has been drained.

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
    messages: BTreeMap<Name, Fate>,
    /// The highest number first delivered, for each (consumer's queue, producer).
    highest: BTreeMap<String, u64>,
    reordered: Vec<Name>,
    doubled: Vec<(Name, &'static str)>,
    redelivered: u64,
    /// Times of receipts, for the longest gap.
    receipts: Vec<Instant>,
    deliveries: Vec<Instant>,
}

#[derive(Debug, Default, Clone, Copy)]
struct Fate {
    attempted: bool,
    receipted: bool,
    delivered: u32,
    confirmed: bool,
}

/// The judgement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Different messages that producers tried to send.
    pub attempted: u64,
    /// Those with a receipt.
    pub receipted: u64,
    /// Different messages delivered.
    pub received: u64,
    /// Receipted and never delivered (P2): none are allowed.
    pub lost: Vec<Name>,
    /// Delivered after a confirmed acknowledgement, or again without the mark (P3, P4, P5): none are allowed.
    pub doubled: Vec<(Name, &'static str)>,
    /// Delivered and never sent: none are allowed.
    pub unexpected: Vec<Name>,
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
        let fate = *fate;
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
            if number < *highest {
                inner.reordered.push(name);
            } else {
                *highest = number;
            }
        }
    }

    /// The broker has confirmed its acknowledgement.
    pub fn confirmed(&self, producer: &str, number: u64) {
        self.lock().fate(producer, number).confirmed = true;
    }

    /// Messages with a receipt so far.
    pub fn receipted(&self) -> usize {
        self.lock().receipts.len()
    }

    /// Different messages delivered so far.
    pub fn received(&self) -> usize {
        self.lock().messages.values().filter(|fate| fate.delivered > 0).count()
    }

    /// Messages whose acknowledgement was confirmed so far.
    pub fn consumed(&self) -> usize {
        self.lock().messages.values().filter(|fate| fate.confirmed).count()
    }

    /// Judges what was noted.
    pub fn report(&self) -> Report {
        let inner = self.lock();
        let count = |of: fn(&Fate) -> bool| inner.messages.values().filter(|fate| of(fate)).count() as u64;
        let names = |of: fn(&Fate) -> bool| -> Vec<Name> {
            inner
                .messages
                .iter()
                .filter(|(_, fate)| of(fate))
                .map(|(name, _)| name.clone())
                .collect()
        };
        Report {
            attempted: count(|fate| fate.attempted),
            receipted: count(|fate| fate.receipted),
            received: count(|fate| fate.delivered > 0),
            lost: names(|fate| fate.receipted && fate.delivered == 0),
            unexpected: names(|fate| fate.delivered > 0 && !fate.attempted),
            doubled: inner.doubled.clone(),
            reordered: inner.reordered.clone(),
            redelivered: inner.redelivered,
            longest_send_gap: longest_gap(&inner.receipts),
            longest_delivery_gap: longest_gap(&inner.deliveries),
        }
    }
}

impl Inner {
    fn fate(&mut self, producer: &str, number: u64) -> &mut Fate {
        self.messages.entry((producer.to_owned(), number)).or_default()
    }
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
        let kept = self.lost.is_empty() && self.doubled.is_empty() && self.unexpected.is_empty();
        assert!(kept, "a promise was broken: {self}");
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
            "attempted {}, receipted {}, received {}, redelivered {}, gaps {:?} (sends) {:?} (deliveries)",
            self.attempted,
            self.receipted,
            self.received,
            self.redelivered,
            self.longest_send_gap,
            self.longest_delivery_gap
        )?;
        some(f, "LOST", &self.lost)?;
        some(f, "DOUBLED", &self.doubled)?;
        some(f, "UNEXPECTED", &self.unexpected)?;
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

    #[test]
    fn a_good_run_with_a_marked_redelivery() {
        let history = sent(1..=3);
        history.attempt("p", 4);
        for (number, redelivered) in [(1, false), (2, false), (2, true), (3, false)] {
            history.delivery("p", number, redelivered);
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
        history.delivery("p", 2, false);
        history.delivery("p", 2, false);
        history.delivery("p", 1, false);
        history.delivery("p", 4, false);
        history.confirmed("p", 4);
        history.delivery("p", 4, true);
        history.delivery("q", 1, false);
        let report = history.report();
        let p = |number| ("p".to_owned(), number);
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
    }
}
