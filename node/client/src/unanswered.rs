//! A request that has no receipt yet.

use std::collections::VecDeque;

use bytes::Bytes;
use ferrymq_protocol::{
    Output,
    stomp::{Command, Frame, Version, encode},
};

use crate::{core::Id, outgoing::SendFrame};

/// What awaits an answer. Sends and the bounds of their transactions are written again after a reconnect; the rest
/// concerns one socket only.
pub(crate) enum Unanswered {
    /// Answered out of order, or settled with its socket.
    Done,
    /// BEGIN; it is settled with its COMMIT.
    Begin {
        frame: VecDeque<Bytes>,
    },
    Send {
        producer: Id,
        sequence: u64,
        /// The request number of its BEGIN, with whose COMMIT it is answered.
        transaction: Option<u64>,
        frame: SendFrame,
    },
    Commit {
        producer: Id,
        /// The request number of its BEGIN.
        begin: u64,
        frame: VecDeque<Bytes>,
    },
    Subscribe {
        consumer: Id,
    },
    Acknowledge {
        consumer: Id,
    },
    Disconnect,
}

impl Unanswered {
    /// BEGIN with this request number, which also names the transaction.
    pub(crate) fn begin(number: u64) -> Self {
        let frame = Frame::new(Command::Begin).with("transaction", number.to_string());
        Self::Begin { frame: bytes(&frame) }
    }

    /// COMMIT with the request number `number`.
    pub(crate) fn commit(producer: Id, begin: u64, number: u64) -> Self {
        let frame = Frame::new(Command::Commit)
            .with("transaction", begin.to_string())
            .with("receipt", number.to_string());
        Self::Commit {
            producer,
            begin,
            frame: bytes(&frame),
        }
    }

    pub(crate) fn is_send(&self) -> bool {
        matches!(self, Self::Send { .. })
    }

    /// Puts what outlives a socket into the outbox.
    pub(crate) fn write(&self, outbox: &mut VecDeque<Bytes>) {
        match self {
            Self::Begin { frame } | Self::Commit { frame, .. } => outbox.extend(frame.iter().cloned()),
            Self::Send { frame, .. } => {
                outbox.push_back(frame.head.clone());
                if !frame.body.is_empty() {
                    outbox.push_back(frame.body.clone());
                    outbox.push_back(Bytes::from_static(b"\0"));
                }
            }
            Self::Done | Self::Subscribe { .. } | Self::Acknowledge { .. } | Self::Disconnect => {}
        }
    }

    /// The socket is gone, and what concerned only it.
    pub(crate) fn on_disconnected(&mut self) {
        match self {
            Self::Begin { .. } | Self::Send { .. } | Self::Commit { .. } => {}
            Self::Done | Self::Subscribe { .. } | Self::Acknowledge { .. } | Self::Disconnect => *self = Self::Done,
        }
    }
}

fn bytes(frame: &Frame) -> VecDeque<Bytes> {
    let mut out = Output::new();
    encode(frame, Version::V1_2, &mut out);
    out.take_chunks().into_iter().collect()
}
