//! Who gets which message next: consumers, their credit, what is in flight, and what other groups want.
//!
//! *From* the master's loop, which passes on the state machine's effects and the clients' requests; *to* it as
//! [`Action`]s. *Never* outlives a term of its master: what is in flight is not replicated, and the next master begins
//! with an empty dispatcher.

pub mod dispatcher;

pub mod action;
pub mod bridge;
pub mod consumer;
pub mod direct;
mod numbers;
mod pace;
mod queue;
mod surroundings;
pub mod topic;
mod turns;

pub use action::{Action, Bodies};
pub use bridge::Bridge;
pub use consumer::{ConnectionId, Consumer, ConsumerId, Target};
pub use direct::{Arrival, Arrived, Direct, DirectCounts, Ways};
pub use dispatcher::{Demand, Dispatcher, Limits, Settled};
pub use topic::{Subscriber, Topics};
