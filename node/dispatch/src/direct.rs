//! Non-persistent messages that go from their producer straight to a consumer, without the log (DESIGN §3).
//!
//! Invariant: such a message is in exactly one of these: `held` (its producer has no answer yet); with a consumer; in a
//! client's transaction, acknowledged; in `returned`; or it was proposed to the log and is a message like any other.
//!
//! Order (P6): a message goes this way only where nothing of its queue is undelivered, nor on its way through the log.
//! Whatever the log brings later has a number from `Direct::behind` on. So a message that comes back knows its place
//! among those of the log, and waits for it here, in memory: the log could only put it behind all others.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use ferrymq_broker::{Command, Numbered, PutBack, QueueId};
use ferrymq_message::StoredMessage;

use crate::{Action, ConnectionId};

/// A non-persistent message for a queue, as its producer sent it.
#[derive(Debug, Clone)]
pub struct Arrival {
    /// The producer's connection.
    pub connection: ConnectionId,
    /// The producer's name and its number for this message (P5).
    pub producer: Option<Numbered>,
    /// The encoded command that would store it.
    pub command: Bytes,
    /// The message inside of the command.
    pub message: StoredMessage,
}

/// Which ways are open to an arrival.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ways {
    /// Straight to a consumer. Not without a valid lease (P7), nor behind something of the same producer in the log.
    pub direct: bool,
    /// A moment in memory, unanswered.
    pub wait: bool,
}

/// What becomes of an arrival.
#[derive(Debug)]
pub enum Arrived {
    /// It is with a consumer, or needs none: the producer can be answered.
    Done,
    /// It shall be held, under a ticket of the caller's: see [`crate::Dispatcher::hold`].
    Wait(Arrival),
    /// It takes the log: see [`crate::Dispatcher::logging`].
    Log(Arrival),
}

/// A message that a consumer has, or had, without the log knowing of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Direct {
    pub(crate) message: StoredMessage,
    /// It comes after the queue's logged messages below this number, and before the others.
    pub(crate) behind: u64,
    /// Its place among those of the same `behind`.
    pub(crate) number: u64,
    pub(crate) redeliveries: u16,
}

/// What status shows of one queue's direct messages: to be added to what the state counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DirectCounts {
    /// Messages that are in this master's memory only: with consumers, or waiting after they came back.
    pub messages: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Messages that ever went this way in this term, without those that were put back into the log.
    pub enqueued: u64,
    /// Those of them that are gone.
    pub dequeued: u64,
}

/// An arrival that waits for what is before it.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) ticket: u64,
    pub(crate) since_ms: i64,
    pub(crate) arrival: Arrival,
}

/// One queue's direct messages.
#[derive(Debug, Default)]
pub(crate) struct Directs {
    pub(crate) held: VecDeque<Held>,
    /// Came back from consumers, by place.
    pub(crate) returned: BTreeMap<(u64, u64), Direct>,
    /// Non-persistent messages of this queue on their way through the log.
    pub(crate) logging: usize,
    /// Something was held for too long: nothing is, until the consumers have caught up with the log.
    pub(crate) impatient: bool,
    /// When something was held or released last.
    moved_ms: i64,
    /// Deliveries that all consumers of the queue together may have unacknowledged.
    pub(crate) prefetch: u64,
    pub(crate) counts: DirectCounts,
    next_number: u64,
}

/// Arrivals that one queue holds, at most.
pub(crate) const HELD_MESSAGES_MAX: usize = 4096;
/// How long arrivals are held while nothing moves and the log is not what they wait for, in milliseconds: one for each
/// message of the consumers' credit, within these bounds. Consumers with much credit are there for a stream, and one that
/// keeps up acknowledges something in that time; one that takes message by message may need long for each.
const STANDSTILL_MS_MIN: u64 = 5;
const STANDSTILL_MS_MAX: u64 = 50;
/// How many times as long an arrival is held at most, whatever moves.
const STANDSTILLS_MAX: i64 = 5;
/// What a message costs in memory beyond its bytes.
const OVERHEAD_BYTES: usize = 256;

impl Direct {
    /// Memory that it takes, in bytes.
    pub(crate) fn cost(&self) -> usize {
        cost(&self.message)
    }

    pub(crate) fn place(&self) -> (u64, u64) {
        (self.behind, self.number)
    }
}

impl Directs {
    /// A message that is about to be delivered for the first time. `next_seq` is what the log's next message will get.
    pub(crate) fn begin(&mut self, message: StoredMessage, next_seq: u64) -> Direct {
        self.next_number += 1;
        self.counts.messages += 1;
        self.counts.bytes += message.bytes().len() as u64;
        self.counts.enqueued += 1;
        Direct {
            message,
            behind: next_seq,
            number: self.next_number,
            redeliveries: 0,
        }
    }

    /// A message is gone: acknowledged, or its time is over.
    pub(crate) fn end(&mut self, direct: &Direct) {
        let Self { counts, .. } = self;
        counts.messages = counts.messages.saturating_sub(1);
        counts.bytes = counts.bytes.saturating_sub(direct.message.bytes().len() as u64);
        counts.dequeued += 1;
    }

    /// A message becomes one of the log's.
    pub(crate) fn move_out(&mut self, direct: &Direct) {
        self.end(direct);
        self.counts.enqueued = self.counts.enqueued.saturating_sub(1);
        self.counts.dequeued -= 1;
    }

    pub(crate) fn returned_bytes(&self) -> usize {
        self.returned.values().map(Direct::cost).sum()
    }

    /// Messages with consumers, or acknowledged in transactions.
    pub(crate) fn in_flight(&self) -> usize {
        (self.counts.messages as usize).saturating_sub(self.returned.len())
    }

    /// Messages that wait for a consumer.
    pub(crate) fn waiting(&self) -> usize {
        self.held.len() + self.returned.len()
    }

    /// A message comes back to its place.
    pub(crate) fn take_back(&mut self, mut direct: Direct, counted: bool) {
        direct.redeliveries = direct.redeliveries.saturating_add(u16::from(counted));
        self.returned.insert(direct.place(), direct);
    }

    /// The first one that came back, of those at or behind `from`, if it comes before this logged message.
    pub(crate) fn first_returned(&self, from: (u64, u64), before: Option<u64>) -> Option<(u64, u64)> {
        let (&place, _) = self.returned.range(from..).next()?;
        before.is_none_or(|seq| place.0 <= seq).then_some(place)
    }

    pub(crate) fn hold(&mut self, held: Held) {
        if self.held.is_empty() {
            self.moved_ms = held.since_ms;
        }
        self.held.push_back(held);
    }

    /// The first one that is held is delivered.
    pub(crate) fn released(&mut self, now_ms: i64) {
        self.moved_ms = now_ms;
    }

    /// Until when what is held may be held, if nothing moves.
    pub(crate) fn held_until_ms(&self) -> Option<i64> {
        let standstill_ms = self.prefetch.clamp(STANDSTILL_MS_MIN, STANDSTILL_MS_MAX) as i64;
        let until_ms = self.held.front()?.since_ms + STANDSTILLS_MAX * standstill_ms;
        Some(match self.logging {
            0 => until_ms.min(self.moved_ms + standstill_ms),
            _ => until_ms,
        })
    }

    /// A clock that was set back holds nothing up.
    pub(crate) fn is_held_for_too_long(&self, now_ms: i64) -> bool {
        let is_back = self.held.front().is_some_and(|held| now_ms < held.since_ms);
        is_back || self.held_until_ms().is_some_and(|until_ms| until_ms <= now_ms)
    }

    /// Everything held takes the log, in its order.
    pub(crate) fn spill(&mut self, queue: QueueId, out: &mut Vec<Action>) {
        for held in self.held.drain(..) {
            self.logging += 1;
            out.push(Action::Log {
                queue,
                ticket: held.ticket,
                producer: held.arrival.producer,
                command: held.arrival.command,
            });
        }
    }

    /// A message that came back takes the log: behind all others, with its count.
    pub(crate) fn put_back(&mut self, queue: QueueId, direct: Direct, out: &mut Vec<Action>) {
        self.move_out(&direct);
        self.logging += 1;
        out.push(Action::PutBack {
            queue,
            command: Command::PutBack(PutBack {
                queue,
                redeliveries: direct.redeliveries,
                dead_letter: None,
                message: direct.message.bytes().clone(),
            }),
        });
    }
}

pub(crate) fn cost(message: &StoredMessage) -> usize {
    message.bytes().len() + OVERHEAD_BYTES
}
