//! Clients: they speak STOMP, resend after a lost connection with the same numbers, and tell the history what they did.

mod consumer;
mod producer;
mod restarter;
mod transactor;

use ferrymq_protocol::stomp::{Command, Frame};

use crate::{history::History, rng::Rng};

pub(crate) use consumer::{Ack, Consumer};
pub(crate) use producer::Producer;
pub(crate) use restarter::Restarter;
pub(crate) use transactor::Transactor;

/// A client that hears nothing of what it asked for so long tries another node.
const PATIENCE_US: u64 = 3_000_000;

/// One client.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) id: usize,
    pub(crate) name: String,
    /// The group whose nodes it connects to.
    pub(crate) home: usize,
    /// The one node that it connects to; none for any.
    pub(crate) door: Option<usize>,
    pub(crate) job: Job,
    pub(crate) link: Link,
    /// No connection is sought before this.
    pub(crate) away_until_us: u64,
    /// It may leave, and appear in another group.
    pub(crate) wanders: bool,
    /// It does not connect before the node has noticed that its last connection is lost: there is never another one.
    pub(crate) alone: bool,
    /// It has gone for good.
    pub(crate) gone: bool,
    waiting_since_us: u64,
    next_receipt: u64,
}

/// How it stands with its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Link {
    Away,
    Connecting(u64),
    Open(u64),
}

/// What it does.
#[derive(Debug)]
pub(crate) enum Job {
    Produce(Producer),
    Restart(Restarter),
    Transact(Transactor),
    Consume(Consumer),
    /// Sends bytes that are no frames.
    Garbage,
}

/// What a client has at hand during its turn.
pub(crate) struct Turn<'a> {
    pub(crate) now_us: u64,
    pub(crate) rng: &'a mut Rng,
    pub(crate) history: &'a mut History,
    /// It sends these.
    pub(crate) frames: Vec<Frame>,
    pub(crate) bytes: Vec<u8>,
    /// It ends its connection.
    pub(crate) cuts: bool,
    /// New load may be made.
    pub(crate) load: bool,
}

impl Client {
    pub(crate) fn new(id: usize, name: String, home: usize, job: Job) -> Self {
        Self {
            id,
            name,
            home,
            door: None,
            job,
            link: Link::Away,
            away_until_us: 0,
            wanders: false,
            alone: false,
            gone: false,
            waiting_since_us: 0,
            next_receipt: 0,
        }
    }

    /// Whether it has nothing more to hear or to send.
    pub(crate) fn is_done(&self) -> bool {
        match &self.job {
            Job::Produce(producer) => producer.is_done(),
            Job::Restart(program) => program.is_done(),
            Job::Transact(transactor) => transactor.is_done(),
            Job::Consume(_) | Job::Garbage => true,
        }
    }

    pub(crate) fn connection(&self) -> Option<u64> {
        match self.link {
            Link::Away => None,
            Link::Connecting(connection) | Link::Open(connection) => Some(connection),
        }
    }

    /// The first bytes over a new connection.
    pub(crate) fn connected(&mut self, connection: u64, turn: &mut Turn<'_>) {
        self.link = Link::Connecting(connection);
        self.waiting_since_us = turn.now_us;
        if matches!(self.job, Job::Garbage) {
            turn.bytes = b"!no frame of any version\n\n\0\0\xff\xfe".to_vec();
            return;
        }
        turn.frames.push(
            Frame::new(Command::Connect)
                .with("accept-version", "1.2")
                .with("host", "sim")
                .with("client-id", self.name.clone()),
        );
    }

    pub(crate) fn hear(&mut self, frame: &Frame, turn: &mut Turn<'_>) {
        self.waiting_since_us = turn.now_us;
        let home = self.home;
        let mut receipts = Receipts {
            name: &self.name,
            next: &mut self.next_receipt,
        };
        match frame.command {
            Command::Connected => {
                if let Link::Connecting(connection) = self.link {
                    self.link = Link::Open(connection);
                    match &mut self.job {
                        Job::Produce(producer) => producer.resend(turn),
                        Job::Restart(program) => program.resend(turn),
                        Job::Transact(transactor) => transactor.begin_again(),
                        Job::Consume(consumer) => consumer.subscribe(connection, &mut receipts, turn),
                        Job::Garbage => {}
                    }
                }
            }
            Command::Receipt => {
                let receipt = frame.headers.get("receipt-id").unwrap_or_default().to_owned();
                match &mut self.job {
                    Job::Produce(producer) => producer.answered(&receipt, turn),
                    Job::Restart(program) => program.answered(&receipt, turn),
                    Job::Transact(transactor) => transactor.answered(&receipt, turn),
                    Job::Consume(consumer) => consumer.answered(&receipt, home, turn),
                    Job::Garbage => {}
                }
            }
            Command::Message => {
                if let Job::Consume(consumer) = &mut self.job {
                    consumer.take(frame, turn);
                }
            }
            // A later attempt would fare no better.
            Command::Error if frame.headers.get("refusal") == Some("malformed") => {
                let receipt = frame.headers.get("receipt-id").unwrap_or_default();
                match &mut self.job {
                    Job::Restart(program) => program.refused(receipt),
                    Job::Transact(transactor) => transactor.refused(receipt, turn),
                    _ => {}
                }
            }
            // Forgiven, or followed by the connection's end.
            _ => {}
        }
    }

    /// Says good-bye.
    pub(crate) fn leave(&mut self, turn: &mut Turn<'_>) {
        if let Link::Open(_) = self.link {
            turn.frames.push(Frame::new(Command::Disconnect));
        }
    }

    /// The connection is no more.
    pub(crate) fn disconnected(&mut self, turn: &mut Turn<'_>) {
        self.link = Link::Away;
        self.away_until_us = self.away_until_us.max(turn.now_us + turn.rng.between(10_000, 200_000));
        match &mut self.job {
            Job::Consume(consumer) => consumer.lost(),
            Job::Transact(transactor) => transactor.lost(),
            Job::Garbage => self.away_until_us += 1_000_000,
            Job::Produce(_) | Job::Restart(_) => {}
        }
    }

    pub(crate) fn tick(&mut self, turn: &mut Turn<'_>) {
        let waits = match (&self.link, &self.job) {
            (Link::Away, _) => return,
            (Link::Connecting(_), _) => true,
            (Link::Open(_), Job::Produce(producer)) => producer.waits(),
            (Link::Open(_), Job::Restart(program)) => !program.is_done(),
            (Link::Open(_), Job::Transact(transactor)) => transactor.waits(),
            (Link::Open(_), Job::Consume(consumer)) => consumer.waits(),
            (Link::Open(_), Job::Garbage) => false,
        };
        if waits && turn.now_us > self.waiting_since_us + PATIENCE_US {
            turn.cuts = true;
            return;
        }
        if !waits {
            self.waiting_since_us = turn.now_us;
        }
        if let Link::Open(_) = self.link {
            let mut receipts = Receipts {
                name: &self.name,
                next: &mut self.next_receipt,
            };
            match &mut self.job {
                Job::Produce(producer) => producer.tick(self.home, turn),
                Job::Restart(program) => program.tick(self.home, turn),
                Job::Transact(transactor) => transactor.tick(self.home, &mut receipts, turn),
                Job::Consume(consumer) => consumer.tick(self.home, &mut receipts, turn),
                Job::Garbage => {}
            }
        }
    }
}

/// Names for receipts.
pub(crate) struct Receipts<'a> {
    name: &'a str,
    next: &'a mut u64,
}

impl Receipts<'_> {
    pub(crate) fn next(&mut self) -> String {
        *self.next += 1;
        format!("{}-{}", self.name, self.next)
    }
}
