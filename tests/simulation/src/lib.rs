//! Several groups of nodes with their clients, links, clocks, networks and disks in one process, from a seed.
//!
//! *From* a seed; *to* a verdict: which promise of DESIGN §2 was broken, or none. *Never* looks at a real clock, starts
//! a thread, or walks over a hash map: the same seed is the same run, event for event.
//!
//! Compiled from the product's own sources: the master's loop and a client's connection (`node/src/`), the lease
//! (`node/replication/src/lease.rs`) and the journal. Used as they are: broker, dispatch, the mesh of forwarding with its
//! frames, the STOMP sessions. Modelled here: Raft (`raft/`), disks, networks, clients.

// The unit tests in the product's sources run where they belong.
#![cfg(not(test))]

extern crate self as ferrymq_replication;

// The words that the product's sources know by these names.
mod clock;
mod config;
mod crash;
mod group;
mod mesh;
pub use group::{Clocks, Completion, Failure, Group, GroupEvent, GroupStatus, MemberClock, ReadError, Role};

#[path = "../../../node/src"]
#[allow(dead_code, reason = "the parts that run on tokio are not used")]
mod node {
    pub(crate) mod connection;
    pub(crate) mod ingress;
    pub(crate) mod leader;
    pub(crate) mod load;
    pub(crate) mod memory;
    pub(crate) mod outbox;
    pub(crate) mod places;
}
use node::{connection, ingress, leader, load, memory, outbox, places};

#[path = "../../../node/replication/src"]
#[allow(dead_code, reason = "some is for status only")]
mod replication {
    pub(crate) mod lease;
}

mod process;
mod raft;
mod rng;
pub mod sabotage;

mod client;
mod history;
mod invariants;
mod link;
mod network;
mod oracle;
mod profile;
mod storm;
mod world;

pub mod run;
pub mod seeds;
