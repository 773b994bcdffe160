//! A broker in memory whose faults are chosen, so that it is known what the engine must find.

#![allow(unreachable_pub)] // Shared by tests, which are crates of their own.

use std::{
    cell::RefCell,
    collections::{BTreeMap, VecDeque},
    rc::Rc,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use bytes::Bytes;
use ferrymq_bench::{Driver, Endpoint, Receiver, Sender};
use tokio::{sync::Notify, time::sleep_until};

/// What the broker does wrong; by default nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Faults {
    /// Every so many messages, one is confirmed and lost.
    pub loses_each: Option<u64>,
    /// Every so many messages, one is delivered twice.
    pub doubles_each: Option<u64>,
    /// Every so many messages, one is delivered after its successor.
    pub swaps_each: Option<u64>,
    /// After the first of these numbers, it answers nothing for this time.
    pub stalls: Option<(u64, Duration)>,
    /// From this number on, no confirmation comes.
    pub confirms_below: Option<u64>,
    /// How long each confirmation takes.
    pub confirms_after: Duration,
}

#[derive(Clone, Default)]
pub struct Memory {
    faults: Faults,
    places: Rc<RefCell<BTreeMap<String, Place>>>,
    endpoints: Rc<RefCell<Vec<Endpoint>>>,
}

/// A queue, or the subscribers of a topic: each consumer of a topic has a lane of its own.
#[derive(Default)]
struct Place {
    lanes: Vec<Rc<Lane>>,
}

#[derive(Default)]
struct Lane {
    bodies: RefCell<VecDeque<Bytes>>,
    arrived: Notify,
}

impl Lane {
    fn push(&self, body: Bytes) {
        self.bodies.borrow_mut().push_back(body);
        self.arrived.notify_waiters();
    }
}

impl Memory {
    pub fn with(faults: Faults) -> Self {
        Self {
            faults,
            ..Self::default()
        }
    }

    /// What was connected so far.
    pub fn endpoints(&self) -> Vec<Endpoint> {
        self.endpoints.borrow().clone()
    }

    /// Messages that nobody has received.
    pub fn left(&self, destination: &str) -> usize {
        let places = self.places.borrow();
        let lanes = places.get(destination).map_or(&[][..], |place| &place.lanes);
        lanes.iter().map(|lane| lane.bodies.borrow().len()).sum()
    }

    /// The lane of a new receiver, or of a sender to a queue.
    fn lane(&self, endpoint: &Endpoint) -> Rc<Lane> {
        let mut places = self.places.borrow_mut();
        let lanes = &mut places.entry(endpoint.destination.clone()).or_default().lanes;
        if endpoint.is_topic || lanes.is_empty() {
            lanes.push(Rc::default());
        }
        lanes.last().unwrap().clone()
    }
}

impl Driver for Memory {
    type Sender = MemorySender;
    type Receiver = MemoryReceiver;

    async fn sender(&self, endpoint: Endpoint) -> Result<MemorySender> {
        self.endpoints.borrow_mut().push(endpoint.clone());
        if !endpoint.is_topic {
            self.lane(&endpoint);
        }
        Ok(MemorySender {
            memory: self.clone(),
            endpoint,
            sent: 0,
            confirmed: 0,
            held: None,
            stalled_until: None,
        })
    }

    async fn receiver(&self, endpoint: Endpoint) -> Result<MemoryReceiver> {
        self.endpoints.borrow_mut().push(endpoint.clone());
        Ok(MemoryReceiver {
            lane: self.lane(&endpoint),
            taken: 0,
        })
    }
}

pub struct MemorySender {
    memory: Memory,
    endpoint: Endpoint,
    sent: u64,
    confirmed: u64,
    held: Option<Bytes>,
    stalled_until: Option<Instant>,
}

impl MemorySender {
    fn deliver(&self, body: &Bytes) {
        let places = self.memory.places.borrow();
        let place = places.get(&self.endpoint.destination);
        for lane in place.map_or(&[][..], |place| &place.lanes) {
            lane.push(body.clone());
        }
    }
}

impl Sender for MemorySender {
    async fn send(&mut self, body: Bytes) -> Result<()> {
        let window = self.endpoint.window_messages_max as u64;
        ensure!(self.sent - self.confirmed < window, "the window is not kept");
        let faults = self.memory.faults;
        let falls_on = |each: Option<u64>| each.is_some_and(|each| self.sent % each == each - 1);
        if falls_on(faults.swaps_each) {
            self.held = Some(body);
        } else {
            if !falls_on(faults.loses_each) {
                self.deliver(&body);
            }
            if falls_on(faults.doubles_each) {
                self.deliver(&body);
            }
            if let Some(held) = self.held.take() {
                self.deliver(&held);
            }
        }
        if let Some((number, time)) = faults.stalls
            && number == self.sent
        {
            self.stalled_until = Some(Instant::now() + time);
        }
        self.sent += 1;
        Ok(())
    }

    async fn confirmed(&mut self, numbers: &mut Vec<u64>) -> Result<()> {
        if let Some(until) = self.stalled_until {
            sleep_until(until.into()).await;
            self.stalled_until = None;
        }
        // The runtime's timer takes a millisecond even for no time at all.
        if !self.memory.faults.confirms_after.is_zero() {
            sleep_until((Instant::now() + self.memory.faults.confirms_after).into()).await;
        }
        let transaction = (self.endpoint.transaction_messages as u64).max(1);
        let whole = self.sent - self.sent % transaction;
        let end = whole.min(self.memory.faults.confirms_below.unwrap_or(u64::MAX));
        if end <= self.confirmed {
            std::future::pending::<()>().await;
        }
        numbers.extend(self.confirmed..end);
        self.confirmed = end;
        Ok(())
    }
}

pub struct MemoryReceiver {
    lane: Rc<Lane>,
    taken: usize,
}

impl Receiver for MemoryReceiver {
    async fn receive(&mut self, bodies: &mut Vec<Bytes>) -> Result<()> {
        ensure!(self.taken == 0, "what came before was not acknowledged");
        loop {
            let mut arrived = std::pin::pin!(self.lane.arrived.notified());
            arrived.as_mut().enable();
            bodies.extend(self.lane.bodies.borrow_mut().drain(..));
            if !bodies.is_empty() {
                self.taken = bodies.len();
                return Ok(());
            }
            arrived.await;
        }
    }

    async fn acknowledge(&mut self) -> Result<()> {
        self.taken = 0;
        Ok(())
    }
}
