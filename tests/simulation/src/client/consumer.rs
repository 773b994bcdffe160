//! A consumer: takes a moment over each message, acknowledges in one of several ways, and now and then rejects one,
//! aborts, stalls, leaves, or moves to another group.

use std::collections::{BTreeMap, VecDeque};

use ferrymq_protocol::stomp::{Command, Frame};

use super::{Receipts, Turn};
use crate::history::{Taker, id_in};

/// How it acknowledges.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ack {
    Auto,
    Individual,
    Cumulative,
    /// Some at a time, in transactions.
    Transacted,
}

/// See the file's head.
#[derive(Debug)]
pub(crate) struct Consumer {
    pub(crate) destination: String,
    pub(crate) ack: Ack,
    pub(crate) prefetch: u32,
    /// The name of its durable subscription.
    pub(crate) durable: Option<String>,
    /// Under which its messages are accounted; none where nothing is promised.
    pub(crate) taker: Option<Taker>,
    /// It rejects one message in so many.
    pub(crate) rejects_one_in: u64,
    /// It takes so long over a message, at most.
    pub(crate) work_us: u64,
    pub(crate) subscribed: bool,
    /// Number of its subscription: that of the connection.
    pub(crate) subscription: u64,
    held: VecDeque<Held>,
    asked: BTreeMap<String, Vec<String>>,
    next_at_us: u64,
}

#[derive(Debug)]
struct Held {
    id: String,
    ack: String,
}

impl Consumer {
    pub(crate) fn new(destination: &str, ack: Ack, prefetch: u32, work_us: u64) -> Self {
        Self {
            destination: destination.to_owned(),
            ack,
            prefetch,
            durable: None,
            taker: Some(destination.to_owned()),
            rejects_one_in: 0,
            work_us,
            subscribed: false,
            subscription: 0,
            held: VecDeque::new(),
            asked: BTreeMap::new(),
            next_at_us: 0,
        }
    }

    pub(super) fn waits(&self) -> bool {
        !self.subscribed || !self.asked.is_empty()
    }

    /// Nothing is held or asked for.
    pub(crate) fn is_idle(&self) -> bool {
        self.subscribed && self.held.is_empty() && self.asked.is_empty()
    }

    pub(super) fn lost(&mut self) {
        self.subscribed = false;
        self.held.clear();
        self.asked.clear();
    }

    pub(super) fn subscribe(&mut self, connection: u64, receipts: &mut Receipts<'_>, turn: &mut Turn<'_>) {
        self.subscription = connection;
        let receipt = receipts.next();
        let ack = match self.ack {
            Ack::Auto => "auto",
            Ack::Cumulative => "client",
            Ack::Individual | Ack::Transacted => "client-individual",
        };
        let mut frame = Frame::new(Command::Subscribe)
            .with("id", "s")
            .with("destination", self.destination.clone())
            .with("ack", ack)
            .with("activemq.prefetchSize", self.prefetch.to_string())
            .with("receipt", receipt.clone());
        if let Some(name) = &self.durable {
            frame = frame.with("activemq.subscriptionName", name.clone());
        }
        turn.frames.push(frame);
        self.asked.insert(receipt, Vec::new());
    }

    pub(super) fn answered(&mut self, receipt: &str, home: usize, turn: &mut Turn<'_>) {
        let Some(ids) = self.asked.remove(receipt) else { return };
        if !self.subscribed {
            self.subscribed = true;
            if let Some(taker) = self.taker.as_ref().filter(|_| self.durable.is_some()) {
                let takers = turn.history.durable.entry(self.destination.clone()).or_default();
                if !turn.load {
                    takers.insert(taker.clone());
                }
            }
        }
        if let Some(taker) = &self.taker {
            for id in ids {
                turn.history.consumed(&id, taker, home, turn.now_us);
            }
        }
    }

    pub(super) fn take(&mut self, frame: &Frame, turn: &mut Turn<'_>) {
        let id = id_in(&frame.body).unwrap_or_default().to_owned();
        if self.ack == Ack::Auto {
            return;
        }
        let ack = frame.headers.get("ack").unwrap_or_default().to_owned();
        self.held.push_back(Held { id, ack });
        let held = self.held.len() as u32;
        if held > self.prefetch {
            let text = format!(
                "{held} messages of {} are unacknowledged, its prefetch is {}",
                self.destination, self.prefetch
            );
            turn.history.break_promise(8, text);
        }
        if self.held.len() == 1 {
            self.next_at_us = self.next_at_us.max(turn.now_us + turn.rng.below(self.work_us + 1));
        }
    }

    pub(super) fn tick(&mut self, _home: usize, receipts: &mut Receipts<'_>, turn: &mut Turn<'_>) {
        if turn.now_us < self.next_at_us || self.held.is_empty() {
            return;
        }
        self.next_at_us = turn.now_us + turn.rng.below(self.work_us + 1);
        match self.ack {
            Ack::Auto => {}
            Ack::Individual => {
                if let Some(held) = self.held.pop_front() {
                    let rejects = turn.rng.one_in(self.rejects_one_in);
                    self.acknowledge(held, rejects, receipts, turn);
                }
            }
            Ack::Cumulative => {
                let count = turn.rng.between(1, self.held.len() as u64) as usize;
                let held: Vec<Held> = self.held.drain(..count).collect();
                let receipt = receipts.next();
                if let Some(last) = held.last() {
                    turn.frames
                        .push(ack(Command::Ack, &last.ack).with("receipt", receipt.clone()));
                }
                self.ask(receipt, held.into_iter().map(|held| held.id).collect(), turn);
            }
            Ack::Transacted => self.transact(receipts, turn),
        }
    }

    fn acknowledge(&mut self, held: Held, rejects: bool, receipts: &mut Receipts<'_>, turn: &mut Turn<'_>) {
        let receipt = receipts.next();
        let command = if rejects { Command::Nack } else { Command::Ack };
        turn.frames
            .push(ack(command, &held.ack).with("receipt", receipt.clone()));
        let ids = if rejects { Vec::new() } else { vec![held.id] };
        self.ask(receipt, ids, turn);
    }

    /// An acknowledgement of these is on its way.
    fn ask(&mut self, receipt: String, ids: Vec<String>, turn: &mut Turn<'_>) {
        for id in &ids {
            turn.history.settles(id, self.taker.as_ref());
        }
        self.asked.insert(receipt, ids);
    }

    fn transact(&mut self, receipts: &mut Receipts<'_>, turn: &mut Turn<'_>) {
        let count = turn.rng.between(1, self.held.len() as u64) as usize;
        let held: Vec<Held> = self.held.drain(..count).collect();
        let receipt = receipts.next();
        turn.frames
            .push(Frame::new(Command::Begin).with("transaction", receipt.clone()));
        for one in &held {
            turn.frames
                .push(ack(Command::Ack, &one.ack).with("transaction", receipt.clone()));
        }
        let aborts = turn.load && turn.rng.one_in(8);
        let (command, ids) = match aborts {
            true => (Command::Abort, Vec::new()),
            false => (Command::Commit, held.into_iter().map(|held| held.id).collect()),
        };
        turn.frames.push(
            Frame::new(command)
                .with("transaction", receipt.clone())
                .with("receipt", receipt.clone()),
        );
        self.ask(receipt, ids, turn);
    }
}

fn ack(command: Command, id: &str) -> Frame {
    Frame::new(command).with("id", id)
}
