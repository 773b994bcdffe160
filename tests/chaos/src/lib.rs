//! Chaos with real processes: two groups of three nodes on machines of their own, under load, and everything that can
//! break.
//!
//! *From* a table of scenarios, each a fault, on whom, for how long, and what must hold; *to* a verdict and figures.
//! *Never* judges by what the nodes say of themselves alone (what clients tried, were promised and got is recorded),
//! leaves processes, mounts or networks behind, or chooses anything at random that its seed does not repeat.

pub mod ending;
pub mod scenario;
pub mod scenarios;

pub mod field;
pub mod images;
pub mod lanes;
pub mod stream;
pub mod watch;

pub mod fault;
pub mod faults;
pub mod toolbox;

pub mod breach;
pub mod figures;
pub mod netem;
pub mod outcome;
pub mod random;
pub mod run;

/// The group in which most is sent: position in the mesh.
pub const NORTH: usize = 0;
/// The other group, to which messages cross.
pub const SOUTH: usize = 1;
/// Nodes of each group. A node's position among all is `group * NODES + number - 1`.
pub const NODES: usize = 3;
