//! The client languages, without sockets: bytes of a connection become requests, deliveries become bytes.
//!
//! *From* node's connection, which feeds bytes, replies, deliveries and ticks to a [`Session`]; *to* node's ingress,
//! which turns each [`Request`] into a command of the broker. *Never* does I/O, reads a clock, draws a random number or
//! knows the broker's types.

pub mod request;
pub mod session;
pub mod sniff;

pub mod stomp;

pub use request::{
    AckMode, AckTarget, DeadLetter, Delivery, Durable, Login, Refusal, RefusalKind, Request, Subscribe, Token, Verdict,
};
pub use session::{Close, Output, Session};
pub use sniff::{Sniff, sniff};
