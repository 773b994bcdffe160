//! One run of a load: connect, warm up, measure, drain, report.

use std::{
    cell::RefCell,
    hash::{BuildHasher, RandomState},
    rc::Rc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, ensure};
use tokio::{
    task::{JoinError, JoinSet, LocalSet},
    time::{sleep, sleep_until},
};

use crate::{
    board::Board,
    clock::{Nanos, nanos, seconds},
    driver::Driver,
    load::Load,
    pace::{Pace, Schedule},
    report::{Count, Latency, Phase, Report, Sample},
    traffic,
};

/// Makes the load and measures it. `senders` and `receivers` are the same driver, or two groups of brokers between which
/// messages travel. `progress` is told each sample when it has been taken; it must be quick, since the load stands still
/// meanwhile. Must run on a tokio runtime of the current thread.
///
/// # Errors
/// Where the load makes no sense, somebody cannot connect, or a connection fails on the way.
pub async fn run<D: Driver>(load: &Load, senders: &D, receivers: &D, progress: impl FnMut(&Sample)) -> Result<Report> {
    load.check()?;
    let work = async {
        let mut run = Run::connect(load, senders, receivers, progress).await?;
        run.warm_up().await?;
        run.measure().await?;
        run.drain().await
    };
    LocalSet::new().run_until(work).await
}

struct Run<'a, P> {
    load: &'a Load,
    progress: P,
    board: Rc<RefCell<Board>>,
    senders: JoinSet<Result<()>>,
    receivers: JoinSet<Result<()>>,
    next_sample: Nanos,
    samples: Vec<Sample>,
}

/// How often it is checked whether everything has arrived.
const CHECK_EVERY: Duration = Duration::from_millis(2);

/// Time for the last acknowledgements to reach the broker before the connections end; else it would keep those messages.
const SETTLE: Duration = Duration::from_millis(100);

impl<'a, P: FnMut(&Sample)> Run<'a, P> {
    async fn connect<D: Driver>(load: &'a Load, senders: &D, receivers: &D, progress: P) -> Result<Self> {
        // Receivers first: a topic does not keep what nobody subscribes to.
        let mut receiving = Vec::new();
        for receiver in 0..load.consumers {
            let connected = receivers.receiver(load.receiver_endpoint(receiver)).await;
            receiving.push(connected.with_context(|| format!("receiver {receiver} cannot connect"))?);
        }
        let mut sending = Vec::new();
        for sender in 0..load.producers {
            let connected = senders.sender(load.sender_endpoint(sender)).await;
            sending.push(connected.with_context(|| format!("sender {sender} cannot connect"))?);
        }

        let run_id = RandomState::new().hash_one(std::process::id()) as u32;
        let mut board = Board::new(load, run_id);
        board.begin();
        let clock = board.clock;
        let board = Rc::new(RefCell::new(board));
        let pace = match Schedule::of(load) {
            Some(schedule) => Some(Rc::new((schedule, Pace::start(schedule, clock)?))),
            None => None,
        };
        let mut run = Self {
            load,
            progress,
            board: board.clone(),
            senders: JoinSet::new(),
            receivers: JoinSet::new(),
            next_sample: nanos(load.sample_every),
            samples: Vec::new(),
        };
        for (receiver, link) in receiving.into_iter().enumerate() {
            run.receivers
                .spawn_local(traffic::consume(link, receiver, board.clone()));
        }
        for (sender, link) in sending.into_iter().enumerate() {
            let produce = traffic::produce(link, sender, load.clone(), board.clone(), pace.clone());
            run.senders.spawn_local(produce);
        }
        Ok(run)
    }

    async fn warm_up(&mut self) -> Result<()> {
        let from = self.board.borrow().from;
        if from > 0 {
            self.follow(Phase::WarmUp, from, |run| run.is_complete()).await?;
        }
        ensure!(
            !self.load.messages_max.is_some_and(|_| self.is_complete()),
            "all messages were through before the warm-up was over"
        );
        Ok(())
    }

    async fn measure(&mut self) -> Result<()> {
        let to = self.board.borrow().to;
        self.follow(Phase::Measuring, to, |run| run.is_complete()).await?;
        let mut board = self.board.borrow_mut();
        board.to = board.to.min(board.clock.now()).max(board.from);
        Ok(())
    }

    /// Waits for what is under way, and reports.
    async fn drain(mut self) -> Result<Report> {
        let begun = self.board.borrow().clock.now();
        let until = begun.saturating_add(nanos(self.load.drain_max));
        self.follow(Phase::Draining, until, |run| run.is_quiet()).await?;
        let drained = self.board.borrow().clock.now() - begun;
        self.board.borrow_mut().close();
        let report = self.report(seconds(drained));
        if !self.receivers.is_empty() {
            sleep(SETTLE).await;
        }
        Ok(report)
    }

    /// Samples until `until`, or until `is_over`.
    async fn follow(&mut self, phase: Phase, until: Nanos, is_over: impl Fn(&Self) -> bool) -> Result<()> {
        let clock = self.board.borrow().clock;
        // Only an end by numbers must be looked for.
        let looks = phase == Phase::Draining || self.load.messages_max.is_some();
        loop {
            let now = clock.now();
            let over = now >= until || looks && is_over(self);
            if over || now >= self.next_sample {
                let sample = self.board.borrow_mut().take_sample(phase, over);
                (self.progress)(&sample);
                self.samples.push(sample);
            }
            while now >= self.next_sample {
                self.next_sample += nanos(self.load.sample_every);
            }
            if over {
                return Ok(());
            }
            let mut wake = clock.instant(until.min(self.next_sample));
            if looks {
                wake = wake.min(Instant::now() + CHECK_EVERY);
            }
            self.sleep_until(wake).await?;
        }
    }

    /// Sleeps, unless somebody fails.
    async fn sleep_until(&mut self, wake: Instant) -> Result<()> {
        let (senders, receivers) = (&mut self.senders, &mut self.receivers);
        tokio::select! {
            () = sleep_until(wake.into()) => Ok(()),
            Some(ended) = senders.join_next() => outcome(ended),
            Some(ended) = receivers.join_next() => outcome(ended),
        }
    }

    /// Whether the messages that were asked for are through.
    fn is_complete(&self) -> bool {
        match self.load.producers {
            0 => {
                let received = self.board.borrow().received_ever;
                self.load.messages_max.is_some_and(|max| received >= max)
            }
            _ => self.senders.is_empty() && self.has_arrived(),
        }
    }

    /// Whether nothing is under way that is to be waited for.
    fn is_quiet(&self) -> bool {
        self.senders.is_empty() && self.has_arrived()
    }

    fn has_arrived(&self) -> bool {
        !self.drains() || self.board.borrow().missing() == 0
    }

    fn drains(&self) -> bool {
        self.load.drain && self.load.consumers > 0 && self.load.producers > 0
    }

    fn report(&mut self, drain_seconds: f64) -> Report {
        let board = self.board.borrow();
        let measured_seconds = seconds(board.to - board.from);
        Report {
            load: self.load.clone(),
            measured_seconds,
            sent: Count::new(board.measured.sent, measured_seconds),
            confirmed: Count::new(board.measured.confirmed, measured_seconds),
            received: Count::new(board.measured.received, measured_seconds),
            confirm_latency: Latency::of(&board.measured_latency.confirm),
            end_to_end_latency: Latency::of(&board.measured_latency.end_to_end),
            unsent: board.unsent(),
            unconfirmed: board.unconfirmed(),
            lost: self.drains().then(|| board.missing()),
            duplicates: board.duplicates,
            out_of_order: board.out_of_order,
            foreign: board.foreign,
            drain_seconds,
            samples: std::mem::take(&mut self.samples),
        }
    }
}

fn outcome(ended: Result<Result<()>, JoinError>) -> Result<()> {
    match ended {
        Ok(result) => result,
        Err(error) => Err(anyhow!("a sender or receiver ended unexpectedly: {error}")),
    }
}
