//! A producer and a consumer that go on through faults: each a thread that connects again, to the next address.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use crate::{Frame, History, Stomp};

/// Sends without receipt at a time.
const WINDOW: usize = 100;
/// Messages sent to a consumer ahead of its acknowledgements.
const PREFETCH: u32 = 200;
/// Pause before the next address, so that a group without a master isn't flooded.
const RETRY: Duration = Duration::from_millis(20);
/// A broker that gives no receipt for so long is left.
const SILENCE_MAX: Duration = Duration::from_secs(4);
/// How long one read waits before the thread looks whether it shall end.
const LOOK: Duration = Duration::from_millis(50);

/// What a consumer does with one message, which takes it so long.
pub fn work(time: Duration) {
    thread::sleep(time);
}

/// A thread under way. Dropped, it is told to end, and waited for.
#[derive(Debug)]
pub struct Load {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Load {
    fn start(work: impl FnOnce(&AtomicBool) + Send + 'static) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let told = stop.clone();
        Self {
            stop,
            thread: Some(thread::spawn(move || work(&told))),
        }
    }

    /// Whether it has done all that it was to do.
    pub fn is_done(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Waits until it is done.
    ///
    /// # Panics
    /// Past the deadline, or where the thread has panicked.
    #[track_caller]
    pub fn finish(mut self, what: &str, deadline: Duration) {
        crate::wait_until(what, deadline, || self.is_done());
        let ended = self.thread.take().map(JoinHandle::join);
        assert!(matches!(ended, Some(Ok(()))), "{what}: the thread has panicked");
    }

    /// Tells it to end now, and waits for that.
    pub fn stop(self) {}
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // Its panic is shown by the runtime; the test has failed already or will by what is missing.
            let _ = thread.join();
        }
    }
}

/// What a producer shall send.
#[derive(Debug, Clone)]
pub struct Sending {
    /// Its name; messages carry it as `producer-id` (P5).
    pub producer: String,
    /// Such as `/queue/ORDERS`.
    pub destination: String,
    /// Messages numbered from 1.
    pub count: u64,
    /// Bytes of each body.
    pub size: usize,
}

/// Sends until every message has its receipt; after a lost connection, what has none is sent again in order.
pub fn produce(addresses: Vec<String>, sending: Sending, history: Arc<History>) -> Load {
    Load::start(move |stop| {
        let mut next = 1;
        let mut unreceipted: VecDeque<u64> = VecDeque::new();
        for address in addresses.iter().cycle() {
            if stop.load(Ordering::Relaxed) || (next > sending.count && unreceipted.is_empty()) {
                return;
            }
            // Any failure means the same: on to the next address.
            let _ = send_over(address, &sending, &history, stop, &mut next, &mut unreceipted);
            thread::sleep(RETRY);
        }
    })
}

fn send_over(
    address: &str,
    sending: &Sending,
    history: &History,
    stop: &AtomicBool,
    next: &mut u64,
    unreceipted: &mut VecDeque<u64>,
) -> anyhow::Result<()> {
    let mut stomp = Stomp::connect(address)?;
    for &number in unreceipted.iter() {
        stomp.send(&numbered(sending, number))?;
    }
    let mut heard = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        while unreceipted.len() < WINDOW && *next <= sending.count {
            history.attempt(&sending.producer, *next);
            unreceipted.push_back(*next);
            *next += 1;
            stomp.send(&numbered(sending, *next - 1))?;
        }
        if unreceipted.is_empty() {
            return Ok(());
        }
        match stomp.next(LOOK)? {
            Some(frame) => {
                anyhow::ensure!(frame.command == "RECEIPT", "{frame:?}");
                let number: u64 = frame.get("receipt-id").unwrap_or("").parse()?;
                history.receipt(&sending.producer, number);
                unreceipted.retain(|waiting| *waiting != number);
                heard = Instant::now();
            }
            None => anyhow::ensure!(heard.elapsed() < SILENCE_MAX, "no receipt for long"),
        }
    }
    Ok(())
}

fn numbered(sending: &Sending, number: u64) -> Frame {
    Frame::message(&sending.destination, vec![b'x'; sending.size])
        .with("receipt", number)
        .with("producer-id", &sending.producer)
        .with("producer-sequence", number)
        .with("p", &sending.producer)
        .with("n", number)
}

/// Consumes and acknowledges each message by itself until told to stop.
pub fn consume(addresses: Vec<String>, destination: &str, history: Arc<History>) -> Load {
    let destination = destination.to_owned();
    Load::start(move |stop| {
        for address in addresses.iter().cycle() {
            if stop.load(Ordering::Relaxed) {
                return;
            }
            let _ = consume_over(address, &destination, &history, stop);
            thread::sleep(RETRY);
        }
    })
}

fn consume_over(address: &str, destination: &str, history: &History, stop: &AtomicBool) -> anyhow::Result<()> {
    let mut stomp = Stomp::connect(address)?;
    let subscribe = Frame::subscribe("s", destination, "client-individual");
    stomp.send(&subscribe.with("activemq.prefetchSize", PREFETCH))?;
    while !stop.load(Ordering::Relaxed) {
        let Some(frame) = stomp.next(LOOK)? else { continue };
        match &*frame.command {
            "MESSAGE" => {
                let producer = frame.get("p").unwrap_or("unknown");
                let number: u64 = frame.get("n").unwrap_or("0").parse()?;
                history.delivery(producer, number, frame.redelivered());
                let ack = Frame::new("ACK").with("id", frame.get("ack").unwrap_or(""));
                history.acknowledging(producer, number);
                stomp.send(&ack.with("receipt", format!("{producer}/{number}")))?;
            }
            "RECEIPT" => {
                let name = frame.get("receipt-id").unwrap_or("");
                if let Some((producer, number)) = name.rsplit_once('/') {
                    history.confirmed(producer, number.parse()?);
                }
            }
            _ => anyhow::bail!("{frame:?}"),
        }
    }
    leave(&mut stomp, history)
}

/// Leaves in good order, so that what was acknowledged is known to be.
fn leave(stomp: &mut Stomp, history: &History) -> anyhow::Result<()> {
    stomp.send(&Frame::new("UNSUBSCRIBE").with("id", "s"))?;
    stomp.send(&Frame::new("DISCONNECT").with("receipt", "bye"))?;
    while let Some(frame) = stomp.next(crate::stomp::ANSWER_MAX)? {
        match (&*frame.command, frame.get("receipt-id").unwrap_or("")) {
            ("RECEIPT", "bye") => break,
            ("RECEIPT", name) => {
                if let Some((producer, number)) = name.rsplit_once('/') {
                    history.confirmed(producer, number.parse()?);
                }
            }
            ("MESSAGE", _) => {
                let number = frame.get("n").unwrap_or("0").parse()?;
                history.delivery(frame.get("p").unwrap_or("unknown"), number, frame.redelivered());
            }
            _ => anyhow::bail!("{frame:?}"),
        }
    }
    Ok(())
}
