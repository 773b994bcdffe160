//! The words of `node/replication/src/config.rs` that its lease uses.

/// A node's number within its group.
pub(crate) type NodeId = u64;
