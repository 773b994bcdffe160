//! The only part with tasks, a clock and a network: feeds the core with what the node and the links say, and carries out
//! its actions.
//!
//! One task owns the core. Each link has a task that reads (it waits while the core is busy, and so does the peer) and
//! one that writes messages; control frames are queued directly.

mod outbox;
mod redirector;

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use ferrymq_transport::{Channel, Link, LinkEndpoint, LinkError, LinkReceiver, LinkSender};
use tokio::{
    sync::{mpsc, watch},
    task::{JoinHandle, JoinSet},
    time,
};

use crate::{
    action::Action,
    config::Config,
    event::{DialId, Event, LinkId},
    frame::{Assembler, Encoded, Frame, Lane},
    input::Input,
    mesh::Mesh,
    output::Output,
};
use outbox::Outbox;

/// A running mesh, or the redirector that runs on a slave in its place. Dropping it closes all its links.
#[derive(Debug)]
pub struct Driver {
    task: JoinHandle<()>,
    stop: watch::Sender<bool>,
}

/// What the tasks tell the one that owns the core.
enum News {
    Connected { link: Link, dial: Option<DialId> },
    Event(Event),
}

struct Run {
    mesh: Mesh,
    endpoint: Arc<LinkEndpoint>,
    links: BTreeMap<LinkId, Sending>,
    next_link: LinkId,
    tasks: JoinSet<()>,
    news: mpsc::Sender<News>,
    outbox: Outbox,
    started: Instant,
    started_unix_ms: u64,
}

/// The writing side of a link.
struct Sending {
    sender: LinkSender,
    bulk: mpsc::Sender<Encoded>,
    /// As the core was told.
    is_silent: bool,
}

/// Inputs that wait for the core before the node has to.
const INPUTS_MAX: usize = 1_024;
/// Outputs that wait for the node; more are gathered and folded together.
const OUTPUTS_MAX: usize = 64;
/// Frames of all links that wait for the core before readers have to; each may carry a whole transfer.
const NEWS_MAX: usize = 32;
/// Frames of messages that wait for one link; the core's window keeps it far below, unless the peer reads nothing.
const BULK_FRAMES_MAX: usize = 2_048;
/// How often round trips are measured.
const MEASURE_INTERVAL_MS: u64 = 1_000;
/// How often it is seen whether links are silent …
const LISTEN_INTERVAL_MS: u64 = 200;
/// … and after how long they are: more than two signs of life are missing.
const SILENT_MS: u64 = 1_000;
/// The code with which links are closed; the text says why.
const CLOSED_BY_MESH: u32 = 1;

impl Driver {
    /// Runs the mesh of a master's term. It ends when the driver or the inputs' sender is dropped, or the node has said
    /// that it is no longer the master; then the outputs end. `seed` makes the nodes' pauses differ.
    ///
    /// Must be called within a tokio runtime. The endpoint's links are accepted by one driver at a time.
    pub fn start(
        config: Config,
        endpoint: Arc<LinkEndpoint>,
        seed: u64,
    ) -> (Self, mpsc::Sender<Input>, mpsc::Receiver<Output>) {
        let (inputs_in, inputs) = mpsc::channel(INPUTS_MAX);
        let (outputs, outputs_out) = mpsc::channel(OUTPUTS_MAX);
        let (news, news_out) = mpsc::channel(NEWS_MAX);
        let (stop, stopped) = watch::channel(false);
        let started_unix_ms = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |d| d.as_millis() as u64);
        let run = Run {
            mesh: Mesh::new(config, seed, started_unix_ms),
            endpoint,
            links: BTreeMap::new(),
            next_link: 1,
            tasks: JoinSet::new(),
            news,
            outbox: Outbox::default(),
            started: Instant::now(),
            started_unix_ms,
        };
        let task = tokio::spawn(run.run(inputs, news_out, outputs, stopped));
        (Self { task, stop }, inputs_in, outputs_out)
    }

    /// Runs on a slave: tells whoever dials where the master's links are. `master` holds its endpoints, none where there
    /// is no master now.
    pub fn redirector(endpoint: Arc<LinkEndpoint>, master: watch::Receiver<Vec<String>>) -> Self {
        let (stop, stopped) = watch::channel(false);
        Self {
            task: tokio::spawn(redirector::run(endpoint, master, stopped)),
            stop,
        }
    }

    /// Ends it and waits until it has ended, so that another driver may take over the endpoint.
    pub async fn stop(mut self) {
        let _ = self.stop.send(true);
        if let Err(error) = (&mut self.task).await {
            tracing::error!(%error, "the mesh's task failed");
        }
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Run {
    async fn run(
        mut self,
        mut inputs: mpsc::Receiver<Input>,
        mut news: mpsc::Receiver<News>,
        outputs: mpsc::Sender<Output>,
        mut stopped: watch::Receiver<bool>,
    ) {
        let endpoint = self.endpoint.clone();
        let mut measure = time::interval(Duration::from_millis(MEASURE_INTERVAL_MS));
        measure.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
        let mut listen = time::interval(Duration::from_millis(LISTEN_INTERVAL_MS));
        listen.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
        while !self.mesh.is_deposed() {
            let wake =
                self.started + Duration::from_millis(self.mesh.wake_at_ms().saturating_sub(self.started_unix_ms));
            tokio::select! {
                _ = stopped.changed() => break,
                room = outputs.reserve(), if !self.outbox.is_empty() => match (room, self.outbox.pop()) {
                    (Ok(room), Some(output)) => room.send(output),
                    (Ok(_), None) => {}
                    (Err(_), _) => break,
                },
                input = inputs.recv() => match input {
                    Some(input) => self.input(input),
                    None => break,
                },
                Some(news) = news.recv() => self.news(news),
                link = endpoint.accept() => match link {
                    Some(link) => self.connected(link, None),
                    None => break,
                },
                _ = measure.tick() => self.measure(),
                _ = listen.tick() => self.listen(),
                () = time::sleep_until(wake.into()) => self.input(Input::Tick),
                Some(_) = self.tasks.join_next() => {}
            }
        }
        let reason = if self.mesh.is_deposed() {
            "this node is no longer the master"
        } else {
            "the term is over"
        };
        self.links
            .values()
            .for_each(|link| link.sender.close(CLOSED_BY_MESH, reason));
    }

    fn now_ms(&self) -> u64 {
        self.started_unix_ms + self.started.elapsed().as_millis() as u64
    }

    fn input(&mut self, input: Input) {
        let actions = self.mesh.input(self.now_ms(), input);
        self.act(actions);
    }

    fn event(&mut self, event: Event) {
        if let Event::Closed { link, .. } = &event {
            self.links.remove(link);
        }
        let actions = self.mesh.event(self.now_ms(), event);
        self.act(actions);
    }

    fn news(&mut self, news: News) {
        match news {
            News::Connected { link, dial } => self.connected(link, dial),
            News::Event(event) => self.event(event),
        }
    }

    fn connected(&mut self, connection: Link, dial: Option<DialId>) {
        let link = self.next_link;
        self.next_link += 1;
        let (group, node) = (connection.peer().group().to_owned(), connection.peer().node());
        let (sender, receiver) = connection.split();
        let (bulk, frames) = mpsc::channel(BULK_FRAMES_MAX);
        self.tasks.spawn(read(link, receiver, self.news.clone()));
        self.tasks.spawn(write_bulk(sender.clone(), frames));
        let is_silent = false;
        self.links.insert(
            link,
            Sending {
                sender,
                bulk,
                is_silent,
            },
        );
        self.event(Event::Connected {
            link,
            dial,
            group,
            node,
        });
    }

    fn measure(&mut self) {
        let rtt = |link: &Sending| u32::try_from(link.sender.stats().rtt.as_micros()).unwrap_or(u32::MAX);
        let measured: Vec<(LinkId, u32)> = self.links.iter().map(|(id, link)| (*id, rtt(link))).collect();
        for (link, rtt_us) in measured {
            self.event(Event::RoundTrip { link, rtt_us });
        }
    }

    /// Tells the core which links have fallen silent, and which are heard again.
    fn listen(&mut self) {
        let mut changed = Vec::new();
        for (&link, sending) in &mut self.links {
            let is_silent = sending.sender.silent() >= Duration::from_millis(SILENT_MS);
            if is_silent != sending.is_silent {
                sending.is_silent = is_silent;
                changed.push(Event::Silence { link, is_silent });
            }
        }
        changed.into_iter().for_each(|event| self.event(event));
    }

    fn act(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Dial {
                    dial,
                    endpoint,
                    group,
                    deadline_ms,
                } => {
                    let deadline = Duration::from_millis(deadline_ms);
                    self.tasks.spawn(make(
                        self.endpoint.clone(),
                        dial,
                        endpoint,
                        group,
                        deadline,
                        self.news.clone(),
                    ));
                }
                Action::Send { link, frame } => self.send(link, &frame),
                Action::Close { link, reason } => {
                    if let Some(sending) = self.links.remove(&link) {
                        tracing::debug!(peer = %sending.sender.peer(), %reason, "link closed");
                        sending.sender.close(CLOSED_BY_MESH, &reason);
                    }
                }
                Action::Output(output) => self.outbox.push(output),
            }
        }
    }

    /// A link that takes nothing more is closed; what it did not take is told or sent again on the next one.
    fn send(&mut self, link: LinkId, frame: &Frame) {
        let Some(sending) = self.links.get(&link) else { return };
        for encoded in frame.encode() {
            let taken = match encoded.lane {
                Lane::Control => sending.sender.try_send(Channel::Control, encoded.kind, &encoded.chunks),
                Lane::Bulk => Ok(sending.bulk.try_send(encoded).is_ok()),
            };
            match taken {
                Ok(true) => {}
                Ok(false) => return sending.sender.close(CLOSED_BY_MESH, "the peer reads too slowly"),
                // The reading task learns of it too, and tells the core.
                Err(LinkError::FrameTooLarge { bytes, bytes_max }) => {
                    tracing::error!(bytes, bytes_max, "a frame over the transport's limit, closing the link");
                    return sending.sender.close(CLOSED_BY_MESH, "a frame over the limit");
                }
                Err(_) => return,
            }
        }
    }
}

/// Reads a link until it ends.
async fn read(link: LinkId, mut receiver: LinkReceiver, news: mpsc::Sender<News>) {
    let mut assembler = Assembler::default();
    let reason = loop {
        let frame = match receiver.recv().await {
            Ok(frame) => frame,
            Err(error) => break error.to_string(),
        };
        match assembler.take(frame.kind, frame.payload) {
            Ok(None) => {}
            Ok(Some(frame)) => {
                if news.send(News::Event(Event::Frame { link, frame })).await.is_err() {
                    return;
                }
            }
            Err(error) => break error.to_string(),
        }
    };
    // The receiver is dropped with this task, which closes the link where it is still open.
    let _ = news.send(News::Event(Event::Closed { link, reason })).await;
}

/// Writes the messages of a link, waiting while its queue is full.
async fn write_bulk(sender: LinkSender, mut frames: mpsc::Receiver<Encoded>) {
    while let Some(frame) = frames.recv().await {
        if sender.send(Channel::Bulk, frame.kind, &frame.chunks).await.is_err() {
            return;
        }
    }
}

/// Dials the addresses behind an endpoint, one after the other.
async fn make(
    endpoint: Arc<LinkEndpoint>,
    dial: DialId,
    to: String,
    group: Option<String>,
    deadline: Duration,
    news: mpsc::Sender<News>,
) {
    let dialling = async {
        let mut error = format!("{to} has no address");
        let addresses = tokio::net::lookup_host(&to).await.map_err(|e| format!("{to}: {e}"))?;
        for address in addresses {
            match endpoint.dial(address, group.as_deref()).await {
                Ok(link) => return Ok(link),
                Err(e) => error = format!("{to}: {e}"),
            }
        }
        Err(error)
    };
    let late = || Err(format!("{to}: no answer in {} ms", deadline.as_millis()));
    let told = match time::timeout(deadline, dialling).await.unwrap_or_else(|_| late()) {
        Ok(link) => News::Connected { link, dial: Some(dial) },
        Err(error) => News::Event(Event::DialFailed { dial, error }),
    };
    let _ = news.send(told).await;
}
