//! STOMP 1.0, 1.1 and 1.2 as ActiveMQ Classic speaks it.
//!
//! *From* the connection's bytes through [`codec`] to [`Frame`]s, which [`StompSession`] turns into requests; *back*
//! from deliveries and replies to frames. The codec serves both sides: our client library speaks with it too.

pub mod codec;
pub mod error;
pub mod frame;
pub mod limits;
pub mod session;
pub mod version;

mod connect;
mod deliver;
mod destination;
mod heartbeat;
mod json;
mod send;
mod subscribe;
mod subscriptions;
mod transactions;

pub use codec::{Decoder, encode};
pub use connect::CARRIED;
pub use deliver::{PRODUCER, SEQUENCE};
pub use error::StompError;
pub use frame::{Command, Frame, Headers};
pub use limits::StompLimits;
pub use session::StompSession;
pub use version::Version;
