//! Limits under attack: real processes, raw sockets, and a healthy client whose latency is measured meanwhile (P8, P11).
//!
//! By default each attack is short. With `FERRYMQ_SCALE=1` it has its full size; then also name a release build in
//! `FERRYMQ_BIN`. Each attack writes a row of a table; `FERRYMQ_TABLE` names a file where they are gathered.

#![allow(clippy::unwrap_used)] // Also in what the tests share, where the lint does not see that it is one.

mod arena;
mod memory;
mod pulse;
mod strangers;
mod wire;

mod announcements;
mod backlogs;
mod crowds;
mod descriptors;
mod doors;
mod frames;
mod readers;
mod senders;
