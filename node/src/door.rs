//! Every node is a door (P10): a connection is served where the master is, and carried there by any other node.
//!
//! A slave dials the master's peer port, says for whom, and passes bytes both ways until either side ends or another
//! node becomes master; then the client is disconnected, so that it connects again and resends what has no receipt.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::BytesMut;
use ferrymq_protocol::{
    Output, Refusal, RefusalKind, Session,
    stomp::{StompLimits, StompSession},
};
use ferrymq_replication::{NodeAddress, NodeId, Role};
use ferrymq_transport::{PeerAuth, PeerStream, Purpose};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, copy},
    net::TcpStream,
    sync::watch,
};

use crate::{
    connection::{self, ConnectionLimits},
    places::{Place, Places},
    terms::Current,
};

/// A client's connection, carried by a slave.
pub(crate) const DOOR: Purpose = Purpose(16);

/// How long a client waits at the door while the group has no master.
const MASTER_WAIT: Duration = Duration::from_secs(15);
const DIAL_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a client that a slave carries here waits for this node to begin its term.
const TERM_WAIT: Duration = Duration::from_secs(1);
/// Longest text of a client's address that a slave passes on, in bytes.
const CLIENT_ADDRESS_BYTES_MAX: usize = 64;

/// What every client connection of this node needs. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Door {
    shared: Arc<Shared>,
}

struct Shared {
    current: watch::Receiver<Option<Current>>,
    role: watch::Receiver<Role>,
    auth: PeerAuth,
    limits: ConnectionLimits,
    places: Places,
    stomp: StompLimits,
    /// Unique for each start of each node: the head of message ids.
    session_prefix: String,
    next_connection: AtomicU64,
}

impl Door {
    pub(crate) fn new(
        current: watch::Receiver<Option<Current>>,
        role: watch::Receiver<Role>,
        auth: PeerAuth,
        limits: ConnectionLimits,
        places: Places,
        stomp: StompLimits,
        session_prefix: String,
    ) -> Self {
        let next_connection = AtomicU64::new(1);
        Self {
            shared: Arc::new(Shared {
                current,
                role,
                auth,
                limits,
                places,
                stomp,
                session_prefix,
                next_connection,
            }),
        }
    }

    /// The places for clients, those of this port and those whom other nodes carry here.
    pub(crate) fn places(&self) -> &Places {
        &self.shared.places
    }

    /// Takes a client in, from its first byte to its last, or until its place is given to somebody else.
    pub(crate) async fn enter(&self, stream: TcpStream, from: SocketAddr, place: Place) {
        tokio::select! {
            () = self.serve_or_carry(stream, from, &place) => {}
            () = place.lost() => tracing::debug!(%from, "a client that had not logged in has lost its place"),
        }
    }

    async fn serve_or_carry(&self, mut stream: TcpStream, from: SocketAddr, place: &Place) {
        let deadline = tokio::time::Instant::now() + MASTER_WAIT;
        let mut role = self.shared.role.clone();
        let mut current = self.shared.current.clone();
        loop {
            current.mark_unchanged();
            let now = role.borrow_and_update().clone();
            match now {
                Role::Master { .. } => {
                    if self.serve(&mut stream, place).await {
                        return;
                    }
                }
                Role::Slave {
                    master: Some((node, address)),
                    ..
                } => tokio::select! {
                    dialled = self.dial(node, &address, from) => match dialled {
                        Ok(carrier) => return self.carry(stream, carrier, node, place).await,
                        Err(error) => {
                            tracing::debug!(%from, node, %error, "the master cannot be reached for a client");
                        }
                    },
                    // A master that is frozen takes the connection and says nothing; its successor shall not wait.
                    changed = role.changed() => match changed {
                        Ok(()) => continue,
                        Err(_) => return,
                    },
                },
                Role::Slave { master: None, .. } => {}
            }
            // A master that has just died is still believed in for a moment: look again soon.
            let again = tokio::time::sleep(Duration::from_millis(50));
            tokio::select! {
                _ = role.changed() => {}
                // The role is known a moment before the loop of its term is there.
                _ = current.changed() => {}
                () = again => {}
            }
            if tokio::time::Instant::now() >= deadline {
                return self.turn_away(stream).await;
            }
        }
    }

    /// Serves a client that another node carries here.
    pub(crate) async fn enter_carried(&self, mut stream: PeerStream) {
        let mut len = [0u8; 1];
        let mut address = [0u8; CLIENT_ADDRESS_BYTES_MAX];
        let head = async {
            stream.read_exact(&mut len).await?;
            let len = usize::from(len[0]).min(CLIENT_ADDRESS_BYTES_MAX);
            stream.read_exact(&mut address[..len]).await?;
            std::io::Result::Ok(client_address(&address[..len]))
        };
        match tokio::time::timeout(DIAL_TIMEOUT, head).await {
            Ok(Ok(from)) => {
                let Ok(place) = self.shared.places.enter(from) else {
                    return;
                };
                // A slave hears of a new master before that has applied what it must know to act. An error means that
                // this node ends.
                let mut current = self.shared.current.clone();
                let begun = current.wait_for(Option::is_some);
                let _ = tokio::time::timeout(TERM_WAIT, begun).await;
                tokio::select! {
                    _ = self.serve(&mut stream, &place) => {}
                    () = place.lost() => tracing::debug!(%from, "a carried client has lost its place"),
                }
            }
            _ => tracing::debug!("a carried connection ended before it began"),
        }
    }

    /// Runs a session with the master's loop of this node; false where there is none.
    async fn serve<S>(&self, stream: &mut S, place: &Place) -> bool
    where
        S: AsyncRead + AsyncWrite + Unpin + Send,
    {
        let Some(current) = self.shared.current.borrow().clone() else {
            return false;
        };
        let connection = self.shared.next_connection.fetch_add(1, Ordering::Relaxed);
        let session = Box::new(self.session(connection));
        let limits = self.shared.limits.clone();
        connection::run(stream, session, connection, current.clients, limits, place).await;
        true
    }

    fn session(&self, connection: u64) -> StompSession {
        StompSession::new(
            format!("{}-{connection}", self.shared.session_prefix),
            self.shared.stomp.clone(),
        )
    }

    async fn dial(&self, node: NodeId, address: &NodeAddress, from: SocketAddr) -> anyhow::Result<PeerStream> {
        let auth = &self.shared.auth;
        let dialled = ferrymq_transport::dial(address.peer.clone(), auth, DOOR, node, DIAL_TIMEOUT).await?;
        let mut stream = dialled.stream;
        let text = from.to_string();
        let text = &text.as_bytes()[..text.len().min(CLIENT_ADDRESS_BYTES_MAX)];
        stream.write_all(&[text.len() as u8]).await?;
        stream.write_all(text).await?;
        stream.flush().await?;
        Ok(stream)
    }

    /// Passes bytes until either side ends or the master changes.
    async fn carry(&self, stream: TcpStream, carrier: PeerStream, master: NodeId, place: &Place) {
        let mut role = self.shared.role.clone();
        let changed = async {
            let same = |role: &Role| matches!(role, Role::Slave { master: Some((node, _)), .. } if *node == master);
            // An error means that the replica has ended, and the node with it.
            let _ = role.wait_for(|role| !same(role)).await;
        };
        tokio::select! {
            _ = pass_on(stream, carrier, place) => {}
            () = changed => tracing::debug!(master, "a carried client is disconnected: the master has changed"),
        }
    }

    /// Tells a client, in its own language, that nobody can serve it now.
    async fn turn_away(&self, mut stream: TcpStream) {
        let mut session = self.session(0);
        let mut out = Output::new();
        let mut input = BytesMut::new();
        let arrived = stream.try_read_buf(&mut input);
        tracing::debug!(
            arrived = arrived.unwrap_or(0),
            "a client is turned away: the group has no master"
        );
        let text = "this group has no master: a majority of its nodes is not reachable; connect again later";
        session.on_failure(Refusal::new(RefusalKind::NoQuorum, text), &mut out);
        for chunk in out.take_chunks() {
            if stream.write_all(&chunk).await.is_err() {
                return;
            }
        }
        let _ = stream.shutdown().await;
    }
}

/// Passes bytes both ways until both sides have ended. The master answers nobody but clients that it lets in, and those
/// that it ends; so its first word settles the client here, too.
async fn pass_on(mut stream: TcpStream, mut carrier: PeerStream, place: &Place) -> std::io::Result<()> {
    let (mut from_client, mut to_client) = stream.split();
    let (mut from_master, mut to_master) = tokio::io::split(&mut carrier);
    let there = async {
        copy(&mut from_client, &mut to_master).await?;
        to_master.shutdown().await
    };
    let back = async {
        let mut first = [0; 1024];
        let len = from_master.read(&mut first).await?;
        place.settle();
        to_client.write_all(&first[..len]).await?;
        copy(&mut from_master, &mut to_client).await?;
        to_client.shutdown().await
    };
    tokio::try_join!(there, back).map(|_| ())
}

/// The client's own address as a slave tells it; unknown where that makes no sense.
fn client_address(text: &[u8]) -> IpAddr {
    let address = std::str::from_utf8(text).ok().and_then(|text| text.parse().ok());
    address.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |address: SocketAddr| address.ip())
}
