//! The client library: STOMP 1.2 with fail-over.
//!
//! *From* an application's messages, through one connection to any node of a group; *to* its consumers. *Never* loses a
//! send on the way to its receipt, sends it under a second name, or grows without a bound.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use ferrymq_client::{Connection, ConsumerOptions, Options, Outgoing, ProducerOptions};
//!
//! let connection = Connection::connect("failover:(tcp://a:61613,tcp://b:61613)", Options::default()).await?;
//! let producer = connection.producer("queue://ORDERS", ProducerOptions::default())?;
//! producer.send(Outgoing::text("one pen")).await?;
//! producer.flush().await?; // stored by a majority
//!
//! let consumer = connection.consumer("queue://ORDERS", ConsumerOptions::default())?;
//! let message = consumer.recv().await?;
//! consumer.ack(&message)?;
//! consumer.flush().await?; // will not come again
//! # Ok(())
//! # }
//! ```

pub mod connection;
pub mod options;

pub mod outgoing;
pub mod producer;

pub mod consumer;
pub mod received;

pub mod error;
pub mod event;

mod consumer_state;
mod core;
mod destination;
mod driver;
mod endpoints;
mod failover_uri;
mod login;
mod producer_state;
mod socket;
mod unanswered;

pub use connection::Connection;
pub use consumer::Consumer;
pub use error::{AckError, ConnectError, Ended, ReceiveError, SendError};
pub use event::Event;
pub use ferrymq_protocol::AckMode;
pub use options::{ConsumerOptions, Options, ProducerOptions, TlsOptions};
pub use outgoing::Outgoing;
pub use producer::Producer;
pub use received::Received;
