//! A producer whose messages come in transactions. A transaction whose commit is not answered is done again as a whole,
//! with the same numbers; one that is aborted is never done again. Some hold a resend of a message of before, which changes
//! nothing. Some hold another message under a number of before, and are refused as a whole.

use ferrymq_protocol::stomp::{Command, Frame};

use super::{Receipts, Turn};
use crate::history::body_of;

/// See the file's head.
#[derive(Debug)]
pub(crate) struct Transactor {
    pub(crate) name: String,
    pub(crate) destination: String,
    pub(crate) left: u64,
    /// A number that no other transaction of the run has, and how many there may be.
    base: u64,
    transactions: u64,
    next: u64,
    current: Option<Current>,
    next_at_us: u64,
    /// The first message of the transaction that was answered last.
    settled: Option<u64>,
}

#[derive(Debug)]
struct Current {
    number: u64,
    messages: Vec<u64>,
    /// What is odd about it.
    odd: Option<Odd>,
    /// Over this connection.
    receipt: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Odd {
    /// It holds this message, which is stored already.
    Resends(u64),
    /// It holds another message under this number.
    Reuses(u64),
}

impl Transactor {
    pub(crate) fn new(name: &str, destination: &str, base: u64, count: u64) -> Self {
        Self {
            name: name.to_owned(),
            destination: destination.to_owned(),
            left: count,
            base,
            transactions: 0,
            next: 1,
            current: None,
            next_at_us: 0,
            settled: None,
        }
    }

    pub(crate) fn is_done(&self) -> bool {
        self.current.is_none()
    }

    pub(super) fn waits(&self) -> bool {
        self.current.is_some()
    }

    pub(super) fn begin_again(&mut self) {
        self.lost();
    }

    pub(super) fn lost(&mut self) {
        if let Some(current) = &mut self.current {
            current.receipt = None;
        }
    }

    pub(super) fn answered(&mut self, receipt: &str, turn: &mut Turn<'_>) {
        if let Some(current) = self
            .current
            .take_if(|current| current.receipt.as_deref() == Some(receipt))
        {
            turn.history.committed(current.number, turn.now_us);
            self.settled = current.messages.first().copied();
            self.next_at_us = turn.now_us + turn.rng.below(60_000);
        }
    }

    /// For good: nothing of it may ever be delivered.
    pub(super) fn refused(&mut self, receipt: &str, turn: &mut Turn<'_>) {
        let refused = |current: &mut Current| current.receipt.as_deref() == Some(receipt) && current.odd.is_some();
        if let Some(current) = self.current.take_if(refused) {
            turn.history.transactions.entry(current.number).or_default().aborted = true;
        }
    }

    pub(super) fn tick(&mut self, home: usize, receipts: &mut Receipts<'_>, turn: &mut Turn<'_>) {
        if self.current.is_none() && turn.load && self.left > 0 && turn.now_us >= self.next_at_us {
            self.left -= 1;
            self.transactions += 1;
            let count = turn.rng.between(1, 4);
            let messages: Vec<u64> = (self.next..self.next + count).collect();
            self.next += count;
            let number = self.base + self.transactions;
            for message in &messages {
                turn.history
                    .attempted(&self.id(*message), &self.destination, home, Some(number));
            }
            if turn.rng.one_in(6) {
                return self.abort(number, &messages, turn);
            }
            let odd = match (self.settled, turn.rng.below(10)) {
                (Some(settled), 0) => Some(Odd::Resends(settled)),
                (Some(settled), 1) => Some(Odd::Reuses(settled)),
                _ => None,
            };
            if let Some(Odd::Reuses(_)) = odd {
                turn.history
                    .attempted(&self.false_id(number), &self.destination, home, Some(number));
            }
            self.current = Some(Current {
                number,
                messages,
                odd,
                receipt: None,
            });
        }
        let Some(current) = self.current.as_mut().filter(|current| current.receipt.is_none()) else {
            return;
        };
        let receipt = receipts.next();
        current.receipt = Some(receipt.clone());
        let (name, messages, odd, number) = (receipt.clone(), current.messages.clone(), current.odd, current.number);
        turn.frames
            .push(Frame::new(Command::Begin).with("transaction", name.clone()));
        for message in messages {
            turn.frames.push(self.frame(message).with("transaction", name.clone()));
        }
        let odd = match odd {
            Some(Odd::Resends(settled)) => Some(self.frame(settled)),
            Some(Odd::Reuses(settled)) => Some(self.numbered(settled, &self.false_id(number))),
            None => None,
        };
        turn.frames
            .extend(odd.map(|frame| frame.with("transaction", name.clone())));
        turn.frames.push(
            Frame::new(Command::Commit)
                .with("transaction", name)
                .with("receipt", receipt),
        );
    }

    fn abort(&self, number: u64, messages: &[u64], turn: &mut Turn<'_>) {
        let name = format!("abort-{number}");
        turn.history.transactions.entry(number).or_default().aborted = true;
        turn.frames
            .push(Frame::new(Command::Begin).with("transaction", name.clone()));
        for message in messages {
            turn.frames.push(self.frame(*message).with("transaction", name.clone()));
        }
        turn.frames.push(Frame::new(Command::Abort).with("transaction", name));
    }

    fn id(&self, number: u64) -> String {
        format!("{}/{number}", self.name)
    }

    /// The message of a transaction that has a number of before.
    fn false_id(&self, transaction: u64) -> String {
        format!("{}-again/{transaction}", self.name)
    }

    fn frame(&self, number: u64) -> Frame {
        self.numbered(number, &self.id(number))
    }

    fn numbered(&self, number: u64, id: &str) -> Frame {
        Frame::new(Command::Send)
            .with("destination", self.destination.clone())
            .with("persistent", "true")
            .with("producer-id", self.name.clone())
            .with("producer-sequence", number.to_string())
            .with_body(body_of(id))
    }
}
