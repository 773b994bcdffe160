//! Reaching another node of the group. A trait, so that a test can cut the wire.

use std::io;
use std::time::Duration;

use ferrymq_transport::{PeerAuth, PeerError, PeerStream, Purpose};
use futures_util::future::BoxFuture;

use crate::config::NodeId;
use crate::purpose;

/// Opens connections to other nodes of the group.
pub trait Dial: Send + Sync + 'static {
    /// A connection to `node` at `address` (`host:port`) for `purpose`. Fails unless that very node answers.
    fn dial(&self, node: NodeId, address: &str, purpose: Purpose) -> BoxFuture<'static, io::Result<PeerStream>>;

    /// Whether that node still listens at `address`. Takes a fraction of a second at most.
    fn probe(&self, node: NodeId, address: &str) -> BoxFuture<'static, Probe>;
}

/// What a look at a node's port has shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Probe {
    /// Nobody listens, at any of the addresses that the name stands for.
    Refused,
    /// That very node has answered.
    Alive,
    /// Anything else: silence, a connection that ended at once, somebody else.
    Unclear,
}

/// Opens authenticated TCP connections.
pub struct PeerDial {
    auth: PeerAuth,
    timeout: Duration,
}

impl PeerDial {
    /// Proves itself with `auth`; gives up after `timeout`.
    pub fn new(auth: PeerAuth, timeout: Duration) -> PeerDial {
        PeerDial { auth, timeout }
    }
}

impl Dial for PeerDial {
    fn dial(&self, node: NodeId, address: &str, purpose: Purpose) -> BoxFuture<'static, io::Result<PeerStream>> {
        let (auth, timeout, address) = (self.auth.clone(), self.timeout, address.to_owned());
        Box::pin(async move {
            let connection = ferrymq_transport::dial(address, &auth, purpose, node, timeout).await;
            connection.map(|connection| connection.stream).map_err(io::Error::other)
        })
    }

    fn probe(&self, node: NodeId, address: &str) -> BoxFuture<'static, Probe> {
        let (auth, address) = (self.auth.clone(), address.to_owned());
        Box::pin(async move {
            let Ok(Ok(addresses)) = tokio::time::timeout(PROBE_MAX, tokio::net::lookup_host(address)).await else {
                return Probe::Unclear;
            };
            let mut found = Probe::Unclear;
            for address in addresses {
                match ferrymq_transport::dial(address, &auth, purpose::RPC, node, PROBE_MAX).await {
                    Ok(_) => return Probe::Alive,
                    Err(PeerError::Io(error)) if error.kind() == io::ErrorKind::ConnectionRefused => {
                        found = Probe::Refused;
                    }
                    Err(_) => return Probe::Unclear,
                }
            }
            found
        })
    }
}

/// For one address of a probe. A refusal takes one round trip.
const PROBE_MAX: Duration = Duration::from_millis(100);
