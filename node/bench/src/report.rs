//! What was measured: the whole, and how it went on over time.

use anyhow::Result;
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::{clock::Nanos, load::Load};

/// What a load came to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// What was asked for.
    pub load: Load,
    /// How long the measurement took, in seconds: the load's duration, or less where its messages ended first.
    pub measured_seconds: f64,
    /// Handed to the broker within that time.
    pub sent: Count,
    /// Confirmed by the broker within that time.
    pub confirmed: Count,
    /// Received within that time; of a topic, by all consumers together.
    pub received: Count,
    /// From the moment when a message was due (without a rate: was sent) to its confirmation, for all messages that were
    /// due in the measured time. Those which were never confirmed, or could not even be sent, are in it with the time
    /// that they had waited at the end.
    pub confirm_latency: Option<Latency>,
    /// The same until it was received. Messages that never arrived are not in it; `lost` counts them.
    pub end_to_end_latency: Option<Latency>,
    /// Messages that were due in the measured time and could not be sent within it. Only with a rate.
    pub unsent: u64,
    /// Messages that were sent and had no confirmation when nobody waited any longer.
    pub unconfirmed: u64,
    /// Confirmed messages that were not received when nobody waited any longer. None where nobody was to wait.
    pub lost: Option<u64>,
    /// Messages that were received before, by anyone (queue) or by the same consumer (topic).
    pub duplicates: u64,
    /// Messages that a consumer received after a later one of the same producer.
    pub out_of_order: u64,
    /// Messages in the destinations that this load had not sent.
    pub foreign: u64,
    /// Time after the measurement until all was confirmed and received, or was given up, in seconds.
    pub drain_seconds: f64,
    /// The run from its beginning, with the warm-up and the drain.
    pub samples: Vec<Sample>,
}

/// Messages, and how many in a second.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Count {
    /// How many.
    pub messages: u64,
    /// How many in a second.
    pub per_second: f64,
}

impl Count {
    pub(crate) fn new(messages: u64, seconds: f64) -> Self {
        let per_second = messages as f64 / seconds.max(1e-9);
        Self { messages, per_second }
    }
}

/// How the latencies of some messages are spread, in microseconds. Their error is 0.1 % at most.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    /// How many messages.
    pub messages: u64,
    /// The mean, in µs.
    pub mean_us: f64,
    /// Half of all took no longer than this, in µs.
    pub p50_us: u64,
    /// 90 %, in µs.
    pub p90_us: u64,
    /// 99 %, in µs.
    pub p99_us: u64,
    /// 99.9 %, in µs.
    pub p999_us: u64,
    /// The longest, in µs.
    pub max_us: u64,
}

impl Latency {
    /// `None` without messages.
    pub(crate) fn of(spread: &Spread) -> Option<Self> {
        let micros = &spread.micros;
        (!micros.is_empty()).then(|| Self {
            messages: micros.len(),
            mean_us: micros.mean(),
            p50_us: micros.value_at_quantile(0.5),
            p90_us: micros.value_at_quantile(0.9),
            p99_us: micros.value_at_quantile(0.99),
            p999_us: micros.value_at_quantile(0.999),
            max_us: micros.max(),
        })
    }
}

/// A part of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Before the measured time.
    WarmUp,
    /// The measured time.
    Measuring,
    /// After it: what is under way is waited for.
    Draining,
}

/// A short time of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// The part of the run that it lies in; no sample lies in two.
    pub phase: Phase,
    /// Whether it is the last one of its phase.
    pub ends_phase: bool,
    /// When it begins, in seconds since the load began.
    pub from_seconds: f64,
    /// When it ends.
    pub to_seconds: f64,
    /// Messages handed to the broker in a second.
    pub sent_per_second: f64,
    /// Messages confirmed in a second.
    pub confirmed_per_second: f64,
    /// Messages received in a second.
    pub received_per_second: f64,
    /// Latency of those that were confirmed in this time.
    pub confirm_latency: Option<Latency>,
    /// Latency of those that were received in this time.
    pub end_to_end_latency: Option<Latency>,
}

/// Latencies, counted by their size.
pub(crate) struct Spread {
    micros: Histogram<u64>,
}

/// The longest latency that is told apart from longer ones, in µs: an hour.
const LATENCY_US_MAX: u64 = 3_600_000_000;

impl Spread {
    fn new() -> Result<Self> {
        let micros = Histogram::new_with_max(LATENCY_US_MAX, 3)?;
        Ok(Self { micros })
    }

    pub(crate) fn add(&mut self, latency: Nanos) {
        self.micros.saturating_record(latency.div_ceil(1000));
    }
}

/// Both kinds of latency.
pub(crate) struct Histograms {
    pub(crate) confirm: Spread,
    pub(crate) end_to_end: Spread,
}

impl Histograms {
    pub(crate) fn new() -> Self {
        let spread = || Spread::new().expect("the bounds of the histogram are valid ones");
        Self {
            confirm: spread(),
            end_to_end: spread(),
        }
    }

    pub(crate) fn clear(&mut self) {
        for spread in [&mut self.confirm, &mut self.end_to_end] {
            if !spread.micros.is_empty() {
                spread.micros.reset();
            }
        }
    }
}
