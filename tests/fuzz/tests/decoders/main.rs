//! Every decoder that can be reached from outside its room, under fire. Those that cannot are in their rooms' `fuzz.rs`.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod broker;
mod forwarding;
mod journal;
mod message;
mod stomp;
mod text;
mod transport;
