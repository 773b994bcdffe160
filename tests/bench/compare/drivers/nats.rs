//! The load over NATS JetStream: each message is published with an inbox for its PubAck; consumers share one durable pull
//! consumer, ask for the next batch before the last one is used up, and acknowledge each message, since a consumer shared
//! by several has no cumulative form.

use std::cell::Cell;

use anyhow::{Context, Result, bail, ensure};
use bytes::{Bytes, BytesMut};
use ferrymq_bench::driver::{Driver, Endpoint, Receiver, Sender};

use super::{
    nats_frame::{NatsConnection, NatsMessage, number, put_decimal, put_message, take_message},
    unconfirmed::Unconfirmed,
};

/// The durable consumer's name in every stream.
pub(crate) const CONSUMER: &str = "c";
/// A pull that is not served for so long is made again; longer than any run has nothing to receive.
const PULL_EXPIRES_NS: u64 = 60_000_000_000;

/// A destination's stream: names of streams have no dots.
pub(crate) fn stream_of(destination: &str) -> String {
    destination.replace('.', "-")
}

/// Connections go to the nodes in turn.
#[derive(Debug)]
pub(crate) struct NatsDriver {
    pub(crate) addresses: Vec<String>,
    pub(crate) senders: Cell<usize>,
    pub(crate) receivers: Cell<usize>,
}

impl Driver for NatsDriver {
    type Sender = NatsSender;
    type Receiver = NatsReceiver;

    async fn sender(&self, endpoint: Endpoint) -> Result<NatsSender> {
        check(&endpoint)?;
        let name = format!("s{}", self.senders.get());
        let connection = NatsConnection::open(super::next(&self.addresses, &self.senders), &name).await?;
        Ok(NatsSender {
            reply: connection.inbox.clone(),
            inbox_bytes: connection.inbox.len(),
            connection,
            subject: endpoint.destination.into_bytes(),
            next: 0,
            unconfirmed: Unconfirmed::default(),
        })
    }

    async fn receiver(&self, endpoint: Endpoint) -> Result<NatsReceiver> {
        check(&endpoint)?;
        let name = format!("r{}", self.receivers.get());
        let connection = NatsConnection::open(super::next(&self.addresses, &self.receivers), &name).await?;
        let stream = stream_of(&endpoint.destination);
        Ok(NatsReceiver {
            pull: format!("$JS.API.CONSUMER.MSG.NEXT.{stream}.{CONSUMER}").into_bytes(),
            inbox: [&connection.inbox[..], b"m"].concat(),
            connection,
            batch: endpoint.window_messages_max,
            asked: 0,
            replies: Vec::new(),
        })
    }
}

fn check(endpoint: &Endpoint) -> Result<()> {
    ensure!(!endpoint.is_topic, "the JetStream driver knows work queues only");
    ensure!(
        endpoint.transaction_messages == 0,
        "the JetStream driver knows no transactions"
    );
    Ok(())
}

/// See the module.
#[derive(Debug)]
pub(crate) struct NatsSender {
    connection: NatsConnection,
    subject: Vec<u8>,
    /// The inbox, and after it room for the number of a message, by which its PubAck is known.
    reply: Vec<u8>,
    inbox_bytes: usize,
    next: u64,
    unconfirmed: Unconfirmed,
}

impl Sender for NatsSender {
    async fn send(&mut self, body: Bytes) -> Result<()> {
        let mut digits = BytesMut::with_capacity(20);
        put_decimal(&mut digits, self.next);
        self.reply.truncate(self.inbox_bytes);
        self.reply.extend_from_slice(&digits);
        put_message(&mut self.connection.wire.output, &self.subject, &self.reply, &body);
        self.next += 1;
        self.unconfirmed.sent();
        self.connection.wire.relieve().await
    }

    async fn confirmed(&mut self, numbers: &mut Vec<u64>) -> Result<()> {
        let before = numbers.len();
        loop {
            while let Some(message) = take_message(&mut self.connection.wire)? {
                self.on_answer(&message, numbers)?;
            }
            if numbers.len() > before {
                return Ok(());
            }
            self.connection.wire.fill().await?;
        }
    }
}

impl NatsSender {
    fn on_answer(&mut self, message: &NatsMessage, numbers: &mut Vec<u64>) -> Result<()> {
        if let Some(status) = message.status() {
            bail!("a message was refused with status {status}");
        }
        // A PubAck is {"stream":…,"seq":…}; a refusal has "error" first, after its type.
        if message.payload.windows(7).any(|word| word == b"\"error\"") {
            bail!("a message was refused: {}", String::from_utf8_lossy(&message.payload));
        }
        let word = message.subject().get(self.inbox_bytes..).and_then(number);
        self.unconfirmed
            .one(word.context("a PubAck for no message")? as u64, numbers);
        Ok(())
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct NatsReceiver {
    connection: NatsConnection,
    /// Where batches are asked for, and where they come to.
    pull: Vec<u8>,
    inbox: Vec<u8>,
    /// Messages that may be asked for and not yet here.
    batch: usize,
    asked: usize,
    /// Where the acknowledgements of what was received go.
    replies: Vec<NatsMessage>,
}

impl Receiver for NatsReceiver {
    async fn receive(&mut self, bodies: &mut Vec<Bytes>) -> Result<()> {
        let before = bodies.len();
        loop {
            while let Some(message) = take_message(&mut self.connection.wire)? {
                self.on_message(message, bodies)?;
            }
            self.ask();
            if bodies.len() > before {
                return Ok(());
            }
            self.connection.wire.fill().await?;
        }
    }

    async fn acknowledge(&mut self) -> Result<()> {
        for message in self.replies.drain(..) {
            put_message(&mut self.connection.wire.output, message.reply(), b"", b"+ACK");
        }
        self.connection.wire.write_some()
    }
}

impl NatsReceiver {
    fn on_message(&mut self, message: NatsMessage, bodies: &mut Vec<Bytes>) -> Result<()> {
        match message.status() {
            None if !message.reply().is_empty() => {
                self.asked = self.asked.saturating_sub(1);
                bodies.push(message.payload.clone());
                self.replies.push(message);
            }
            // A pull has ended, by time or because its server has lost the lead; the next one asks anew.
            Some(404 | 408 | 409) => self.asked = 0,
            Some(100) | None => {}
            Some(status) => bail!("a pull was refused with status {status}"),
        }
        Ok(())
    }

    /// Asks for more while the half of what was asked for is still on its way.
    fn ask(&mut self) {
        if self.asked > self.batch / 2 {
            return;
        }
        let more = self.batch - self.asked;
        let request = format!("{{\"batch\":{more},\"expires\":{PULL_EXPIRES_NS}}}");
        put_message(
            &mut self.connection.wire.output,
            &self.pull,
            &self.inbox,
            request.as_bytes(),
        );
        self.asked = self.batch;
    }
}
