//! A program that is started again and again under the same producer id, and does not know exactly how far it had counted.
//! It sends other messages under numbers of before; those are refused, and it gives them up.

use std::collections::VecDeque;

use ferrymq_protocol::stomp::{Command, Frame};

use super::Turn;
use crate::history::body_of;

/// See the file's head.
#[derive(Debug)]
pub(crate) struct Restarter {
    pub(crate) name: String,
    pub(crate) destination: String,
    pub(crate) left: u64,
    /// Which start of the program this is.
    program: u64,
    next: u64,
    next_at_us: u64,
    unanswered: VecDeque<u64>,
}

const WINDOW: usize = 4;

impl Restarter {
    pub(crate) fn new(name: &str, destination: &str, count: u64) -> Self {
        Self {
            name: name.to_owned(),
            destination: destination.to_owned(),
            left: count,
            program: 1,
            next: 1,
            next_at_us: 0,
            unanswered: VecDeque::new(),
        }
    }

    pub(crate) fn is_done(&self) -> bool {
        self.unanswered.is_empty()
    }

    pub(super) fn resend(&mut self, turn: &mut Turn<'_>) {
        for number in &self.unanswered {
            turn.frames.push(self.frame(*number));
        }
    }

    /// Receipts are called like messages.
    pub(super) fn answered(&mut self, receipt: &str, turn: &mut Turn<'_>) {
        turn.history.acknowledged(receipt, turn.now_us);
        self.forget(receipt);
    }

    /// For good.
    pub(super) fn refused(&mut self, receipt: &str) {
        self.forget(receipt);
    }

    fn forget(&mut self, receipt: &str) {
        let known = self.unanswered.iter().position(|number| self.id(*number) == receipt);
        if let Some(at) = known {
            self.unanswered.remove(at);
        }
    }

    pub(super) fn tick(&mut self, home: usize, turn: &mut Turn<'_>) {
        if !turn.load || self.left == 0 || turn.now_us < self.next_at_us || self.unanswered.len() >= WINDOW {
            return;
        }
        self.next_at_us = turn.now_us + turn.rng.below(60_000);
        if turn.rng.one_in(12) {
            self.program += 1;
            self.next = self.next.saturating_sub(turn.rng.between(1, 4)).max(1);
            self.unanswered.clear();
            turn.cuts = true;
            return;
        }
        let number = self.next;
        self.next += 1;
        self.left -= 1;
        self.unanswered.push_back(number);
        turn.history.attempted(&self.id(number), &self.destination, home, None);
        turn.frames.push(self.frame(number));
    }

    fn id(&self, number: u64) -> String {
        format!("{}.{}/{number}", self.name, self.program)
    }

    fn frame(&self, number: u64) -> Frame {
        let id = self.id(number);
        Frame::new(Command::Send)
            .with("destination", self.destination.clone())
            .with("persistent", "true")
            .with("producer-id", self.name.clone())
            .with("producer-sequence", number.to_string())
            .with("receipt", id.clone())
            .with_body(body_of(&id))
    }
}
