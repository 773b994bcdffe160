//! The connection's task: dials, logs in, carries bytes between the socket and [`Core`], and starts over when the
//! socket is lost.

use std::{
    collections::VecDeque,
    io::IoSlice,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use bytes::{Buf, Bytes, BytesMut};
use ferrymq_transport::TlsDialer;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    sync::{Notify, broadcast, oneshot, watch},
    time::timeout,
};

use crate::{
    core::Core,
    endpoints::{Endpoints, Random},
    error::ConnectError,
    event::Event,
    login::{self, LoginError, Socket},
    options::Options,
    socket::Carrier,
};

/// What the task and the application's handles share.
pub(crate) struct Shared {
    core: Mutex<Core>,
    /// Something is to be written.
    pub(crate) output: Notify,
    /// The inbox has room again.
    pub(crate) inbox_room: Notify,
    /// A receipt came, or the end.
    pub(crate) answered: Notify,
    pub(crate) events: broadcast::Sender<Event>,
    pub(crate) endpoints: Endpoints,
    pub(crate) options: Options,
    /// There, where one of the endpoints wants it.
    tls: Option<TlsDialer>,
    stop: watch::Sender<bool>,
}

/// Events kept for a listener that is slow; older ones are then skipped.
const EVENTS_MAX: usize = 256;

impl Shared {
    pub(crate) fn new(endpoints: Endpoints, options: Options, tls: Option<TlsDialer>) -> Self {
        Self {
            core: Mutex::new(Core::new()),
            output: Notify::new(),
            inbox_room: Notify::new(),
            answered: Notify::new(),
            events: broadcast::Sender::new(EVENTS_MAX),
            endpoints,
            options,
            tls,
            stop: watch::Sender::new(false),
        }
    }

    /// The state. Held for single steps only, never over an await.
    pub(crate) fn core(&self) -> MutexGuard<'_, Core> {
        // A panic while it was held is a bug that has been shown already; nothing here is left half done for long.
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the task, whatever it does.
    pub(crate) fn stop(&self) {
        self.stop.send_replace(true);
    }

    /// The bound on connecting for the first time: the URI's own, if it has one.
    fn startup_timeout(&self) -> Option<Duration> {
        self.endpoints
            .passes_max(true)
            .is_none()
            .then_some(self.options.startup_timeout)
    }

    fn tell(&self, event: Event) {
        tracing::debug!(?event, "connection");
        // Nobody listening is fine.
        let _ = self.events.send(event);
    }
}

/// Runs the connection until it is stopped or given up. `first` hears how the first connecting went.
pub(crate) async fn run(shared: Arc<Shared>, first: oneshot::Sender<Result<(), ConnectError>>) {
    let mut stop = shared.stop.subscribe();
    let reason = tokio::select! {
        reason = keep_connected(&shared, first) => reason,
        // The sender is in `shared`, so this can only be the stop.
        _ = stop.wait_for(|stop| *stop) => "closed by the application".to_owned(),
    };
    shared.core().end(&reason);
    shared.answered.notify_waiters();
    shared.tell(Event::Ended { reason });
}

/// Returns why the connection was given up.
async fn keep_connected(shared: &Shared, first: oneshot::Sender<Result<(), ConnectError>>) -> String {
    let mut random = Random::new();
    let startup = dial(shared, None, 0, true, &mut random);
    let mut socket = match timeout_or_never(shared.startup_timeout(), startup).await {
        Ok(Ok(socket)) => socket,
        Ok(Err(error)) => {
            let reason = error.to_string();
            let _ = first.send(Err(error));
            return reason;
        }
        Err(elapsed) => {
            let last = shared.core().last_failure().to_owned();
            let error = ConnectError::Unreachable { elapsed, last };
            let reason = error.to_string();
            let _ = first.send(Err(error));
            return reason;
        }
    };
    shared.core().on_connected();
    shared.tell(Event::Connected {
        address: socket.address.clone(),
    });
    let _ = first.send(Ok(()));

    let mut failed_passes = 0;
    loop {
        let address = socket.address.clone();
        let reason = exchange(shared, socket).await;
        let lost_at = Instant::now();
        {
            let mut core = shared.core();
            // A broker that takes the login and then serves nothing must not be asked again without a pause.
            failed_passes = if core.progress() { 0 } else { failed_passes + 1 };
            core.on_disconnected();
            if core.is_closing() && core.is_idle() {
                return "closed by the application".to_owned();
            }
        }
        shared.answered.notify_waiters();
        shared.tell(Event::Lost {
            address: address.clone(),
            reason,
        });
        socket = match dial(shared, Some(&address), failed_passes, false, &mut random).await {
            Ok(socket) => socket,
            Err(error) => return error.to_string(),
        };
        let resent = shared.core().on_connected();
        let address = socket.address.clone();
        shared.tell(Event::Reconnected {
            address,
            after: lost_at.elapsed(),
            resent,
        });
    }
}

async fn timeout_or_never<T>(limit: Option<Duration>, future: impl Future<Output = T>) -> Result<T, Duration> {
    match limit {
        Some(limit) => timeout(limit, future).await.map_err(|_| limit),
        None => Ok(future.await),
    }
}

/// How long a node may take to answer whether it is the master, once another one is ready to carry us there.
const MASTER_SEARCH_MAX: Duration = Duration::from_millis(500);

/// Tries the addresses in turn until one answers; of those that do, the master is chosen, if it is among them.
async fn dial(
    shared: &Shared,
    lost: Option<&str>,
    failed_passes: u32,
    startup: bool,
    random: &mut Random,
) -> Result<Socket, ConnectError> {
    let begun = Instant::now();
    let endpoints = &shared.endpoints;
    // 0 means that nothing is tried again, so the first attempt is all there is.
    let passes_max = endpoints.passes_max(startup).map(|max| max.max(1));
    let mut pass = failed_passes;
    if pass > 0 || (lost.is_some() && endpoints.addresses.len() == 1) {
        tokio::time::sleep(endpoints.pause(pass.max(1), random)).await;
    }
    let mut passes_made = 0;
    loop {
        // A node that would carry us to the master, kept while the others are asked whether they are it.
        let mut carrier: Option<Socket> = None;
        for address in endpoints.order(lost, random) {
            let limit = match carrier {
                None => shared.options.attempt_timeout,
                Some(_) => shared.options.attempt_timeout.min(MASTER_SEARCH_MAX),
            };
            let attempt = login::connect(&address, shared.tls.as_ref(), &shared.options);
            let reason = match timeout(limit, attempt).await {
                Ok(Ok(socket)) if socket.carried && shared.options.follow_master => {
                    carrier.get_or_insert(socket);
                    continue;
                }
                Ok(Ok(socket)) => return Ok(socket),
                Ok(Err(LoginError::Refused(text))) => return Err(ConnectError::Refused { address, text }),
                Ok(Err(LoginError::Failed(reason))) => reason,
                Err(_) => format!("no answer within {limit:?}"),
            };
            shared.core().note_failure(format!("{address}: {reason}"));
            shared.tell(Event::AttemptFailed { address, reason });
        }
        if let Some(socket) = carrier {
            return Ok(socket);
        }
        pass = pass.saturating_add(1);
        passes_made += 1;
        if passes_max.is_some_and(|max| passes_made >= max) {
            let last = shared.core().last_failure().to_owned();
            return Err(ConnectError::Unreachable {
                elapsed: begun.elapsed(),
                last,
            });
        }
        tokio::time::sleep(endpoints.pause(pass, random)).await;
    }
}

/// Carries bytes both ways until the socket is lost; returns why.
async fn exchange(shared: &Shared, socket: Socket) -> String {
    let Socket {
        stream,
        decoder,
        input,
        send_every,
        silence_max,
        ..
    } = socket;
    match stream {
        // TCP's own halves need no lock between reading and writing.
        Carrier::Plain(stream) => {
            let (read, write) = stream.into_split();
            tokio::select! {
                reason = read_loop(shared, read, decoder, input, silence_max) => reason,
                error = write_loop(shared, write, send_every) => error.to_string(),
            }
        }
        Carrier::Secure(stream) => {
            let (read, write) = tokio::io::split(stream);
            tokio::select! {
                reason = read_loop(shared, read, decoder, input, silence_max) => reason,
                error = write_loop(shared, write, send_every) => error.to_string(),
            }
        }
    }
}

/// Bytes read at a time, at most.
const READ_BYTES: usize = 64 << 10;

async fn read_loop(
    shared: &Shared,
    mut read: impl AsyncRead + Unpin,
    mut decoder: ferrymq_protocol::stomp::Decoder,
    mut input: BytesMut,
    silence_max: Option<Duration>,
) -> String {
    let mut frames = Vec::new();
    loop {
        loop {
            match decoder.decode(&mut input) {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(error) => return format!("the broker sent what is not STOMP: {error}"),
            }
        }
        if !frames.is_empty() {
            let mut core = shared.core();
            for frame in frames.drain(..) {
                if let Err(text) = core.on_frame(frame) {
                    return format!("the broker said: {text}");
                }
            }
            let idle = core.is_idle();
            drop(core);
            if idle {
                shared.answered.notify_waiters();
            }
        }
        wait_for_inbox_room(shared).await;
        input.reserve(READ_BYTES);
        let count = match timeout_or_never(silence_max, read.read_buf(&mut input)).await {
            Ok(Ok(count)) => count,
            Ok(Err(error)) => return error.to_string(),
            Err(limit) => return format!("the broker was silent for {limit:?}"),
        };
        if count == 0 {
            return "the broker closed the connection".to_owned();
        }
    }
}

/// Deliveries stay in the socket while the application is behind (P8).
async fn wait_for_inbox_room(shared: &Shared) {
    // A place in `Notify` kept from an earlier crossing only costs one more look.
    while shared.core().inbox_bytes() > shared.options.inbox_bytes_max {
        shared.inbox_room.notified().await;
    }
}

async fn write_loop(
    shared: &Shared,
    mut write: impl AsyncWrite + Unpin,
    send_every: Option<Duration>,
) -> std::io::Error {
    let mut pending: VecDeque<Bytes> = VecDeque::new();
    loop {
        shared.core().take_outbox(&mut pending);
        if pending.is_empty() {
            // Only this task waits on `output`, so a wake-up between the look and the wait is kept for it.
            if timeout_or_never(send_every, shared.output.notified()).await.is_err() {
                pending.push_back(Bytes::from_static(b"\n"));
            } else {
                continue;
            }
        }
        if let Err(error) = write_all(&mut write, &mut pending).await {
            return error;
        }
    }
}

/// Pieces handed to the kernel in one call.
const PIECES_MAX: usize = 64;

async fn write_all(write: &mut (impl AsyncWrite + Unpin), pending: &mut VecDeque<Bytes>) -> std::io::Result<()> {
    while !pending.is_empty() {
        let mut pieces = [IoSlice::new(&[]); PIECES_MAX];
        let mut count = 0;
        for (piece, bytes) in pieces.iter_mut().zip(pending.iter()) {
            *piece = IoSlice::new(bytes);
            count += 1;
        }
        let mut written = write.write_vectored(&pieces[..count]).await?;
        if written == 0 {
            return Err(std::io::ErrorKind::WriteZero.into());
        }
        while let Some(front) = pending.front_mut() {
            if written < front.len() {
                front.advance(written);
                break;
            }
            written -= front.len();
            pending.pop_front();
        }
    }
    // TLS may hold some of it.
    write.flush().await
}
