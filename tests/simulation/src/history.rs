//! What clients attempted, what was answered, what was written to them and what they have consumed: the one account that
//! the invariants judge.

use std::collections::{BTreeMap, BTreeSet};

/// A promise (by number; 0 is the wholeness of transactions) and how it was broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Of DESIGN §2.
    pub promise: u8,
    /// What happened.
    pub text: String,
}

/// Under which a message is delivered: a queue's consumers together, or one durable subscription.
pub(crate) type Taker = String;

/// One message that a client attempted to send.
#[derive(Debug, Default)]
pub(crate) struct Sent {
    pub(crate) destination: String,
    /// The group that it was sent to.
    pub(crate) group: usize,
    pub(crate) transaction: Option<u64>,
    pub(crate) acknowledged_us: Option<u64>,
    /// Times that it was written to somebody, by taker.
    pub(crate) written: BTreeMap<Taker, u32>,
    /// Those for whom a consumer has sent an acknowledgement, answered or not; with automatic ones, that it was written to.
    pub(crate) settled: BTreeSet<Taker>,
    /// It was in the state or the log of a group that was put back to an older copy: it may be lost, or come again.
    pub(crate) set_back: bool,
    /// It was taken from the dead letter queue.
    pub(crate) buried: bool,
    /// When an acknowledgement of it was answered, and in which group, by taker.
    pub(crate) consumed: BTreeMap<Taker, (u64, usize)>,
}

/// A transaction that a client attempted.
#[derive(Debug, Default)]
pub(crate) struct Transacted {
    pub(crate) messages: Vec<String>,
    /// Its commit was answered.
    pub(crate) committed: bool,
    /// The client aborted it on purpose.
    pub(crate) aborted: bool,
}

/// One delivery, as the server writes it.
#[derive(Debug)]
pub(crate) struct Written<'a> {
    pub(crate) id: &'a str,
    pub(crate) taker: Option<&'a Taker>,
    pub(crate) group: usize,
    /// Number of the client's subscription, new with each connection.
    pub(crate) subscription: u64,
    pub(crate) redelivered: bool,
    pub(crate) now_us: u64,
}

/// See the file's head.
#[derive(Debug, Default)]
pub(crate) struct History {
    pub(crate) sent: BTreeMap<String, Sent>,
    pub(crate) transactions: BTreeMap<u64, Transacted>,
    /// Takers of each topic that were there before anything was published to it.
    pub(crate) durable: BTreeMap<String, BTreeSet<Taker>>,
    /// Where order is promised: the last number by (taker, producer), and by subscription.
    pub(crate) first_seen: BTreeMap<(Taker, String), u64>,
    pub(crate) last_in_subscription: BTreeMap<(u64, String), u64>,
    pub(crate) violations: Vec<Violation>,
    pub(crate) deliveries: u64,
}

impl Sent {
    /// Whether the broker may have forgotten it, as a message of a queue.
    pub(crate) fn may_be_gone(&self) -> bool {
        self.buried || self.settled.contains(&self.destination)
    }
}

impl History {
    /// Whether what happens to this message says nothing, since its group was put back.
    pub(crate) fn is_set_back(&self, id: &str) -> bool {
        self.sent.get(id).is_some_and(|sent| sent.set_back)
    }

    pub(crate) fn break_promise(&mut self, promise: u8, text: impl Into<String>) {
        self.violations.push(Violation {
            promise,
            text: text.into(),
        });
    }

    pub(crate) fn attempted(&mut self, id: &str, destination: &str, group: usize, transaction: Option<u64>) {
        let sent = self.sent.entry(id.to_owned()).or_default();
        sent.destination = destination.to_owned();
        sent.group = group;
        sent.transaction = transaction;
        if let Some(number) = transaction {
            let messages = &mut self.transactions.entry(number).or_default().messages;
            if !messages.iter().any(|known| known == id) {
                messages.push(id.to_owned());
            }
        }
    }

    pub(crate) fn acknowledged(&mut self, id: &str, now_us: u64) {
        if let Some(sent) = self.sent.get_mut(id) {
            sent.acknowledged_us.get_or_insert(now_us);
        }
    }

    pub(crate) fn committed(&mut self, number: u64, now_us: u64) {
        let Some(transaction) = self.transactions.get_mut(&number) else {
            return;
        };
        transaction.committed = true;
        for id in transaction.messages.clone() {
            self.acknowledged(&id, now_us);
        }
    }

    /// An acknowledgement is being sent.
    pub(crate) fn settles(&mut self, id: &str, taker: Option<&Taker>) {
        let Some(sent) = self.sent.get_mut(id) else { return };
        match taker {
            Some(taker) => _ = sent.settled.insert(taker.clone()),
            None => sent.buried = true,
        }
    }

    /// An acknowledgement was answered.
    pub(crate) fn consumed(&mut self, id: &str, taker: &Taker, group: usize, now_us: u64) {
        if let Some(sent) = self.sent.get_mut(id) {
            sent.consumed.entry(taker.clone()).or_insert((now_us, group));
        }
    }
}

/// The body that belongs to a message's id: the id, and padding that follows from it.
pub(crate) fn body_of(id: &str) -> String {
    let sum = id
        .bytes()
        .fold(7_u64, |sum, byte| sum.wrapping_mul(31).wrapping_add(u64::from(byte)));
    let letter = char::from(b'a' + (sum % 26) as u8);
    let padding: String = std::iter::repeat_n(letter, 20 + (sum % 600) as usize).collect();
    format!("{id} {padding}")
}

/// The id in a body.
pub(crate) fn id_in(body: &[u8]) -> Option<&str> {
    let end = body.iter().position(|byte| *byte == b' ')?;
    std::str::from_utf8(&body[..end]).ok()
}

/// Producer and number in an id.
pub(crate) fn split(id: &str) -> Option<(&str, u64)> {
    let (producer, number) = id.rsplit_once('/')?;
    Some((producer, number.parse().ok()?))
}
