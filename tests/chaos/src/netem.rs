//! A network's delay in user space: packets that a firewall rule hands over are kept for a while and let go.
//!
//! Runs as a process of its own within the network of the machine whose packets it delays, since this kernel of a test
//! machine may have no netem. More jitter than half the delay brings packets out of order.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    io::ErrorKind,
    thread,
    time::{Duration, Instant},
};

use anyhow::Context;
use nfq::{Message, Queue, Verdict};

/// How often it looks whether a packet is due: the precision of the delay.
const LOOK_EVERY: Duration = Duration::from_micros(400);
/// Packets that are kept at a time; more are let through by the kernel as they come.
const PACKETS_MAX: u32 = 20_000;

/// Delays what comes to a queue until the process is killed.
///
/// # Errors
/// Where the kernel has no such queues.
pub fn delay(queue_number: u16, delay: Duration, jitter: Duration) -> anyhow::Result<()> {
    let mut queue = Queue::open().context("no netfilter queue")?;
    queue.bind(queue_number)?;
    queue.set_queue_max_len(queue_number, PACKETS_MAX)?;
    queue.set_nonblocking(true);
    let mut kept: BinaryHeap<Kept> = BinaryHeap::new();
    let mut random = u64::from(queue_number);
    let mut order = 0;
    loop {
        match queue.recv() {
            Ok(mut message) => {
                message.set_verdict(Verdict::Accept);
                random = random
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1_442_695_040_888_963_407);
                let spread = 2 * jitter.as_micros() as u64 + 1;
                let least = delay.saturating_sub(jitter);
                let due = Instant::now() + least + Duration::from_micros((random >> 33) % spread);
                order += 1;
                kept.push(Kept {
                    due: Reverse((due, order)),
                    message,
                });
                continue;
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            // Packets that the kernel could not hand over are lost, as on any network.
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::NOBUFS.raw_os_error()) => {}
            Err(error) => return Err(error.into()),
        }
        let now = Instant::now();
        while kept.peek().is_some_and(|first| first.due.0.0 <= now) {
            if let Some(first) = kept.pop() {
                queue.verdict(first.message)?;
            }
        }
        thread::sleep(LOOK_EVERY);
    }
}

struct Kept {
    due: Reverse<(Instant, u64)>,
    message: Message,
}

impl PartialEq for Kept {
    fn eq(&self, other: &Self) -> bool {
        self.due == other.due
    }
}

impl Eq for Kept {}

impl PartialOrd for Kept {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Kept {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.due.cmp(&other.due)
    }
}
