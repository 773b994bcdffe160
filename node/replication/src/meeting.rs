//! Members meet before they count on each other: each tells which life it is in (lives.rs), and what it knows of the
//! others' (docs/adr/0014).
//!
//! A node answers no request for a vote, no entries and no snapshot of a member that has not said that it knows this life
//! of it; what a member says, it has on disk. So whoever counts a node's vote or acknowledgement remembers the node's
//! start, and tells all others. A node that learns that an earlier life of its own had more than it has takes no part
//! any more (admission.rs) until a master has taken it in as one that has lost its data (founding.rs).

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use ferrymq_journal::Journal;
use futures_util::future::join_all;
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, oneshot};

use crate::admission::Admission;
use crate::config::{NodeAddress, NodeId};
use crate::dial::Dial;
use crate::entry::decode_vote;
use crate::group::Inner;
use crate::lives::{Loss, Noted, Notes, Point, Told};
use crate::log_store::{cell, put_cell};
use crate::rpc::Rpc;
use crate::timers::{Comparison, Timers};
use crate::types::{LogId, term_and_index};
use crate::wire::kind;

/// What this node says of itself, and knows of the others.
pub(crate) struct Meetings {
    journal: Journal,
    admission: Admission,
    comparison: Arc<Comparison>,
    state: Mutex<State>,
    /// Held while something is put on disk: until then nobody is told that it is known here.
    on_disk: tokio::sync::Mutex<()>,
    wake: Notify,
}

/// `MEET`, and its answer.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Meeting {
    pub(crate) me: Told,
    /// On the disk of who says so, but for points, which may be a second ahead of it.
    pub(crate) notes: Notes,
    /// What it goes by.
    #[serde(default)]
    pub(crate) timers: Option<Timers>,
}

struct State {
    me: Told,
    notes: Notes,
    /// The furthest that others know of earlier lives of this node.
    of_me: Noted,
    /// Who knows this life of this node.
    met: BTreeSet<NodeId>,
    /// Everybody has been told of this life, as far as they can be reached.
    is_introduced: bool,
    /// Grows with what others should hear of.
    version: u64,
    unsaved: bool,
    untold: bool,
    /// Losses that were logged, by node and life.
    logged: BTreeMap<NodeId, u64>,
    /// Nodes that were turned away, by number, life and whether for good.
    turned_away: BTreeSet<(NodeId, u64, bool)>,
}

/// What stays on disk of a node's own starts.
#[derive(Default, Serialize, Deserialize)]
struct Starts {
    start: u64,
    anew: u64,
}

impl Meetings {
    /// Takes the number of this start and puts it on disk: before it is there, nobody is told anything.
    pub(crate) async fn open(
        node: NodeId,
        journal: Journal,
        admission: Admission,
        comparison: Arc<Comparison>,
    ) -> io::Result<Arc<Meetings>> {
        let mut starts: Starts = read_cell(&journal, cell::STARTS)?;
        starts.start = starts.start.saturating_add(1);
        put_cell(&journal, cell::STARTS, to_bytes(&starts)?).await?;
        let vote = journal.cell(cell::VOTE).map(|vote| decode_vote(&vote)).transpose()?;
        let me = Told {
            node,
            start: starts.start,
            life: draw(),
            anew: starts.anew,
            takes_part: admission.is_given(),
            found: Point {
                vote: vote.map_or(0, |vote| vote.leader_id.term),
                last: journal.log_state().last,
            },
        };
        tracing::debug!(?me, "a life begins");
        let notes: Notes = read_cell(&journal, cell::LIVES)?;
        Ok(Arc::new(Meetings {
            journal,
            admission,
            comparison,
            state: Mutex::new(State {
                me,
                notes,
                of_me: Noted::default(),
                met: BTreeSet::new(),
                is_introduced: false,
                version: 0,
                unsaved: false,
                untold: false,
                logged: BTreeMap::new(),
                turned_away: BTreeSet::new(),
            }),
            on_disk: tokio::sync::Mutex::new(()),
            wake: Notify::new(),
        }))
    }

    /// The number of this start.
    pub(crate) fn start(&self) -> u64 {
        self.lock().me.start
    }

    /// What tells this life from all others.
    pub(crate) fn life(&self) -> u64 {
        self.lock().me.life
    }

    /// Whether that is worth a line in the log: once for each life of a node that is turned away.
    pub(crate) fn is_news(&self, node: NodeId, life: u64, is_certain: bool) -> bool {
        let mut state = self.lock();
        if state.turned_away.len() >= TURNED_AWAY_MAX {
            state.turned_away.clear();
        }
        state.turned_away.insert((node, life, is_certain))
    }

    /// Whether that member knows this life, so that what this node answers it counts.
    pub(crate) fn has_met(&self, node: NodeId) -> bool {
        let state = self.lock();
        state.is_introduced && state.met.contains(&node)
    }

    /// That member does not know this life, it says. Looks for it at once.
    pub(crate) fn forget(&self, node: NodeId) {
        self.lock().met.remove(&node);
        self.wake.notify_one();
    }

    /// As the master of `term`, this node has heard how far the others' logs are on their disks.
    pub(crate) fn acknowledged(&self, term: u64, matched: &BTreeMap<NodeId, Option<LogId>>) {
        let mut state = self.lock();
        for (node, log_id) in matched {
            // Of one that has not answered in this term nothing is known, not even that it has heard of the term.
            if *node != state.me.node
                && let Some(log_id) = log_id
            {
                let last = Some(term_and_index(log_id));
                state.reached(*node, Point { vote: term, last });
            }
        }
    }

    /// `node` has voted for this one in `term`.
    pub(crate) fn granted(&self, node: NodeId, term: u64) {
        self.lock().reached(node, Point { vote: term, last: None });
    }

    /// Makes sure that `node` and this one have met, over `rpc`. A cheap question where they have.
    pub(crate) async fn ensure(&self, rpc: &mut Rpc, node: NodeId) -> io::Result<()> {
        if !self.admission.is_given() {
            return Err(io::Error::other("this node takes no part in the group yet"));
        }
        if self.has_met(node) {
            return Ok(());
        }
        self.meet(rpc, node).await?;
        if self.has_met(node) {
            return Ok(());
        }
        Err(io::Error::other(format!("node {node} and this node have not met yet")))
    }

    /// Tells and hears. Twice, where the other one is in a life that was not known here.
    pub(crate) async fn meet(&self, rpc: &mut Rpc, node: NodeId) -> io::Result<()> {
        for _ in 0..ROUNDS_MAX {
            let told = self.telling().await;
            let answer = rpc.ask_json::<Meeting>(kind::MEET, &told);
            let answer = tokio::time::timeout(ANSWER_WITHIN, answer).await??;
            if answer.me.node != node {
                return Err(io::Error::other(format!(
                    "node {} answers for node {node}",
                    answer.me.node
                )));
            }
            let is_known = told.notes.get(&node).is_some_and(|noted| noted.is_of(&answer.me));
            self.hear(answer).await?;
            if is_known || !told.me.takes_part {
                break;
            }
        }
        Ok(())
    }

    /// The answer to another member, who has proven to be `peer`.
    pub(crate) async fn answer(&self, peer: NodeId, told: Meeting) -> io::Result<Meeting> {
        if told.me.node != peer {
            return Err(io::Error::other(format!(
                "node {peer} speaks for node {}",
                told.me.node
            )));
        }
        if peer == self.lock().me.node {
            return Err(io::Error::other(format!(
                "this is node {peer}: give the other one a number of its own"
            )));
        }
        self.hear(told).await?;
        Ok(self.telling().await)
    }

    /// The group has taken this node in as one without data: from here on it owes nothing of what it had before. On disk
    /// before it takes part.
    pub(crate) async fn take_anew(&self) -> io::Result<()> {
        let starts = {
            let mut state = self.lock();
            state.me.start = state.me.start.max(state.of_me.start).saturating_add(1);
            state.me.anew = state.me.start;
            state.met.clear();
            Starts {
                start: state.me.start,
                anew: state.me.anew,
            }
        };
        put_cell(&self.journal, cell::STARTS, to_bytes(&starts)?).await
    }

    async fn telling(&self) -> Meeting {
        let _on_disk = self.on_disk.lock().await;
        let state = self.lock();
        Meeting {
            me: Told {
                takes_part: self.admission.is_given(),
                ..state.me.clone()
            },
            notes: state.notes.clone(),
            timers: Some(self.comparison.own),
        }
    }

    /// What another member tells of itself, of others and of this node. What it may be told to be known is on disk then.
    async fn hear(&self, told: Meeting) -> io::Result<()> {
        let peer = told.me.node;
        if let Some(timers) = told.timers {
            self.comparison.told(peer, timers);
        }
        let _on_disk = self.on_disk.lock().await;
        let (saved, knows_me, loss) = {
            let mut state = self.lock();
            let loss = state.notes.get(&peer).and_then(|noted| noted.contradicts(&told.me));
            let mut must_save = false;
            if loss.is_none() && told.me.takes_part {
                must_save |= state.notes.entry(peer).or_default().learn(&told.me);
            }
            let of_me = told.notes.get(&state.me.node).copied();
            for (node, noted) in &told.notes {
                if *node != state.me.node && *node != peer {
                    must_save |= state.notes.entry(*node).or_default().merge(noted);
                }
            }
            if must_save {
                state.version += 1;
            }
            let knows_me = loss.is_none() && told.me.takes_part && of_me.is_some_and(|noted| noted.is_of(&state.me));
            let own = of_me.and_then(|noted| noted.contradicts(&state.me));
            if let Some(noted) = of_me.filter(|noted| noted.life != state.me.life) {
                state.of_me.merge(&noted);
            }
            if let Some(loss) = loss {
                state.met.remove(&peer);
                // One that takes no part knows it, or never had anything.
                if told.me.takes_part {
                    state.log_once(&told.me, loss);
                }
            }
            let saved = must_save.then(|| self.save(&mut state, true)).transpose()?;
            (saved, knows_me, own)
        };
        if let Some(saved) = saved {
            saved.await.map_err(io::Error::other)?.map_err(io::Error::other)?;
            self.wake.notify_one();
        }
        if let Some(loss) = loss {
            return self.lost(peer, loss).await;
        }
        if knows_me {
            self.lock().met.insert(peer);
        }
        Ok(())
    }

    async fn lost(&self, witness: NodeId, loss: Loss) -> io::Result<()> {
        if !self.admission.is_given() {
            return Ok(());
        }
        tracing::error!(
            witness,
            "this node's data went back, as when an old copy is put in its place: {loss}, as node {witness} remembers. It \
             takes no part until the group has taken it in as one that has lost its data"
        );
        self.lock().met.clear();
        self.admission.lose().await
    }

    /// Writes the notes down; the lock keeps them in order.
    fn save(&self, state: &mut State, sync: bool) -> io::Result<oneshot::Receiver<Result<(), ferrymq_journal::Error>>> {
        let (done, saved) = oneshot::channel();
        let notes = to_bytes(&state.notes)?;
        self.journal.put_cell(
            cell::LIVES,
            notes,
            sync,
            Box::new(move |result| drop(done.send(result))),
        );
        state.unsaved = false;
        Ok(saved)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no code panics under this lock")
    }
}

impl State {
    fn reached(&mut self, node: NodeId, point: Point) {
        if let Some(noted) = self.notes.get_mut(&node)
            && noted.reached < point
        {
            noted.reached = point;
            (self.unsaved, self.untold) = (true, true);
        }
    }

    fn log_once(&mut self, told: &Told, loss: Loss) {
        if self.logged.insert(told.node, told.life) != Some(told.life) {
            tracing::warn!(node = told.node, "node {} has lost data: {loss}", told.node);
        }
    }
}

/// Introduces this node to all others, and tells them what is new, once a second at most. Runs until the replica ends.
pub(crate) async fn run(inner: Arc<Inner>) {
    let meetings = &inner.meetings;
    let mut rpcs: BTreeMap<NodeId, (NodeAddress, Rpc)> = BTreeMap::new();
    let mut told: BTreeMap<NodeId, u64> = BTreeMap::new();
    let mut patience = Duration::from_millis(inner.config.election_timeout_max_ms);
    loop {
        let version = meetings.pass_on();
        let members = inner.others();
        rpcs.retain(|node, (address, _)| members.get(node) == Some(address));
        for (node, address) in members {
            rpcs.entry(node).or_insert_with(|| {
                let rpc = rpc(&inner.dial, node, &address);
                (address, rpc)
            });
        }
        let due = rpcs.iter_mut().filter(|(node, _)| {
            let is_met = meetings.lock().met.contains(node);
            !is_met || told.get(node) != Some(&version)
        });
        let calls = due.map(|(node, (_, rpc))| async move {
            let met = tokio::time::timeout(patience, meetings.meet(rpc, *node)).await;
            match met {
                Ok(Ok(())) => Some(*node),
                Ok(Err(error)) => {
                    tracing::debug!(node, %error, "not met");
                    None
                }
                Err(_) => None,
            }
        });
        for node in join_all(calls).await.into_iter().flatten() {
            told.insert(node, version);
        }
        meetings.lock().is_introduced = true;
        patience = PATIENCE;
        tokio::select! {
            () = tokio::time::sleep(PAUSE) => {}
            () = meetings.wake.notified() => tokio::time::sleep(PAUSE_MIN).await,
        }
    }
}

impl Meetings {
    /// Writes down what has been heard since, without waiting for it, and returns the version that others should know.
    fn pass_on(&self) -> u64 {
        let mut state = self.lock();
        if state.untold {
            state.untold = false;
            state.version += 1;
        }
        if state.unsaved
            && let Err(error) = self.save(&mut state, false)
        {
            tracing::warn!(%error, "what is known of the other members cannot be written down");
        }
        state.version
    }
}

pub(crate) fn rpc(dial: &Arc<dyn Dial>, node: NodeId, address: &NodeAddress) -> Rpc {
    Rpc::new(dial.clone(), node, address.peer.clone())
}

fn read_cell<T: Default + for<'a> Deserialize<'a>>(journal: &Journal, key: u8) -> io::Result<T> {
    match journal.cell(key).filter(|value| !value.is_empty()) {
        Some(value) => Ok(serde_json::from_slice(&value)?),
        None => Ok(T::default()),
    }
}

fn to_bytes(value: &impl Serialize) -> io::Result<Bytes> {
    Ok(Bytes::from(serde_json::to_vec(value)?))
}

/// A number that no other start has: the standard library's maps are seeded by the system.
fn draw() -> u64 {
    RandomState::new().hash_one(std::process::id()).max(1)
}

/// Nodes that were turned away and are remembered, so that it is logged once.
const TURNED_AWAY_MAX: usize = 1_000;
/// A meeting has at most two rounds; a third where the other one restarts between them.
const ROUNDS_MAX: usize = 3;
/// For one answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);
/// For one meeting, but for the first ones: until they are over, this node serves nobody.
const PATIENCE: Duration = Duration::from_secs(1);
/// Between two looks at who is to be told something.
const PAUSE: Duration = Duration::from_secs(1);
/// The same when there is a reason to look earlier.
const PAUSE_MIN: Duration = Duration::from_millis(20);
