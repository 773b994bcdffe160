//! Reaching another node of the group. A trait, so that a test can cut the wire.

use std::io;
use std::time::Duration;

use ferrymq_transport::{PeerAuth, PeerStream, Purpose};
use futures_util::future::BoxFuture;

use crate::config::NodeId;

/// Opens connections to other nodes of the group.
pub trait Dial: Send + Sync + 'static {
    /// A connection to `node` at `address` (`host:port`) for `purpose`. Fails unless that very node answers.
    fn dial(&self, node: NodeId, address: &str, purpose: Purpose) -> BoxFuture<'static, io::Result<PeerStream>>;
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
}
