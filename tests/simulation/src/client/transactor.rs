//! A producer whose messages come in transactions. A transaction whose commit is not answered is done again as a whole,
//! with the same numbers; one that is aborted is never done again.

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
}

#[derive(Debug)]
struct Current {
    number: u64,
    messages: Vec<u64>,
    /// Over this connection.
    receipt: Option<String>,
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
            self.next_at_us = turn.now_us + turn.rng.below(60_000);
        }
    }

    pub(super) fn tick(&mut self, home: usize, receipts: &mut Receipts<'_>, turn: &mut Turn<'_>) {
        if self.current.is_none() && turn.storm && self.left > 0 && turn.now_us >= self.next_at_us {
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
            self.current = Some(Current {
                number,
                messages,
                receipt: None,
            });
        }
        let Some(current) = self.current.as_mut().filter(|current| current.receipt.is_none()) else {
            return;
        };
        let receipt = receipts.next();
        current.receipt = Some(receipt.clone());
        let (name, messages) = (receipt.clone(), current.messages.clone());
        turn.frames
            .push(Frame::new(Command::Begin).with("transaction", name.clone()));
        for message in messages {
            turn.frames.push(self.frame(message).with("transaction", name.clone()));
        }
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

    fn frame(&self, number: u64) -> Frame {
        Frame::new(Command::Send)
            .with("destination", self.destination.clone())
            .with("persistent", "true")
            .with("producer-id", self.name.clone())
            .with("producer-sequence", number.to_string())
            .with_body(body_of(&self.id(number)))
    }
}
