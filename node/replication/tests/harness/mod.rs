//! Groups of several nodes in one process, talking over loopback, with real journals in temporary directories.

#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "test code; each test file uses a part of it"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use ferrymq_broker::{Acknowledge, Command, Effect, Enqueue, Outcome, Settings};
use ferrymq_journal::Journal;
use ferrymq_message::{Destination, DestinationKind, Message, Producer, StoredMessage};
use ferrymq_replication::{
    Completion, Config, Dial, Failure, Group, GroupEvent, NodeAddress, NodeId, PeerDial, Probe, StartError, Sync,
};
use ferrymq_transport::{PeerAuth, PeerListener, PeerName, PeerStream, Purpose};
use futures_util::future::BoxFuture;
use tempfile::TempDir;
use tokio::sync::Notify;
use tokio::task::{JoinHandle, JoinSet};

pub const GROUP: &str = "north";
pub const QUEUE: &str = "orders";
/// Generous: two cores may run several such tests at once.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// A group; nodes can be stopped and started.
pub struct Cluster {
    pub nodes: BTreeMap<NodeId, Node>,
    pub members: BTreeMap<NodeId, NodeAddress>,
    wall: Wall,
    /// Connections tried by all nodes.
    pub dials: Arc<AtomicU64>,
    tune: fn(&mut Config),
}

/// One node's disk, and its running replica if it runs.
pub struct Node {
    pub id: NodeId,
    pub dir: TempDir,
    pub running: Option<Running>,
}

pub struct Running {
    pub group: Group,
    pub seen: Arc<Mutex<Seen>>,
    journal: Journal,
    tasks: Vec<JoinHandle<()>>,
    /// Ends all accepted connections.
    cut: Arc<Notify>,
}

/// Nodes that a firewall keeps apart from all others: it refuses every connection.
type Wall = Arc<Mutex<BTreeSet<NodeId>>>;

struct TestDial {
    dial: PeerDial,
    me: NodeId,
    wall: Wall,
    dials: Arc<AtomicU64>,
}

impl TestDial {
    fn is_refused(&self, node: NodeId) -> bool {
        let wall = self.wall.lock().unwrap();
        wall.contains(&node) || wall.contains(&self.me)
    }
}

impl Dial for TestDial {
    fn dial(&self, node: NodeId, address: &str, purpose: Purpose) -> BoxFuture<'static, std::io::Result<PeerStream>> {
        self.dials.fetch_add(1, Ordering::Relaxed);
        if self.is_refused(node) {
            return Box::pin(async { Err(std::io::ErrorKind::ConnectionRefused.into()) });
        }
        self.dial.dial(node, address, purpose)
    }

    fn probe(&self, node: NodeId, address: &str) -> BoxFuture<'static, Probe> {
        if self.is_refused(node) {
            return Box::pin(async { Probe::Refused });
        }
        self.dial.probe(node, address)
    }
}

/// What the node was told.
#[derive(Default)]
pub struct Seen {
    pub results: BTreeMap<u64, Result<Outcome, Failure>>,
    pub effects: Vec<(u64, Effect)>,
    pub indexes: Vec<u64>,
    pub fatal: Option<String>,
}

impl Cluster {
    /// Starts nodes 1..=count, all fresh.
    pub async fn start(count: NodeId, tune: fn(&mut Config)) -> Cluster {
        let mut cluster = Cluster {
            nodes: BTreeMap::new(),
            members: BTreeMap::new(),
            wall: Wall::default(),
            dials: Arc::default(),
            tune,
        };
        for id in 1..=count {
            cluster.members.insert(id, free_address());
            cluster.nodes.insert(
                id,
                Node {
                    id,
                    dir: tempfile::tempdir().unwrap(),
                    running: None,
                },
            );
        }
        for id in 1..=count {
            cluster.start_node(id).await.unwrap();
        }
        cluster
    }

    /// Starts a node that is stopped, with the members as they are known to the cluster.
    pub async fn start_node(&mut self, id: NodeId) -> Result<(), StartError> {
        let mut config = Config::new(
            GROUP,
            id,
            self.members.clone(),
            self.nodes[&id].dir.path().join("state"),
        );
        (self.tune)(&mut config);
        self.start_with(config).await
    }

    pub async fn start_with(&mut self, config: Config) -> Result<(), StartError> {
        let id = config.node;
        let node = self.nodes.get_mut(&id).unwrap();
        let address = self.members[&config.node].peer.clone();
        let journal = Journal::open(ferrymq_journal::Config {
            // As the program does.
            sync: matches!(config.sync, Sync::QuorumDisk | Sync::LocalDisk),
            ..journal_config(node.dir.path().join("journal"))
        })
        .unwrap();
        let auth = PeerAuth::new(PeerName::new(config.group.clone(), config.node).unwrap());
        let mut listener = until("the port is free", async || {
            PeerListener::bind(&address, auth.clone()).await.ok()
        })
        .await;
        let dial = Arc::new(TestDial {
            dial: PeerDial::new(auth, Duration::from_millis(config.dial_timeout_ms)),
            me: id,
            wall: self.wall.clone(),
            dials: self.dials.clone(),
        });
        let (group, mut events) = Group::start(config, journal.clone(), Settings::default(), dial).await?;
        let seen = Arc::new(Mutex::new(Seen::default()));
        let note = seen.clone();
        let watch = tokio::spawn(async move {
            while let Some(event) = events.recv().await {
                note.lock().unwrap().note(event);
            }
        });
        let server = group.clone();
        let cut = Arc::new(Notify::new());
        let cuts = cut.clone();
        let serve = tokio::spawn(async move {
            let mut streams = JoinSet::new();
            loop {
                let connection = tokio::select! {
                    connection = listener.accept() => connection,
                    () = cuts.notified() => {
                        streams.abort_all();
                        continue;
                    }
                };
                let server = server.clone();
                streams.spawn(async move {
                    server
                        .serve(connection.purpose, connection.peer, connection.stream)
                        .await
                });
            }
        });
        node.running = Some(Running {
            group,
            seen,
            journal,
            tasks: vec![watch, serve],
            cut,
        });
        Ok(())
    }

    /// Ends a node without a word to the others: its connections break.
    pub async fn stop(&mut self, id: NodeId) {
        let running = self.nodes.get_mut(&id).unwrap().running.take().expect("it runs");
        for task in running.tasks {
            task.abort();
            let _ = task.await;
        }
        running.group.shutdown().await;
        running.journal.close();
    }

    /// Ends all connections that others have made to a node; they may make new ones at once.
    pub fn cut(&self, id: NodeId) {
        self.nodes[&id].running.as_ref().expect("it runs").cut.notify_one();
    }

    /// A firewall comes up around a node: it resets all connections, to the node and from it, and refuses new ones.
    pub fn wall_in(&self, id: NodeId) {
        self.wall.lock().unwrap().insert(id);
        for node in self.running() {
            self.cut(node);
        }
    }

    /// The firewall is gone.
    pub fn unwall(&self) {
        self.wall.lock().unwrap().clear();
    }

    pub fn group(&self, id: NodeId) -> &Group {
        &self.nodes[&id].running.as_ref().expect("it runs").group
    }

    pub fn seen(&self, id: NodeId) -> Arc<Mutex<Seen>> {
        self.nodes[&id].running.as_ref().expect("it runs").seen.clone()
    }

    pub fn running(&self) -> Vec<NodeId> {
        self.nodes
            .values()
            .filter(|node| node.running.is_some())
            .map(|node| node.id)
            .collect()
    }

    /// The one node that is master, with a lease.
    pub async fn master(&self) -> NodeId {
        until("there is one master", async || {
            let is_master = |id: &NodeId| self.group(*id).role().borrow().is_master() && self.group(*id).lease_valid();
            let masters: Vec<NodeId> = self.running().into_iter().filter(is_master).collect();
            if let [master] = masters[..] { Some(master) } else { None }
        })
        .await
    }

    /// Submits on that node and waits for the outcome.
    pub async fn submit(&self, id: NodeId, command: &Command) -> Result<Outcome, Failure> {
        let token = TOKEN.fetch_add(1, Ordering::Relaxed);
        self.group(id).submit(command.encode(), token);
        let seen = self.seen(id);
        until("the command is answered", async || {
            seen.lock().unwrap().results.remove(&token)
        })
        .await
    }

    /// Flips a bit on this node's disk wherever its journal has these bytes.
    pub fn flip_bit_of(&self, id: NodeId, bytes: &str) {
        let mut flipped = 0;
        for entry in std::fs::read_dir(self.nodes[&id].dir.path().join("journal")).unwrap() {
            let path = entry.unwrap().path();
            let content = std::fs::read(&path).unwrap();
            let found = content.windows(bytes.len()).enumerate();
            for (at, _) in found.filter(|(_, window)| *window == bytes.as_bytes()) {
                let file = std::fs::File::options().write(true).open(&path).unwrap();
                file.write_all_at(&[content[at] ^ 1], at as u64).unwrap();
                flipped += 1;
            }
        }
        assert!(flipped > 0, "{bytes:?} is nowhere");
    }

    /// As a master's loop does after something was not taken: what it submitted behind that is not taken either.
    pub fn begin_anew(&self, id: NodeId) {
        self.group(id).attach(|_, _| ());
        self.group(id).detach();
    }

    /// Sends on whichever node is master, as a client would: again, under the same number, while the answer is no.
    pub async fn send(&self, number: u64) {
        until("the message is acknowledged", async || {
            let master = self.master().await;
            match self.submit(master, &enqueue(number)).await {
                Ok(Outcome::Done | Outcome::Duplicate) => Some(()),
                Ok(other) => panic!("unexpected outcome {other:?}"),
                Err(_) => {
                    self.begin_anew(master);
                    None
                }
            }
        })
        .await;
    }

    /// Waits until all running nodes hold exactly these messages in this order, bodies included.
    pub async fn all_hold(&self, numbers: impl IntoIterator<Item = u64>) {
        let expected: Vec<String> = numbers.into_iter().map(body).collect();
        for id in self.running() {
            let mut last = Vec::new();
            let held = tokio::time::timeout(DEADLINE, async {
                loop {
                    last = contents(self.group(id));
                    if last == expected {
                        return;
                    }
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            });
            if held.await.is_err() {
                panic!(
                    "node {id} holds {} messages, not {}: {last:?}\n{:#?}",
                    last.len(),
                    expected.len(),
                    self.group(id).status()
                );
            }
        }
    }
}

impl Seen {
    fn note(&mut self, event: GroupEvent) {
        match event {
            GroupEvent::Applied {
                index,
                effects,
                results,
            } => {
                self.indexes.push(index);
                self.effects.extend(effects.into_iter().map(|effect| (index, effect)));
                self.note_results(results);
            }
            GroupEvent::Done { results } => self.note_results(results),
            GroupEvent::Fatal(reason) => self.fatal = Some(reason),
        }
    }

    fn note_results(&mut self, results: Vec<Completion>) {
        for (token, result) in results {
            assert!(
                self.results.insert(token, result).is_none(),
                "token {token} was answered twice"
            );
        }
    }
}

static TOKEN: AtomicU64 = AtomicU64::new(1);

/// Small segments, so that tests see them come and go.
pub fn journal_config(dir: PathBuf) -> ferrymq_journal::Config {
    ferrymq_journal::Config {
        segment_bytes: 64 * 1024,
        cache_bytes_max: 256 * 1024,
        ..ferrymq_journal::Config::new(dir)
    }
}

/// Sends without waiting for answers, while that node is master, until told to stop.
pub async fn load(group: Group, from: u64, stop: Arc<AtomicBool>) {
    let (mut number, mut is_begun) = (from, false);
    while !stop.load(Ordering::Relaxed) {
        if !group.role().borrow().is_master() {
            is_begun = false;
        } else if !is_begun {
            is_begun = true;
            group.attach(|_, _| ());
            group.detach();
        } else if group.backlog_bytes() <= LOAD_BACKLOG_BYTES_MAX {
            for _ in 0..8 {
                group.submit(enqueue(number).encode(), LOAD_TOKENS + number);
                number += 1;
            }
            tokio::task::yield_now().await;
            continue;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Tokens that no test waits for.
const LOAD_TOKENS: u64 = 1 << 40;
const LOAD_BACKLOG_BYTES_MAX: usize = 64 * 1024;

/// A port that nobody uses at the moment.
pub fn free_address() -> NodeAddress {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    NodeAddress::new(listener.local_addr().unwrap().to_string())
}

pub fn body(number: u64) -> String {
    format!("message {number} {}", "x".repeat(number as usize % 2000))
}

pub fn enqueue(number: u64) -> Command {
    let producer = Producer {
        id: format!("producer-{number}"),
        sequence: 1,
    };
    let message = Message::new(
        format!("id-{number}"),
        Destination::queue(QUEUE),
        Bytes::from(body(number)),
    );
    Command::Enqueue(Enqueue {
        message: Message {
            producer: Some(producer),
            ..message
        }
        .encode(),
    })
}

/// Takes the first `count` messages off the queue.
pub fn acknowledge(group: &Group, count: usize) -> Command {
    acknowledge_some(group, 0, count)
}

/// Takes all but the first `kept` messages off the queue.
pub fn acknowledge_after(group: &Group, kept: usize) -> Command {
    acknowledge_some(group, kept, usize::MAX)
}

fn acknowledge_some(group: &Group, kept: usize, count: usize) -> Command {
    group.with_broker(|broker| {
        let queue = broker
            .queues()
            .find(DestinationKind::Queue, QUEUE)
            .expect("it was made by the first message");
        let messages = broker.queues().get(queue).expect("found just now");
        let seqs = messages
            .iter_from(0)
            .skip(kept)
            .take(count)
            .map(|(seq, _)| seq)
            .collect();
        Command::Acknowledge(Acknowledge { queue, seqs })
    })
}

/// The bodies in the queue, read from the journal.
pub fn contents(group: &Group) -> Vec<String> {
    let places = group.with_broker(|broker| {
        let queue = broker
            .queues()
            .find(DestinationKind::Queue, QUEUE)
            .and_then(|queue| broker.queues().get(queue));
        queue
            .map(|queue| queue.iter_from(0).map(|(_, slot)| slot.place).collect::<Vec<_>>())
            .unwrap_or_default()
    });
    let text = |place| {
        let Ok(stored) = group.read(place) else {
            return format!("unreadable {place:?}");
        };
        String::from_utf8(StoredMessage::new(stored).expect("a stored message").body().to_vec()).unwrap()
    };
    places.into_iter().map(text).collect()
}

/// Waits until `look` finds something.
pub async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(started.elapsed() < DEADLINE, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
