//! `ferrymq`: a federated mesh of highly available message brokers in one binary.
//!
//! The files in the order in which a client's connection meets them: [`listener`] and [`door`], [`connection`],
//! [`ingress`], [`leader`]; around them [`boot`], [`terms`], [`mesh`], [`admin`] and the command line.

mod cli;

mod boot;

mod listener;
mod door;
mod connection;
mod outbox;
mod ingress;
mod leader;

mod terms;
mod mesh;
mod admin;
mod clock;
mod crash;

use std::process::ExitCode;

// Messages are many small allocations that live shortly and are freed by another task than made them.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    cli::main()
}
