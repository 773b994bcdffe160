//! The mesh between groups: who wants what (demand), by which way (routes), and moving messages there (bridges).
//!
//! *From* the node, which hands over peers, local demand and committed offers ([`Input`]), and from the links; *to* the
//! node, as proposals and other groups' demand ([`Output`]), and to the links. Everything but [`driver`] is pure: time
//! and randomness are arguments, results are a list. *Never* sees the replication engine or discovery, and never
//! outlives a master's term: it is made at its start and dropped at its end.

pub mod config;
pub mod input;
pub mod output;

pub mod driver;

pub mod event;
pub mod mesh;

mod arrivals;
mod demand;
mod pattern;
mod route;
mod row_set;

mod bridge;
mod proposals;
mod receiver;
pub mod refusal;

mod group_time;
mod jitter;
mod link_state;
mod target;

pub mod action;
pub mod frame;
pub mod row;
mod wire;

pub use action::Action;
pub use config::Config;
pub use driver::Driver;
pub use event::{DialId, Event, LinkId};
pub use input::{Failed, Input, Pace, PeerCandidate, Room};
pub use mesh::Mesh;
pub use output::{KnownGroup, LinkState, LinkStatus, Output, RemoteDemand};
pub use refusal::Refusal;
