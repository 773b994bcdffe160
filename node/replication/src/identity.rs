//! Whose data lies in a directory: written at the first start, compared at every other.

use bytes::Bytes;
use ferrymq_journal::Journal;
use serde::{Deserialize, Serialize};

use crate::config::{Config, NodeId};
use crate::log_store::{cell, put_cell};

/// Why the data must not be used by this node.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// Another node's.
    #[error(
        "the data belongs to node {found_node} of group '{found_group}', but this is node {node} of group '{group}'; \
         correct the configuration, or give this node a data directory of its own"
    )]
    Foreign {
        /// As configured.
        group: String,
        /// As configured.
        node: NodeId,
        /// As found.
        found_group: String,
        /// As found.
        found_node: NodeId,
    },
    /// The mark is there but cannot be read or written.
    #[error("the mark that says whose data this is cannot be read or written: {0}")]
    Mark(String),
}

#[derive(Serialize, Deserialize)]
struct Identity {
    group: String,
    node: NodeId,
}

pub(crate) async fn check(journal: &Journal, config: &Config) -> Result<(), IdentityError> {
    let mark = |error: &dyn std::fmt::Display| IdentityError::Mark(error.to_string());
    let (group, node) = (config.group.clone(), config.node);
    let Some(found) = journal.cell(cell::IDENTITY) else {
        let identity = serde_json::to_vec(&Identity { group, node }).map_err(|error| mark(&error))?;
        return put_cell(journal, cell::IDENTITY, Bytes::from(identity))
            .await
            .map_err(|error| mark(&error));
    };
    let found: Identity = serde_json::from_slice(&found).map_err(|error| mark(&error))?;
    if found.group == group && found.node == node {
        return Ok(());
    }
    Err(IdentityError::Foreign {
        group,
        node,
        found_group: found.group,
        found_node: found.node,
    })
}
