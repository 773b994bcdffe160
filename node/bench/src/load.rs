//! What is to be sent, how fast, and how long.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};

use crate::{body::STAMP_BYTES, driver::Endpoint};

/// One load. `Load::default()` is one producer in lock-step with its broker and one consumer, for ten seconds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Load {
    /// Producers, each with a connection of its own. 0: what lies in the destinations already is consumed.
    pub producers: usize,
    /// Consumers, each with a connection of its own. 0: messages stay where they are.
    pub consumers: usize,
    /// Bytes of each body; at least [`STAMP_BYTES`].
    pub size: usize,
    /// Messages of one producer without confirmation. 1 is lock-step: each message waits for the one before. At least
    /// one whole transaction is let through.
    pub window: usize,
    /// Messages per second, all producers together; none: as fast as the windows allow.
    pub rate: Option<f64>,
    /// Time at the beginning that is not measured.
    pub warm_up: Duration,
    /// Time after the warm-up that is measured.
    pub duration: Duration,
    /// Destinations, named `prefix.0` and so on. Producer i sends to destination i % n, consumer i receives from it.
    pub destinations: usize,
    /// Topics instead of queues: each consumer of a destination gets every message.
    pub topic: bool,
    /// Whether messages are to survive the loss of any minority of the nodes.
    pub persistent: bool,
    /// Messages per transaction; 0: no transactions.
    pub transaction: usize,
    /// Messages of one consumer without acknowledgement.
    pub prefetch: usize,
    /// What the destinations' names begin with.
    pub prefix: String,
    /// Messages after which the load ends even before its time, all producers together; without producers, messages to
    /// receive, each counted once. None: time alone ends it.
    pub messages_max: Option<u64>,
    /// Whether receivers go on after the end of the measurement until they have all that was confirmed; what they do not
    /// get in `drain_max` is reported as lost.
    pub drain: bool,
    /// How long after the end of the measurement confirmations and messages are waited for.
    pub drain_max: Duration,
    /// Time from one sample to the next.
    pub sample_every: Duration,
}

impl Default for Load {
    fn default() -> Self {
        Self {
            producers: 1,
            consumers: 1,
            size: 1024,
            window: 1,
            rate: None,
            warm_up: Duration::from_secs(2),
            duration: Duration::from_secs(10),
            destinations: 1,
            topic: false,
            persistent: true,
            transaction: 0,
            prefetch: 1000,
            prefix: "bench".to_owned(),
            messages_max: None,
            drain: true,
            drain_max: Duration::from_secs(30),
            sample_every: Duration::from_secs(1),
        }
    }
}

impl Load {
    /// Checks that the load can be made.
    ///
    /// # Errors
    /// What is wrong, in words for whoever asked for it.
    pub fn check(&self) -> Result<()> {
        ensure!(
            self.producers + self.consumers > 0,
            "a load needs producers or consumers"
        );
        ensure!(self.size >= STAMP_BYTES, "a body has at least {STAMP_BYTES} bytes");
        ensure!(self.window > 0, "the window must let one message through");
        ensure!(self.prefetch > 0, "the prefetch must let one message through");
        ensure!(self.destinations > 0, "a load needs a destination");
        let used = self.used_destinations();
        ensure!(
            self.consumers == 0 || self.consumers >= used,
            "{} consumers cannot serve {used} destinations: each serves one",
            self.consumers
        );
        ensure!(
            self.rate.is_none_or(|rate| rate.is_finite() && rate > 0.0),
            "the rate must be above 0"
        );
        ensure!(!self.duration.is_zero(), "the measurement must take some time");
        ensure!(
            self.sample_every >= Duration::from_millis(10),
            "samples must be at least 10 ms apart"
        );
        Ok(())
    }

    /// Destinations that get messages at all.
    fn used_destinations(&self) -> usize {
        match self.producers {
            0 => self.destinations,
            producers => self.destinations.min(producers),
        }
    }

    /// The destination of the producer or consumer with this number.
    pub fn destination_of(&self, number: usize) -> usize {
        number % self.destinations
    }

    pub(crate) fn sender_endpoint(&self, sender: usize) -> Endpoint {
        self.endpoint(sender, self.window_of_sender())
    }

    pub(crate) fn receiver_endpoint(&self, receiver: usize) -> Endpoint {
        self.endpoint(receiver, self.prefetch)
    }

    /// Never less than a transaction: its messages are confirmed together.
    pub(crate) fn window_of_sender(&self) -> usize {
        self.window.max(self.transaction)
    }

    fn endpoint(&self, number: usize, window_messages_max: usize) -> Endpoint {
        Endpoint {
            destination: format!("{}.{}", self.prefix, self.destination_of(number)),
            is_topic: self.topic,
            persistent: self.persistent,
            window_messages_max,
            transaction_messages: self.transaction,
        }
    }

    /// This sender's part of `messages_max`.
    pub(crate) fn share_of_sender(&self, sender: usize) -> u64 {
        let Some(total) = self.messages_max else {
            return u64::MAX;
        };
        let producers = self.producers as u64;
        total / producers + u64::from((sender as u64) < total % producers)
    }
}
