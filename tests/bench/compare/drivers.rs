//! How the load reaches each broker: one driver for each protocol, all over the same [`wire::Wire`], so that none of them
//! gets a leaner client than another.

use std::cell::Cell;

pub(crate) mod wire;

mod unconfirmed;

mod amqp;
pub(crate) mod rabbitmq;

pub(crate) mod nats;
mod nats_frame;

pub(crate) mod stomp;
mod stomp_frame;

pub(crate) mod ferrymq;

pub(crate) use amqp::AmqpConnection;
pub(crate) use nats_frame::NatsConnection;

/// The address whose turn it is: connections are spread over the nodes, the first goes to the first.
fn next<'a>(addresses: &'a [String], turn: &Cell<usize>) -> &'a str {
    let at = turn.get();
    turn.set(at + 1);
    &addresses[at % addresses.len()]
}
