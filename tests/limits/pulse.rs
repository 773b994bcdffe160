//! A healthy client: it sends a persistent message, gets it back and acknowledges it, again and again, and notes how
//! long each round took.

use std::{
    sync::{
        Arc, Mutex,
        mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use ferrymq_tests::{Frame, Stomp, stomp::ANSWER_MAX};

/// Between two rounds.
const PAUSE: Duration = Duration::from_millis(10);

/// Goes on until it is dropped.
pub(crate) struct Pulse {
    rounds: Arc<Mutex<Vec<Duration>>>,
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// Latencies of some rounds.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Rounds {
    pub(crate) p50: Duration,
    pub(crate) p99: Duration,
    pub(crate) worst: Duration,
}

impl Pulse {
    /// Of a client that connects to this address once, at the start.
    pub(crate) fn start(address: &str) -> Self {
        let rounds: Arc<Mutex<Vec<Duration>>> = Arc::default();
        let (stop, stopped) = channel();
        let (noted, address) = (rounds.clone(), address.to_owned());
        let thread = thread::spawn(move || beat(&address, &noted, &stopped));
        Self {
            rounds,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    /// Waits until so many rounds more are through, and takes all since the last call.
    pub(crate) fn take(&self, rounds_min: usize) -> Rounds {
        ferrymq_tests::wait_until("a healthy client is served", Duration::from_secs(60), || {
            let is_over = self.thread.as_ref().is_none_or(JoinHandle::is_finished);
            assert!(!is_over, "the healthy client has failed");
            self.rounds.lock().unwrap().len() >= rounds_min
        });
        let mut rounds = std::mem::take(&mut *self.rounds.lock().unwrap());
        rounds.sort_unstable();
        let at = |part: f64| rounds[((rounds.len() - 1) as f64 * part) as usize];
        Rounds {
            p50: at(0.5),
            p99: at(0.99),
            worst: at(1.0),
        }
    }
}

impl Drop for Pulse {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(ended.is_ok() || thread::panicking(), "the healthy client has failed");
        }
    }
}

fn beat(address: &str, rounds: &Mutex<Vec<Duration>>, stopped: &Receiver<()>) {
    let mut client = Stomp::connect(address).expect("the node is there");
    let subscribe = Frame::subscribe("h", "/queue/healthy", "client-individual");
    client.request(subscribe).expect("a queue can be consumed");
    while let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(PAUSE) {
        let begun = Instant::now();
        client
            .request(Frame::message("/queue/healthy", b"beat"))
            .expect("a message is stored");
        let message = client
            .next(3 * ANSWER_MAX)
            .expect("the connection is there")
            .expect("it is delivered");
        client.ack(&message).expect("it is acknowledged");
        rounds.lock().unwrap().push(begun.elapsed());
    }
}
