//! The journal as it is, on a disk that is not: every source file of `node/journal`, compiled with a simulated `disk`
//! (which tears, forgets and fails as a seed says) and with `threads` that take a step when they are told to.
//!
//! *From* the simulated replica; *to* [`Machine`]s, which hold their files in memory. *Never* runs a thread, looks at a
//! clock, or touches a real file.
// The unit tests in these sources run where they belong.
#![cfg(not(test))]
#![allow(
    dead_code,
    unused_imports,
    reason = "the product's own sources, of which tests use a part"
)]

pub mod disk;
mod threads;

#[path = "../../../../node/journal/src/config.rs"]
mod config;
#[path = "../../../../node/journal/src/error.rs"]
mod error;
#[path = "../../../../node/journal/src/journal.rs"]
mod journal;

#[path = "../../../../node/journal/src/front.rs"]
mod front;
#[path = "../../../../node/journal/src/layout.rs"]
mod layout;
#[path = "../../../../node/journal/src/queue.rs"]
mod queue;
#[path = "../../../../node/journal/src/room.rs"]
mod room;
#[path = "../../../../node/journal/src/shared.rs"]
mod shared;
#[path = "../../../../node/journal/src/writer.rs"]
mod writer;

#[path = "../../../../node/journal/src/catalog.rs"]
mod catalog;
#[path = "../../../../node/journal/src/event.rs"]
mod event;
#[path = "../../../../node/journal/src/live.rs"]
mod live;
#[path = "../../../../node/journal/src/outline.rs"]
mod outline;

#[path = "../../../../node/journal/src/check.rs"]
mod check;
#[path = "../../../../node/journal/src/opening.rs"]
mod opening;
#[path = "../../../../node/journal/src/record.rs"]
mod record;
#[path = "../../../../node/journal/src/recovery.rs"]
mod recovery;
#[path = "../../../../node/journal/src/segment.rs"]
mod segment;
#[path = "../../../../node/journal/src/window.rs"]
mod window;

#[path = "../../../../node/journal/src/cache.rs"]
mod cache;
#[path = "../../../../node/journal/src/copy.rs"]
mod copy;
#[path = "../../../../node/journal/src/install.rs"]
mod install;
#[path = "../../../../node/journal/src/stats.rs"]
mod stats;

mod forge;

pub use check::{CheckReport, check};
pub use config::Config;
pub use disk::{Crash, Machine};
pub use error::Error;
pub use forge::forge;
pub use front::{LogState, Place, Record};
pub use install::Install;
pub use journal::Journal;
pub use queue::Done;
pub use stats::Stats;
