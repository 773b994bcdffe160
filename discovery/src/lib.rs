//! Who is there: finds other groups of the mesh by fixed lists, multicast and mDNS, and reports what it has heard.
//!
//! *From* configuration (URIs) and the network; *to* forwarding, which makes links to what is reported. *Never* trusts
//! what it hears: an announcement is a hint, TLS on the link is the proof.

pub mod address;
mod options;
mod scan;

pub mod failover;
pub mod uri;

pub mod announcement;

mod agent;
mod interfaces;
mod mdns;
mod multicast;
mod statics;

pub mod peers;
mod stats;

pub mod discovery;

#[cfg(test)]
mod fuzz;

pub use address::NodeAddress;
pub use announcement::Announcement;
pub use discovery::{Config, Discovery, StaticList};
pub use failover::{FailoverOptions, FailoverUri};
pub use options::ReconnectOptions;
pub use peers::{Candidate, Source};
pub use scan::UriError;
pub use stats::Stats;
pub use uri::{MdnsUri, MulticastUri, StaticUri, Uri};
