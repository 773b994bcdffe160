//! Whether this node is the master, and if not, who is.

use crate::config::{NodeAddress, NodeId};

/// What this node is in its group right now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Role {
    /// This node is the master of that term, and has applied everything of earlier terms.
    Master {
        /// Raft term; grows with every change of master.
        term: u64,
    },
    /// Another node is, or nobody is known to be.
    Slave {
        /// The highest term that this node knows.
        term: u64,
        /// The master, when known.
        master: Option<(NodeId, NodeAddress)>,
    },
}

impl Role {
    /// The highest term that this node knows.
    pub fn term(&self) -> u64 {
        match self {
            Role::Master { term } | Role::Slave { term, .. } => *term,
        }
    }

    /// Whether this node is the master.
    pub fn is_master(&self) -> bool {
        matches!(self, Role::Master { .. })
    }
}
