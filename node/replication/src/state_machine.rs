//! Applies what is committed, in order, and tells the node. Snapshots of the state are made and taken in here too.

use std::io;
use std::sync::Arc;

use futures_util::stream::{Stream, TryStreamExt};
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine, Snapshot};
use openraft::{EntryPayload, OptionalSend};

use crate::event::{Completion, GroupEvent};
use crate::log_store::{cell, put_cell};
use crate::replica::Replica;
use crate::snapshot::{Bodies, StateSnapshot};
use crate::state_file::StateFile;
use crate::types::{LogId, Reply, SnapshotMeta, StoredMembership, Types};

/// openraft's state machine.
pub(crate) struct StateMachine {
    replica: Arc<Replica>,
}

/// Writes one state to disk.
pub(crate) struct SnapshotBuilder {
    replica: Arc<Replica>,
    snapshot: Option<SnapshotOf>,
}

type SnapshotOf = openraft::alias::SnapshotOf<Types, StateSnapshot>;

impl StateMachine {
    pub(crate) fn new(replica: Arc<Replica>) -> StateMachine {
        StateMachine { replica }
    }

    /// The state now. Encoding runs beside the runtime; apply waits meanwhile, reading the state does not.
    async fn view(&self, with_bodies: bool) -> io::Result<Option<SnapshotOf>> {
        let replica = self.replica.clone();
        let view = tokio::task::spawn_blocking(move || replica.view(with_bodies))
            .await
            .map_err(io::Error::other)?;
        Ok(view.map(|view| Snapshot {
            meta: SnapshotMeta {
                last_log_id: Some(view.log_id),
                last_membership: view.membership,
            },
            snapshot: StateSnapshot {
                state: view.state,
                bodies: view.bodies.map_or(Bodies::Nowhere, Bodies::Here),
            },
        }))
    }

    fn apply_batch(&self, log_id: LogId, batch: &bytes::Bytes) -> io::Result<Reply> {
        let index = log_id.index;
        match self.replica.apply(log_id, batch) {
            Ok((applied, attached)) => {
                let effects = if attached { applied.effects } else { Vec::new() };
                Ok(Reply {
                    index,
                    effects,
                    outcomes: applied.outcomes,
                })
            }
            Err(error) => {
                let text = format!("log entry {index} cannot be applied: {error}");
                tracing::error!("{text}");
                Err(io::Error::new(io::ErrorKind::InvalidData, text))
            }
        }
    }
}

impl RaftStateMachine<Types> for StateMachine {
    type SnapshotData = StateSnapshot;
    type SnapshotBuilder = SnapshotBuilder;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        let state = self.replica.read();
        Ok((state.applied, state.membership.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> io::Result<()>
    where
        S: Stream<Item = io::Result<EntryResponder<Types>>> + Unpin + OptionalSend,
    {
        let mut last = None;
        while let Some((entry, responder)) = entries.try_next().await? {
            let log_id = entry.log_id;
            last = Some(log_id.index);
            let reply = match &entry.payload {
                EntryPayload::Normal(batch) => self.apply_batch(log_id, &batch.0)?,
                EntryPayload::Blank => {
                    let index = log_id.index;
                    self.replica.pass(log_id, None);
                    Reply {
                        index,
                        ..Reply::default()
                    }
                }
                EntryPayload::Membership(membership) => {
                    let index = log_id.index;
                    let stored = StoredMembership::new(Some(log_id), membership.clone());
                    self.replica.pass(log_id, Some(stored));
                    Reply {
                        index,
                        ..Reply::default()
                    }
                }
            };
            match responder {
                Some(responder) => responder.send(reply),
                None if reply.effects.is_empty() => {}
                None => self.replica.tell(applied_event(reply, |_| Vec::new())),
            }
        }
        if let Some(index) = last {
            self.replica.journal.set_live_horizon(index);
        }
        Ok(())
    }

    async fn try_create_snapshot_builder(&mut self, _force: bool) -> Option<SnapshotBuilder> {
        match self.view(false).await {
            Ok(snapshot) => Some(SnapshotBuilder {
                replica: self.replica.clone(),
                snapshot,
            }),
            Err(error) => {
                tracing::error!(%error, "no snapshot could be made");
                None
            }
        }
    }

    async fn get_snapshot_builder(&mut self) -> SnapshotBuilder {
        let snapshot = self.view(false).await.unwrap_or_default();
        SnapshotBuilder {
            replica: self.replica.clone(),
            snapshot,
        }
    }

    /// In an order in which a crash between any two steps leaves either the old or the new state: the bodies are on disk
    /// but count for nothing, then the state file (ignored while it is ahead of the journal), then the journal's mark
    /// that makes both count at once.
    async fn install_snapshot(&mut self, meta: &SnapshotMeta, snapshot: StateSnapshot) -> io::Result<()> {
        let Some(log_id) = meta.last_log_id else {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "an empty snapshot"));
        };
        let replica = self.replica.clone();
        let membership = meta.last_membership.clone();
        let install = move || {
            let broker = replica.decode(&snapshot.state).map_err(io::Error::other)?;
            let arrived = matches!(snapshot.bodies, Bodies::Arrived(_));
            let file = StateFile {
                log_id,
                membership: membership.clone(),
                state: snapshot.state,
                received: arrived,
            };
            replica.save(&file, || {
                if let Bodies::Arrived(install) = snapshot.bodies {
                    let term = log_id.leader_id.term;
                    install.finish(term, log_id.index).map_err(io::Error::other)?;
                }
                replica.replace(broker, Some(log_id), membership);
                Ok(())
            })
        };
        tokio::task::spawn_blocking(install).await.map_err(io::Error::other)?
    }

    /// Always the state of this moment, with its bodies held: an older one might refer to bodies that are gone.
    async fn get_current_snapshot(&mut self) -> io::Result<Option<SnapshotOf>> {
        self.view(true).await
    }
}

impl RaftSnapshotBuilder<Types> for SnapshotBuilder {
    type SnapshotData = StateSnapshot;

    async fn build_snapshot(&mut self) -> io::Result<SnapshotOf> {
        let Some((snapshot, log_id)) = self.snapshot.take().and_then(|snapshot| {
            let log_id = snapshot.meta.last_log_id?;
            Some((snapshot, log_id))
        }) else {
            // Nothing is applied yet: nothing to write.
            let nothing = StateSnapshot {
                state: bytes::Bytes::new(),
                bodies: Bodies::Nowhere,
            };
            return Ok(Snapshot {
                meta: SnapshotMeta::default(),
                snapshot: nothing,
            });
        };
        let index = log_id.index;
        // A state that is applied may not be on this disk yet, a majority having synced it elsewhere. The file must not
        // get ahead of the journal.
        let value = bytes::Bytes::copy_from_slice(&index.to_le_bytes());
        put_cell(&self.replica.journal, cell::SNAPSHOT, value).await?;
        let file = StateFile {
            log_id,
            membership: snapshot.meta.last_membership.clone(),
            state: snapshot.snapshot.state.clone(),
            received: false,
        };
        let replica = self.replica.clone();
        let write = move || replica.save(&file, || Ok(()));
        match tokio::task::spawn_blocking(write).await.map_err(io::Error::other)? {
            // The log is cut by what is on disk, so nothing relies on it; it is tried again soon.
            Err(error) if is_no_space(&error) => {
                tracing::warn!(%error, "no room for a snapshot; trying again");
                self.replica.growth().not_taken();
            }
            written => written?,
        }
        Ok(snapshot)
    }
}

fn is_no_space(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// What the node is told of an applied entry.
pub(crate) fn applied_event(
    reply: Reply,
    results: impl FnOnce(Vec<ferrymq_broker::Outcome>) -> Vec<Completion>,
) -> GroupEvent {
    GroupEvent::Applied {
        index: reply.index,
        effects: reply.effects,
        results: results(reply.outcomes),
    }
}
