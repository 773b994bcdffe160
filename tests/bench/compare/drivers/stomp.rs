//! The load over STOMP 1.2: sends with receipts; consumers acknowledge all that a read brought with one cumulative ACK.

use std::cell::Cell;

use anyhow::{Context, Result, bail, ensure};
use bytes::{BufMut, Bytes, BytesMut};
use ferrymq_bench::driver::{Driver, Endpoint, Receiver, Sender};

use super::{
    nats_frame::{number, put_decimal},
    stomp_frame::{StompConnection, StompFrame, take_frame},
    unconfirmed::Unconfirmed,
};

/// A non-persistent message is lost with its broker anyway, so a receipt now and then is enough to bound the window.
const NON_PERSISTENT_RECEIPT_EVERY: u64 = 16;

/// Connections go to the nodes in turn.
#[derive(Debug)]
pub(crate) struct StompDriver {
    pub(crate) addresses: Vec<String>,
    pub(crate) senders: Cell<usize>,
    pub(crate) receivers: Cell<usize>,
}

impl Driver for StompDriver {
    type Sender = StompSender;
    type Receiver = StompReceiver;

    async fn sender(&self, endpoint: Endpoint) -> Result<StompSender> {
        check(&endpoint)?;
        let connection = StompConnection::open(super::next(&self.addresses, &self.senders)).await?;
        let head = format!(
            "SEND\ndestination:{}\npersistent:{}\n",
            destination(&endpoint),
            endpoint.persistent
        );
        // A window that is smaller than the distance between receipts would never fill.
        let every = if endpoint.persistent {
            1
        } else {
            NON_PERSISTENT_RECEIPT_EVERY.min(endpoint.window_messages_max as u64)
        };
        Ok(StompSender {
            connection,
            head: head.into_bytes(),
            receipt_every: every,
            receipts_due: 0,
            next: 0,
            unconfirmed: Unconfirmed::default(),
        })
    }

    async fn receiver(&self, endpoint: Endpoint) -> Result<StompReceiver> {
        check(&endpoint)?;
        let mut connection = StompConnection::open(super::next(&self.addresses, &self.receivers)).await?;
        // Subscribers of a topic without a durable name have nothing that an acknowledgement could keep.
        let acknowledges = !endpoint.is_topic;
        let subscribe = format!(
            "SUBSCRIBE\nid:1\ndestination:{}\nack:{}\nactivemq.prefetchSize:{}\nreceipt:done\n\n\0",
            destination(&endpoint),
            if acknowledges { "client" } else { "auto" },
            endpoint.window_messages_max,
        );
        connection.call(subscribe.as_bytes()).await?;
        Ok(StompReceiver {
            connection,
            acknowledges,
            ack: Vec::new(),
        })
    }
}

fn check(endpoint: &Endpoint) -> Result<()> {
    ensure!(
        endpoint.transaction_messages == 0,
        "this STOMP driver makes no transactions"
    );
    Ok(())
}

fn destination(endpoint: &Endpoint) -> String {
    let kind = if endpoint.is_topic { "topic" } else { "queue" };
    format!("/{kind}/{}", endpoint.destination)
}

/// See the module.
#[derive(Debug)]
pub(crate) struct StompSender {
    connection: StompConnection,
    /// Command and headers that are the same for every message.
    head: Vec<u8>,
    /// Every how-manieth message asks for a receipt, which stands for those before it too.
    receipt_every: u64,
    receipts_due: u64,
    next: u64,
    unconfirmed: Unconfirmed,
}

impl Sender for StompSender {
    async fn send(&mut self, body: Bytes) -> Result<()> {
        let out: &mut BytesMut = &mut self.connection.wire.output;
        out.put_slice(&self.head);
        if (self.next + 1).is_multiple_of(self.receipt_every) {
            out.put_slice(b"receipt:");
            put_decimal(out, self.next);
            out.put_u8(b'\n');
            self.receipts_due += 1;
        }
        out.put_slice(b"content-length:");
        put_decimal(out, body.len() as u64);
        out.put_slice(b"\n\n");
        out.put_slice(&body);
        out.put_u8(0);
        self.next += 1;
        self.unconfirmed.sent();
        self.connection.wire.relieve().await
    }

    async fn confirmed(&mut self, numbers: &mut Vec<u64>) -> Result<()> {
        let before = numbers.len();
        loop {
            while let Some(frame) = take_frame(&mut self.connection.wire.input)? {
                self.on_frame(&frame, numbers)?;
            }
            if self.receipts_due == 0 && self.next > 0 {
                // No receipt is to come for the last few: they are as good as the socket that took them.
                self.connection.wire.write_some()?;
                self.unconfirmed.up_to(self.next - 1, numbers);
            }
            if numbers.len() > before {
                return Ok(());
            }
            self.connection.wire.fill().await?;
        }
    }
}

impl StompSender {
    fn on_frame(&mut self, frame: &StompFrame, numbers: &mut Vec<u64>) -> Result<()> {
        ensure!(frame.command() == b"RECEIPT", "{}", frame.refusal());
        let id = frame.header(b"receipt-id").and_then(number);
        let id = id.context("a receipt for no message")? as u64;
        self.receipts_due = self.receipts_due.saturating_sub(1);
        if self.receipt_every == 1 {
            self.unconfirmed.one(id, numbers);
        } else {
            self.unconfirmed.up_to(id, numbers);
        }
        Ok(())
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct StompReceiver {
    connection: StompConnection,
    acknowledges: bool,
    /// What the latest message's acknowledgement names; empty where it has been acknowledged.
    ack: Vec<u8>,
}

impl Receiver for StompReceiver {
    async fn receive(&mut self, bodies: &mut Vec<Bytes>) -> Result<()> {
        let before = bodies.len();
        loop {
            while let Some(frame) = take_frame(&mut self.connection.wire.input)? {
                match frame.command() {
                    b"MESSAGE" => {
                        if self.acknowledges {
                            self.ack.clear();
                            self.ack.extend_from_slice(frame.header(b"ack").unwrap_or(b""));
                        }
                        bodies.push(frame.body);
                    }
                    _ => bail!("{}", frame.refusal()),
                }
            }
            if bodies.len() > before {
                return Ok(());
            }
            self.connection.wire.fill().await?;
        }
    }

    async fn acknowledge(&mut self) -> Result<()> {
        if self.ack.is_empty() {
            return Ok(());
        }
        let out = &mut self.connection.wire.output;
        // The identifier goes back as it came, with its escapes.
        out.put_slice(b"ACK\nid:");
        out.put_slice(&self.ack);
        out.put_slice(b"\n\n\0");
        self.ack.clear();
        self.connection.wire.write_some()
    }
}
