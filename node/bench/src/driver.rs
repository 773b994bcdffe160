//! How a load reaches a broker: each broker's protocol is one [`Driver`]; senders and receivers are all that the load
//! sees of it, so that every broker gets the same load.

use std::future::Future;

use anyhow::Result;
use bytes::Bytes;

/// Where one sender sends to or one receiver receives from.
#[derive(Debug, Clone)]
pub struct Endpoint {
    /// The destination's name without its kind, such as `bench.0`.
    pub destination: String,
    /// A topic instead of a queue.
    pub is_topic: bool,
    /// Whether messages are to survive the loss of any minority of the nodes.
    pub persistent: bool,
    /// Messages without confirmation (sender), or without acknowledgement (receiver's prefetch).
    pub window_messages_max: usize,
    /// Messages per transaction; 0 for none. A driver that knows no transactions refuses another number.
    pub transaction_messages: usize,
}

/// One broker, or group of brokers, as a load sees it.
pub trait Driver: 'static {
    /// What sends.
    type Sender: Sender;
    /// What receives.
    type Receiver: Receiver;

    /// Connects one more sender; each has a connection of its own.
    fn sender(&self, endpoint: Endpoint) -> impl Future<Output = Result<Self::Sender>>;

    /// Connects one more receiver; each has a connection of its own.
    fn receiver(&self, endpoint: Endpoint) -> impl Future<Output = Result<Self::Receiver>>;
}

/// Sends messages of one producer. The load calls `send` while the window has room, else `confirmed`.
pub trait Sender: 'static {
    /// Hands one message over; its number is one more than that of the one before, beginning with 0. May wait until the
    /// socket takes it.
    fn send(&mut self, body: Bytes) -> impl Future<Output = Result<()>>;

    /// Waits until at least one more message has been confirmed and appends the numbers of all that have. Must be safe
    /// to drop while it waits.
    fn confirmed(&mut self, numbers: &mut Vec<u64>) -> impl Future<Output = Result<()>>;
}

/// Receives messages of one consumer and acknowledges them.
pub trait Receiver: 'static {
    /// Waits for at least one message and appends the bodies of all that are there. Must be safe to drop while it waits.
    fn receive(&mut self, bodies: &mut Vec<Bytes>) -> impl Future<Output = Result<()>>;

    /// Acknowledges all that `receive` has returned, with the protocol's cumulative form where it has one. Does not wait
    /// for the broker's answer.
    fn acknowledge(&mut self) -> impl Future<Output = Result<()>>;
}
