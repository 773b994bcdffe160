//! Sockets that say nothing and come again as soon as they are closed.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{RecvTimeoutError, Sender, channel},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use crate::wire::Wire;

/// When all of them are open: until the next look.
const PAUSE: Duration = Duration::from_millis(1);

/// They go on until this is dropped.
pub(crate) struct Strangers {
    renewed: Arc<AtomicU64>,
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Strangers {
    /// So many at one address, each of which says `word` and then nothing.
    pub(crate) fn at(address: &str, count: usize, word: &'static [u8]) -> Self {
        let renewed = Arc::new(AtomicU64::new(0));
        let (stop, stopped) = channel();
        let (counted, address) = (renewed.clone(), address.to_owned());
        let thread = thread::spawn(move || {
            let mut wires: Vec<Option<Wire>> = (0..count).map(|_| None).collect();
            loop {
                let mut idle = true;
                for wire in &mut wires {
                    if !wire.as_mut().is_none_or(Wire::is_closed) {
                        continue;
                    }
                    idle = false;
                    *wire = Wire::open(&address).ok();
                    if let Some(wire) = wire {
                        // It may be closed already.
                        let _ = wire.write_all(word);
                    }
                    counted.fetch_add(1, Ordering::Relaxed);
                }
                let pause = if idle { PAUSE } else { Duration::ZERO };
                if stopped.recv_timeout(pause) != Err(RecvTimeoutError::Timeout) {
                    return;
                }
            }
        });
        Self {
            renewed,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    /// Connections made so far.
    pub(crate) fn renewed(&self) -> u64 {
        self.renewed.load(Ordering::Relaxed)
    }
}

impl Drop for Strangers {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(ended.is_ok() || thread::panicking(), "the strangers have failed");
        }
    }
}
