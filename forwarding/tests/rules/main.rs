//! One mesh and a peer played by hand: which link stays, what is told to whom, and what an answer means.

#![allow(clippy::unwrap_used, reason = "what is unwrapped here holds, or the test has failed")]

mod desk;

mod credit;
mod demand;
mod life;
mod links;
mod resting;
mod transfers;
