//! Bytes on disk: the group's log, a few named cells (the vote among them) and every message body, each written once.
//!
//! *From* replication, which appends log entries and votes; *to* whoever holds a [`Place`] and wants the body back.
//! *Never* learns what a record means: a payload is opaque, and liveness is counted by whoever does know.
//!
//! How it works, in the order of the files: [`Journal`] accepts operations at once and queues them; one writer thread
//! gathers what is queued, writes it with one vectored write, syncs once and answers all. What a write (or a record
//! found at start) changes is an `Event`, and the `Catalog` is the sum of all events: what is where on disk.

mod config;
mod disk;
mod error;
mod journal;

mod front;
mod layout;
mod queue;
mod room;
mod shared;
mod threads;
mod writer;

mod catalog;
mod event;
mod live;
mod outline;

mod check;
mod opening;
mod record;
mod recovery;
mod segment;
mod window;

mod cache;
mod copy;
mod install;
mod stats;

pub use check::{CheckReport, SegmentReport, check};
pub use config::Config;
pub use error::Error;
pub use front::{LogState, Place, Record};
pub use install::Install;
pub use journal::Journal;
pub use live::SparseSegment;
pub use queue::Done;
pub use stats::{Stats, SyncTimes};
