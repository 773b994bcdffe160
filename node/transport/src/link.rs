//! A link between two groups' masters: one QUIC connection with two streams, so that bulk never delays control.
//!
//! Each channel has a bounded queue and a task that writes it out. A sender waits for room in the queue; the queue
//! empties as fast as the other side reads. Payloads go from the caller to the encryption without a copy.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

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
    /// The link was ended here because the other side's port is refused.
    is_refused: Arc<AtomicBool>,
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
        };
        let is_refused = Arc::new(AtomicBool::new(false));
        tokio::spawn(watch_port(
            connection.clone(),
            Duration::from_millis(options.probe_ms),
            is_refused.clone(),
        ));
        let receiver = LinkReceiver {
            control: FrameReader::with_limit(control.1, options.frame_bytes_max),
            bulk: FrameReader::with_limit(bulk.1, options.frame_bytes_max),
            connection,
            is_refused,
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
        if error == LinkError::ClosedHere && self.is_refused.load(Ordering::Acquire) {
            return LinkError::Refused;
        }
        error
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

/// Ends the link when nothing is heard and the other side's port is refused: without it, the idle time-out would be the
/// first to tell of a killed process. Whoever forges a refusal can end a link, as whoever floods the wire can; it is
/// made again.
async fn watch_port(connection: Connection, every: Duration, is_refused: Arc<AtomicBool>) {
    // Where there is no socket for it, the idle time-out has to do.
    let Ok(probe) = UdpProbe::new(connection.remote_address()).await else {
        return;
    };
    let answer_within = || REFUSED_WITHIN_MIN.max(2 * connection.rtt());
    // The other side has just been heard: a refusal now is a firewall's, and so would be every later one.
    if probe.is_refused(answer_within()).await {
        tracing::debug!(to = %connection.remote_address(), "a live link's port is refused to others: not watched");
        return;
    }
    let mut heard = connection.stats().udp_rx.datagrams;
    loop {
        tokio::select! {
            () = tokio::time::sleep(every) => {}
            _ = connection.closed() => return,
        }
        let now = connection.stats().udp_rx.datagrams;
        if now == heard && probe.is_refused(answer_within()).await {
            is_refused.store(true, Ordering::Release);
            connection.close(VarInt::from_u32(0), PORT_REFUSED);
            return;
        }
        heard = now;
    }
}

/// A refusal takes one round trip, and some time of a busy host.
const REFUSED_WITHIN_MIN: Duration = Duration::from_millis(50);
const CONTROL_PRIORITY: i32 = 1;
const BULK_PRIORITY: i32 = 0;
/// A reason must fit into one packet of the smallest size.
const TEXT_BYTES_MAX: usize = 1000;
const DROPPED: &[u8] = b"dropped";
/// Nobody is there to read it.
const PORT_REFUSED: &[u8] = b"port refused";
