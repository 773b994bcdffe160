//! One producer's window: what it has sent without receipt, and the refusals that it has not told yet.

use std::{collections::VecDeque, sync::Arc};

use bytes::{Bytes, BytesMut};
use tokio::sync::Notify;

use crate::{
    error::SendError,
    outgoing::{self, Outgoing, SendFrame},
};

/// Refusals kept until they are asked for; of more, the first ones are kept and the others counted as `refused`.
const REFUSALS_MAX: usize = 64;

pub(crate) struct ProducerState {
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
    /// Told when there is room, an answer, or the end.
    pub(crate) changed: Arc<Notify>,
}

impl ProducerState {
    pub(crate) fn new(
        prefix: Bytes,
        first_sequence: u64,
        window_messages_max: usize,
        window_bytes_max: usize,
        changed: Arc<Notify>,
    ) -> Self {
        Self {
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
        }
    }

    /// Encodes the message if the window has room for it.
    pub(crate) fn take(&mut self, receipt: u64, message: &Outgoing) -> Option<(u64, SendFrame)> {
        let full =
            self.waiting >= self.window_messages_max || self.waiting_bytes + message.body.len() > self.window_bytes_max;
        if full && self.waiting > 0 {
            return None;
        }
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        let frame = outgoing::encode(&mut self.buffer, &self.prefix, sequence, receipt, message);
        self.waiting += 1;
        self.waiting_bytes += frame.len();
        Some((sequence, frame))
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
    }
}
