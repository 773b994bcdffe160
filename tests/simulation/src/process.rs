//! One running process of a node: replica, the real master's loop, the real mesh, and the connections that it serves.
//! It does nothing by itself; the world gives it turns.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use bytes::{Bytes, BytesMut};
use ferrymq_access::Access;
use ferrymq_broker::{Command, Effect, GroupId, Reclaim};
use ferrymq_dispatch::Limits;
use ferrymq_forwarding::{
    Action, Config, Event, Input, KnownGroup, LinkId, Mesh, Output, PeerCandidate, RemoteDemand, Room,
    frame::{Demand, Frame, Held},
};
use ferrymq_message::Destination;
use ferrymq_protocol::{
    Request,
    stomp::{self, Decoder, StompLimits, StompSession},
};
use tokio::sync::mpsc;

use crate::{
    clock::{self, Instant},
    connection::{ConnectionLimits, Driven, Entrance, FromClient, LeaderHandle, ToClient},
    group::{GroupEvent, Role, locked},
    leader::{Ended, Leader, LeaderConfig, Stamps, WhenFull},
    load::Load,
    memory::Memory,
    mesh::MeshStarter,
    raft::{Birth, Replica},
    sabotage::Sabotage,
};

/// Tokens of one master's loop, in bits (as in `node/src/terms.rs`).
const TOKEN_BITS: u32 = 40;
/// Pause before the master's loop begins anew within one term.
const AGAIN_US: u64 = 50_000;
const LEADER_TICK_US: u64 = 100_000;
/// Bounds small enough to be met.
pub(crate) const OUTBOX_BYTES_MAX: usize = 8 << 10;
const UNANSWERED_BYTES_MAX: usize = 16 << 10;
const MEMORY_BYTES_MAX: usize = 320 << 10;
/// How long a group must have been there without wanting a topic. Short, so that an absence within a storm is long.
const TOPIC_LINGER_MS: u64 = 500;
/// Turns within a turn; beyond it something goes in circles.
const ROUNDS_MAX: usize = 5_000;

/// See the file's head.
pub(crate) struct Process {
    pub(crate) replica: Replica,
    pub(crate) running: Option<Running>,
    pub(crate) connections: BTreeMap<u64, Served>,
    loops: u64,
    again_at_us: u64,
    starter: MeshStarter,
    events: VecDeque<GroupEvent>,
    load: Arc<Load>,
    /// Nobody is asked who they are.
    access: Arc<Access>,
    sabotage: Option<Sabotage>,
    plan: Plan,
    accepts: u64,
    pub(crate) out: Outgoing,
    pub(crate) fatal: Option<String>,
}

/// What a process is told of its place in the world.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) group_name: String,
    pub(crate) peers: Vec<PeerCandidate>,
    pub(crate) seed: u64,
}

/// What the world has to carry out.
#[derive(Debug, Default)]
pub(crate) struct Outgoing {
    /// Of the mesh: dials, frames, closings.
    pub(crate) links: Vec<Action>,
    /// Frames written to clients, by connection; and connections that end.
    pub(crate) written: Vec<(u64, stomp::Frame)>,
    pub(crate) closed: Vec<u64>,
}

/// A term.
pub(crate) struct Running {
    leader: Leader,
    pub(crate) term: u64,
    pub(crate) to: LeaderHandle,
    from_clients: mpsc::UnboundedReceiver<FromClient>,
    pub(crate) mesh: Option<Mesh>,
    told: Option<mpsc::UnboundedReceiver<Input>>,
    tick_at_us: u64,
    /// What the mesh says that the others want.
    pub(crate) known: BTreeMap<Destination, Vec<RemoteDemand>>,
    /// What the master's loop says of its room.
    room: Room,
    /// Something was taken over without room.
    pub(crate) overfilled: Option<String>,
}

/// The server's side of a client's connection.
pub(crate) struct Served {
    driven: Driven,
    from_leader: mpsc::UnboundedReceiver<ToClient>,
    decoder: Decoder,
    written: BytesMut,
    /// The client does not read.
    pub(crate) stalled: bool,
}

impl Process {
    /// Recovers what the disk holds.
    pub(crate) fn start(birth: Birth, plan: Plan) -> Result<Self, String> {
        let sabotage = birth.sabotage;
        Ok(Self {
            replica: Replica::open(birth)?,
            running: None,
            connections: BTreeMap::new(),
            loops: 0,
            again_at_us: 0,
            starter: MeshStarter::default(),
            events: VecDeque::new(),
            load: Arc::new(Load::new(Memory::new(MEMORY_BYTES_MAX, UNANSWERED_BYTES_MAX))),
            access: Arc::new(Access::open()),
            sabotage,
            plan,
            accepts: 0,
            out: Outgoing::default(),
            fatal: None,
        })
    }

    /// Whether clients are served here.
    pub(crate) fn serves(&self) -> bool {
        self.running.is_some()
    }

    /// Time has passed.
    pub(crate) fn tick(&mut self) {
        self.replica.tick();
        let now_ms = Instant::now().0 / 1_000;
        if let Some(mesh) = self.running.as_mut().and_then(|running| running.mesh.as_mut())
            && mesh.wake_at_ms() <= now_ms
        {
            let actions = mesh.input(now_ms, Input::Tick);
            self.act(actions);
        }
    }

    /// Gathers what the replica has told; the master's loop hears of it with [`Process::turn`]'s `heard`.
    pub(crate) fn has_events(&self) -> bool {
        !self.replica.events.is_empty() || !self.events.is_empty()
    }

    /// Everything that follows from what has happened. `heard`: the loop hears what the log has brought; the state may
    /// be ahead of that.
    pub(crate) fn turn(&mut self, heard: bool) {
        let mut last = [false; 4];
        for _ in 0..ROUNDS_MAX {
            self.events.extend(self.replica.events.drain(..));
            self.events.extend(locked(&self.replica.shared.early).drain(..));
            let parts = [
                self.follow_role(),
                self.run_leader(heard),
                self.run_mesh(),
                self.run_connections(),
            ];
            let mut busy = parts.contains(&true);
            last = parts;
            if self.replica.shared.was_told() {
                self.replica.pump();
                busy = true;
            }
            if let Some(why) = self.replica.fatal.take() {
                self.fatal.get_or_insert(why);
            }
            if !busy || self.fatal.is_some() {
                return;
            }
        }
        self.fatal
            .get_or_insert(format!("the process goes in circles: {last:?}"));
    }

    fn follow_role(&mut self) -> bool {
        let now = Instant::now().0;
        if self.running.is_some() || now < self.again_at_us {
            return false;
        }
        let Role::Master { term } = self.replica.role() else {
            self.events.clear();
            return false;
        };
        self.loops += 1;
        let (to, from_clients) = mpsc::unbounded_channel();
        let group = self.replica.group();
        let mut leader = Leader::new(
            group,
            term,
            leader_config(self.load.clone()),
            self.starter.clone(),
            self.loops << TOKEN_BITS,
        );
        leader.begin_term();
        self.running = Some(Running {
            leader,
            term,
            to,
            from_clients,
            mesh: None,
            told: None,
            tick_at_us: now + LEADER_TICK_US,
            known: BTreeMap::new(),
            room: Room::Plenty,
            overfilled: None,
        });
        true
    }

    fn run_leader(&mut self, heard: bool) -> bool {
        let Some(running) = &mut self.running else { return false };
        let mut busy = false;
        while heard && let Some(event) = self.events.pop_front() {
            if self.sabotage == Some(Sabotage::TakeBackOffers) {
                take_back(&event, &self.replica);
            }
            running.leader.on_event(event);
            busy = true;
        }
        if running.leader.has_begun() {
            while let Ok(message) = running.from_clients.try_recv() {
                running.leader.on_client(spoil_message(self.sabotage, message));
                busy = true;
            }
        }
        let now = Instant::now().0;
        if now >= running.tick_at_us {
            running.tick_at_us = now + LEADER_TICK_US;
            running.leader.on_tick();
        }
        let is_master = self.replica.role() == (Role::Master { term: running.term });
        let ended = running.leader.end_round(is_master);
        if let Some(ended) = ended {
            self.end_term(ended);
            return true;
        }
        busy
    }

    fn end_term(&mut self, ended: Ended) {
        if let Some(running) = self.running.take() {
            running.leader.end_term();
            if self.replica.term == running.term {
                self.again_at_us = Instant::now().0 + AGAIN_US;
            }
        }
        self.starter.take_started();
        self.events.clear();
        self.out.links.push(Action::Close {
            link: LinkId::MAX,
            reason: "the term has ended".into(),
        });
        if let Ended::Fatal(why) = ended {
            self.fatal.get_or_insert(why);
        }
    }

    fn run_mesh(&mut self) -> bool {
        let now_ms = Instant::now().0 / 1_000;
        if let Some(started) = self.starter.take_started()
            && let Some(running) = &mut self.running
        {
            let mut config = self.plan.config(started.group_id, self.replica.id, started.term);
            config.life = started.life;
            let mut mesh = Mesh::new(config, self.plan.seed ^ started.term, now_ms);
            let actions = mesh.input(now_ms, Input::Peers(self.plan.peers.clone()));
            running.mesh = Some(mesh);
            running.told = Some(started.told);
            self.act(actions);
        }
        let mut busy = false;
        while let Some(running) = &mut self.running
            && let Some(input) = running.told.as_mut().and_then(|told| told.try_recv().ok())
        {
            busy = true;
            let kept = matches!(input, Input::LocalDemand { consumers: 0, .. });
            if kept && self.sabotage == Some(Sabotage::KeepDemand) {
                continue;
            }
            if let (Input::Remembered(groups), Some(Sabotage::ForgetAbsent)) = (&input, self.sabotage) {
                for known in groups {
                    let forgotten = KnownGroup {
                        is_present: true,
                        topics: Vec::new(),
                        ..known.clone()
                    };
                    running.leader.on_mesh(Output::Group(forgotten));
                }
                continue;
            }
            if let (Input::Time { .. }, Some(Sabotage::CarryEnds)) = (&input, self.sabotage) {
                continue;
            }
            if let Input::Room(room) = input {
                running.room = room;
                if self.sabotage == Some(Sabotage::TakeUnbounded) {
                    continue;
                }
            }
            if let Some(mesh) = &mut running.mesh {
                let actions = mesh.input(now_ms, input);
                self.act(actions);
            }
        }
        busy
    }

    /// Something has happened on a link.
    pub(crate) fn on_link(&mut self, event: Event) {
        let event = match event {
            Event::Frame {
                link,
                frame: Frame::Held(_),
            } if self.sabotage == Some(Sabotage::TrustOldMarks) => Event::Frame {
                link,
                frame: Frame::Held(Held::default()),
            },
            event => event,
        };
        let now_ms = Instant::now().0 / 1_000;
        if let Some(mesh) = self.running.as_mut().and_then(|running| running.mesh.as_mut()) {
            let actions = mesh.event(now_ms, event);
            self.act(actions);
        }
    }

    fn act(&mut self, actions: Vec<Action>) {
        for action in actions {
            let Some(running) = &mut self.running else { return };
            match action {
                Action::Output(output) => {
                    if let Output::Demand { destination, rows } = &output {
                        running.known.insert(destination.clone(), rows.clone());
                    }
                    if let (Room::None, Output::Propose { command, .. }) = (running.room, &output)
                        && let Command::Accept(accept) = command
                    {
                        let text = format!("transfer {} is taken although there is no room", accept.transfer);
                        running.overfilled.get_or_insert(text);
                    }
                    let output = spoil_output(self.sabotage, &mut self.accepts, output);
                    running.leader.on_mesh(output);
                }
                action => {
                    let early = accepted_early(self.sabotage, &action);
                    self.out.links.push(action);
                    if let Some(event) = early {
                        self.on_link(event);
                    }
                }
            }
        }
        let deposed = self
            .running
            .as_ref()
            .and_then(|r| r.mesh.as_ref())
            .is_some_and(Mesh::is_deposed);
        if deposed && let Some(running) = &mut self.running {
            running.mesh = None;
        }
    }

    /// A client has come; false where nobody is served here.
    pub(crate) fn connect(&mut self, connection: u64) -> bool {
        let Some(running) = &self.running else { return false };
        let limits = ConnectionLimits {
            unanswered_bytes_max: UNANSWERED_BYTES_MAX,
            outbox_bytes_max: OUTBOX_BYTES_MAX,
            load: self.load.clone(),
            lease: {
                let shared = self.replica.shared.clone();
                Arc::new(move || shared.may_act())
            },
        };
        let name = format!("ID:{}-{}-{connection}", self.plan.group_name, self.replica.id);
        let session = Box::new(StompSession::new(name.clone(), StompLimits::default()));
        let entrance = Entrance {
            access: self.access.clone(),
            asks: None,
            session_id: name,
        };
        let begun = Driven::begin(session, connection, running.to.clone(), limits, entrance);
        let Some((driven, from_leader)) = begun else {
            return false;
        };
        let served = Served {
            driven,
            from_leader,
            decoder: Decoder::new(StompLimits::default()),
            written: BytesMut::new(),
            stalled: false,
        };
        self.connections.insert(connection, served);
        true
    }

    /// A client has sent bytes.
    pub(crate) fn receive(&mut self, connection: u64, bytes: &[u8]) {
        if let Some(served) = self.connections.get_mut(&connection) {
            served.driven.input.extend_from_slice(bytes);
            served.driven.on_input();
            if self.sabotage == Some(Sabotage::DieOfGarbage)
                && served.driven.closing.is_some()
                && bytes.first() == Some(&b'!')
            {
                self.fatal.get_or_insert("bytes that are no frame".into());
            }
        }
    }

    /// A client's connection is gone.
    pub(crate) fn disconnect(&mut self, connection: u64) {
        if self.connections.remove(&connection).is_some()
            && let Some(running) = &self.running
        {
            let _ = running.to.send(FromClient::Closed { connection });
        }
    }

    fn run_connections(&mut self) -> bool {
        let mut busy = false;
        let connections: Vec<u64> = self.connections.keys().copied().collect();
        for connection in connections {
            let Some(served) = self.connections.get_mut(&connection) else {
                continue;
            };
            let ends = served.run(&mut busy);
            for frame in served.take_frames() {
                self.out.written.push((connection, frame));
            }
            if ends {
                busy = true;
                self.disconnect(connection);
                self.out.closed.push(connection);
            }
        }
        busy
    }
}

impl Served {
    /// Goes as far as it can, in the way of `Driven::drive`; true where the connection ends.
    fn run(&mut self, busy: &mut bool) -> bool {
        loop {
            if self.driven.closing.is_some() {
                // The connection's last bytes, for as long as somebody takes them.
                if !self.stalled && self.driven.may_write() {
                    self.write();
                    self.driven.on_written();
                }
                return true;
            }
            let may_write = self.driven.may_write();
            if !may_write && self.from_leader.is_closed() {
                return true;
            }
            if !self.driven.chunks.is_empty() {
                if !may_write || self.stalled {
                    return false;
                }
                self.write();
                self.driven.on_written();
                *busy = true;
                continue;
            }
            match self.from_leader.try_recv() {
                Ok(told) => self.driven.on_told(told),
                Err(mpsc::error::TryRecvError::Empty) => return false,
                Err(mpsc::error::TryRecvError::Disconnected) => self.driven.on_master_gone(),
            }
            *busy = true;
        }
    }

    /// What is to be written to the client and is not.
    pub(crate) fn waiting_bytes(&self) -> usize {
        self.driven.chunks.iter().map(Bytes::len).sum()
    }

    fn write(&mut self) {
        for chunk in self.driven.chunks.drain(..) {
            self.written.extend_from_slice(&chunk);
        }
    }

    fn take_frames(&mut self) -> Vec<stomp::Frame> {
        let mut frames = Vec::new();
        while let Ok(Some(frame)) = self.decoder.decode(&mut self.written) {
            if frame.command == stomp::Command::Connected {
                self.decoder.open(stomp::Version::V1_2);
            }
            frames.push(frame);
        }
        frames
    }
}

impl Plan {
    fn config(&self, group_id: GroupId, node: u64, epoch: u64) -> Config {
        let mut config = Config::new(self.group_name.clone(), group_id, node, epoch);
        config.forget_transfers_min = 4;
        config.forget_interval_ms = 200;
        config.transfers_in_flight_max = 2;
        config.transfer_messages_max = 8;
        config.backoff_max_ms = 500;
        config.answer_deadline_ms = 1_500;
        config.silence_deadline_ms = 2_500;
        config
    }
}

fn leader_config(load: Arc<Load>) -> LeaderConfig {
    LeaderConfig {
        dispatch: Limits::default(),
        outbox_bytes_max: OUTBOX_BYTES_MAX,
        transaction_bytes_max: 64 << 10,
        store_bytes_max: 32 << 20,
        store_reserve_bytes: 1 << 20,
        destinations_max: 10_000,
        backlog_bytes_max: 64 << 20,
        group_backlog_bytes_max: 4 << 20,
        group_backlog_when_full: WhenFull::Wait,
        topic_linger_ms: TOPIC_LINGER_MS,
        stamps: Stamps::Client,
        load,
    }
}

/// [`Sabotage::TakeBackOffers`].
fn take_back(event: &GroupEvent, replica: &Replica) {
    let GroupEvent::Applied { effects, .. } = event else {
        return;
    };
    for effect in effects {
        if let Effect::Offered { group, .. } = effect {
            let command = Command::Reclaim(Reclaim { group: *group }).encode();
            replica.group().submit(command, u64::MAX);
        }
    }
}

/// [`Sabotage::DropTransferMark`]: under a number that nobody asks for.
fn spoil_output(sabotage: Option<Sabotage>, accepts: &mut u64, output: Output) -> Output {
    match output {
        Output::Propose {
            token,
            command: Command::Accept(mut accept),
        } if sabotage == Some(Sabotage::DropTransferMark) => {
            *accepts += 1;
            accept.transfer += (*accepts + (clock::Instant::now().0 << 8)) << 16;
            Output::Propose {
                token,
                command: Command::Accept(accept),
            }
        }
        output => output,
    }
}

/// [`Sabotage::ReleaseEarly`].
fn accepted_early(sabotage: Option<Sabotage>, action: &Action) -> Option<Event> {
    match action {
        Action::Send {
            link,
            frame: Frame::Transfer(transfer),
        } if sabotage == Some(Sabotage::ReleaseEarly) => Some(Event::Frame {
            link: *link,
            frame: Frame::Accepted {
                transfer: transfer.transfer,
                refused: Vec::new(),
                demand: Demand {
                    snapshot: false,
                    last: true,
                    rows: Vec::new(),
                    gone: Vec::new(),
                },
            },
        }),
        _ => None,
    }
}

/// [`Sabotage::Reorder`] and [`Sabotage::IgnorePrefetch`].
fn spoil_message(sabotage: Option<Sabotage>, message: FromClient) -> FromClient {
    let FromClient::Requests {
        connection,
        mut requests,
    } = message
    else {
        return message;
    };
    if sabotage == Some(Sabotage::Reorder) {
        let all_sends = requests.iter().all(|request| matches!(request, Request::Send { .. }));
        if all_sends {
            requests.reverse();
        }
    }
    if sabotage == Some(Sabotage::IgnorePrefetch) {
        for request in &mut requests {
            if let Request::Subscribe { subscribe, .. } = request {
                subscribe.prefetch = subscribe.prefetch.saturating_mul(4);
            }
        }
    }
    FromClient::Requests { connection, requests }
}

/// Bytes of a client's frame.
pub(crate) fn encode(frame: &stomp::Frame) -> Bytes {
    let mut out = ferrymq_protocol::Output::new();
    stomp::encode(frame, stomp::Version::V1_2, &mut out);
    let mut bytes = BytesMut::new();
    out.take_chunks()
        .iter()
        .for_each(|chunk| bytes.extend_from_slice(chunk));
    bytes.freeze()
}
