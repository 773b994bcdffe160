//! One client with one connection, that takes the time of single steps. A master that is lost meanwhile is followed, so
//! that a long run goes on; the time shows it.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use ferrymq_tests::{Frame, GroupOfNodes, Stomp};

/// See the file's head.
pub(crate) struct Prober<'a> {
    group: &'a GroupOfNodes,
    connection: Stomp,
    subscriptions: u64,
}

/// A step is repeated for so long.
const STEP_MAX: Duration = Duration::from_secs(60);
/// Messages sent before a receipt is waited for.
const UNCONFIRMED_MAX: usize = 500;

impl<'a> Prober<'a> {
    /// Connects to the master, which is waited for.
    pub(crate) fn connect(group: &'a GroupOfNodes) -> Result<Self> {
        Ok(Self {
            group,
            connection: connect(group)?,
            subscriptions: 0,
        })
    }

    /// Sends one message; the time until it is acknowledged.
    pub(crate) fn send(&mut self, destination: &str) -> Result<Duration> {
        self.timed(|connection| connection.request(Frame::message(destination, "probe")))
    }

    /// Sends at least one message to each destination and waits for all of them.
    pub(crate) fn send_all(&mut self, destinations: impl Iterator<Item = String>) -> Result<()> {
        let destinations: Vec<String> = destinations.collect();
        for some in destinations.chunks(UNCONFIRMED_MAX) {
            self.timed(|connection| {
                let (last, others) = some.split_last().context("chunks are not empty")?;
                for destination in others {
                    connection.send(&Frame::message(destination, "probe"))?;
                }
                connection.request(Frame::message(last, "probe"))
            })?;
        }
        Ok(())
    }

    /// Subscribes; the time until the first message that waits there is delivered. Takes none.
    pub(crate) fn first_of(&mut self, destination: &str) -> Result<Duration> {
        self.subscriptions += 1;
        let id = self.subscriptions.to_string();
        let took = self.timed(|connection| {
            let subscribe = Frame::subscribe(&id, destination, "client-individual").with("activemq.prefetchSize", "1");
            connection.send(&subscribe)?;
            loop {
                let frame = connection.next(STEP_MAX)?.context("no message came")?;
                match &*frame.command {
                    "MESSAGE" if frame.get("subscription") == Some(&id) => return Ok(()),
                    "ERROR" => bail!("{}", frame.text()),
                    _ => {}
                }
            }
        })?;
        // Without a connection there is no subscription either.
        let _ = self.connection.request(Frame::new("UNSUBSCRIBE").with("id", &id));
        Ok(took)
    }

    fn timed(&mut self, step: impl Fn(&mut Stomp) -> Result<()>) -> Result<Duration> {
        let begun = Instant::now();
        loop {
            match step(&mut self.connection) {
                Ok(()) => return Ok(begun.elapsed()),
                Err(error) if begun.elapsed() > STEP_MAX => return Err(error),
                Err(_) => self.connection = connect(self.group)?,
            }
        }
    }
}

fn connect(group: &GroupOfNodes) -> Result<Stomp> {
    let begun = Instant::now();
    loop {
        match Stomp::connect(&group.nodes[group.master()].address()) {
            Ok(connection) => return Ok(connection),
            Err(error) if begun.elapsed() > STEP_MAX => return Err(error.context("no connection in time")),
            Err(_) => std::thread::yield_now(),
        }
    }
}

/// The middle one, and the longest.
pub(crate) fn middle_and_longest(mut times: Vec<Duration>) -> (Duration, Duration) {
    times.sort_unstable();
    let longest = times.last().copied().unwrap_or_default();
    (times.get(times.len() / 2).copied().unwrap_or_default(), longest)
}
