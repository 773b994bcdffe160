//! One stream of messages through faults: a producer that sends at a steady pace and a consumer that acknowledges, each a
//! thread that connects again, to the next address, and notes what happened.
//!
//! What they do is what a careful application would do: after a lost connection whatever has no receipt is sent again
//! (P5), except for transactions, which are committed once and counted as unknown.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{bail, ensure};
use ferrymq_tests::{Frame, History, Stomp};

/// Sends without receipt at a time.
const WINDOW: usize = 100;
/// Messages sent to a consumer ahead of its acknowledgements.
const PREFETCH: u32 = 50;
/// Deliveries that a consumer has and does not acknowledge while more come: what a change of master has to mark.
const UNACKNOWLEDGED: usize = 8;
/// Pause before the next address, so that a group without a master isn't flooded.
const RETRY: Duration = Duration::from_millis(20);
/// How long a broker may take to let a client in; then the next one is tried.
const CONNECT_MAX: Duration = Duration::from_secs(2);
/// How long a transaction's receipt is waited for, or the answer to a farewell.
const ANSWER_MAX: Duration = Duration::from_secs(4);
/// How often a broker shall show that it lives.
const HEART_BEAT: (&str, &str) = ("heart-beat", "0,500");
/// A broker that says nothing for so long, not even a heart-beat, is left.
const SILENCE_MAX: Duration = Duration::from_millis(1_500);
/// How long one read waits before the thread looks whether it shall end.
const LOOK: Duration = Duration::from_millis(50);
/// Messages of one transaction.
pub const TRANSACTION: u64 = 3;

/// What one producer sends.
#[derive(Debug, Clone)]
pub struct Sending {
    /// Its name; messages carry it as `producer-id` (P5).
    pub producer: String,
    /// Such as `/queue/ORDERS`.
    pub destination: String,
    /// Pause between two messages.
    pub every: Duration,
    /// Bytes of each body.
    pub size: usize,
    /// [`TRANSACTION`] messages are committed together.
    pub transactions: bool,
    /// What is older than this is not delivered any more (`expires`).
    pub lives: Option<Duration>,
    /// Who notes: one history for each subscription that gets a copy.
    pub histories: Vec<Arc<History>>,
}

/// What one consumer wants.
#[derive(Debug, Clone)]
pub struct Wanting {
    /// Such as `/queue/ORDERS`.
    pub destination: String,
    /// Of a topic: the name of its durable subscription.
    pub durable: Option<String>,
    /// Bytes of each body.
    pub size: usize,
    /// Who notes.
    pub history: Arc<History>,
}

/// A thread under way. Dropped, it is told to end, and waited for.
#[derive(Debug)]
pub struct Stream {
    told: Arc<Told>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Told {
    stop: AtomicBool,
    /// No new messages; what is under way is brought to its end.
    pause: AtomicBool,
    under_way: AtomicUsize,
    connected: AtomicBool,
}

impl Stream {
    fn start(paused: bool, work: impl FnOnce(&Told) + Send + 'static) -> Self {
        let told = Arc::new(Told::default());
        told.pause.store(paused, Ordering::Relaxed);
        let its = told.clone();
        Self {
            told,
            thread: Some(thread::spawn(move || work(&its))),
        }
    }

    /// A producer; paused at first.
    pub fn produce(addresses: Vec<String>, sending: Sending) -> Self {
        Self::start(true, move |told| Producer::new(sending).run(&addresses, told))
    }

    /// A consumer.
    pub fn consume(addresses: Vec<String>, wanting: Wanting) -> Self {
        Self::start(false, move |told| {
            for address in addresses.iter().cycle() {
                if told.stop.load(Ordering::Relaxed) {
                    return;
                }
                // The broker may believe for a while that this consumer is there: where a slave carried it, the slave
                // may be cut off from the master.
                if consume_over(address, &wanting, told).is_err() {
                    wanting.history.left_behind();
                }
                told.connected.store(false, Ordering::Relaxed);
                thread::sleep(RETRY);
            }
        })
    }

    /// Nothing new from here on, until [`Stream::go_on`].
    pub fn pause(&self) {
        self.told.pause.store(true, Ordering::SeqCst);
    }

    /// New messages again.
    pub fn go_on(&self) {
        self.told.pause.store(false, Ordering::SeqCst);
    }

    /// A paused producer has nothing under way any more.
    pub fn is_at_rest(&self) -> bool {
        self.told.pause.load(Ordering::SeqCst) && self.told.under_way.load(Ordering::SeqCst) == 0
    }

    /// Whether a consumer has subscribed.
    pub fn is_connected(&self) -> bool {
        self.told.connected.load(Ordering::Relaxed)
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.told.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // Its panic is shown by the runtime, and seen by what is missing.
            let _ = thread.join();
        }
    }
}

struct Producer {
    sending: Sending,
    next: u64,
    /// As they were sent: a resend is the same message, with the same time to live.
    unreceipted: VecDeque<(u64, Frame)>,
    due: Instant,
}

impl Producer {
    fn new(sending: Sending) -> Self {
        Self {
            sending,
            next: 1,
            unreceipted: VecDeque::new(),
            due: Instant::now(),
        }
    }

    fn run(&mut self, addresses: &[String], told: &Told) {
        for address in addresses.iter().cycle() {
            if told.stop.load(Ordering::Relaxed) {
                return;
            }
            // Any failure means the same: on to the next address.
            let _ = if self.sending.transactions {
                let ended = self.commit_over(address, told);
                // Whatever was under way is unknown, and will stay so.
                told.under_way.store(0, Ordering::SeqCst);
                ended
            } else {
                self.send_over(address, told)
            };
            thread::sleep(RETRY);
        }
    }

    fn send_over(&mut self, address: &str, told: &Told) -> anyhow::Result<()> {
        let mut stomp = Stomp::connect_within(address, &[HEART_BEAT], CONNECT_MAX)?;
        for (_, frame) in &self.unreceipted {
            stomp.send(frame)?;
        }
        while !told.stop.load(Ordering::Relaxed) {
            // Before it is looked whether to rest, so that whoever sees it at rest can rely on that.
            told.under_way.store(self.unreceipted.len() + 1, Ordering::SeqCst);
            let paused = told.pause.load(Ordering::SeqCst);
            let now = Instant::now();
            if !paused && self.unreceipted.len() < WINDOW && self.due <= now {
                let number = self.take_number();
                self.note(|history, producer| history.attempt(producer, number));
                let frame = self.numbered(number).with("receipt", number);
                self.unreceipted.push_back((number, frame.clone()));
                stomp.send(&frame)?;
                // After a stall it goes on at its pace; it does not catch up.
                self.due = (self.due + self.sending.every).max(now);
                continue;
            }
            told.under_way.store(self.unreceipted.len(), Ordering::SeqCst);
            let is_full = self.unreceipted.len() >= WINDOW;
            let wait = if paused || is_full { LOOK } else { self.due - now };
            let Some(frame) = stomp.next(wait.min(LOOK))? else {
                ensure!(stomp.silent_for() < SILENCE_MAX, "no heart-beat for long");
                continue;
            };
            ensure!(frame.command == "RECEIPT", "{frame:?}");
            let number: u64 = frame.get("receipt-id").unwrap_or("").parse()?;
            self.note(|history, producer| history.receipt(producer, number));
            self.unreceipted.retain(|(waiting, _)| *waiting != number);
            told.under_way.store(self.unreceipted.len(), Ordering::SeqCst);
        }
        Ok(())
    }

    fn commit_over(&mut self, address: &str, told: &Told) -> anyhow::Result<()> {
        let mut stomp = Stomp::connect_within(address, &[HEART_BEAT], CONNECT_MAX)?;
        while !told.stop.load(Ordering::Relaxed) {
            let now = Instant::now();
            told.under_way.store(1, Ordering::SeqCst);
            if told.pause.load(Ordering::SeqCst) || self.due > now {
                told.under_way.store(0, Ordering::SeqCst);
                // Nothing is asked, so nothing can come but the end.
                let frame = stomp.next(LOOK.min(self.due.saturating_duration_since(now).max(RETRY)))?;
                ensure!(frame.is_none(), "{frame:?}");
                continue;
            }
            self.due = (self.due + self.sending.every).max(now);
            let first = self.take_number();
            let last = (1..TRANSACTION).map(|_| self.take_number()).last().unwrap_or(first);
            self.note(|history, producer| history.transaction(producer, first, last));
            let name = format!("t{first}");
            stomp.send(&Frame::new("BEGIN").with("transaction", &name))?;
            for number in first..=last {
                stomp.send(&self.numbered(number).with("transaction", &name))?;
            }
            let commit = Frame::new("COMMIT").with("transaction", &name);
            stomp.send(&commit.with("receipt", &name))?;
            let answer = stomp.next(ANSWER_MAX)?;
            let is_committed = answer.as_ref().and_then(|frame| frame.get("receipt-id")) == Some(&*name);
            ensure!(
                is_committed && answer.is_some_and(|frame| frame.command == "RECEIPT"),
                "no receipt"
            );
            for number in first..=last {
                self.note(|history, producer| history.receipt(producer, number));
            }
        }
        Ok(())
    }

    fn take_number(&mut self) -> u64 {
        self.next += 1;
        self.next - 1
    }

    fn note(&self, note: impl Fn(&History, &str)) {
        for history in &self.sending.histories {
            note(history, &self.sending.producer);
        }
    }

    fn numbered(&self, number: u64) -> Frame {
        let Sending {
            producer,
            destination,
            size,
            ..
        } = &self.sending;
        let frame = Frame::message(destination, body(producer, number, *size))
            .with("producer-id", producer)
            .with("producer-sequence", number)
            .with("p", producer)
            .with("n", number);
        match self.sending.lives {
            Some(lives) => frame.with("expires", expires_ms(lives)),
            None => frame,
        }
    }
}

/// By the clients' wall clock, in milliseconds since 1970; it does not jump here.
fn expires_ms(lives: Duration) -> u128 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    (now + lives).as_millis()
}

/// What a message carries: it tells its name and differs in every byte from that of its neighbours, so that wrong bytes
/// are seen.
pub fn body(producer: &str, number: u64, size: usize) -> Vec<u8> {
    let mut body = format!("{producer}/{number}/").into_bytes();
    let mut state = number;
    while body.len() < size {
        // A 64-bit LCG with Knuth's constants.
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        body.push(b'!' + (state >> 33) as u8 % 90);
    }
    body
}

fn consume_over(address: &str, wanting: &Wanting, told: &Told) -> anyhow::Result<()> {
    let client = wanting.durable.as_ref().map(|name| ("client-id", &**name));
    let headers: Vec<(&str, &str)> = client.into_iter().chain([HEART_BEAT]).collect();
    let mut stomp = Stomp::connect_within(address, &headers, CONNECT_MAX)?;
    let mut subscribe = Frame::subscribe("s", &wanting.destination, "client-individual");
    if let Some(name) = &wanting.durable {
        subscribe = subscribe.with("activemq.subscriptionName", name);
    }
    stomp.request(subscribe.with("activemq.prefetchSize", PREFETCH))?;
    told.connected.store(true, Ordering::Relaxed);
    let mut delivered = VecDeque::new();
    while !told.stop.load(Ordering::Relaxed) {
        let Some(frame) = stomp.next(LOOK)? else {
            acknowledge(&mut stomp, &mut delivered, 0, wanting)?;
            ensure!(stomp.silent_for() < SILENCE_MAX, "no heart-beat for long");
            continue;
        };
        if let Some((producer, number)) = note(&frame, wanting)? {
            let ack = Frame::new("ACK").with("id", frame.get("ack").unwrap_or(""));
            let ack = ack.with("receipt", format!("{producer}/{number}"));
            delivered.push_back((producer, number, ack));
            acknowledge(&mut stomp, &mut delivered, UNACKNOWLEDGED, wanting)?;
        }
    }
    acknowledge(&mut stomp, &mut delivered, 0, wanting)?;
    // Leaves in good order, so that what was acknowledged is known to be.
    if wanting.durable.is_none() {
        stomp.send(&Frame::new("UNSUBSCRIBE").with("id", "s"))?;
    }
    stomp.send(&Frame::new("DISCONNECT").with("receipt", "bye"))?;
    while let Some(frame) = stomp.next(ANSWER_MAX)? {
        if frame.command == "RECEIPT" && frame.get("receipt-id") == Some("bye") {
            break;
        }
        note(&frame, wanting)?;
    }
    Ok(())
}

/// A message that was delivered, by producer and number, and what acknowledges it.
type Delivered = (String, u64, Frame);

/// Acknowledges the oldest deliveries, all but so many.
fn acknowledge(
    stomp: &mut Stomp,
    delivered: &mut VecDeque<Delivered>,
    all_but: usize,
    wanting: &Wanting,
) -> anyhow::Result<()> {
    while delivered.len() > all_but
        && let Some((producer, number, ack)) = delivered.pop_front()
    {
        wanting.history.acknowledging(&producer, number);
        stomp.send(&ack)?;
    }
    Ok(())
}

/// Notes a delivery or a confirmation; a delivery's name.
fn note(frame: &Frame, wanting: &Wanting) -> anyhow::Result<Option<(String, u64)>> {
    match &*frame.command {
        "MESSAGE" => {
            let producer = frame.get("p").unwrap_or("unknown").to_owned();
            let number: u64 = frame.get("n").unwrap_or("0").parse().unwrap_or(0);
            if frame.body != body(&producer, number, wanting.size) {
                wanting.history.garbled(&producer, number);
            }
            wanting.history.delivery(&producer, number, frame.redelivered());
            Ok(Some((producer, number)))
        }
        "RECEIPT" => {
            let name = frame.get("receipt-id").unwrap_or("");
            if let Some((producer, number)) = name.rsplit_once('/') {
                wanting.history.confirmed(producer, number.parse()?);
            }
            Ok(None)
        }
        _ => bail!("{frame:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_tell_their_names_and_are_all_different() {
        let one = body("p", 1, 64);
        assert_eq!((one.len(), &one[..4]), (64, &b"p/1/"[..]));
        assert_eq!(one, body("p", 1, 64));
        assert_ne!(one[4..], body("p", 2, 64)[4..]);
    }
}
