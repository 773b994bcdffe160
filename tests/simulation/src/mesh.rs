//! Stands where `node/src/mesh.rs` stands: what a term's mesh is told lies in a channel, which the node's turn empties
//! into the real, pure mesh.

use std::sync::{Arc, Mutex, PoisonError};

use ferrymq_broker::{GroupId, Life};
use ferrymq_forwarding::{Input, Output};
use tokio::sync::mpsc;

use crate::leader::MeshPort;

/// Starts the mesh of each term.
#[derive(Debug, Clone, Default)]
pub(crate) struct MeshStarter {
    started: Arc<Mutex<Option<Started>>>,
}

/// A mesh that a term has begun.
#[derive(Debug)]
pub(crate) struct Started {
    pub(crate) group_id: GroupId,
    pub(crate) life: Life,
    pub(crate) term: u64,
    pub(crate) told: mpsc::UnboundedReceiver<Input>,
    /// Held, so that the loop's end of it stays open; what the mesh says is handed over directly.
    pub(crate) _says: mpsc::Sender<Output>,
}

/// Nothing runs.
#[derive(Debug)]
pub(crate) struct RunningMesh;

impl MeshStarter {
    /// Begins the mesh of a term.
    pub(crate) fn start_term(&self, group_id: GroupId, life: Life, term: u64) -> Option<MeshPort> {
        let (input, told) = mpsc::unbounded_channel();
        let (says, output) = mpsc::channel(1);
        *self.started.lock().unwrap_or_else(PoisonError::into_inner) = Some(Started {
            group_id,
            life,
            term,
            told,
            _says: says,
        });
        Some(MeshPort {
            input,
            output,
            running: RunningMesh,
        })
    }

    /// What has begun since this was last asked.
    pub(crate) fn take_started(&self) -> Option<Started> {
        self.started.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}
