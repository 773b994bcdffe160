//! A producer: numbers its messages, keeps what is unanswered, and sends it again in order over a new connection.

use std::collections::VecDeque;

use ferrymq_protocol::stomp::{Command, Frame};

use super::Turn;
use crate::history::body_of;

/// See the file's head.
#[derive(Debug)]
pub(crate) struct Producer {
    pub(crate) name: String,
    pub(crate) destination: String,
    pub(crate) window: usize,
    pub(crate) interval_us: u64,
    pub(crate) left: u64,
    /// When its messages expire, by its own clock; none for never.
    pub(crate) expires_ms: Option<i64>,
    next: u64,
    next_at_us: u64,
    unanswered: VecDeque<u64>,
}

impl Producer {
    pub(crate) fn new(name: &str, destination: &str, count: u64, window: usize, interval_us: u64) -> Self {
        Self {
            name: name.to_owned(),
            destination: destination.to_owned(),
            window,
            interval_us,
            left: count,
            expires_ms: None,
            next: 1,
            next_at_us: 0,
            unanswered: VecDeque::new(),
        }
    }

    pub(crate) fn is_done(&self) -> bool {
        self.unanswered.is_empty()
    }

    pub(super) fn waits(&self) -> bool {
        !self.unanswered.is_empty()
    }

    pub(super) fn resend(&mut self, turn: &mut Turn<'_>) {
        for number in &self.unanswered {
            turn.frames.push(self.frame(*number));
        }
    }

    pub(super) fn answered(&mut self, receipt: &str, turn: &mut Turn<'_>) {
        let number = receipt.parse().unwrap_or(0);
        self.unanswered.retain(|unanswered| *unanswered != number);
        turn.history.acknowledged(&self.id(number), turn.now_us);
    }

    pub(super) fn tick(&mut self, home: usize, turn: &mut Turn<'_>) {
        if !turn.load {
            return;
        }
        while self.left > 0 && self.unanswered.len() < self.window && turn.now_us >= self.next_at_us {
            let number = self.next;
            self.next += 1;
            self.left -= 1;
            self.unanswered.push_back(number);
            turn.history.attempted(&self.id(number), &self.destination, home, None);
            turn.frames.push(self.frame(number));
            if turn.rng.one_in(3) {
                self.next_at_us = turn.now_us + turn.rng.below(2 * self.interval_us);
            }
        }
    }

    fn id(&self, number: u64) -> String {
        format!("{}/{number}", self.name)
    }

    fn frame(&self, number: u64) -> Frame {
        let frame = Frame::new(Command::Send)
            .with("destination", self.destination.clone())
            .with("persistent", "true")
            .with("producer-id", self.name.clone())
            .with("producer-sequence", number.to_string())
            .with("receipt", number.to_string())
            .with_body(body_of(&self.id(number)));
        match self.expires_ms {
            Some(expires_ms) => frame.with("expires", expires_ms.to_string()),
            None => frame,
        }
    }
}
