//! One client connection's side of a language: the trait by which node's connection drives any of them.
//!
//! The connection reads bytes into a buffer, calls [`Session::on_bytes`], writes [`Output::take_chunks`], and only then
//! passes [`Output::requests`] on in order, so that an automatic acknowledgement follows its message.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

use crate::{AckTarget, Delivery, Refusal, Request, Token, Verdict};

/// Why and how the connection shall end, once the chunks are written and the requests passed on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Close {
    /// For the log.
    pub reason: String,
    /// The client asked for it.
    pub clean: bool,
}

/// What a session wants done. The connection hands in the same one again and again, emptied.
#[derive(Debug, Default)]
pub struct Output {
    chunks: VecDeque<Bytes>,
    chunks_bytes: usize,
    tail: BytesMut,
    /// In the order in which the broker must see them.
    pub requests: Vec<Request>,
    /// Set once; the session takes no more input after it.
    pub close: Option<Close>,
}

impl Output {
    /// A body of this size or more becomes a chunk of its own instead of being copied, in bytes.
    pub const OWN_CHUNK_BYTES_MIN: usize = 4096;

    /// An empty output.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends bytes to be written to the client.
    pub fn put_slice(&mut self, bytes: &[u8]) {
        self.tail.extend_from_slice(bytes);
    }

    /// Appends bytes to be written to the client, sharing their memory where they are many.
    pub fn put_bytes(&mut self, bytes: Bytes) {
        if bytes.len() < Self::OWN_CHUNK_BYTES_MIN {
            return self.put_slice(&bytes);
        }
        self.end_tail();
        self.chunks_bytes += bytes.len();
        self.chunks.push_back(bytes);
    }

    /// Where small pieces are written, behind everything put so far.
    pub(crate) fn tail(&mut self) -> &mut BytesMut {
        &mut self.tail
    }

    /// Bytes waiting to be written.
    pub fn bytes(&self) -> usize {
        self.chunks_bytes + self.tail.len()
    }

    /// Takes what is to be written, in order.
    pub fn take_chunks(&mut self) -> VecDeque<Bytes> {
        self.end_tail();
        self.chunks_bytes = 0;
        std::mem::take(&mut self.chunks)
    }

    /// Asks for everything up to `tag` to be acknowledged as consumed; joins with a request of the same kind before it,
    /// so that a run of deliveries costs one.
    pub fn acknowledge_up_to(&mut self, subscription: u32, tag: u64) {
        if let Some(Request::Acknowledge {
            token: None,
            subscription: last,
            target: AckTarget::UpTo(up_to),
            verdict: Verdict::Consumed,
            transaction: None,
        }) = self.requests.last_mut()
            && *last == subscription
        {
            *up_to = tag.max(*up_to);
            return;
        }
        self.requests.push(Request::Acknowledge {
            token: None,
            subscription,
            target: AckTarget::UpTo(tag),
            verdict: Verdict::Consumed,
            transaction: None,
        });
    }

    /// Ends the connection after what was put so far; the first reason stays.
    pub fn close(&mut self, reason: impl Into<String>, clean: bool) {
        self.close.get_or_insert_with(|| Close {
            reason: reason.into(),
            clean,
        });
    }

    fn end_tail(&mut self) {
        if !self.tail.is_empty() {
            self.chunks_bytes += self.tail.len();
            self.chunks.push_back(self.tail.split().freeze());
        }
    }
}

/// One connection's state in one client language. Nothing in it waits: every call returns at once with its output.
pub trait Session: Send {
    /// Takes what it can use off the front of `input` and leaves the rest there. `now_ms` is the wall clock
    /// (milliseconds since 1970, UTC), for the timestamp of messages.
    ///
    /// Whatever stays in `input` is handed in again with more bytes behind it, never changed. While
    /// [`Session::is_paused`] the session takes nothing; call this again after the [`Session::on_reply`] that ends the
    /// pause even if no new bytes have come.
    fn on_bytes(&mut self, input: &mut BytesMut, now_ms: i64, out: &mut Output);

    /// True while the session takes no input (it waits for the reply to a login, too many replies are outstanding, or
    /// the connection is closing): the connection should not read more.
    fn is_paused(&self) -> bool;

    /// The reply to the request with this token. Replies may come in any order; a token that is not awaited is ignored.
    fn on_reply(&mut self, token: Token, result: Result<(), Refusal>, out: &mut Output);

    /// A request without a token failed, or the broker can serve this connection no longer (not the master any more,
    /// stopping). Tells the client, and ends the connection where the language asks for that.
    fn on_failure(&mut self, refusal: Refusal, out: &mut Output);

    /// Writes a message to the client. A delivery for a subscription that has ended is dropped: its end has given it
    /// back.
    fn on_delivery(&mut self, delivery: Delivery, out: &mut Output);

    /// A browser has seen every message that was there. Nothing to do for a language that has no browsers.
    fn on_browse_end(&mut self, subscription: u32, out: &mut Output);

    /// Time has passed; `mono_ms` is a monotonic clock of any origin. Keeps the connection alive, or ends it where the
    /// peer is silent for too long.
    fn on_tick(&mut self, mono_ms: u64, out: &mut Output);

    /// The connection does not read for now, so the peer's silence says nothing. Called before each
    /// [`Session::on_tick`] while that is so.
    fn on_throttled(&mut self);

    /// When [`Session::on_tick`] is wanted, on its clock; 0 is at once, `None` is never. Ask again after every call.
    fn next_tick_ms(&self) -> Option<u64>;

    /// Replies outstanding.
    fn awaiting(&self) -> usize;

    /// Bytes that the session has taken in and not passed on: the head of an unfinished frame, names of replies.
    fn held_bytes(&self) -> usize;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_bodies_are_shared_and_small_ones_joined() {
        let mut out = Output::new();
        let body = Bytes::from(vec![7; Output::OWN_CHUNK_BYTES_MIN]);
        out.put_slice(b"head");
        out.put_bytes(body.clone());
        out.put_slice(b"\0");
        out.put_bytes(Bytes::from_static(b"next"));
        assert_eq!(out.bytes(), 4 + body.len() + 5);
        let chunks = out.take_chunks();
        assert_eq!(
            chunks,
            [Bytes::from_static(b"head"), body.clone(), Bytes::from_static(b"\0next")]
        );
        assert_eq!(chunks[1].as_ptr(), body.as_ptr());
        assert_eq!(out.bytes(), 0);
    }

    #[test]
    fn a_run_of_acknowledgements_is_one_request() {
        let mut out = Output::new();
        for (subscription, tag) in [(1, 1), (1, 2), (2, 1), (1, 3), (1, 4)] {
            out.acknowledge_up_to(subscription, tag);
        }
        let seen: Vec<_> = out
            .requests
            .iter()
            .map(|r| match r {
                Request::Acknowledge {
                    subscription,
                    target: AckTarget::UpTo(tag),
                    ..
                } => (*subscription, *tag),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(seen, [(1, 2), (2, 1), (1, 4)]);
    }
}
