//! The load that `ferrymq bench` and the comparison with other brokers make, and what they measure of it.
//!
//! *From* a [`Load`], which says what is sent, how fast and how long; through any broker's [`Driver`], of which our own is
//! [`FerryDriver`]; *to* a [`Report`] and its picture. *Never* speaks a protocol, and never asks a broker what it has
//! done: whatever is reported was seen from outside.
//!
//! Everything runs on the caller's thread, a tokio runtime of the current thread, since the load's own work competes with
//! the brokers' for the processor.

pub mod driver;
pub mod ferry;
pub mod load;

pub mod engine;

pub mod plot;
pub mod report;

mod board;
mod body;
mod clock;
mod pace;
mod seen;
mod traffic;

pub use body::STAMP_BYTES;
pub use driver::{Driver, Endpoint, Receiver, Sender};
pub use engine::run;
pub use ferry::FerryDriver;
pub use load::Load;
pub use report::{Latency, Phase, Report, Sample};
