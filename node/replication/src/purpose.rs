//! Why a peer opens a connection to another node of its group. One TCP connection serves one purpose, so that bulk never
//! delays a heartbeat.

use ferrymq_transport::Purpose;

/// Log entries, in order, with a window of requests under way.
pub const APPEND: Purpose = Purpose(1);
/// Votes, pre-votes, heartbeats, hand-over, questions while a group is founded: one request, one answer.
pub const RPC: Purpose = Purpose(2);
/// A snapshot and the living message bodies.
pub const SNAPSHOT: Purpose = Purpose(3);

/// Whether [`crate::Group::serve`] is to be given a stream of that purpose. The other numbers are the node's own.
pub fn is_replication(purpose: Purpose) -> bool {
    [APPEND, RPC, SNAPSHOT].contains(&purpose)
}
