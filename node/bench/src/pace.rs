//! Wakes senders when their next message is due.
//!
//! The runtime's timer knows milliseconds only, which is more than some brokers take for a whole message. So a thread of
//! its own sleeps until each message is due and wakes its sender.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use tokio::sync::Notify;

use crate::{
    clock::{Clock, Nanos},
    load::Load,
};

/// When messages are due: those of all senders in turn, at even distances.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Schedule {
    /// Messages per second, all senders together.
    pub(crate) rate: f64,
    pub(crate) senders: usize,
}

impl Schedule {
    /// `None` where the load has no rate.
    pub(crate) fn of(load: &Load) -> Option<Self> {
        let rate = load.rate.filter(|_| load.producers > 0)?;
        let senders = load.producers;
        Some(Self { rate, senders })
    }

    /// When this sender's message of this number is due.
    pub(crate) fn due(&self, sender: usize, number: u64) -> Nanos {
        ((number as f64 * self.senders as f64 + sender as f64) * 1e9 / self.rate) as Nanos
    }
}

/// The thread that wakes; it ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Pace {
    bells: Vec<Arc<Notify>>,
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// At higher rates several messages are due at a wake-up: more wake-ups would cost the brokers their processor.
const WAKE_UPS_DISTANCE_MIN: Duration = Duration::from_micros(200);

impl Pace {
    pub(crate) fn start(schedule: Schedule, clock: Clock) -> Result<Self> {
        let bells: Vec<Arc<Notify>> = (0..schedule.senders).map(|_| Arc::default()).collect();
        let ended = Arc::new(AtomicBool::new(false));
        let (thread_bells, thread_ended) = (bells.clone(), ended.clone());
        let thread = thread::Builder::new()
            .name("pace".to_owned())
            .spawn(move || ring(schedule, clock, &thread_bells, &thread_ended))
            .context("the thread that paces the load cannot start")?;
        Ok(Self {
            bells,
            ended,
            thread: Some(thread),
        })
    }

    /// Rings when a message of this sender has come due.
    pub(crate) fn bell(&self, sender: usize) -> Arc<Notify> {
        self.bells[sender].clone()
    }
}

fn ring(schedule: Schedule, clock: Clock, bells: &[Arc<Notify>], ended: &AtomicBool) {
    let (mut sender, mut number) = (0, 0);
    while !ended.load(Ordering::Relaxed) {
        let due = clock.instant(schedule.due(sender, number));
        let now = Instant::now();
        if due > now {
            thread::park_timeout((due - now).max(WAKE_UPS_DISTANCE_MIN));
            continue;
        }
        bells[sender].notify_one();
        sender += 1;
        if sender == bells.len() {
            (sender, number) = (0, number + 1);
        }
    }
}

impl Drop for Pace {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            let _ = thread.join();
        }
    }
}
