//! Clocks that differ, with messages that have ten minutes to live: none of them may die of that (P2).

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ferrymq_tests::{Frame, History, Stomp, history::Report, wait_until};

use crate::{
    EAST, NODES, NORTH,
    fault::{Fault, Mend},
    faults::{
        clock::{set, wait_shown},
        processes::step_down,
    },
    field::{Field, WELL_MAX},
    toolbox,
};

/// Messages of each kind.
const PROBES: u64 = 20;
/// How long they have to live, by the clients' clock, which is right.
const LIVES: Duration = Duration::from_secs(600);
/// Nothing more comes after so long.
const STILL: Duration = Duration::from_secs(5);

/// A slave's wall clock is wrong by so much, and it becomes master. Messages wait meanwhile that were sent to the master before,
/// and others are sent to it.
pub struct SkewedMaster {
    /// Forwards, or backwards.
    pub seconds: i64,
}

impl Fault for SkewedMaster {
    fn missing(&self) -> Option<String> {
        toolbox::missing(&["cc"])
    }

    fn strike(&self, field: &mut Field, on: &[usize]) -> Mend {
        let (node, seconds) = (on[0], self.seconds);
        let group = node / NODES;
        let probes = Probes::new("/queue/SKEWED", group, group);
        probes.send(field, 1);
        set(field, &[node], seconds);
        wait_shown(field, node, seconds);
        let begun = Instant::now();
        // Refused while the slave lacks something.
        wait_until("the node with the wrong clock is master", 2 * WELL_MAX, || {
            field.supervise();
            field.node(node).is_master()
                || begun.elapsed() > WELL_MAX
                || (step_down(field, group, Some(node)) && field.node(node).is_master())
        });
        probes.send(field, 1 + PROBES);
        Box::new(move |field| {
            probes.take(field);
            set(field, &[node], 0);
            wait_shown(field, node, 0);
        })
    }
}

/// The wall clock of the whole of east is wrong by so much: messages cross to it.
pub struct SkewedGroup {
    /// Forwards, or backwards.
    pub seconds: i64,
}

impl Fault for SkewedGroup {
    fn missing(&self) -> Option<String> {
        toolbox::missing(&["cc"])
    }

    fn strike(&self, field: &mut Field, on: &[usize]) -> Mend {
        let (on, seconds) = (on.to_vec(), self.seconds);
        set(field, &on, seconds);
        on.iter().for_each(|node| wait_shown(field, *node, seconds));
        let probes = Probes::new("/queue/SKEWED.FAR", NORTH, EAST);
        probes.send(field, 1);
        Box::new(move |field| {
            probes.take(field);
            set(field, &on, 0);
            on.iter().for_each(|node| wait_shown(field, *node, 0));
        })
    }
}

/// Messages of a fault's own.
struct Probes {
    queue: &'static str,
    /// Another one each time: its numbers begin with 1.
    producer: String,
    /// The same for a resend, which is the same message.
    expires_ms: u128,
    from: usize,
    to: usize,
    history: History,
}

impl Probes {
    fn new(queue: &'static str, from: usize, to: usize) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            queue,
            expires_ms: (now + LIVES).as_millis(),
            producer: format!("skewed-{}", now.as_nanos()),
            from,
            to,
            history: History::default(),
        }
    }

    /// Numbers from `first` up, each until it has its receipt.
    fn send(&self, field: &mut Field, first: u64) {
        let send = |field: &Field| -> anyhow::Result<()> {
            let mut stomp = Stomp::connect(&field.node(field.master(self.from)).address())?;
            for number in (first..first + PROBES).filter(|number| !self.history.has_receipt(&self.producer, *number)) {
                self.history.attempt(&self.producer, number);
                let frame = Frame::message(self.queue, number.to_string());
                let frame = frame
                    .with("producer-id", &self.producer)
                    .with("producer-sequence", number);
                stomp.request(frame.with("n", number).with("expires", self.expires_ms))?;
                self.history.receipt(&self.producer, number);
            }
            Ok(())
        };
        wait_until("messages with ten minutes to live are sent", WELL_MAX, || {
            field.supervise();
            // It may fail while masters change.
            send(field).is_ok()
        });
    }

    /// Takes them all; what does not come is lost.
    fn take(&self, field: &mut Field) {
        let take = |field: &Field| -> anyhow::Result<()> {
            let mut stomp = Stomp::connect(&field.node(field.master(self.to)).address())?;
            stomp.request(Frame::subscribe("s", self.queue, "client-individual"))?;
            while self.history.owed() > 0
                && let Some(frame) = stomp.next(STILL)?
            {
                let number = frame.get("n").unwrap_or("0").parse()?;
                self.history.delivery(&self.producer, number, frame.redelivered());
                self.history.acknowledging(&self.producer, number);
                stomp.ack(&frame)?;
            }
            stomp.request(Frame::new("UNSUBSCRIBE").with("id", "s"))
        };
        wait_until("what has ten minutes to live is taken", WELL_MAX, || {
            field.supervise();
            take(field).is_ok()
        });
        let report: Report = self.history.report();
        if !report.is_kept() {
            field.breach(format!("P2: of messages with ten minutes to live: {report}"));
        }
    }
}
