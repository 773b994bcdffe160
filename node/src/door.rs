//! Every node is a door (P10): a connection is served where the master is, and carried there by any other node.
//!
//! A slave dials the master's peer port, says for whom, and passes bytes both ways until either side ends or another
//! node becomes master; then the client is disconnected, so that it connects again and resends what has no receipt.

use std::{
    io,
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
    sync::watch,
};

use crate::{
    connection::{self, ConnectionLimits},
    doorkeeper::{Doorkeeper, Visitor},
    places::{Place, Places},
    terms::Current,
};

/// A client's connection, carried by a slave. (16 was one whose head told nothing of certificates.)
pub(crate) const DOOR: Purpose = Purpose(17);

/// How long a client waits at the door while the group has no master: several times what an election takes, and short
/// enough for a client that was cut off with this node and has others in its list.
const MASTER_WAIT: Duration = Duration::from_secs(5);
const DIAL_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a client that a slave carries here waits for this node to begin its term.
const TERM_WAIT: Duration = Duration::from_secs(1);
/// How long a client that is turned away may take with what it is just sending.
const LAST_WORDS_WAIT: Duration = Duration::from_millis(50);

/// What every client connection of this node needs. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Door {
    shared: Arc<Shared>,
}

struct Shared {
    current: watch::Receiver<Option<Current>>,
    role: watch::Receiver<Role>,
    auth: PeerAuth,
    keeper: Arc<Doorkeeper>,
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
        keeper: Arc<Doorkeeper>,
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
                keeper,
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
    pub(crate) async fn enter<S>(&self, stream: S, visitor: Visitor, place: Place)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send,
    {
        let from = visitor.address;
        tokio::select! {
            () = self.serve_or_carry(stream, visitor, &place) => {}
            () = place.lost() => tracing::debug!(%from, "a client that had not logged in has lost its place"),
        }
    }

    async fn serve_or_carry<S>(&self, mut stream: S, visitor: Visitor, place: &Place)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send,
    {
        let from = visitor.address;
        let deadline = tokio::time::Instant::now() + MASTER_WAIT;
        let mut role = self.shared.role.clone();
        let mut current = self.shared.current.clone();
        loop {
            current.mark_unchanged();
            let now = role.borrow_and_update().clone();
            match now {
                Role::Master { .. } => {
                    if self.serve(&mut stream, &visitor, place, |session| session).await {
                        return;
                    }
                }
                Role::Slave {
                    master: Some((node, address)),
                    ..
                } => tokio::select! {
                    dialled = self.dial(node, &address, &visitor) => match dialled {
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
        match tokio::time::timeout(DIAL_TIMEOUT, read_head(&mut stream)).await {
            Ok(Ok(visitor)) => {
                let from = visitor.address;
                let Ok(place) = self.shared.places.enter(from.ip()) else {
                    return;
                };
                // A slave hears of a new master before that has applied what it must know to act. An error means that
                // this node ends.
                let mut current = self.shared.current.clone();
                let begun = current.wait_for(Option::is_some);
                let _ = tokio::time::timeout(TERM_WAIT, begun).await;
                tokio::select! {
                    _ = self.serve(&mut stream, &visitor, &place, StompSession::carried) => {}
                    () = place.lost() => tracing::debug!(%from, "a carried client has lost its place"),
                }
            }
            _ => tracing::debug!("a carried connection ended before it began"),
        }
    }

    /// Runs a session with the master's loop of this node; false where there is none.
    async fn serve<S>(
        &self,
        stream: &mut S,
        visitor: &Visitor,
        place: &Place,
        way: impl FnOnce(StompSession) -> StompSession,
    ) -> bool
    where
        S: AsyncRead + AsyncWrite + Unpin + Send,
    {
        let Some(current) = self.shared.current.borrow().clone() else {
            return false;
        };
        let connection = self.shared.next_connection.fetch_add(1, Ordering::Relaxed);
        let session_id = self.session_id(connection);
        let session = Box::new(way(StompSession::new(session_id.clone(), self.shared.stomp.clone())));
        let entrance = self.shared.keeper.entrance(visitor, session_id);
        let limits = self.shared.limits.clone();
        connection::run(stream, session, connection, current.clients, limits, entrance, place).await;
        true
    }

    fn session_id(&self, connection: u64) -> String {
        format!("{}-{connection}", self.shared.session_prefix)
    }

    async fn dial(&self, node: NodeId, address: &NodeAddress, visitor: &Visitor) -> anyhow::Result<PeerStream> {
        let auth = &self.shared.auth;
        let dialled = ferrymq_transport::dial(address.peer.clone(), auth, DOOR, node, DIAL_TIMEOUT).await?;
        let mut stream = dialled.stream;
        stream.write_all(&head(visitor)).await?;
        stream.flush().await?;
        Ok(stream)
    }

    /// Passes bytes until either side ends or the master changes.
    async fn carry<S>(&self, stream: S, carrier: PeerStream, master: NodeId, place: &Place)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send,
    {
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
    async fn turn_away<S>(&self, mut stream: S)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send,
    {
        let mut session = StompSession::new(self.session_id(0), self.shared.stomp.clone());
        let mut out = Output::new();
        let mut input = BytesMut::new();
        // Closing with unread bytes would reset the connection, and take our last words with it.
        let arrived = tokio::time::timeout(LAST_WORDS_WAIT, stream.read_buf(&mut input)).await;
        tracing::debug!(
            arrived = arrived.is_ok(),
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
async fn pass_on<S>(mut stream: S, mut carrier: PeerStream, place: &Place) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (mut from_client, mut to_client) = tokio::io::split(&mut stream);
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

/// Longest list of a certificate's names that a slave passes on, in bytes.
const NAMES_BYTES_MAX: usize = 4 * 1024;

/// What a slave tells of the client that it carries, over a connection that proves it to be a node of this group:
///
/// ```text
/// ┌───────────────┬─────────┬───────────────┬──────────────────────────────────────────────┐
/// │ length  (u8)  │ address │ length (u16)  │ names in the client's certificate, by lines  │
/// └───────────────┴─────────┴───────────────┴──────────────────────────────────────────────┘
/// ```
fn head(visitor: &Visitor) -> Vec<u8> {
    let address = visitor.address.to_string();
    let mut names = visitor.certificate.join("\n");
    // A name that was cut would be another one's.
    while names.len() > NAMES_BYTES_MAX {
        names.truncate(names.rfind('\n').unwrap_or(0));
    }
    let mut head = vec![address.len() as u8];
    head.extend(address.as_bytes());
    head.extend((names.len() as u16).to_be_bytes());
    head.extend(names.as_bytes());
    head
}

async fn read_head(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Visitor> {
    let malformed = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    let mut address = vec![0; usize::from(stream.read_u8().await?)];
    stream.read_exact(&mut address).await?;
    let address = std::str::from_utf8(&address).ok().and_then(|text| text.parse().ok());
    let length = usize::from(stream.read_u16().await?);
    if length > NAMES_BYTES_MAX {
        return Err(malformed("a certificate has too many names"));
    }
    let mut names = vec![0; length];
    stream.read_exact(&mut names).await?;
    let names = String::from_utf8(names).map_err(|_| malformed("a certificate's names are no text"))?;
    Ok(Visitor {
        address: address.ok_or_else(|| malformed("no address of a client"))?,
        certificate: names.lines().map(str::to_owned).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_slave_tells_whom_it_carries() {
        for (address, names) in [
            ("10.0.0.1:5", vec![]),
            (
                "[2001:db8::1%7]:65535",
                vec!["app".to_owned(), "app.example".to_owned()],
            ),
        ] {
            let visitor = Visitor {
                address: address.parse().unwrap(),
                certificate: names,
            };
            let head = head(&visitor);
            let read = read_head(&mut &*head).await.unwrap();
            assert_eq!((read.address, read.certificate), (visitor.address, visitor.certificate));
            for len in 0..head.len() {
                assert!(read_head(&mut &head[..len]).await.is_err(), "{len}");
            }
        }
    }

    #[tokio::test]
    async fn names_that_do_not_fit_are_left_out_as_a_whole() {
        let visitor = Visitor {
            address: "10.0.0.1:5".parse().unwrap(),
            certificate: (0..100).map(|at| format!("{at:0100}")).collect(),
        };
        let read = read_head(&mut &*head(&visitor)).await.unwrap();
        assert_eq!(read.certificate, visitor.certificate[..40]);
        let mut damaged = head(&visitor);
        damaged[11] = 0xff;
        assert!(read_head(&mut &*damaged).await.is_err(), "longer than is allowed");
        let mut damaged = head(&visitor);
        damaged[1] = b'x';
        assert!(read_head(&mut &*damaged).await.is_err(), "no address");
    }
}
