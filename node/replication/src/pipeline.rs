//! Group commit: commands gather into a batch while earlier batches are being agreed upon.
//!
//! The first command of a quiet moment goes out alone; under load a batch holds whatever came during one round of
//! replication and sync, up to its bounds in bytes and count (gathering.rs says when it goes). One event per batch goes
//! back to the node.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

use bytes::Bytes;
use ferrymq_broker::{BatchBuilder, Outcome};
use openraft::errors::ClientWriteError;
use tokio::sync::{Notify, watch};

use crate::alarm::Alarm;
use crate::config::Config;
use crate::entrance::{After, Entrance};
use crate::event::{Completion, Failure, GroupEvent};
use crate::gathering::{Gathered, Gathering, Next};
use crate::histogram::Histogram;
use crate::replica::Replica;
use crate::role::Role;
use crate::state_machine::applied_event;
use crate::status::BatchStatus;
use crate::types::{Answer, Batch, Raft, Reply, Written};

/// Commands on their way into the log.
pub(crate) struct Pipeline {
    entrance: Mutex<Entrance>,
    wake: Notify,
    in_flight: AtomicUsize,
    /// Submitted and not answered.
    backlog_bytes: AtomicUsize,
    replica: Arc<Replica>,
    commands: AtomicU64,
    latency: Histogram,
}

/// A proposal without its payload.
struct Proposed {
    tokens: Vec<u64>,
    awaited: usize,
    bytes: usize,
    started: Instant,
}

impl Pipeline {
    pub(crate) fn new(config: &Config, replica: Arc<Replica>) -> Arc<Pipeline> {
        Arc::new(Pipeline {
            entrance: Mutex::new(Entrance::new(Gathering::new(
                config.batch_bytes_max,
                config.batch_commands_max,
                config.batches_in_flight_max,
            ))),
            wake: Notify::new(),
            in_flight: AtomicUsize::new(0),
            backlog_bytes: AtomicUsize::new(0),
            replica,
            commands: AtomicU64::new(0),
            latency: Histogram::default(),
        })
    }

    /// Adds commands in their order, waking the proposer once. What is not `awaited` by anybody may wait a moment for
    /// company.
    pub(crate) fn submit(&self, commands: impl IntoIterator<Item = (Bytes, u64)>, awaited: bool) {
        {
            let now = Instant::now();
            let mut entrance = self.lock();
            for (command, token) in commands {
                self.backlog_bytes.fetch_add(command.len(), Ordering::Relaxed);
                entrance.gathering.push(&command, token, awaited, now);
            }
        }
        self.wake.notify_one();
    }

    /// Another loop begins. What an earlier one has left behind a batch that was not taken is not taken either.
    pub(crate) fn begin(self: &Arc<Self>) {
        self.open(After::Anything);
    }

    /// The loop knows what the full disk has cost, and submits nothing behind it.
    pub(crate) fn go_on_after_full(self: &Arc<Self>) {
        self.open(After::Full);
    }

    fn open(self: &Arc<Self>, after: After) {
        let Some((failure, refused)) = self.lock().open(after) else {
            return;
        };
        for gathered in refused {
            let refused = self.clone().proposal(gathered).1;
            refused.tell(failure);
            refused.finish();
        }
    }

    pub(crate) fn backlog_bytes(&self) -> usize {
        self.backlog_bytes.load(Ordering::Relaxed)
    }

    /// Proposes what gathers, for as long as the replica runs.
    pub(crate) async fn run(self: Arc<Self>, raft: Raft, mut role: watch::Receiver<Role>) {
        let alarm = match Alarm::new() {
            Ok(alarm) => alarm,
            Err(error) => {
                return self
                    .replica
                    .tell(GroupEvent::Fatal(format!("no timer to be had: {error}")));
            }
        };
        let mut ask_again = None;
        loop {
            tokio::select! {
                () = self.wake.notified() => {}
                // Not being master any more, or not for sure, answers what waits behind stuck proposals.
                Ok(()) = role.changed() => {}
                Ok(()) = ring(&alarm, ask_again), if ask_again.is_some() => {}
            }
            let is_master = role.borrow_and_update().is_master();
            ask_again = self.propose(&raft, is_master).await;
        }
    }

    /// Proposes what may go now; returns when to ask again.
    async fn propose(self: &Arc<Self>, raft: &Raft, is_master: bool) -> Option<Instant> {
        loop {
            let (gathered, refused) = match self.next(is_master) {
                (Next::Go(gathered), refused) => (gathered, refused),
                (Next::At(at), _) => return Some(at),
                (Next::Wait, _) => return None,
            };
            let stores = gathered.stores;
            let (payload, answer) = self.clone().proposal(gathered);
            if let Some(failure) = refused {
                answer.fail(failure);
                continue;
            }
            if !self.replica.has_room_for(payload.len(), stores) {
                answer.fail(Failure::Full);
                continue;
            }
            let answer = Answer::new(move |written| answer.complete(written));
            // On failure the answer is dropped, which reports `Failure::Fatal`.
            if let Err(error) = raft.client_write_ff(Batch(payload), Some(answer)).await {
                tracing::error!(%error, "the replica has stopped");
            }
        }
    }

    fn next(&self, is_master: bool) -> (Next, Option<Failure>) {
        let in_flight = self.in_flight.load(Ordering::Acquire);
        self.lock().next(is_master, in_flight, Instant::now())
    }

    fn proposal(self: Arc<Self>, gathered: Gathered) -> (Bytes, Proposal) {
        let header = BatchBuilder::default().len();
        let bytes = gathered.batch.len() - header;
        let payload = gathered.batch.finish();
        self.in_flight.fetch_add(1, Ordering::AcqRel);
        let proposed = Proposed {
            tokens: gathered.tokens,
            awaited: gathered.awaited,
            bytes,
            started: Instant::now(),
        };
        (
            payload,
            Proposal {
                pipeline: self,
                proposed,
            },
        )
    }

    pub(crate) fn status(&self) -> BatchStatus {
        let count = self.latency.count();
        BatchStatus {
            count,
            commands_average: self.commands.load(Ordering::Relaxed) as f64 / count.max(1) as f64,
            commit_p50_micros: self.latency.quantile_micros(0.5),
            commit_p99_micros: self.latency.quantile_micros(0.99),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Entrance> {
        self.entrance.lock().expect("no code panics under this lock")
    }
}

async fn ring(alarm: &Alarm, at: Option<Instant>) -> std::io::Result<()> {
    match at {
        Some(at) => alarm.wait_until(at).await,
        None => std::future::pending().await,
    }
}

/// A batch on its way; reports back exactly once.
struct Proposal {
    pipeline: Arc<Pipeline>,
    proposed: Proposed,
}

impl Proposal {
    fn complete(self, written: Option<Written>) {
        match written {
            Some(Ok(response)) => self.applied(response.data),
            Some(Err(ClientWriteError::LogEntryDiscarded(_))) => self.fail(Failure::Unknown),
            Some(Err(_)) => self.fail(Failure::NotMaster),
            None => self.fail(Failure::Fatal),
        }
    }

    fn applied(self, reply: Reply) {
        let (pipeline, proposed) = (&self.pipeline, &self.proposed);
        let took = proposed.started.elapsed();
        pipeline.latency.record(took);
        pipeline
            .lock()
            .gathering
            .round_over(proposed.awaited, took, Instant::now());
        pipeline
            .commands
            .fetch_add(proposed.tokens.len() as u64, Ordering::Relaxed);
        pipeline
            .replica
            .tell(applied_event(reply, |outcomes| results(&proposed.tokens, outcomes)));
        self.finish();
    }

    /// Not taken, and nothing behind it will be.
    fn fail(self, failure: Failure) {
        let mut entrance = self.pipeline.lock();
        entrance.shut(failure);
        // Under the lock: whoever opens it has been told of every failure before that, or is about to be told of another
        // one that shuts it again.
        self.tell(failure);
        drop(entrance);
        self.finish();
    }

    fn tell(&self, failure: Failure) {
        let results = self
            .proposed
            .tokens
            .iter()
            .map(|token| (*token, Err(failure)))
            .collect();
        self.pipeline.replica.tell(GroupEvent::Done { results });
    }

    fn finish(self) {
        self.pipeline
            .backlog_bytes
            .fetch_sub(self.proposed.bytes, Ordering::Relaxed);
        self.pipeline.in_flight.fetch_sub(1, Ordering::AcqRel);
        self.pipeline.wake.notify_one();
    }
}

/// The broker gives one outcome per command; a missing one would be its mistake and must not look like success.
fn results(tokens: &[u64], outcomes: Vec<Outcome>) -> Vec<Completion> {
    let outcomes = outcomes
        .into_iter()
        .map(Ok)
        .chain(std::iter::repeat_with(|| Err(Failure::Unknown)));
    tokens.iter().copied().zip(outcomes).collect()
}
