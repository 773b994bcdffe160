//! The UDP socket of a node over which it dials other groups' masters and is dialled by them.
//!
//! A link opens so: mutual TLS 1.3; the caller's hello on the control stream; the callee's hello back; the caller's
//! hello on the bulk stream, which says that it is content. Each side compares the other's hello with its certificate.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{Connection, Endpoint, EndpointConfig, IdleTimeout, TokioRuntime, TransportConfig, VarInt};
use rustls::pki_types::CertificateDer;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::sync::{Mutex, mpsc};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;

use crate::frame::{FRAME_BYTES_MAX_DEFAULT, FRAME_HEADER_BYTES};
use crate::identity::{DIALLED_NAME, Identity, carries_name};
use crate::link::{Channel, Link, Streams};
use crate::link_error::LinkError;
use crate::link_hello::{BadHello, HELLO_BYTES, LinkHello};
use crate::name::PeerName;
use crate::peer::YIELDED;
use crate::refusal::{Refusal, Refusals};
use crate::udp_probe::UdpProbe;
use crate::unproven::Unproven;

/// A node's end of all its links.
#[derive(Debug)]
pub struct LinkEndpoint {
    endpoint: Endpoint,
    name: PeerName,
    options: LinkOptions,
    accepted: Mutex<mpsc::Receiver<Link>>,
    acceptor: JoinHandle<()>,
    refusals: Arc<Refusals>,
}

/// Bounds and times of links.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinkOptions {
    /// Largest payload of a frame, in bytes, sent or received.
    pub frame_bytes_max: usize,
    /// Bytes that each of a link's two queues holds before senders wait; at least one frame.
    pub queue_bytes_max: usize,
    /// Bytes of each stream that the other side may send ahead of our reading.
    pub window_bytes: u32,
    /// A sign of life is sent after this long without other traffic, in milliseconds.
    pub keep_alive_ms: u64,
    /// A link is ended after this long without a sign of life, in milliseconds, and the other side is told, in case that
    /// it still hears. Over twice `keep_alive_ms`, of which many must be lost in a row.
    pub idle_timeout_ms: u64,
    /// Where nothing is heard for so long, the other side's port is asked whether anybody listens there, and then as
    /// often, in milliseconds.
    pub probe_ms: u64,
    /// Time for a whole handshake, in milliseconds.
    pub handshake_timeout_ms: u64,
    /// Links that may be in their handshake, or wait to be accepted, at once. A further one gets the place of the longest
    /// in its handshake, or is refused where that has just begun.
    pub unaccepted_max: usize,
}

impl Default for LinkOptions {
    fn default() -> Self {
        Self {
            frame_bytes_max: FRAME_BYTES_MAX_DEFAULT,
            queue_bytes_max: 2 * FRAME_BYTES_MAX_DEFAULT,
            window_bytes: 4 * 1024 * 1024,
            keep_alive_ms: 400,
            idle_timeout_ms: 3_000,
            probe_ms: 100,
            handshake_timeout_ms: 5_000,
            unaccepted_max: 64,
        }
    }
}

impl LinkEndpoint {
    /// Binds a UDP socket with default options. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// If the address cannot be bound or the identity cannot be used.
    pub fn bind(addr: SocketAddr, identity: &Identity) -> io::Result<Self> {
        Self::bind_with(addr, identity, LinkOptions::default())
    }

    /// Binds a UDP socket. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// If the address cannot be bound, the identity cannot be used, or the options contradict each other.
    pub fn bind_with(addr: SocketAddr, identity: &Identity, options: LinkOptions) -> io::Result<Self> {
        Self::bind_as(addr, identity, identity.name().clone(), options)
    }

    /// Claims `name`, which others believe only if the identity's certificate carries it.
    fn bind_as(addr: SocketAddr, identity: &Identity, name: PeerName, options: LinkOptions) -> io::Result<Self> {
        options.check()?;
        let transport = Arc::new(options.transport()?);
        let server = QuicServerConfig::try_from(identity.server_config(ALPN)?).map_err(io::Error::other)?;
        let mut server = quinn::ServerConfig::with_crypto(Arc::new(server));
        server
            .transport_config(transport.clone())
            .migration(false)
            .max_incoming(options.unaccepted_max);
        let client = QuicClientConfig::try_from(identity.client_config(ALPN)?).map_err(io::Error::other)?;
        let mut client = quinn::ClientConfig::new(Arc::new(client));
        client.transport_config(transport);

        let socket = udp_socket(addr)?;
        let mut endpoint = Endpoint::new(EndpointConfig::default(), Some(server), socket, Arc::new(TokioRuntime))?;
        endpoint.set_default_client_config(client);
        let (admitted, accepted) = mpsc::channel(1);
        let refusals = Arc::new(Refusals::new());
        let door = Door {
            name: name.clone(),
            options,
            refusals: refusals.clone(),
        };
        let acceptor = tokio::spawn(door.accept_all(endpoint.clone(), admitted));
        Ok(Self {
            endpoint,
            name,
            options,
            accepted: Mutex::new(accepted),
            acceptor,
            refusals,
        })
    }

    /// The bound address, with the port that the system chose if 0 was asked for.
    ///
    /// # Errors
    /// If the system does not tell.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.endpoint.local_addr()
    }

    /// The next link that another group's node has made to this one; `None` once closed. Cancel-safe.
    pub async fn accept(&self) -> Option<Link> {
        self.accepted.lock().await.recv().await
    }

    /// Makes a link to the node at `addr`. If `expected_group` is given, only a node of that group will do.
    ///
    /// # Errors
    /// See [`LinkError`].
    pub async fn dial(&self, addr: SocketAddr, expected_group: Option<&str>) -> Result<Link, LinkError> {
        let dialling = async {
            let connection = self.endpoint.connect(addr, DIALLED_NAME)?.await?;
            or_close(
                &connection,
                call(&connection, &self.name, expected_group, &self.options),
            )
            .await
        };
        let deadline = Duration::from_millis(self.options.handshake_timeout_ms);
        tokio::select! {
            biased;
            dialled = timeout(deadline, dialling) => dialled.unwrap_or(Err(LinkError::Timeout)),
            () = refused(addr, deadline) => Err(LinkError::Refused),
        }
    }

    /// Links refused by this endpoint.
    pub fn refusals(&self) -> &Arc<Refusals> {
        &self.refusals
    }

    /// Closes every link with this reason, accepts no more, and waits until the others have been told.
    pub async fn close(&self, code: u32, text: &str) {
        self.acceptor.abort();
        self.endpoint.close(VarInt::from_u32(code), text.as_bytes());
        self.endpoint.wait_idle().await;
    }
}

impl Drop for LinkEndpoint {
    fn drop(&mut self) {
        self.acceptor.abort();
        self.endpoint.close(VarInt::from_u32(0), b"dropped");
    }
}

impl LinkOptions {
    fn check(&self) -> io::Result<()> {
        let wrong = if self.idle_timeout_ms <= 2 * self.keep_alive_ms {
            "a link's idle_timeout_ms must be over twice its keep_alive_ms"
        } else if self.queue_bytes_max < self.frame_bytes_max.saturating_add(FRAME_HEADER_BYTES) {
            "a link's queue_bytes_max must hold at least one frame of frame_bytes_max"
        } else if self.queue_bytes_max > QUEUE_BYTES_MOST {
            "a link's queue_bytes_max must be at most 1 GiB"
        } else {
            return Ok(());
        };
        Err(io::Error::new(io::ErrorKind::InvalidInput, wrong))
    }

    fn transport(&self) -> io::Result<TransportConfig> {
        // Only where the watch of a link does not come to end it: this timer begins anew with what is sent in vain, and
        // tells the other side nothing.
        let idle = Duration::from_millis(self.idle_timeout_ms.saturating_mul(2));
        let idle = IdleTimeout::try_from(idle).map_err(io::Error::other)?;
        let mut transport = TransportConfig::default();
        transport
            .max_concurrent_bidi_streams(VarInt::from_u32(2))
            .max_concurrent_uni_streams(VarInt::from_u32(0))
            .datagram_receive_buffer_size(None)
            .stream_receive_window(VarInt::from_u32(self.window_bytes))
            // A bulk stream that the other side does not read leaves half of this to control.
            .send_window(2 * u64::from(self.window_bytes))
            .keep_alive_interval(Some(Duration::from_millis(self.keep_alive_ms)))
            .max_idle_timeout(Some(idle));
        Ok(transport)
    }
}

/// The accepting side.
#[derive(Clone)]
struct Door {
    name: PeerName,
    options: LinkOptions,
    refusals: Arc<Refusals>,
}

impl Door {
    async fn accept_all(self, endpoint: Endpoint, admitted: mpsc::Sender<Link>) {
        let places = Unproven::new(self.options.unaccepted_max);
        // Dropped with this task, which ends the handshakes.
        let mut handshakes = JoinSet::new();
        while let Some(incoming) = endpoint.accept().await {
            while handshakes.try_join_next().is_some() {}
            let from = incoming.remote_address();
            if places.is_crowded() && !incoming.remote_address_validated() && incoming.may_retry() {
                // Costs the caller a round trip, and one with a forged address the attempt.
                let _ = incoming.retry();
                continue;
            }
            let Some(mut place) = places.enter(from.ip()) else {
                incoming.refuse();
                self.refusals
                    .note(Refusal::Busy, from, "link", &"too many unfinished handshakes");
                continue;
            };
            // Its first datagram is the beginning of a handshake.
            place.spoke();
            let (door, admitted) = (self.clone(), admitted.clone());
            handshakes.spawn(async move {
                let deadline = Duration::from_millis(door.options.handshake_timeout_ms);
                let proven = tokio::select! {
                    biased;
                    proven = timeout(deadline, door.admit(incoming)) => proven.unwrap_or(Err(LinkError::Timeout)),
                    () = place.lost() => return door.refusals.note(Refusal::Yielded, from, "link", &YIELDED),
                };
                match proven {
                    Ok(link) => {
                        place.prove();
                        // Fails only when the endpoint is gone.
                        drop(admitted.send(link).await);
                    }
                    Err(error) => door.refusals.note(error.refusal(), from, "link", &error),
                }
            });
        }
    }

    async fn admit(&self, incoming: quinn::Incoming) -> Result<Link, LinkError> {
        let connection = incoming.accept()?.await?;
        or_close(&connection, answer(&connection, &self.name, &self.options)).await
    }
}

/// The caller's side.
async fn call(
    connection: &Connection,
    name: &PeerName,
    expected_group: Option<&str>,
    options: &LinkOptions,
) -> Result<Link, LinkError> {
    let mut control = connection.open_bi().await?;
    say(connection, &mut control, Channel::Control, name).await?;
    let peer = hear(connection, &mut control, Channel::Control).await?;
    if let Some(expected) = expected_group.filter(|expected| *expected != peer.group()) {
        return Err(LinkError::WrongGroup {
            expected: expected.to_owned(),
            found: peer.group().to_owned(),
        });
    }
    let mut bulk = connection.open_bi().await?;
    say(connection, &mut bulk, Channel::Bulk, name).await?;
    Ok(Link::new(connection.clone(), peer, control, bulk, options))
}

/// The callee's side.
async fn answer(connection: &Connection, name: &PeerName, options: &LinkOptions) -> Result<Link, LinkError> {
    let mut control = connection.accept_bi().await?;
    let peer = hear(connection, &mut control, Channel::Control).await?;
    say(connection, &mut control, Channel::Control, name).await?;
    let mut bulk = connection.accept_bi().await?;
    if hear(connection, &mut bulk, Channel::Bulk).await? != peer {
        return Err(LinkError::Malformed("its two hellos differ".to_owned()));
    }
    Ok(Link::new(connection.clone(), peer, control, bulk, options))
}

async fn say(
    connection: &Connection,
    streams: &mut Streams,
    channel: Channel,
    name: &PeerName,
) -> Result<(), LinkError> {
    let hello = LinkHello {
        channel,
        name: name.clone(),
    }
    .encode();
    streams
        .0
        .write_all(&hello)
        .await
        .map_err(|error| LinkError::of_stream(connection, error))
}

/// Reads a hello and checks it against the certificate.
async fn hear(connection: &Connection, streams: &mut Streams, channel: Channel) -> Result<PeerName, LinkError> {
    let mut bytes = [0; HELLO_BYTES];
    streams
        .1
        .read_exact(&mut bytes)
        .await
        .map_err(|error| LinkError::of_stream(connection, error))?;
    let hello = LinkHello::decode(&bytes).map_err(|bad| match bad {
        BadHello::Version(_) => LinkError::Version(bad.to_string()),
        BadHello::Form(_) => LinkError::Malformed(bad.to_string()),
    })?;
    if hello.channel != channel {
        return Err(LinkError::Malformed("its streams come in the wrong order".to_owned()));
    }
    let chain = connection
        .peer_identity()
        .and_then(|chain| chain.downcast::<Vec<CertificateDer<'static>>>().ok());
    match chain.as_ref().and_then(|chain| chain.first()) {
        Some(certificate) if carries_name(certificate, &hello.name) => Ok(hello.name),
        _ => Err(LinkError::wrong_name(&hello.name)),
    }
}

/// Tells the other side when this one is not content.
async fn or_close(
    connection: &Connection,
    handshake: impl Future<Output = Result<Link, LinkError>>,
) -> Result<Link, LinkError> {
    handshake.await.inspect_err(|error| {
        if let Some(code) = error.own_code() {
            connection.close(code.varint(), error.wire_text().as_bytes());
        }
    })
}

/// Ends when nobody listens at the address; QUIC itself would try for seconds.
async fn refused(addr: SocketAddr, within: Duration) {
    if let Ok(probe) = UdpProbe::new(addr).await
        && probe.is_refused(within).await
    {
        return;
    }
    std::future::pending().await
}

/// A bound socket with room for bursts, as far as the system grants it.
fn udp_socket(addr: SocketAddr) -> io::Result<std::net::UdpSocket> {
    let socket = Socket::new(Domain::for_address(addr), Type::DGRAM, Some(Protocol::UDP))?;
    if addr.is_ipv6() && addr.ip().is_unspecified() {
        socket.set_only_v6(false)?;
    }
    for granted in [
        socket.set_recv_buffer_size(SOCKET_BUFFER_BYTES),
        socket.set_send_buffer_size(SOCKET_BUFFER_BYTES),
    ] {
        if let Err(error) = granted {
            tracing::debug!(%error, "the link socket keeps the system's buffer size");
        }
    }
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    Ok(socket.into())
}

const ALPN: &[u8] = b"ferrymq-link/1";
const SOCKET_BUFFER_BYTES: usize = 2 * 1024 * 1024;
/// Well below what a semaphore counts.
const QUEUE_BYTES_MOST: usize = 1024 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::MeshSecret;

    fn claiming(claimed: &str, certified: &str) -> LinkEndpoint {
        let secret = MeshSecret::new("a secret of the mesh").unwrap();
        let [claimed, certified] = [claimed, certified].map(|group| PeerName::new(group, 1).unwrap());
        let identity = Identity::from_secret(certified, &secret).unwrap();
        LinkEndpoint::bind_as(([127, 0, 0, 1], 0).into(), &identity, claimed, LinkOptions::default()).unwrap()
    }

    #[tokio::test]
    async fn a_certificate_for_another_name_is_refused_whichever_side_shows_it() {
        let (honest, liar) = (claiming("north", "north"), claiming("east", "south"));
        let error = liar.dial(honest.local_addr().unwrap(), None).await.unwrap_err();
        assert_eq!(error, LinkError::WrongName("east/1".to_owned()), "the caller is told");
        let counted = async {
            while honest.refusals().count(Refusal::WrongName) == 0 {
                tokio::task::yield_now().await;
            }
        };
        timeout(Duration::from_secs(20), counted).await.unwrap();
        let error = honest.dial(liar.local_addr().unwrap(), Some("east")).await.unwrap_err();
        assert_eq!(error, LinkError::WrongName("east/1".to_owned()));
        honest
            .dial(claiming("east", "east").local_addr().unwrap(), Some("east"))
            .await
            .unwrap();
    }

    /// One more than there are places, and each comes again as soon as it is closed.
    #[tokio::test]
    async fn callers_who_say_no_hello_keep_nobody_out() {
        let secret = MeshSecret::new("a secret of the mesh").unwrap();
        let identity = |group| Identity::from_secret(PeerName::new(group, 1).unwrap(), &secret).unwrap();
        let local = SocketAddr::from(([127, 0, 0, 1], 0));
        let options = LinkOptions {
            unaccepted_max: 4,
            // Whoever waits for this waits in vain.
            handshake_timeout_ms: 600_000,
            ..LinkOptions::default()
        };
        let callee = LinkEndpoint::bind_with(local, &identity("north"), options).unwrap();
        let addr = callee.local_addr().unwrap();
        let mut strangers = JoinSet::new();
        for _ in 0..=options.unaccepted_max {
            let silent = LinkEndpoint::bind(local, &identity("silent")).unwrap();
            strangers.spawn(async move {
                loop {
                    if let Ok(connection) = silent.endpoint.connect(addr, DIALLED_NAME).unwrap().await {
                        connection.closed().await;
                    }
                }
            });
        }
        let crowded = async {
            while callee.refusals().count(Refusal::Yielded) == 0 {
                // The member tries all the while.
                let member = LinkEndpoint::bind(local, &identity("south")).unwrap();
                let _ = member.dial(addr, Some("north")).await;
            }
        };
        timeout(Duration::from_secs(20), crowded).await.unwrap();
        let member = LinkEndpoint::bind(local, &identity("south")).unwrap();
        let dialled = async {
            loop {
                if let Ok(link) = member.dial(addr, Some("north")).await {
                    return link;
                }
            }
        };
        let _link = timeout(Duration::from_secs(20), dialled).await.unwrap();
    }
}
