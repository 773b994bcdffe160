//! One producer's window: what it has sent without receipt, and the refusals that it has not told yet.

use std::{collections::VecDeque, sync::Arc};

use bytes::{Bytes, BytesMut};
use tokio::sync::Notify;

use crate::{
    error::SendError,
    outgoing::{self, Answer, Outgoing, SendFrame},
};

/// Refusals kept until they are asked for; of more, the first ones are kept and the others counted as `refused`.
const REFUSALS_MAX: usize = 64;

pub(crate) struct ProducerState {
    /// Messages of a transaction; 0 for none.
    transaction_messages: usize,
    /// The request number of the BEGIN that has no COMMIT yet, and how many messages came since.
    transaction: Option<(u64, usize)>,
    /// What every frame begins with.
    prefix: Bytes,
    buffer: BytesMut,
    next_sequence: u64,
    window_messages_max: usize,
    window_bytes_max: usize,
    /// Messages and bytes without receipt.
    pub(crate) waiting: usize,
    waiting_bytes: usize,
    /// Messages with a receipt.
    pub(crate) confirmed: u64,
    refusals: VecDeque<SendError>,
    /// Told when there is room for many messages, everything is answered, or the end.
    pub(crate) changed: Arc<Notify>,
    /// Told of every answer, and of the end.
    pub(crate) answered: Arc<Notify>,
}

impl ProducerState {
    pub(crate) fn new(
        prefix: Bytes,
        first_sequence: u64,
        window_messages_max: usize,
        window_bytes_max: usize,
        transaction_messages: usize,
        changed: Arc<Notify>,
        answered: Arc<Notify>,
    ) -> Self {
        Self {
            transaction_messages,
            transaction: None,
            prefix,
            buffer: BytesMut::new(),
            next_sequence: first_sequence,
            window_messages_max: window_messages_max.max(1),
            window_bytes_max,
            waiting: 0,
            waiting_bytes: 0,
            confirmed: 0,
            refusals: VecDeque::new(),
            changed,
            answered,
        }
    }

    /// The connection is over: nobody is to wait any longer.
    pub(crate) fn on_ended(&self) {
        self.changed.notify_waiters();
        self.answered.notify_waiters();
    }

    /// Whether the window has room for the message. A transaction that was begun has: nothing of it is answered before
    /// its end.
    pub(crate) fn has_room(&self, message: &Outgoing) -> bool {
        let bytes = self.waiting_bytes.saturating_add(message.body.len());
        let full = self.waiting >= self.window_messages_max || bytes > self.window_bytes_max;
        !full || self.waiting == 0 || self.transaction.is_some()
    }

    /// Whether the next message is the first one of a transaction.
    pub(crate) fn is_to_begin(&self) -> bool {
        self.transaction_messages > 0 && self.transaction.is_none()
    }

    pub(crate) fn on_begun(&mut self, begin: u64) {
        self.transaction = Some((begin, 0));
    }

    /// Whether the transaction has all its messages.
    pub(crate) fn is_to_commit(&self) -> bool {
        self.transaction
            .is_some_and(|(_, messages)| messages >= self.transaction_messages)
    }

    /// The request number of the BEGIN that is to have its COMMIT now.
    pub(crate) fn take_transaction(&mut self) -> Option<u64> {
        self.transaction.take().map(|(begin, _)| begin)
    }

    /// Encodes the message, for which there is room: its number, its transaction, its frame.
    pub(crate) fn take(&mut self, receipt: u64, message: &Outgoing) -> (u64, Option<u64>, SendFrame) {
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        let answer = match &mut self.transaction {
            Some((begin, messages)) => {
                *messages += 1;
                Answer::Transaction(*begin)
            }
            None => Answer::Receipt(receipt),
        };
        let frame = outgoing::encode(&mut self.buffer, &self.prefix, sequence, answer, message);
        self.waiting += 1;
        self.waiting_bytes += frame.len();
        (sequence, self.transaction.map(|(begin, _)| begin), frame)
    }

    pub(crate) fn on_answered(&mut self, frame_bytes: usize) {
        self.confirmed += 1;
        self.release(frame_bytes);
    }

    pub(crate) fn on_refused(&mut self, refusal: SendError, frame_bytes: usize) {
        if self.refusals.len() < REFUSALS_MAX {
            self.refusals.push_back(refusal);
        }
        self.release(frame_bytes);
    }

    /// The oldest refusal that was not told yet.
    pub(crate) fn take_refusal(&mut self) -> Option<SendError> {
        self.refusals.pop_front()
    }

    fn release(&mut self, frame_bytes: usize) {
        self.waiting -= 1;
        self.waiting_bytes -= frame_bytes;
        // Waking a sender for each receipt would cost a switch of tasks per message.
        if self.waiting == 0 || self.waiting * 2 <= self.window_messages_max {
            self.changed.notify_waiters();
        }
        // Whoever waits for this runs after the receipts that came together; later calls find nobody waiting.
        self.answered.notify_waiters();
    }
}
