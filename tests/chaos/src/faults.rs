//! The ways in which things break, one file per family.

pub mod away;
pub mod clock;
pub mod damage;
pub mod disks;
pub mod limits;
pub mod members;
pub mod network;
pub mod older;
pub mod power;
pub mod processes;
pub mod skewed;
pub mod sleeper;
