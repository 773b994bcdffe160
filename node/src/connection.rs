//! One client connection: bytes to and from its socket, driving one protocol session.
//!
//! *From* listener.rs, or from a slave's door; *to* the master's loop as requests, and back as replies and deliveries.
//! One task per connection, which never waits for one direction while the other could move.

use std::{collections::VecDeque, future::Future, io, io::IoSlice, pin::Pin, sync::Arc, time::Instant};

use bytes::{Buf, Bytes, BytesMut};
use ferrymq_access::{Access, Identity, Pass};
use ferrymq_dispatch::ConnectionId;
use ferrymq_message::Value;
use ferrymq_protocol::{Delivery, Login, Output, Refusal, RefusalKind, Request, Session, Token};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    sync::mpsc,
    time::{Duration, sleep, sleep_until},
};

use crate::{
    load::Load,
    outbox::{Allowance, Outbox},
    places::Place,
};

/// What a connection tells the master's loop.
#[derive(Debug)]
pub(crate) enum FromClient {
    /// It is there.
    Opened {
        connection: ConnectionId,
        to: mpsc::UnboundedSender<ToClient>,
        outbox: Arc<Outbox>,
    },
    /// Its client has proven who it is; the request to connect follows.
    Admitted { connection: ConnectionId, pass: Pass },
    /// What its client asks for, in order.
    Requests {
        connection: ConnectionId,
        requests: Vec<Request>,
    },
    /// Its outbox has room again.
    Drained { connection: ConnectionId },
    /// It is gone.
    Closed { connection: ConnectionId },
}

/// What the master's loop tells a connection.
#[derive(Debug)]
pub(crate) enum ToClient {
    Replies(Vec<(Token, Result<(), Refusal>)>),
    Deliveries {
        deliveries: Vec<Delivery>,
        /// What they count for the node, in bytes.
        charged_bytes: usize,
    },
    /// A browser has seen everything.
    BrowseEnd {
        subscription: u32,
    },
    /// A request without a token failed.
    Failure(Refusal),
}

/// The master's loop, as connections see it.
pub(crate) type LeaderHandle = mpsc::UnboundedSender<FromClient>;

/// Bounds of one connection, in bytes.
#[derive(Clone)]
pub(crate) struct ConnectionLimits {
    /// No more is read while so much of what was sent is unanswered.
    pub(crate) unanswered_bytes_max: usize,
    /// No more is dispatched while so much is not written.
    pub(crate) outbox_bytes_max: usize,
    /// What all of them together hold.
    pub(crate) load: Arc<Load>,
    /// Whether no other node can be master (P7).
    pub(crate) lease: Arc<dyn Fn() -> bool + Send + Sync>,
}

/// Asks the client of a connection who they are. Implemented by doorkeeper.rs.
pub(crate) trait Asks: Send + Sync {
    /// Lets it in or says why not; takes its time.
    fn admit(&self, login: &Login) -> Decision;

    /// It was denied something later.
    fn note_denied(&self, refusal: &Refusal);
}

/// Who somebody is, once that is decided.
pub(crate) type Decision = Pin<Box<dyn Future<Output = Result<Identity, Refusal>> + Send>>;

/// How one comes in over a connection.
pub(crate) struct Entrance {
    pub(crate) access: Arc<Access>,
    /// None where nobody is asked.
    pub(crate) asks: Option<Arc<dyn Asks>>,
    /// By which the session names its temporary destinations.
    pub(crate) session_id: String,
}

/// Room for one read: the least, which an idle connection holds for good, and the most.
const READ_BYTES_MIN: usize = 2 << 10;
const READ_BYTES_MAX: usize = 64 << 10;
const WRITE_SLICES_MAX: usize = 64;
/// How often a connection that may not read or write looks whether it may again.
const LOOK_AGAIN: Duration = Duration::from_millis(10);
/// How long a closing connection may take to accept its last bytes.
const LINGER: Duration = Duration::from_secs(5);
/// The same where it holds memory that others need.
const LINGER_SHORT: Duration = Duration::from_millis(200);
/// No more is read while so much of what the session itself said (errors, heart-beats) is not written.
const OWN_WORDS_BYTES_MAX: usize = 64 << 10;

/// Runs until either side ends.
pub(crate) async fn run<S>(
    stream: S,
    session: Box<dyn Session>,
    connection: ConnectionId,
    leader: LeaderHandle,
    limits: ConnectionLimits,
    entrance: Entrance,
    place: &Place,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let Some((mut driven, from_leader)) = Driven::begin(session, connection, leader.clone(), limits, entrance) else {
        return;
    };
    let load = driven.limits.load.clone();
    load.add(connection, driven.outbox.clone());
    // Its place may be given to somebody else at any time, which ends this task where it stands.
    let _farewell = Farewell {
        connection,
        leader,
        load,
    };
    match driven.drive(stream, from_leader, place).await {
        Ok(reason) => tracing::debug!(connection, reason, "client connection closed"),
        Err(error) => tracing::debug!(connection, %error, "client connection lost"),
    }
}

/// Tells that a connection is gone, however it ends.
struct Farewell {
    connection: ConnectionId,
    leader: LeaderHandle,
    load: Arc<Load>,
}

impl Drop for Farewell {
    fn drop(&mut self) {
        let connection = self.connection;
        self.load.remove(connection);
        // An error here means that the master's loop has ended, which has closed everything.
        let _ = self.leader.send(FromClient::Closed { connection });
    }
}

/// Decides on a request to connect, and hands it back.
type PendingLogin = Pin<Box<dyn Future<Output = (Request, Result<Identity, Refusal>)> + Send>>;

/// One connection without its socket.
pub(crate) struct Driven {
    connection: ConnectionId,
    session: Box<dyn Session>,
    leader: LeaderHandle,
    outbox: Arc<Outbox>,
    limits: ConnectionLimits,
    entrance: Entrance,
    /// The login that is being looked at; nothing else is read meanwhile.
    login: Option<PendingLogin>,
    pub(crate) input: BytesMut,
    /// Room for the next read: as much as the last ones have filled.
    read_bytes: usize,
    out: Output,
    /// To be written.
    pub(crate) chunks: VecDeque<Bytes>,
    /// Written to the socket's layers (TLS may hold some), and not yet flushed.
    unflushed: bool,
    /// Automatic acknowledgements, to be asked once their messages are written.
    held: Vec<Request>,
    /// Message bytes that are in `chunks`, and what they count for the node.
    pub(crate) unwritten_bytes: usize,
    charged_bytes: usize,
    /// Bytes in `chunks` that are answers to what was read.
    own_words_bytes: usize,
    /// The request to connect, until it is answered.
    greeting: Option<Token>,
    /// It has just been answered well.
    let_in: bool,
    pub(crate) closing: Option<String>,
    begun: Instant,
}

impl Driven {
    /// Tells the master's loop of the connection; `None` where that has ended.
    pub(crate) fn begin(
        session: Box<dyn Session>,
        connection: ConnectionId,
        leader: LeaderHandle,
        limits: ConnectionLimits,
        entrance: Entrance,
    ) -> Option<(Self, mpsc::UnboundedReceiver<ToClient>)> {
        let outbox = Arc::new(Outbox::new(limits.load.clone()));
        let (to, from_leader) = mpsc::unbounded_channel();
        let opened = FromClient::Opened {
            connection,
            to,
            outbox: outbox.clone(),
        };
        leader.send(opened).ok()?;
        let driven = Self {
            connection,
            session,
            leader,
            outbox,
            limits,
            entrance,
            login: None,
            input: BytesMut::with_capacity(READ_BYTES_MIN),
            read_bytes: READ_BYTES_MIN,
            out: Output::new(),
            chunks: VecDeque::new(),
            unflushed: false,
            held: Vec::new(),
            unwritten_bytes: 0,
            charged_bytes: 0,
            own_words_bytes: 0,
            greeting: None,
            let_in: false,
            closing: None,
            begun: Instant::now(),
        };
        Some((driven, from_leader))
    }

    /// P7: messages that were handed out before the lease ended may be with another master's consumers by now. P3: those
    /// of a loop that has ended are handed out again by the next one, which may be on this node, too.
    pub(crate) fn may_write(&self) -> bool {
        self.unwritten_bytes == 0 || (!self.leader.is_closed() && (self.limits.lease)())
    }

    async fn drive<S>(
        &mut self,
        stream: S,
        mut from_leader: mpsc::UnboundedReceiver<ToClient>,
        place: &Place,
    ) -> io::Result<String>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let (mut reader, mut writer) = tokio::io::split(stream);
        let outbox = self.outbox.clone();
        loop {
            if let Some(reason) = self.closing.take() {
                // P7 holds for its last bytes, too.
                if self.may_write() {
                    self.write_the_last(&mut writer, LINGER).await;
                }
                return Ok(reason);
            }
            outbox.set_unfinished(self.input.len() + self.session.held_bytes());
            let allowance = if self.session.is_paused() || self.own_words_bytes >= OWN_WORDS_BYTES_MAX {
                Allowance::Nothing
            } else {
                outbox.allowance(self.limits.unanswered_bytes_max)
            };
            let may_read = allowance != Allowance::Nothing;
            let is_written = self.chunks.is_empty() && !self.unflushed;
            let may_write = self.may_write();
            if !may_write && from_leader.is_closed() {
                return Ok("this node is not the master any more".into());
            }
            if std::mem::take(&mut self.let_in) {
                place.settle();
            }
            let tick = self
                .session
                .next_tick_ms()
                .map(|ms| self.begun + Duration::from_millis(ms));
            tokio::select! {
                read = read(&mut reader, &mut self.input, allowance), if may_read => {
                    let read = read?;
                    if read == 0 {
                        return Ok("closed by the client".into());
                    }
                    let filled = self.input.len() == self.input.capacity();
                    self.on_input();
                    self.make_room(read, filled);
                }
                written = write_or_flush(&mut writer, &mut self.chunks), if may_write && !is_written => {
                    self.unflushed = written?;
                    if !self.unflushed {
                        self.on_written();
                    }
                }
                told = from_leader.recv(), if is_written => match told {
                    Some(told) => {
                        self.on_told(told);
                        while self.unwritten_bytes < self.limits.outbox_bytes_max
                            && let Ok(told) = from_leader.try_recv()
                        {
                            self.on_told(told);
                        }
                    }
                    None => {
                        self.on_master_gone();
                    }
                },
                decided = decision(&mut self.login), if self.login.is_some() => self.on_login(decided),
                () = sleep_until(tick.unwrap_or_else(Instant::now).into()), if tick.is_some() => {
                    if !may_read {
                        self.session.on_throttled();
                    }
                    self.session.on_tick(self.begun.elapsed().as_millis() as u64, &mut self.out);
                    self.count_breach();
                    self.settle();
                }
                () = outbox.wait_for_answer(), if !may_read => {}
                // A client that does not read would not be asked again whether it may be written to.
                () = self.leader.closed(), if may_write && self.unwritten_bytes > 0 => {}
                why = outbox.wait_for_end() => {
                    let reason = why.text.clone();
                    self.session.on_failure(why, &mut self.out);
                    self.settle();
                    if self.may_write() {
                        self.write_the_last(&mut writer, LINGER_SHORT).await;
                    }
                    return Ok(reason);
                }
                // What others send fills the budget of all, and the lease comes back by itself: nothing wakes this task.
                () = sleep(LOOK_AGAIN), if (!may_read && self.login.is_none()) || !may_write => {}
            }
        }
    }

    /// Gives a closing connection its last bytes. A client that does not take them shall not hold it open; and the
    /// automatic acknowledgements of what it did not take are not asked.
    async fn write_the_last<W: AsyncWrite + Unpin>(&mut self, writer: &mut W, linger: Duration) {
        let last = async {
            while !self.chunks.is_empty() {
                write_some(writer, &mut self.chunks).await?;
            }
            writer.shutdown().await
        };
        if let Ok(Ok(())) = tokio::time::timeout(linger, last).await {
            let held = std::mem::take(&mut self.held);
            self.ask(held);
        }
    }

    /// Room for the next read, after one of so many bytes.
    fn make_room(&mut self, read: usize, filled: bool) {
        if filled {
            self.read_bytes = (self.read_bytes * 4).min(READ_BYTES_MAX);
        } else if read < self.read_bytes / 4 {
            self.read_bytes = (self.read_bytes / 2).max(READ_BYTES_MIN);
        }
        if self.input.is_empty() && self.input.capacity() > 4 * self.read_bytes {
            self.input = BytesMut::new();
        }
        self.input.reserve(self.read_bytes);
    }

    pub(crate) fn on_input(&mut self) {
        let now_ms = self.limits.load.group_time_ms();
        self.session.on_bytes(&mut self.input, now_ms, &mut self.out);
        self.own_words_bytes += self.out.bytes();
        self.count_breach();
        self.settle();
    }

    /// The master's loop has ended.
    pub(crate) fn on_master_gone(&mut self) {
        let text = "this node is not the master any more; connect again";
        self.session
            .on_failure(Refusal::new(RefusalKind::NotMaster, text), &mut self.out);
        self.settle();
        self.closing.get_or_insert_with(|| text.into());
    }

    /// Counts where the session has just found that its client breaks the protocol.
    fn count_breach(&self) {
        if self.out.close.as_ref().is_some_and(|close| !close.clean) {
            self.limits.load.counts.protocol_errors.add();
        }
    }

    pub(crate) fn on_told(&mut self, told: ToClient) {
        match told {
            ToClient::Replies(replies) => {
                for (token, result) in replies {
                    if let Err(refusal) = &result {
                        self.note(refusal);
                    }
                    if self.greeting == Some(token) {
                        self.greeting = None;
                        self.let_in = result.is_ok();
                    }
                    self.session.on_reply(token, result, &mut self.out);
                }
                if !self.input.is_empty() && !self.session.is_paused() {
                    let now_ms = self.limits.load.group_time_ms();
                    self.session.on_bytes(&mut self.input, now_ms, &mut self.out);
                }
                self.settle();
            }
            ToClient::Deliveries {
                deliveries,
                charged_bytes,
            } => {
                if self.leader.is_closed() {
                    return;
                }
                self.charged_bytes += charged_bytes;
                for delivery in deliveries {
                    self.unwritten_bytes += delivery.message.bytes().len();
                    self.session.on_delivery(delivery, &mut self.out);
                }
                // What a delivery asks for by itself is its automatic acknowledgement.
                self.held.append(&mut self.out.requests);
                self.settle();
            }
            ToClient::BrowseEnd { subscription } => {
                self.session.on_browse_end(subscription, &mut self.out);
                self.settle();
            }
            ToClient::Failure(refusal) => {
                self.note(&refusal);
                self.session.on_failure(refusal, &mut self.out);
                self.settle();
            }
        }
    }

    /// Takes the session's output over.
    fn settle(&mut self) {
        self.chunks.extend(self.out.take_chunks());
        let requests = std::mem::take(&mut self.out.requests);
        self.ask(requests);
        if let Some(close) = self.out.close.take() {
            self.closing.get_or_insert(close.reason);
        }
    }

    pub(crate) fn on_written(&mut self) {
        let full = self.outbox.unwritten_bytes() >= self.limits.outbox_bytes_max / 2;
        self.outbox.written(
            std::mem::take(&mut self.unwritten_bytes),
            std::mem::take(&mut self.charged_bytes),
        );
        self.own_words_bytes = 0;
        let held = std::mem::take(&mut self.held);
        self.ask(held);
        if full {
            // An error means that the master's loop has ended; its silence will close this connection.
            let _ = self.leader.send(FromClient::Drained {
                connection: self.connection,
            });
        }
    }

    /// Whoever logs in is looked at here, beside the master's loop; a session asks nothing more before the answer.
    fn begin_login(&mut self, request: Request) {
        match (&self.entrance.asks, self.entrance.access.anonymous(), &request) {
            (Some(asks), _, Request::Connect { login, .. }) => {
                let decision = asks.admit(login);
                self.login = Some(Box::pin(async move { (request, decision.await) }));
            }
            (None, Some(anybody), _) => self.on_login((request, Ok(anybody))),
            _ => {
                let refusal = Refusal::new(RefusalKind::Unauthorized, "not authorized");
                self.on_login((request, Err(refusal)));
            }
        }
    }

    fn on_login(&mut self, (request, decided): (Request, Result<Identity, Refusal>)) {
        self.login = None;
        match (decided, request) {
            (Ok(identity), request) => {
                let Entrance { access, session_id, .. } = &self.entrance;
                let pass = Pass::new(access.clone(), identity, session_id.clone());
                let connection = self.connection;
                // An error means that the master's loop has ended; its silence will close this connection.
                let _ = self.leader.send(FromClient::Admitted { connection, pass });
                self.pass_on(vec![request]);
            }
            (Err(refusal), Request::Connect { token, .. }) => {
                self.session.on_reply(token, Err(refusal), &mut self.out);
                self.settle();
            }
            (Err(refusal), _) => {
                self.session.on_failure(refusal, &mut self.out);
                self.settle();
            }
        }
    }

    fn note(&self, refusal: &Refusal) {
        if let (Some(asks), RefusalKind::Unauthorized) = (&self.entrance.asks, refusal.kind) {
            asks.note_denied(refusal);
        }
    }

    fn ask(&mut self, mut requests: Vec<Request>) {
        if matches!(requests.last(), Some(Request::Connect { .. }))
            && let Some(request) = requests.pop()
        {
            self.begin_login(request);
        }
        self.pass_on(requests);
    }

    fn pass_on(&mut self, requests: Vec<Request>) {
        if requests.is_empty() {
            return;
        }
        if let Some(Request::Connect { token, .. }) = requests.first() {
            self.greeting = Some(*token);
        }
        let bytes: usize = requests.iter().map(request_bytes).sum();
        self.outbox.take_in(bytes);
        let _ = self.leader.send(FromClient::Requests {
            connection: self.connection,
            requests,
        });
    }
}

/// What is decided on a login; for ever nothing where there is none.
async fn decision(login: &mut Option<PendingLogin>) -> (Request, Result<Identity, Refusal>) {
    match login {
        Some(login) => login.await,
        None => std::future::pending().await,
    }
}

/// What a request counts as unanswered until the master's loop has dealt with it, in bytes.
pub(crate) fn request_bytes(request: &Request) -> usize {
    match request {
        Request::Send { message, .. } => {
            let properties = message.properties.iter();
            let properties: usize = properties.map(|(name, value)| name.len() + value_bytes(value)).sum();
            let foreign = message.foreign.as_ref().map_or(0, |foreign| foreign.bytes.len());
            SEND_BYTES + message.body.len() + foreign + properties
        }
        Request::Subscribe { subscribe, .. } => {
            let selector = subscribe.selector.as_ref().map_or(0, |selector| selector.text().len());
            REQUEST_BYTES + subscribe.destination.name().len() + selector
        }
        _ => REQUEST_BYTES,
    }
}

fn value_bytes(value: &Value) -> usize {
    match value {
        Value::Text(text) => text.len() + 64,
        _ => 64,
    }
}

/// What a send takes on its way beside its message, in bytes.
const SEND_BYTES: usize = 256;
/// What any other request counts: more than it takes, so that nobody's thousands stand before another one's first.
const REQUEST_BYTES: usize = 1024;

/// Reads what there is, or what is allowed of it.
async fn read<R: AsyncRead + Unpin>(reader: &mut R, input: &mut BytesMut, allowance: Allowance) -> io::Result<usize> {
    match allowance {
        Allowance::Little(bytes) => reader.take(bytes as u64).read_buf(input).await,
        Allowance::Anything | Allowance::Nothing => reader.read_buf(input).await,
    }
}

/// Goes one step on with what is to be written; true while something is left to be written or flushed.
async fn write_or_flush<W: AsyncWrite + Unpin>(writer: &mut W, chunks: &mut VecDeque<Bytes>) -> io::Result<bool> {
    if chunks.is_empty() {
        writer.flush().await?;
        return Ok(false);
    }
    write_some(writer, chunks).await?;
    Ok(true)
}

/// Writes as much as the socket takes at once.
async fn write_some<W: AsyncWrite + Unpin>(writer: &mut W, chunks: &mut VecDeque<Bytes>) -> io::Result<()> {
    let mut written = {
        let slices: Vec<IoSlice<'_>> = chunks
            .iter()
            .take(WRITE_SLICES_MAX)
            .map(|chunk| IoSlice::new(chunk))
            .collect();
        writer.write_vectored(&slices).await?
    };
    if written == 0 {
        return Err(io::ErrorKind::WriteZero.into());
    }
    while let Some(first) = chunks.front_mut() {
        if written < first.len() {
            first.advance(written);
            break;
        }
        written -= first.len();
        chunks.pop_front();
    }
    Ok(())
}
