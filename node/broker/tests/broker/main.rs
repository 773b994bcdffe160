//! Tests of the replicated core from outside: what each command brings about, stories as text, random command
//! sequences against snapshots, and two groups that hand messages over while everything goes wrong (P4).

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod group;

mod damage;
mod effects;
mod handing_over;
mod once;
mod random;
mod scripts;
mod snapshots;
