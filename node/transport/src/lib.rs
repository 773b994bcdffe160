//! Bytes between nodes: TCP inside a group, QUIC between the masters of groups, and the proof of who is at the other end.
//!
//! *From* replication (inside a group) and forwarding (between groups), which hand over frames and streams; *to* the
//! network. *Never* learns what a frame means: a frame is one byte of kind, chosen by the user, and a payload. The only
//! room that names quinn and rustls.

pub mod name;
pub mod secret;

pub mod identity;
pub mod refusal;
pub mod throttle;

pub mod frame;

mod auth;
mod handshake;
pub mod peer;
mod peer_error;
pub mod stream;

mod certificate_names;
pub mod client_tls;

pub mod endpoint;
pub mod link;
mod link_error;
mod link_hello;
mod udp_probe;
mod unproven;

#[cfg(test)]
mod fuzz;

pub use auth::PeerAuth;
pub use client_tls::{TlsClientStream, TlsDialer, TlsDoor};
pub use endpoint::{LinkEndpoint, LinkOptions};
pub use frame::{FrameError, FrameReader, FrameWriter};
pub use identity::{Identity, IdentityError, PemFiles, certificate_name};
pub use link::{Channel, Frame, Link, LinkReceiver, LinkSender, LinkStats};
pub use link_error::LinkError;
pub use name::{NameError, PeerName, Purpose};
pub use peer::{PeerConnection, PeerListener, PeerOptions, dial};
pub use peer_error::PeerError;
pub use refusal::{Refusal, Refusals};
pub use secret::{MeshSecret, SecretError};
pub use stream::{PeerReader, PeerStream, PeerWriter};
pub use throttle::Throttle;
