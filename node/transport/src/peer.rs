//! Connections inside a group: who listens, who dials, and the proof on both sides before a byte is trusted.
//!
//! Three ways to prove, by configuration: TLS with certificates on both sides, the mesh secret by HMAC, or, when
//! neither is configured, being on the same machine. Without TLS the secret keeps strangers out; it neither hides the
//! bytes nor protects them from someone who can change packets on the way.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream, ToSocketAddrs};
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;

use crate::auth::{PeerAuth, answer, greet};
use crate::name::{PeerName, Purpose};
use crate::peer_error::PeerError;
use crate::refusal::Refusal;
use crate::stream::{PeerStream, prepare};
use crate::unproven::{Unproven, UnprovenPlace};

/// A connection that has passed the handshake.
#[derive(Debug)]
pub struct PeerConnection {
    /// What the caller opened it for.
    pub purpose: Purpose,
    /// The node at the other end, as proven.
    pub peer: PeerName,
    /// Its address.
    pub remote_addr: SocketAddr,
    /// The bytes, beginning after the handshake.
    pub stream: PeerStream,
}

/// Connects to a node of the own group and proves both sides to each other.
///
/// `expected_node` is the number of the node that must answer, 0 for any. `deadline` covers all of it, connecting too.
///
/// # Errors
/// See [`PeerError`].
pub async fn dial(
    addr: impl ToSocketAddrs,
    auth: &PeerAuth,
    purpose: Purpose,
    expected_node: u64,
    deadline: Duration,
) -> Result<PeerConnection, PeerError> {
    let connecting = async {
        let tcp = TcpStream::connect(addr).await?;
        let remote_addr = tcp.peer_addr()?;
        auth.check_address(remote_addr)?;
        prepare(&tcp)?;
        let (peer, stream) = greet(tcp, auth, purpose, expected_node).await?;
        Ok(PeerConnection {
            purpose,
            peer,
            remote_addr,
            stream,
        })
    };
    timeout(deadline, connecting).await.unwrap_or(Err(PeerError::Timeout))
}

/// Accepts connections from nodes of the same group. Handshakes run beside each other; dropping it stops them all.
#[derive(Debug)]
pub struct PeerListener {
    local_addr: SocketAddr,
    accepted: mpsc::Receiver<PeerConnection>,
    acceptor: JoinHandle<()>,
}

/// Bounds of a listener.
#[derive(Debug, Clone, Copy)]
pub struct PeerOptions {
    /// Time for a whole handshake, TLS included, in milliseconds.
    pub handshake_timeout_ms: u64,
    /// Connections that may be in their handshake, or wait to be accepted, at once. A further one gets the place of the
    /// longest in its handshake, or is closed where that has just begun.
    pub unaccepted_max: usize,
}

impl PeerListener {
    /// Listens at `addr` with default bounds.
    ///
    /// # Errors
    /// If the address cannot be bound.
    pub async fn bind(addr: impl ToSocketAddrs, auth: PeerAuth) -> io::Result<Self> {
        Self::bind_with(addr, auth, PeerOptions::default()).await
    }

    /// Listens at `addr`.
    ///
    /// # Errors
    /// If the address cannot be bound.
    pub async fn bind_with(addr: impl ToSocketAddrs, auth: PeerAuth, options: PeerOptions) -> io::Result<Self> {
        let listener = TcpListener::bind(addr).await?;
        let local_addr = listener.local_addr()?;
        let (admitted, accepted) = mpsc::channel(1);
        let acceptor = tokio::spawn(accept_all(listener, auth, options, admitted));
        Ok(Self {
            local_addr,
            accepted,
            acceptor,
        })
    }

    /// The bound address, with the port that the system chose if 0 was asked for.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// The next connection that has passed the handshake. Cancel-safe. Waits for ever when there is none.
    pub async fn accept(&mut self) -> PeerConnection {
        match self.accepted.recv().await {
            Some(connection) => connection,
            // The acceptor runs as long as this listener, unless the runtime is going down.
            None => std::future::pending().await,
        }
    }
}

impl Drop for PeerListener {
    fn drop(&mut self) {
        self.acceptor.abort();
    }
}

impl Default for PeerOptions {
    fn default() -> Self {
        Self {
            handshake_timeout_ms: 5_000,
            unaccepted_max: 64,
        }
    }
}

async fn accept_all(
    listener: TcpListener,
    auth: PeerAuth,
    options: PeerOptions,
    admitted: mpsc::Sender<PeerConnection>,
) {
    let places = Unproven::new(options.unaccepted_max);
    // Dropped with this task, which ends the handshakes.
    let mut handshakes = JoinSet::new();
    loop {
        while handshakes.try_join_next().is_some() {}
        let (tcp, from) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                if let Some(suppressed) = auth.refusals().log().pass() {
                    tracing::warn!(%error, suppressed, "peer port cannot accept");
                }
                // Usually out of file descriptors; accepting again at once would only spin.
                tokio::time::sleep(ACCEPT_RETRY).await;
                continue;
            }
        };
        let Some(mut place) = places.enter(from.ip()) else {
            auth.refusals()
                .note(Refusal::Busy, from, "peer", &"too many unfinished handshakes");
            continue;
        };
        let (auth, admitted) = (auth.clone(), admitted.clone());
        handshakes.spawn(async move {
            let deadline = Duration::from_millis(options.handshake_timeout_ms);
            let proven = tokio::select! {
                biased;
                proven = timeout(deadline, admit(tcp, from, &auth, &place)) => proven.unwrap_or(Err(PeerError::Timeout)),
                () = place.lost() => return auth.refusals().note(Refusal::Yielded, from, "peer", &YIELDED),
            };
            match proven {
                Ok(connection) => {
                    place.prove();
                    // Fails only when the listener is gone.
                    drop(admitted.send(connection).await);
                }
                Err(error) => auth.refusals().note(error.refusal(), from, "peer", &error),
            }
        });
    }
}

async fn admit(
    tcp: TcpStream,
    remote_addr: SocketAddr,
    auth: &PeerAuth,
    place: &UnprovenPlace,
) -> Result<PeerConnection, PeerError> {
    auth.check_address(remote_addr)?;
    prepare(&tcp)?;
    tcp.peek(&mut [0]).await?;
    place.spoke();
    let (purpose, peer, stream) = answer(tcp, auth).await?;
    Ok(PeerConnection {
        purpose,
        peer,
        remote_addr,
        stream,
    })
}

const ACCEPT_RETRY: Duration = Duration::from_millis(50);
pub(crate) const YIELDED: &str = "it had not proven itself when a newcomer needed its place";
