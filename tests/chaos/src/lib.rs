//! Chaos with real processes: three groups in a line, two of three nodes and one of one, on machines of their own, under
//! load, and everything that can break.
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
/// The group in the middle of the line, to which messages cross, and through which those between the other two go.
pub const SOUTH: usize = 1;
/// A group of one node at the other end of the line.
pub const EAST: usize = 2;
/// How many groups there are.
pub const GROUPS: usize = 3;
/// Nodes of each group but the last one, which has one. A node's position among all is `group * NODES + number - 1`.
pub const NODES: usize = 3;
/// Nodes of all groups.
pub const ALL: usize = 2 * NODES + 1;

/// The positions of a group's nodes among all.
pub fn nodes_of(group: usize) -> std::ops::Range<usize> {
    group * NODES..((group + 1) * NODES).min(ALL)
}
