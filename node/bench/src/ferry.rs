//! The driver for FerryMQ itself, over the client library that applications use.

use anyhow::{Context, Result};
use bytes::Bytes;
use ferrymq_client::{
    AckError, AckMode, Connection, Consumer, ConsumerOptions, Options, Outgoing, Producer, ProducerOptions, Received,
};

use crate::driver::{Driver, Endpoint, Receiver, Sender};

/// One group of brokers. Connections survive the loss of a broker, so a load goes on over a fail-over.
#[derive(Debug, Clone)]
pub struct FerryDriver {
    url: String,
    options: Options,
}

impl FerryDriver {
    /// A driver for `failover:(tcp://a:61613,tcp://b:61613)` or `tcp://a:61613`.
    pub fn new(url: impl Into<String>, options: Options) -> Self {
        let url = url.into();
        Self { url, options }
    }

    async fn connect(&self) -> Result<Connection> {
        let connected = Connection::connect(&self.url, self.options.clone()).await;
        connected.with_context(|| format!("no connection to {}", self.url))
    }
}

/// A producer with a connection of its own.
#[derive(Debug)]
pub struct FerrySender {
    producer: Producer,
    confirmed: u64,
}

/// A consumer with a connection of its own.
#[derive(Debug)]
pub struct FerryReceiver {
    consumer: Consumer,
    received: Vec<Received>,
}

impl Driver for FerryDriver {
    type Sender = FerrySender;
    type Receiver = FerryReceiver;

    async fn sender(&self, endpoint: Endpoint) -> Result<FerrySender> {
        let options = ProducerOptions {
            persistent: endpoint.persistent,
            window_messages_max: endpoint.window_messages_max,
            // The load's window is in messages alone.
            window_bytes_max: usize::MAX,
            transaction_messages: endpoint.transaction_messages,
            ..ProducerOptions::default()
        };
        let producer = self.connect().await?.producer(&url_of(&endpoint), options)?;
        Ok(FerrySender { producer, confirmed: 0 })
    }

    async fn receiver(&self, endpoint: Endpoint) -> Result<FerryReceiver> {
        let options = ConsumerOptions {
            ack: AckMode::Client,
            prefetch: u32::try_from(endpoint.window_messages_max).unwrap_or(u32::MAX),
            ack_receipts: false,
            ..ConsumerOptions::default()
        };
        let consumer = self.connect().await?.consumer(&url_of(&endpoint), options)?;
        consumer.subscribed().await?;
        Ok(FerryReceiver {
            consumer,
            received: Vec::new(),
        })
    }
}

fn url_of(endpoint: &Endpoint) -> String {
    let kind = if endpoint.is_topic { "topic" } else { "queue" };
    format!("{kind}://{}", endpoint.destination)
}

impl Sender for FerrySender {
    async fn send(&mut self, body: Bytes) -> Result<()> {
        self.producer.send(Outgoing::bytes(body)).await?;
        Ok(())
    }

    async fn confirmed(&mut self, numbers: &mut Vec<u64>) -> Result<()> {
        let confirmed = self.producer.wait_confirmed(self.confirmed).await?;
        numbers.extend(self.confirmed..confirmed);
        self.confirmed = confirmed;
        Ok(())
    }
}

impl Receiver for FerryReceiver {
    async fn receive(&mut self, bodies: &mut Vec<Bytes>) -> Result<()> {
        self.received.clear();
        self.consumer.recv_all(&mut self.received).await?;
        bodies.extend(self.received.iter().map(|received| received.body().clone()));
        Ok(())
    }

    async fn acknowledge(&mut self) -> Result<()> {
        let Some(last) = self.received.last() else {
            return Ok(());
        };
        let outcome = match self.consumer.ack(last) {
            // Its connection is lost, and the broker delivers again what has no acknowledgement: duplicates tell.
            Ok(()) | Err(AckError::Stale) => Ok(()),
            Err(error) => Err(error.into()),
        };
        self.received.clear();
        outcome
    }
}
