//! A link between two groups' masters: one QUIC connection with two streams, so that bulk never delays control.
//!
//! Each channel has a bounded queue and a task that writes it out. A sender waits for room in the queue; the queue
//! empties as fast as the other side reads. Payloads go from the caller to the encryption without a copy.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use quinn::{Connection, RecvStream, SendStream, VarInt};
use tokio::sync::{Notify, Semaphore};

use crate::endpoint::LinkOptions;
use crate::frame::{FRAME_HEADER_BYTES, FrameError, FrameReader, Outbox};
use crate::link_error::LinkError;
use crate::name::PeerName;
use crate::udp_probe::UdpProbe;

/// Which of a link's two streams carries a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Channel {
    /// Small and urgent: demand, answers, hellos.
    Control = 0,
    /// Messages on their way.
    Bulk = 1,
}

/// A received frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// The stream it came on.
    pub channel: Channel,
    /// What the sender's user chose.
    pub kind: u8,
    /// The payload.
    pub payload: Bytes,
}

/// A proven connection to a node of another group.
#[derive(Debug)]
pub struct Link {
    sender: LinkSender,
    receiver: LinkReceiver,
}

/// The sending half. Clones share the queues; when the last is dropped the link closes.
#[derive(Debug, Clone)]
pub struct LinkSender {
    shared: Arc<Shared>,
}

/// The receiving half. When it is dropped the link closes.
#[derive(Debug)]
pub struct LinkReceiver {
    connection: Connection,
    control: FrameReader<RecvStream>,
    bulk: FrameReader<RecvStream>,
    /// Why the link was ended by this side's watch, if it was.
    ended: Arc<OnceLock<LinkError>>,
}

/// A link's counters since it was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinkStats {
    /// Smoothed round-trip time.
    pub rtt: Duration,
    /// Bytes sent in datagrams.
    pub sent_bytes: u64,
    /// Bytes received in datagrams.
    pub received_bytes: u64,
    /// Packets taken for lost.
    pub lost_packets: u64,
    /// Bytes that wait in the control queue.
    pub queued_control_bytes: usize,
    /// Bytes that wait in the bulk queue.
    pub queued_bulk_bytes: usize,
}

#[derive(Debug)]
struct Shared {
    connection: Connection,
    peer: PeerName,
    remote_addr: SocketAddr,
    frame_bytes_max: usize,
    queue_bytes_max: usize,
    control: Arc<Queue>,
    bulk: Arc<Queue>,
    /// As the link's watch has last seen it.
    silent_ms: Arc<AtomicU64>,
}

/// A channel's frames that are not yet with QUIC. Bytes queued and bytes of `room` make up `queue_bytes_max`.
#[derive(Debug)]
struct Queue {
    outbox: Mutex<Outbox>,
    room: Semaphore,
    filled: Notify,
}

/// The two streams of one channel.
pub(crate) type Streams = (SendStream, RecvStream);

impl Link {
    pub(crate) fn new(
        connection: Connection,
        peer: PeerName,
        control: Streams,
        bulk: Streams,
        options: &LinkOptions,
    ) -> Self {
        let queue = |stream: SendStream, priority| {
            // Fails only on a stream already closed, which writing to it will tell.
            let _ = stream.set_priority(priority);
            let queue = Arc::new(Queue::new(options.queue_bytes_max));
            tokio::spawn(write_out(queue.clone(), stream, connection.clone()));
            queue
        };
        let shared = Shared {
            peer,
            remote_addr: connection.remote_address(),
            frame_bytes_max: options.frame_bytes_max,
            queue_bytes_max: options.queue_bytes_max,
            control: queue(control.0, CONTROL_PRIORITY),
            bulk: queue(bulk.0, BULK_PRIORITY),
            connection: connection.clone(),
            silent_ms: Arc::default(),
        };
        let ended = Arc::new(OnceLock::new());
        tokio::spawn(watch(
            connection.clone(),
            *options,
            ended.clone(),
            shared.silent_ms.clone(),
        ));
        let receiver = LinkReceiver {
            control: FrameReader::with_limit(control.1, options.frame_bytes_max),
            bulk: FrameReader::with_limit(bulk.1, options.frame_bytes_max),
            connection,
            ended,
        };
        Self {
            sender: LinkSender {
                shared: Arc::new(shared),
            },
            receiver,
        }
    }

    /// The node at the other end, as its certificate proves.
    pub fn peer(&self) -> &PeerName {
        self.sender.peer()
    }

    /// Its address.
    pub fn remote_addr(&self) -> SocketAddr {
        self.sender.remote_addr()
    }

    /// The halves, for two tasks.
    pub fn split(self) -> (LinkSender, LinkReceiver) {
        (self.sender, self.receiver)
    }

    /// See [`LinkSender::send`].
    ///
    /// # Errors
    /// As there.
    pub async fn send(&self, channel: Channel, kind: u8, chunks: &[Bytes]) -> Result<(), LinkError> {
        self.sender.send(channel, kind, chunks).await
    }

    /// See [`LinkReceiver::recv`].
    ///
    /// # Errors
    /// As there.
    pub async fn recv(&mut self) -> Result<Frame, LinkError> {
        self.receiver.recv().await
    }

    /// See [`LinkSender::close`].
    pub fn close(&self, code: u32, text: &str) {
        self.sender.close(code, text);
    }

    /// See [`LinkSender::stats`].
    pub fn stats(&self) -> LinkStats {
        self.sender.stats()
    }
}

impl LinkSender {
    /// Queues a frame whose payload is `chunks` one after the other, and waits for room in the channel's queue before.
    /// Frames of one channel arrive in the order in which the calls got room. Cancel-safe: a dropped call queues
    /// nothing. Success does not mean that the other side has the frame.
    ///
    /// # Errors
    /// [`LinkError::FrameTooLarge`]; any other when the link is gone.
    pub async fn send(&self, channel: Channel, kind: u8, chunks: &[Bytes]) -> Result<(), LinkError> {
        let bytes = chunks.iter().map(Bytes::len).sum::<usize>();
        if bytes > self.shared.frame_bytes_max {
            return Err(LinkError::FrameTooLarge {
                bytes,
                bytes_max: self.shared.frame_bytes_max,
            });
        }
        let queue = self.queue(channel);
        let room = queue.room.acquire_many((FRAME_HEADER_BYTES + bytes) as u32);
        let Ok(room) = room.await else { return Err(self.gone()) };
        room.forget();
        queue
            .push(kind, chunks, self.shared.frame_bytes_max)
            .map_err(|error| match error {
                FrameError::TooLarge { bytes, bytes_max } => LinkError::FrameTooLarge { bytes, bytes_max },
                other => LinkError::Lost(other.to_string()),
            })
    }

    /// As [`send`](Self::send), but answers `Ok(false)` and queues nothing when there is no room now.
    ///
    /// # Errors
    /// As for [`send`](Self::send).
    pub fn try_send(&self, channel: Channel, kind: u8, chunks: &[Bytes]) -> Result<bool, LinkError> {
        let bytes = chunks.iter().map(Bytes::len).sum::<usize>();
        if bytes > self.shared.frame_bytes_max {
            return Err(LinkError::FrameTooLarge {
                bytes,
                bytes_max: self.shared.frame_bytes_max,
            });
        }
        let queue = self.queue(channel);
        match queue.room.try_acquire_many((FRAME_HEADER_BYTES + bytes) as u32) {
            Ok(room) => room.forget(),
            Err(tokio::sync::TryAcquireError::NoPermits) => return Ok(false),
            Err(tokio::sync::TryAcquireError::Closed) => return Err(self.gone()),
        }
        queue
            .push(kind, chunks, self.shared.frame_bytes_max)
            .map(|()| true)
            .map_err(|error| LinkError::Lost(error.to_string()))
    }

    /// Closes the link at once; frames still queued or on their way may be lost. The other side reads `code` and
    /// `text` (cut to 1,000 bytes) as [`LinkError::Closed`]. 0 also stands for a link that was merely dropped.
    pub fn close(&self, code: u32, text: &str) {
        self.shared.connection.close(
            VarInt::from_u32(code),
            &text.as_bytes()[..text.len().min(TEXT_BYTES_MAX)],
        );
    }

    /// Waits until the link is gone and says why.
    pub async fn closed(&self) -> LinkError {
        self.shared.connection.closed().await.into()
    }

    /// The node at the other end, as its certificate proves.
    pub fn peer(&self) -> &PeerName {
        &self.shared.peer
    }

    /// Its address.
    pub fn remote_addr(&self) -> SocketAddr {
        self.shared.remote_addr
    }

    /// For how long nothing was heard of the other side, not even a sign of life.
    pub fn silent(&self) -> Duration {
        Duration::from_millis(self.shared.silent_ms.load(Ordering::Relaxed))
    }

    /// The link's counters.
    pub fn stats(&self) -> LinkStats {
        let stats = self.shared.connection.stats();
        let queued = |queue: &Queue| {
            self.shared
                .queue_bytes_max
                .saturating_sub(queue.room.available_permits())
        };
        LinkStats {
            rtt: stats.path.rtt,
            sent_bytes: stats.udp_tx.bytes,
            received_bytes: stats.udp_rx.bytes,
            lost_packets: stats.path.lost_packets,
            queued_control_bytes: queued(&self.shared.control),
            queued_bulk_bytes: queued(&self.shared.bulk),
        }
    }

    fn queue(&self, channel: Channel) -> &Queue {
        match channel {
            Channel::Control => &self.shared.control,
            Channel::Bulk => &self.shared.bulk,
        }
    }

    fn gone(&self) -> LinkError {
        LinkError::of_stream(&self.shared.connection, "the link is gone")
    }
}

impl LinkReceiver {
    /// The next frame; one on the control channel comes first if both have one. Cancel-safe.
    ///
    /// # Errors
    /// Why the link ended: [`LinkError::Closed`] with the other side's reason, or another. A frame over the limit ends
    /// the link.
    pub async fn recv(&mut self) -> Result<Frame, LinkError> {
        let (channel, read) = tokio::select! {
            biased;
            read = self.control.read() => (Channel::Control, read),
            read = self.bulk.read() => (Channel::Bulk, read),
        };
        match read {
            Ok(Some((kind, payload))) => Ok(Frame { channel, kind, payload }),
            Ok(None) => Err(self.fail(LinkError::Malformed(
                "a stream of the link ended before the link".to_owned(),
            ))),
            Err(error) => Err(self.fail(LinkError::of_frame(&self.connection, error))),
        }
    }

    /// Tells the other side too, if it is still there.
    fn fail(&self, error: LinkError) -> LinkError {
        if let Some(code) = error.own_code() {
            self.connection.close(code.varint(), error.wire_text().as_bytes());
        }
        match self.ended.get() {
            Some(why) if error == LinkError::ClosedHere => why.clone(),
            _ => error,
        }
    }
}

impl Drop for LinkReceiver {
    fn drop(&mut self) {
        // Without effect if the link was closed before, with a reason.
        self.connection.close(VarInt::from_u32(0), DROPPED);
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.connection.close(VarInt::from_u32(0), DROPPED);
    }
}

impl Queue {
    fn new(bytes_max: usize) -> Self {
        Self {
            outbox: Mutex::new(Outbox::default()),
            room: Semaphore::new(bytes_max),
            filled: Notify::new(),
        }
    }

    fn push(&self, kind: u8, chunks: &[Bytes], frame_bytes_max: usize) -> Result<(), FrameError> {
        self.outbox
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push_frame(kind, chunks, frame_bytes_max)?;
        self.filled.notify_one();
        Ok(())
    }
}

/// Hands a queue's frames to QUIC until the connection ends, and then tells those who wait for room.
async fn write_out(queue: Arc<Queue>, mut stream: SendStream, connection: Connection) {
    loop {
        let mut pieces = queue.outbox.lock().unwrap_or_else(PoisonError::into_inner).take();
        if pieces.is_empty() {
            tokio::select! {
                () = queue.filled.notified() => continue,
                _ = connection.closed() => break,
            }
        }
        let bytes = pieces.iter().map(Bytes::len).sum();
        if stream.write_all_chunks(&mut pieces).await.is_err() {
            break;
        }
        queue.room.add_permits(bytes);
    }
    queue.room.close();
}

/// Ends the link when nothing is heard: at once where the other side's port is refused, which is the first to tell of a
/// killed process, else after the idle time-out. Whoever forges a refusal can end a link, as whoever floods the wire can;
/// it is made again.
async fn watch(
    connection: Connection,
    options: LinkOptions,
    ended: Arc<OnceLock<LinkError>>,
    silent_ms: Arc<AtomicU64>,
) {
    let every = Duration::from_millis(options.probe_ms);
    let idle = Duration::from_millis(options.idle_timeout_ms);
    let answer_within = || REFUSED_WITHIN_MIN.max(2 * connection.rtt());
    let probe = port_to_watch(&connection, answer_within()).await;
    let mut heard = connection.stats().udp_rx.datagrams;
    let (mut looked, mut silent) = (Instant::now(), Duration::ZERO);
    // Since something was heard last. The other side's system refuses few datagrams a second, ours among them.
    let mut refusals = 0;
    let why = loop {
        tokio::select! {
            () = tokio::time::sleep(every) => {}
            _ = connection.closed() => return,
        }
        let now = connection.stats().udp_rx.datagrams;
        // Where this process itself stood still, what came meanwhile is not read yet: that time does not count.
        silent += looked.elapsed().min(2 * every + answer_within());
        looked = Instant::now();
        if now != heard {
            (heard, silent, refusals) = (now, Duration::ZERO, 0);
        }
        silent_ms.store(silent.as_millis() as u64, Ordering::Relaxed);
        if silent.is_zero() {
            continue;
        }
        if let Some(probe) = &probe {
            while refusals < REFUSALS_MIN && probe.ask(answer_within()).await {
                refusals += 1;
            }
            if refusals >= REFUSALS_MIN {
                break (LinkError::Refused, PORT_REFUSED);
            }
        }
        if silent >= idle {
            break (LinkError::Silent, SILENT);
        }
    };
    // Cannot be set already: nobody else does.
    let _ = ended.set(why.0);
    connection.close(VarInt::from_u32(0), why.1);
}

/// None where the system grants no socket, or the port is refused although the other side has just been heard: that is
/// a firewall's doing, and so would be every later refusal.
async fn port_to_watch(connection: &Connection, answer_within: Duration) -> Option<UdpProbe> {
    let probe = UdpProbe::new(connection.remote_address()).await.ok()?;
    if probe.is_refused(answer_within).await {
        tracing::debug!(to = %connection.remote_address(), "a live link's port is refused to others: not watched");
        return None;
    }
    Some(probe)
}

/// A refusal takes one round trip, and some time of a busy host.
const REFUSED_WITHIN_MIN: Duration = Duration::from_millis(50);
/// The first refusal may be of an earlier datagram, sent while the process was starting.
const REFUSALS_MIN: u32 = 2;
const CONTROL_PRIORITY: i32 = 1;
const BULK_PRIORITY: i32 = 0;
/// A reason must fit into one packet of the smallest size.
const TEXT_BYTES_MAX: usize = 1000;
const DROPPED: &[u8] = b"dropped";
/// Nobody is there to read it.
const PORT_REFUSED: &[u8] = b"port refused";
const SILENT: &[u8] = b"nothing is heard from you any more";
