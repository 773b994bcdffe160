//! Tests of the dispatcher against a real replicated state whose commits come late: single cases, and a model that lets
//! consumers, other groups and masters come and go at random.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod world;

mod cases;
mod direct;
mod model;
mod order;
