//! One replicated state per group: commands are packed into batches, agreed upon by a majority, and applied in the same
//! order on every node. The only room that names openraft.
//!
//! *From* encoded commands ([`Group::submit`]) and peers' streams ([`Group::serve`]); *to* the journal (log and bodies),
//! the peers, and the node as [`GroupEvent`]s. *Never* reads a message's content, knows a client, or acts on an effect.

pub mod config;
mod group;

mod entrance;
pub mod event;
mod gathering;
mod pipeline;
pub mod role;

mod entry;
mod log_reader;
mod log_store;
mod types;

mod replica;
mod rooms;
mod snapshot;
mod state_file;
mod state_machine;

mod alarm;
mod append_session;
mod dial;
mod network;
pub mod purpose;
mod rpc;
mod server;
mod wire;

mod evidence;
mod failover;
mod verdict;

mod admission;
mod clock;
mod clocks;
mod founding;
mod growth;
mod housekeeping;
mod identity;
mod intruder;
mod joining;
mod last_resort;
mod lease;
mod lives;
mod master;
mod meeting;
mod membership;
mod timers;

#[cfg(test)]
mod fuzz;
mod histogram;
pub mod status;
#[cfg(test)]
mod suite;

pub use clocks::{Clocks, MemberClock, boot_ms};
pub use config::{Config, ConfigError, NodeAddress, NodeId, Sync};
pub use dial::{Dial, PeerDial, Probe};
pub use event::{Completion, Failure, GroupEvent};
pub use failover::ElectedBy;
pub use group::{Group, ReadError, StartError};
pub use identity::IdentityError;
pub use joining::JoinProgress;
pub use membership::MembershipError;
pub use role::Role;
pub use state_file::StateFileError;
pub use status::GroupStatus;
pub use timers::Timers;
