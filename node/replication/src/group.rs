//! One group as its node sees it: the door to the replicated state.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use bytes::Bytes;
use ferrymq_broker::{Broker, Place, Settings};
use ferrymq_journal::Journal;
use ferrymq_transport::{PeerName, PeerStream, Purpose};
use openraft::async_runtime::watch::WatchReceiver;
use openraft::{RaftMetrics, SnapshotPolicy};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use crate::admission::Admission;
use crate::clocks::{self, Clocks, Told};
use crate::config::{Config, ConfigError, NodeAddress, NodeId};
use crate::dial::Dial;
use crate::event::GroupEvent;
use crate::failover::{self, Failover};
use crate::growth::Growth;
use crate::identity::{self, IdentityError};
use crate::joining::{self, JoinProgress, Joining};
use crate::lease::Lease;
use crate::log_store::{LogStore, cell};
use crate::meeting::{self, Meetings};
use crate::membership::{self, MembershipError};
use crate::network::{Links, Network};
use crate::pipeline::Pipeline;
use crate::replica::{DiskBounds, Replica, journal_place};
use crate::role::Role;
use crate::state_file::StateFileError;
use crate::state_machine::StateMachine;
use crate::status::GroupStatus;
use crate::timers::Comparison;
use crate::types::{Raft, Types};
use crate::{founding, housekeeping, master, server, status};

/// A running replica. Cheap to clone; all clones are the same replica.
#[derive(Clone)]
pub struct Group {
    inner: Arc<Inner>,
}

/// What the group's tasks share.
pub(crate) struct Inner {
    pub(crate) config: Config,
    pub(crate) raft: Raft,
    pub(crate) replica: Arc<Replica>,
    pub(crate) lease: Arc<Lease>,
    pub(crate) failover: Arc<Failover>,
    pub(crate) admission: Admission,
    pub(crate) meetings: Arc<Meetings>,
    pub(crate) comparison: Arc<Comparison>,
    pub(crate) dial: Arc<dyn Dial>,
    pub(crate) role: watch::Sender<Role>,
    pub(crate) pipeline: Arc<Pipeline>,
    pub(crate) clocks: Told,
    /// Until then this node votes for nobody: before it was restarted it may have acknowledged a master whose lease
    /// still runs, and it has forgotten when that was (P7).
    pub(crate) votes_from: Instant,
    /// Held from the moment when a snapshot is given to openraft until it is installed (server.rs).
    pub(crate) installing: Arc<tokio::sync::Mutex<()>>,
    /// For the operator; shown in status.
    notice: Mutex<Option<String>>,
    /// The node that an operator adds.
    pub(crate) adding: Joining,
    /// Nodes that have asked, on their way to being voters.
    joining: Mutex<BTreeSet<NodeId>>,
    /// The term in which mastership is being handed over; 0 for none.
    handing_over: AtomicU64,
    closing: AtomicBool,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

/// Why a replica does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration contradicts itself.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The data belongs to another node.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The state on disk cannot be used (P9).
    #[error(transparent)]
    State(#[from] StateFileError),
    /// The log on disk cannot be used (P9), or openraft refuses what it finds.
    #[error("replication does not start: {0}")]
    Replication(String),
}

/// Why a message's bytes cannot be had.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ReadError {
    /// No longer there: it was consumed meanwhile.
    #[error("the message is no longer there")]
    Gone,
    /// The journal is damaged or the disk fails. The replica is told to stop (P9).
    #[error("{0}")]
    Failed(String),
}

impl Group {
    /// Starts the replica from what `journal` and `config.dir` hold. A node without data begins to found its group, or
    /// asks to be admitted to it; see [`Group::status`] for how far that is.
    ///
    /// Must be called inside a tokio runtime. Runs until [`Group::shutdown`], even when all clones are dropped. Events
    /// come through the receiver, in log order.
    pub async fn start(
        config: Config,
        journal: Journal,
        settings: Settings,
        dial: Arc<dyn Dial>,
    ) -> Result<(Group, mpsc::UnboundedReceiver<GroupEvent>), StartError> {
        config.validate()?;
        identity::check(&journal, &config).await?;
        let admission = Admission::new(journal.clone());
        let lease = Arc::new(Lease::new(
            config.node,
            Duration::from_millis(config.election_timeout_min_ms),
        ));
        let comparison = Arc::new(Comparison::new(&config, lease.clone()));
        let meetings = Meetings::open(config.node, journal.clone(), admission.clone(), comparison.clone())
            .await
            .map_err(|error| StartError::Replication(format!("the number of this start is not on disk: {error}")))?;
        let has_voted = journal.cell(cell::VOTE).is_some();
        let silence_ms = if has_voted { config.election_timeout_max_ms } else { 0 };
        let (events, received) = mpsc::unbounded_channel();
        let replica = Replica::open(
            journal.clone(),
            config.dir.clone(),
            DiskBounds {
                reserve_bytes: config.disk_reserve_bytes,
                short_bytes: config.disk_short_bytes,
                store_limit_bytes: config.store_limit_bytes,
            },
            settings,
            events,
        )?;
        *replica.growth() = Growth::new(config.log_keep_bytes);
        let failover = Failover::new(&config);
        let links = Links {
            dial: dial.clone(),
            replica: replica.clone(),
            lease: lease.clone(),
            failover: failover.clone(),
            meetings: meetings.clone(),
            append_requests_max: config.append_requests_max,
            commit_hold: Duration::from_millis(config.commit_hold_ms),
        };
        let raft = Raft::new(
            config.node,
            Arc::new(raft_config(&config)?),
            Network(Arc::new(links)),
            LogStore::new(journal, config.append_bytes_max),
            StateMachine::new(replica.clone()),
        )
        .await
        .map_err(|error| StartError::Replication(error.to_string()))?;
        let inner = Arc::new(Inner {
            pipeline: Pipeline::new(&config, replica.clone()),
            raft,
            replica,
            lease,
            failover,
            clocks: Told::default(),
            admission,
            meetings,
            comparison,
            dial,
            role: watch::Sender::new(Role::Slave { term: 0, master: None }),
            votes_from: Instant::now() + Duration::from_millis(silence_ms),
            installing: Arc::default(),
            notice: Mutex::new(None),
            adding: Joining::new(),
            joining: Mutex::new(BTreeSet::new()),
            handing_over: AtomicU64::new(0),
            closing: AtomicBool::new(false),
            tasks: Mutex::new(Vec::new()),
            config,
        });
        let tasks = vec![
            tokio::spawn(master::watch(inner.clone())),
            tokio::spawn(inner.pipeline.clone().run(inner.raft.clone(), inner.role.subscribe())),
            tokio::spawn(meeting::run(inner.clone())),
            tokio::spawn(founding::run(inner.clone())),
            tokio::spawn(failover::run(inner.clone())),
            tokio::spawn(housekeeping::run(inner.clone())),
            tokio::spawn(joining::tidy_up(inner.clone())),
            tokio::spawn(clocks::run(inner.clone())),
        ];
        *inner.tasks.lock().expect("no code panics under this lock") = tasks;
        Ok((Group { inner }, received))
    }

    /// Serves an accepted stream of one of our purposes ([`crate::purpose::is_replication`]) until it ends.
    pub async fn serve(&self, purpose: Purpose, peer: PeerName, stream: PeerStream) {
        server::serve(&self.inner, purpose, peer, stream).await;
    }

    /// Queues one command as `Command::encode_into` wrote it; its outcome comes back with `token` in an event. Never
    /// waits: the caller bounds [`Group::backlog_bytes`].
    pub fn submit(&self, command: Bytes, token: u64) {
        self.inner.pipeline.submit([(command, token)], true);
    }

    /// [`Group::submit`] for a command that nobody waits for: it may wait some milliseconds for company.
    pub fn submit_along(&self, command: Bytes, token: u64) {
        self.inner.pipeline.submit([(command, token)], false);
    }

    /// [`Group::submit`] for several, in their order.
    pub fn submit_all(&self, commands: impl IntoIterator<Item = (Bytes, u64)>) {
        self.inner.pipeline.submit(commands, true);
    }

    /// Bytes submitted and not yet answered.
    pub fn backlog_bytes(&self) -> usize {
        self.inner.pipeline.backlog_bytes()
    }

    /// Whether the disks of a majority, this node's among them, have room for that many more bytes: ask before admitting a
    /// producer's message. Commands that store messages are answered with `Failure::Full` only when three times
    /// `disk_reserve_bytes` are left, all others when three quarters of that are, so that acknowledgements still pass.
    pub fn has_room(&self, bytes: u64) -> bool {
        self.inner.replica.majority_has_room(bytes)
    }

    /// How long ago this slave last heard its master, in milliseconds; none where it never did.
    pub fn master_heard_ms_ago(&self) -> Option<u64> {
        self.inner.lease.master_heard_ms_ago()
    }

    /// The node's role, as it changes.
    pub fn role(&self) -> watch::Receiver<Role> {
        self.inner.role.subscribe()
    }

    /// P7: whether this master has lately heard a majority, so that no other can exist. One atomic read and the clock;
    /// ask before each dispatch.
    pub fn lease_valid(&self) -> bool {
        self.inner.lease.holds()
    }

    /// What the members' wall clocks show. Only the master knows those of others.
    pub fn clocks(&self) -> Clocks {
        clocks::collect(&self.inner)
    }

    /// Looks at the state. Apply waits meanwhile. Must not be nested, nor in [`Group::attach`]: the inner one would wait
    /// for an apply that waits for the outer one.
    pub fn with_broker<R>(&self, look: impl FnOnce(&Broker) -> R) -> R {
        look(&self.inner.replica.read().broker)
    }

    /// Looks at the state, and from the next entry on `GroupEvent::Applied` carries effects. `look` is told the index
    /// up to which the state is applied: an event at or before it may still be on its way from an earlier attachment,
    /// and its effects are contained in the state already.
    pub fn attach<R>(&self, look: impl FnOnce(&Broker, u64) -> R) -> R {
        self.inner.pipeline.begin();
        self.inner.replica.attach(look)
    }

    /// After a [`crate::Failure::Full`] nothing is taken until this is called (P6): the caller knows by then whose
    /// commands were not stored, and submits nothing more that belongs behind them. What was submitted meanwhile fails
    /// like them.
    pub fn go_on_after_full(&self) {
        self.inner.pipeline.go_on_after_full();
    }

    /// Ends what [`Group::attach`] began.
    pub fn detach(&self) {
        self.inner.replica.detach();
    }

    /// A message's stored bytes. May read the disk.
    pub fn read(&self, place: Place) -> Result<Bytes, ReadError> {
        match self.inner.replica.journal.read_place(journal_place(place)) {
            Ok(bytes) => Ok(bytes),
            Err(ferrymq_journal::Error::Gone { .. }) => Err(ReadError::Gone),
            Err(error) => {
                self.inner.fatal(error.to_string());
                Err(ReadError::Failed(error.to_string()))
            }
        }
    }

    /// Hands mastership to `to`, or to the slave that has caught up best. Returns who is master then. This node stops
    /// acting as master at once; what was submitted and not proposed yet fails with `Failure::NotMaster`.
    pub async fn step_down(&self, to: Option<NodeId>) -> Result<NodeId, MembershipError> {
        membership::step_down(&self.inner, to).await
    }

    /// Begins to add a node: returns once it was reached, is that very node, and is a member without a vote. It goes on by
    /// itself, see [`Group::join_progress`]: the node catches up as long as it takes, then votes, or is taken out again.
    /// Only on the master, one node at a time. Refuses an id that is in use.
    pub async fn begin_add(&self, id: NodeId, address: NodeAddress) -> Result<(), MembershipError> {
        joining::begin(&self.inner, id, address).await
    }

    /// How far a node is that is being added or was added; none for one that is no member. Only on the master.
    pub fn join_progress(&self, id: NodeId) -> Result<Option<JoinProgress>, MembershipError> {
        joining::progress(&self.inner, id)
    }

    /// [`Group::begin_add`], and waits until the node votes.
    pub async fn add_node(&self, id: NodeId, address: NodeAddress) -> Result<(), MembershipError> {
        joining::begin(&self.inner, id, address).await?;
        joining::ended(&self.inner, id).await
    }

    /// Removes a node. Only on the master, and never the master itself.
    pub async fn remove_node(&self, id: NodeId) -> Result<(), MembershipError> {
        membership::remove(&self.inner, id).await
    }

    /// Notes that a member has other addresses than before, e.g. after its host or ports changed. Only on the master.
    pub async fn move_node(&self, id: NodeId, address: NodeAddress) -> Result<(), MembershipError> {
        membership::move_node(&self.inner, id, address).await
    }

    /// Everybody in the group with their addresses, as replicated.
    pub fn members(&self) -> Vec<(NodeId, NodeAddress)> {
        self.inner
            .membership()
            .nodes()
            .map(|(id, address)| (*id, address.clone()))
            .collect()
    }

    /// Everything worth reporting.
    pub fn status(&self) -> GroupStatus {
        status::collect(&self.inner)
    }

    /// Makes a snapshot now, for operators and tests; it happens by itself as configured.
    pub async fn snapshot(&self) -> Result<(), MembershipError> {
        self.inner
            .raft
            .trigger()
            .snapshot()
            .await
            .map_err(|error| MembershipError::Stopped(error.to_string()))
    }

    /// Stops the replica. What is under way is answered with `Failure::Fatal` or not at all; a master that is to leave
    /// in good order steps down before. The journal is left to the caller to close.
    pub async fn shutdown(self) {
        self.inner.closing.store(true, Ordering::Release);
        self.inner.lease.end();
        if let Err(error) = self.inner.raft.shutdown().await {
            tracing::error!(%error, "the replica did not end cleanly");
        }
        let tasks = std::mem::take(&mut *self.inner.tasks.lock().expect("no code panics under this lock"));
        for task in tasks {
            task.abort();
            let _ = task.await;
        }
    }
}

impl Inner {
    /// The newest membership known here, committed or not.
    pub(crate) fn membership(&self) -> openraft::Membership<NodeId, NodeAddress> {
        self.raft
            .metrics()
            .borrow_watched()
            .membership_config
            .membership()
            .clone()
    }

    /// All other members with their addresses; the configured ones where no group is known here yet.
    pub(crate) fn others(&self) -> BTreeMap<NodeId, NodeAddress> {
        let membership = self.membership();
        let mut others: BTreeMap<_, _> = membership.nodes().map(|(id, node)| (*id, node.clone())).collect();
        if others.is_empty() {
            others.clone_from(&self.config.members);
        }
        others.remove(&self.config.node);
        others
    }

    /// Who is master, if known here; this node too.
    pub(crate) fn master(&self) -> Option<(NodeId, NodeAddress)> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let master = metrics.current_leader?;
        let address = metrics.membership_config.membership().get_node(&master)?;
        Some((master, address.clone()))
    }

    /// From here to the next term this node does not act as master. Returns the term.
    pub(crate) fn hand_over(&self) -> u64 {
        let term = self.raft.metrics().borrow_watched().current_term;
        self.handing_over.store(term, Ordering::Release);
        self.lease.end();
        self.role.send_replace(Role::Slave { term, master: None });
        term
    }

    /// openraft's view of itself.
    pub(crate) fn metrics(&self) -> RaftMetrics<Types> {
        self.raft.metrics().borrow_watched().clone()
    }

    /// Waits for another node to be master of a later term; `None` if the replica ends before.
    pub(crate) async fn next_master(&self, term: u64) -> Option<NodeId> {
        let mut metrics = self.raft.metrics();
        loop {
            let next = {
                let now = metrics.borrow_and_update();
                now.current_leader
                    .filter(|leader| now.current_term > term && *leader != self.config.node)
            };
            if next.is_some() {
                return next;
            }
            metrics.changed().await.ok()?;
        }
    }

    pub(crate) fn is_handing_over(&self, term: u64) -> bool {
        self.handing_over.load(Ordering::Acquire) == term
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }

    /// The node must end.
    pub(crate) fn fatal(&self, reason: String) {
        self.lease.end();
        let reason = match self.replica.journal.failed() {
            Some(failed) if !reason.contains(&failed) => format!("{failed} ({reason})"),
            _ => reason,
        };
        tracing::error!(
            group = self.config.group,
            node = self.config.node,
            reason,
            "the replica must stop"
        );
        self.replica.tell(GroupEvent::Fatal(reason));
    }

    pub(crate) fn notice(&self) -> Option<String> {
        self.notice.lock().expect("no code panics under this lock").clone()
    }

    pub(crate) fn set_notice(&self, notice: Option<String>) {
        let mut last = self.notice.lock().expect("no code panics under this lock");
        if *last != notice {
            if let Some(notice) = &notice {
                tracing::info!(group = self.config.group, node = self.config.node, "{notice}");
            }
            *last = notice;
        }
    }

    pub(crate) fn joining(&self) -> MutexGuard<'_, BTreeSet<NodeId>> {
        self.joining.lock().expect("no code panics under this lock")
    }
}

/// Our settings in openraft's words.
fn raft_config(config: &Config) -> Result<openraft::Config, StartError> {
    let raft = openraft::Config {
        cluster_name: config.group.clone(),
        heartbeat_interval: config.heartbeat_ms,
        heartbeat_min_interval: Some(config.heartbeat_ms),
        election_timeout_min: config.election_timeout_min_ms,
        election_timeout_max: config.election_timeout_max_ms,
        install_snapshot_timeout: config.snapshot_timeout_ms,
        max_payload_entries: 4096,
        max_append_entries: Some(8192),
        api_batch_capacity: 8192,
        snapshot_policy: SnapshotPolicy::LogsSinceLast(config.snapshot_log_entries),
        // The log is cut by bytes, see housekeeping.rs: entries differ in size by three orders of magnitude.
        max_in_snapshot_log_to_keep: u64::MAX,
        purge_batch_size: 1,
        quorum_loss_probe_interval: Some(3 * config.election_timeout_max_ms),
        enable_pre_vote: Some(true),
        enable_leader_restore: Some(false),
        // A slave comes back with less than it has acknowledged where it was taken in anew (meeting.rs) before the master
        // has forgotten how far it was. It gets that again; the master must neither stop nor leave it behind for ever.
        // That its data went back does no harm is not openraft's concern: such a node is no voter then.
        allow_log_reversion: Some(true),
        ..openraft::Config::default()
    };
    raft.validate()
        .map_err(|error| StartError::Replication(error.to_string()))
}
