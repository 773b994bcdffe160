//! The demo's producer and consumer, with the same client library that applications use.
//!
//! Everything here runs on one task, so plain cells hold what they share.

use std::{
    cell::{Cell, RefCell},
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use bytes::Bytes;
use ferrymq_client::{
    Connection, Consumer, ConsumerOptions, Event, Options, Outgoing, Producer, ProducerOptions, Received, SendError,
};
use tokio::sync::broadcast::{Receiver, error::RecvError};

use super::{
    QUEUE,
    ledger::{Counts, Ledger},
};

/// The property that numbers the messages.
const NUMBER: &str = "number";
/// Acknowledgements whose confirmation is waited for at a time.
const CONFIRM_EVERY: usize = 250;
/// A pause after which what was acknowledged is confirmed although it is fewer.
const IDLE: Duration = Duration::from_millis(20);
/// How often receipts are looked at, and with it the precision of a fail-over's time.
const LOOK_EVERY: Duration = Duration::from_millis(1);
/// How long leaving in good order may take.
const LEAVE_MAX: Duration = Duration::from_secs(5);

/// What producer and consumer have done, and when it went on after a failure.
#[derive(Debug)]
pub(super) struct Traffic {
    pub(super) messages: u64,
    size: usize,
    sent: Cell<u64>,
    acknowledged: Cell<u64>,
    refused: Cell<u64>,
    all_acknowledged: Cell<bool>,
    complete: Cell<bool>,
    ledger: RefCell<Ledger>,
    /// First receipt after each reconnection of the producer.
    sends_went_on: RefCell<Vec<Instant>>,
    /// First delivery after each reconnection of the consumer.
    deliveries_went_on: RefCell<Vec<Instant>>,
    first_send: Cell<Option<Instant>>,
    last_delivery: Cell<Option<Instant>>,
    longest_pause: Cell<Duration>,
}

impl Traffic {
    pub(super) fn new(messages: u64, size: usize) -> Self {
        Self {
            messages,
            size,
            sent: Cell::default(),
            acknowledged: Cell::default(),
            refused: Cell::default(),
            all_acknowledged: Cell::default(),
            complete: Cell::default(),
            ledger: RefCell::new(Ledger::new(messages)),
            sends_went_on: RefCell::default(),
            deliveries_went_on: RefCell::default(),
            first_send: Cell::default(),
            last_delivery: Cell::default(),
            longest_pause: Cell::default(),
        }
    }

    /// Messages handed to the client library.
    pub(super) fn sent(&self) -> u64 {
        self.sent.get()
    }

    /// Messages with a receipt.
    pub(super) fn acknowledged(&self) -> u64 {
        self.acknowledged.get()
    }

    /// Messages that the broker refused.
    pub(super) fn refused(&self) -> u64 {
        self.refused.get()
    }

    /// Different messages delivered.
    pub(super) fn received(&self) -> u64 {
        self.ledger.borrow().counts.received
    }

    /// All that the consumer has seen.
    pub(super) fn counts(&self) -> Counts {
        self.ledger.borrow().counts
    }

    /// Whether every message has its answer.
    pub(super) fn all_acknowledged(&self) -> bool {
        self.all_acknowledged.get()
    }

    /// Whether nothing is left to be delivered.
    pub(super) fn is_complete(&self) -> bool {
        self.complete.get()
    }

    /// Nothing is left to be delivered.
    pub(super) fn complete(&self) {
        self.complete.set(true);
    }

    /// From a failure to the first receipt over a new connection.
    pub(super) fn sends_went_on_since(&self, failure: Instant) -> Option<Duration> {
        went_on_since(&self.sends_went_on.borrow(), failure)
    }

    /// From a failure to the first delivery over a new connection.
    pub(super) fn deliveries_went_on_since(&self, failure: Instant) -> Option<Duration> {
        went_on_since(&self.deliveries_went_on.borrow(), failure)
    }

    /// From the first send to the last delivery.
    pub(super) fn delivering(&self) -> Duration {
        match (self.first_send.get(), self.last_delivery.get()) {
            (Some(first), Some(last)) => last - first,
            _ => Duration::ZERO,
        }
    }

    /// Longest time between two deliveries.
    pub(super) fn longest_pause(&self) -> Duration {
        self.longest_pause.get()
    }

    /// Sends everything and waits for every receipt.
    pub(super) async fn produce(&self, uri: &str) -> anyhow::Result<()> {
        let connection = Connection::connect(uri, Options::default())
            .await
            .context("the producer cannot connect")?;
        let events = connection.events();
        let producer = connection.producer(QUEUE, ProducerOptions::default())?;
        tokio::select! {
            result = self.send_all(&producer) => result?,
            () = self.watch_receipts(&producer, events) => {}
        }
        self.acknowledged.set(producer.confirmed());
        self.all_acknowledged.set(true);
        drop(producer);
        connection.close(LEAVE_MAX).await;
        Ok(())
    }

    async fn send_all(&self, producer: &Producer) -> anyhow::Result<()> {
        self.first_send.set(Some(Instant::now()));
        for number in 1..=self.messages {
            let message = Outgoing::bytes(body(number, self.size)).with(NUMBER, number.to_string());
            // A refusal concerns an earlier message; this one was not taken yet.
            while self.judge(producer.send(message.clone()).await.map(|_| ()))? {}
            self.sent.set(number);
        }
        while self.judge(producer.flush().await)? {}
        Ok(())
    }

    /// `true` where it must be tried again.
    fn judge(&self, result: Result<(), SendError>) -> anyhow::Result<bool> {
        match result {
            Ok(()) => Ok(false),
            Err(SendError::Refused { .. }) => {
                self.refused.set(self.refused.get() + 1);
                Ok(true)
            }
            Err(error) => Err(error).context("the producer cannot go on"),
        }
    }

    /// Never ends by itself, unless the connection does.
    async fn watch_receipts(&self, producer: &Producer, mut events: Receiver<Event>) {
        let mut tick = tokio::time::interval(LOOK_EVERY);
        let mut waiting_above = None;
        loop {
            tokio::select! {
                event = events.recv() => match event {
                    Ok(Event::Reconnected { .. }) => waiting_above = Some(producer.confirmed()),
                    Ok(_) | Err(RecvError::Lagged(_)) => {}
                    // The connection is over, which `send_all` will tell.
                    Err(RecvError::Closed) => std::future::pending().await,
                },
                _ = tick.tick() => {
                    let confirmed = producer.confirmed();
                    self.acknowledged.set(confirmed);
                    if waiting_above.is_some_and(|above| confirmed > above) {
                        waiting_above = None;
                        self.sends_went_on.borrow_mut().push(Instant::now());
                    }
                }
            }
        }
    }

    /// Receives and acknowledges until nothing is left.
    pub(super) async fn consume(&self, uri: &str) -> anyhow::Result<()> {
        let connection = Connection::connect(uri, Options::default())
            .await
            .context("the consumer cannot connect")?;
        let mut events = connection.events();
        let consumer = connection.consumer(QUEUE, ConsumerOptions::default())?;
        let mut unconfirmed = Vec::with_capacity(CONFIRM_EVERY);
        let mut reconnected = false;
        while !self.is_complete() {
            tokio::select! {
                biased;
                event = events.recv() => match event {
                    Ok(Event::Lost { .. }) => self.ledger.borrow_mut().consumer_lost(),
                    Ok(Event::Reconnected { .. }) => reconnected = true,
                    Ok(Event::Ended { reason }) => bail!("the consumer's connection has ended: {reason}"),
                    Ok(_) | Err(_) => {}
                },
                received = consumer.recv() => {
                    let received = received?;
                    if std::mem::take(&mut reconnected) {
                        self.deliveries_went_on.borrow_mut().push(Instant::now());
                    }
                    if let Some(number) = self.take(&consumer, &received) {
                        unconfirmed.push(number);
                    }
                    if unconfirmed.len() >= CONFIRM_EVERY {
                        self.confirm(&consumer, &mut unconfirmed).await;
                    }
                }
                () = tokio::time::sleep(IDLE) => self.confirm(&consumer, &mut unconfirmed).await,
            }
        }
        drop(consumer);
        connection.close(LEAVE_MAX).await;
        Ok(())
    }

    /// Notes and acknowledges a message; its number, where the acknowledgement is under way.
    fn take(&self, consumer: &Consumer, received: &Received) -> Option<u64> {
        let now = Instant::now();
        if let Some(last) = self.last_delivery.replace(Some(now)) {
            self.longest_pause.set(self.longest_pause.get().max(now - last));
        }
        let number = received
            .header(NUMBER)
            .and_then(|number| number.parse().ok())
            .unwrap_or(0);
        let whole = *received.body() == body(number, self.size);
        self.ledger.borrow_mut().deliver(number, received.redelivered(), whole);
        // One of a lost connection comes again, marked.
        consumer.ack(received).ok().map(|()| number)
    }

    /// Waits until the acknowledgements under way are confirmed. Where some were lost with their connection, none of
    /// them counts, since nobody can tell which.
    async fn confirm(&self, consumer: &Consumer, unconfirmed: &mut Vec<u64>) {
        if unconfirmed.is_empty() {
            return;
        }
        let confirmed = consumer.flush().await.is_ok();
        let mut ledger = self.ledger.borrow_mut();
        for number in unconfirmed.drain(..) {
            if confirmed {
                ledger.confirm(number);
            }
        }
    }
}

fn went_on_since(times: &[Instant], failure: Instant) -> Option<Duration> {
    times.iter().find(|time| **time > failure).map(|time| *time - failure)
}

/// The number, again and again: a body that belongs to another message or is cut is noticed.
fn body(number: u64, size: usize) -> Bytes {
    number.to_le_bytes().iter().copied().cycle().take(size).collect()
}
