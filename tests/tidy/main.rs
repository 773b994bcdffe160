//! What the design says in prose, checked as the sources are now: who may see whom, what the pure rooms keep away from,
//! how files look, and that the documents name what is there.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod sources;

mod documents;
mod purity;
mod rooms;
mod style;
