//! One replicated state per group: commands are packed into batches, agreed upon by a majority, and applied in the same
//! order on every node. The only room that names openraft.
//!
//! *From* encoded commands ([`Group::submit`]) and peers' streams ([`Group::serve`]); *to* the journal (log and bodies),
//! the peers, and the node as [`GroupEvent`]s. *Never* reads a message's content, knows a client, or acts on an effect.

pub mod config;
mod group;

pub mod event;
pub mod role;
mod pipeline;

mod types;
mod entry;
mod log_store;
mod log_reader;

mod state_machine;
mod replica;
mod state_file;
mod snapshot;

pub mod purpose;
mod dial;
mod wire;
mod rpc;
mod network;
mod append_session;
mod server;

mod identity;
mod admission;
mod founding;
mod master;
mod lease;
mod membership;
mod housekeeping;

mod histogram;
pub mod status;

pub use config::{Config, ConfigError, NodeAddress, NodeId, Sync};
pub use dial::{Dial, PeerDial};
pub use event::{Completion, Failure, GroupEvent};
pub use group::{Group, ReadError, StartError};
pub use identity::IdentityError;
pub use membership::MembershipError;
pub use role::Role;
pub use state_file::StateFileError;
pub use status::GroupStatus;
