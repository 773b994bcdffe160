//! The harness for tests with real processes: nodes, groups and meshes of the program as users run it.
//!
//! *From* a test's wish ("two groups of three, linked"); *to* processes, ports, directories and a client that shares no
//! code with ours. *Never* sleeps for a guessed time (every wait is for a condition, with a deadline), leaves a process
//! behind, or passes silently over what this machine cannot do (see [`skip`]).

pub mod authority;
pub mod config;
pub mod group;
pub mod mesh;
pub mod node;
pub mod users;

pub mod history;
pub mod load;
pub mod stomp;

pub mod disk;
pub mod net;

pub mod binary;
pub mod http;
pub mod late;
pub mod ports;
pub mod python;
pub mod scratch;
pub mod skewed_clock;
pub mod skip;
pub mod slow_line;
pub mod wait;

pub use group::GroupOfNodes;
pub use history::History;
pub use mesh::{Discovery, Mesh, MeshBuilder};
pub use node::NodeProcess;
pub use skewed_clock::SkewedClock;
pub use stomp::{Frame, Stomp};
pub use wait::{wait_for, wait_until};
