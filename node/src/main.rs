//! `ferrymq`: a federated mesh of highly available message brokers in one binary.
//!
//! The files in the order in which a client's connection meets them: [`listener`] and [`door`], [`connection`]
//! and [`doorkeeper`], [`ingress`], [`leader`]; around them [`boot`], [`terms`], [`mesh`], [`admin`] and the command line.

mod cli;

mod access;
mod boot;

mod connection;
mod door;
mod doorkeeper;
mod ingress;
mod leader;
mod listener;

mod load;
mod memory;
mod outbox;
mod places;
mod renewal;
mod warden;

mod admin;
mod clock;
mod crash;
mod files;
mod footprint;
mod hangup;
mod mesh;
mod terms;
mod turned_away;

use std::process::ExitCode;

// Messages are many small allocations that live shortly and are freed by another task than made them.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    cli::main()
}
