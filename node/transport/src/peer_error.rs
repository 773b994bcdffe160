//! Why there is no connection to a peer, and under which reason a listener counts that.

use std::io;
use std::net::SocketAddr;

use crate::handshake::{Malformed, VERSION};
use crate::refusal::Refusal;

/// Why there is no connection to a peer.
#[derive(Debug, thiserror::Error)]
pub enum PeerError {
    /// Connecting, reading or writing failed. `ConnectionRefused` shows that nothing listens there.
    #[error(transparent)]
    Io(io::Error),
    /// It took longer than allowed.
    #[error("no answer in time")]
    Timeout,
    /// The other end does not speak this handshake.
    #[error("the other end is not a FerryMQ peer port")]
    NotAPeer,
    /// The other end speaks another version.
    #[error("the other node speaks version {theirs} of the peer handshake, this one {ours}: upgrade one of them")]
    Version {
        /// This node's.
        ours: u16,
        /// The other node's.
        theirs: u16,
    },
    /// The mesh secrets differ, or exactly one side has one.
    #[error("the two nodes do not share a mesh secret: set the same one on both")]
    BadSecret,
    /// The node belongs to another group.
    #[error("expected a node of group '{expected}', found one of '{found}'")]
    WrongGroup {
        /// The group looked for.
        expected: String,
        /// The group found.
        found: String,
    },
    /// Another node of the group answered.
    #[error("expected node {expected}, found node {found}")]
    WrongNode {
        /// The node looked for.
        expected: u64,
        /// The node found.
        found: u64,
    },
    /// Neither secret nor TLS is configured and the other end is on another machine.
    #[error("{0} is not on this machine: set a mesh secret (or TLS) on every node before they connect over a network")]
    NeedsSecret(SocketAddr),
    /// TLS failed: no common trust, usually.
    #[error("TLS: {0}")]
    Untrusted(String),
    /// A certificate is trusted but does not carry the name that its node claims.
    #[error("the certificate does not carry the name '{0}'")]
    WrongName(String),
}

impl PeerError {
    /// Under which reason a listener counts it.
    pub(crate) fn refusal(&self) -> Refusal {
        match self {
            Self::Io(_) | Self::Timeout => Refusal::Unfinished,
            Self::NotAPeer => Refusal::Garbage,
            Self::Version { .. } => Refusal::Version,
            Self::BadSecret => Refusal::BadSecret,
            Self::WrongGroup { .. } => Refusal::WrongGroup,
            Self::WrongNode { .. } => Refusal::WrongNode,
            Self::NeedsSecret(_) => Refusal::NotLoopback,
            Self::Untrusted(_) => Refusal::Untrusted,
            Self::WrongName(_) => Refusal::WrongName,
        }
    }
}

impl From<io::Error> for PeerError {
    /// TLS reports its own failures inside of I/O errors.
    fn from(error: io::Error) -> Self {
        match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            Some(tls) => Self::Untrusted(tls.to_string()),
            None => Self::Io(error),
        }
    }
}

impl From<Malformed> for PeerError {
    fn from(malformed: Malformed) -> Self {
        match malformed {
            Malformed::Magic | Malformed::Name => Self::NotAPeer,
            Malformed::Version(theirs) => Self::Version { ours: VERSION, theirs },
        }
    }
}
