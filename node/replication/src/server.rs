//! The serving side of a group: requests of peers, handed to openraft.

use std::io;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use ferrymq_transport::{PeerName, PeerStream, Purpose};
use futures_util::stream::{self, StreamExt};
use openraft::raft::{
    AppendEntriesResponse, SnapshotResponse, StreamAppendError, StreamAppendResult, TransferLeaderRequest, VoteRequest,
};
use openraft::storage::Snapshot;

use crate::clocks;
use crate::config::NodeId;
use crate::failover::{self, Hearing};
use crate::founding::{AdmitRequest, FoundRequest, Knowledge};
use crate::group::Inner;
use crate::intruder;
use crate::log_store::{cell, put_cell};
use crate::membership;
use crate::purpose;
use crate::rpc::{Connection, unexpected};
use crate::snapshot::{self, Head, StateSnapshot};
use crate::types::{SnapshotMeta, Types, term_and_index};
use crate::wire::{decode_append, encode_appended, from_json, kind, to_json, with_room};

/// Serves one accepted stream until it ends.
pub(crate) async fn serve(inner: &Arc<Inner>, purpose: Purpose, peer: PeerName, stream: PeerStream) {
    let from = stream.remote_addr().map(|from| from.ip());
    let connection = Connection::new(stream);
    let node = peer.node();
    let served = match purpose {
        purpose::APPEND => serve_append(inner, node, connection).await,
        purpose::RPC => serve_rpc(inner, Caller { node, from }, connection).await,
        purpose::SNAPSHOT => serve_snapshot(inner, node, connection).await,
        other => Err(io::Error::other(format!("purpose {} is not replication's", other.0))),
    };
    if let Err(error) = served {
        tracing::debug!(%peer, purpose = purpose.0, %error, "a peer's stream ended");
    }
}

/// Who asks, and from where.
#[derive(Clone, Copy)]
struct Caller {
    node: NodeId,
    from: Option<IpAddr>,
}

/// Feeds append requests to openraft as they come; answers go back in order.
async fn serve_append(inner: &Arc<Inner>, peer: NodeId, connection: Connection) -> io::Result<()> {
    let Connection { reader, mut writer } = connection;
    if let Some((kind, reason)) = refusal(inner, peer) {
        return refuse(&mut writer, kind, &reason).await;
    }
    let (replica, lease) = (inner.replica.clone(), inner.lease.clone());
    // Two hold it, so that its end is that of this function: by then the log has all that has come.
    let hearing = Arc::new(inner.failover.hearing());
    let heard = hearing.clone();
    // Ends at the peer's close, at anything unreadable, and when the disk is full: the peer then finds the stream
    // closed and tries again later.
    let state = (reader, replica, lease, heard);
    let requests = stream::unfold(state, |(mut reader, replica, lease, heard)| async move {
        let (kind, frame) = reader.read().await.ok()??;
        lease.heard_master();
        let request = if kind == kind::APPEND {
            decode_append(frame)
        } else {
            Err(unexpected(kind))
        };
        match request {
            Ok(request) => {
                heard.heard(&request.vote);
                let bytes: usize = request.entries.iter().map(entry_bytes).sum();
                if bytes > 0 && !replica.has_room_for_entries(bytes) {
                    tracing::warn!(bytes, "no room for the master's entries: the disk is full");
                    return None;
                }
                Some((request, (reader, replica, lease, heard)))
            }
            Err(error) => {
                tracing::warn!(%error, "unreadable append request");
                None
            }
        }
    });
    let mut answers = pin!(inner.raft.stream_append(requests).ready_chunks(ANSWERS_AT_ONCE_MAX));
    let mut lost = pin!(inner.admission.until_lost());
    loop {
        let ready = tokio::select! {
            biased;
            () = &mut lost => break,
            ready = answers.next() => ready,
        };
        let Some(ready) = ready else { break };
        let free_bytes = inner.replica.journal.free_bytes();
        for answer in ready {
            let answer = answer.map_err(io::Error::other)?;
            writer
                .queue(kind::APPENDED, &[with_room(encode_appended(&answer), free_bytes)])
                .map_err(io::Error::other)?;
        }
        writer.flush().await.map_err(io::Error::other)?;
    }
    Ok(())
}

const ANSWERS_AT_ONCE_MAX: usize = 64;

fn entry_bytes(entry: &crate::types::Entry) -> usize {
    match &entry.payload {
        openraft::EntryPayload::Normal(batch) => batch.0.len(),
        _ => 0,
    }
}

/// Answers one request after the other.
async fn serve_rpc(inner: &Arc<Inner>, caller: Caller, mut connection: Connection) -> io::Result<()> {
    let hearing = inner.failover.hearing();
    while let Some((kind, request)) = connection.reader.read().await.map_err(io::Error::other)? {
        let refusal = refusal(inner, caller.node).filter(|_| !NEED_NO_MEETING.contains(&kind));
        let (kind, answer) = match refusal {
            Some((kind, reason)) => (kind, Bytes::from(reason)),
            None => match answer(inner, &hearing, caller, kind, request).await {
                Ok(answer) => answer,
                Err(error) => (kind::REFUSED, Bytes::from(error.to_string())),
            },
        };
        connection.writer.queue(kind, &[answer]).map_err(io::Error::other)?;
        connection.writer.flush().await.map_err(io::Error::other)?;
    }
    Ok(())
}

/// Questions that are answered to anybody of the group, also by a node that takes no part.
const NEED_NO_MEETING: [u8; 4] = [kind::ASK, kind::FOUND, kind::ADMIT, kind::MEET];

async fn answer(
    inner: &Arc<Inner>,
    hearing: &Hearing,
    caller: Caller,
    kind: u8,
    request: Bytes,
) -> io::Result<(u8, Bytes)> {
    let raft = &inner.raft;
    let answer = match kind {
        kind::APPEND => {
            let request = decode_append(request)?;
            inner.lease.heard_master();
            hearing.heard(&request.vote);
            let prev = request.prev_log_id;
            let last = request.entries.last().map(|entry| entry.log_id).or(prev);
            let response = raft.append_entries(request).await.map_err(io::Error::other)?;
            let result: StreamAppendResult<Types> = match response {
                AppendEntriesResponse::Success => Ok(last),
                AppendEntriesResponse::PartialSuccess(matched) => Ok(matched),
                AppendEntriesResponse::Conflict => Err(StreamAppendError::Conflict(prev.ok_or_else(no_predecessor)?)),
                AppendEntriesResponse::HigherVote(vote) => Err(StreamAppendError::HigherVote(vote)),
            };
            let free_bytes = inner.replica.journal.free_bytes();
            return Ok((kind::APPENDED, with_room(encode_appended(&result), free_bytes)));
        }
        kind::VOTE => {
            let mut request: VoteRequest<Types> = from_json(&request)?;
            if failover::is_warranted(inner, &request.vote) {
                request.leadership_transfer = true;
            } else {
                ensure_may_vote(inner)?;
            }
            to_json(&raft.vote(request).await.map_err(io::Error::other)?)
        }
        kind::PRE_VOTE => {
            ensure_may_vote(inner)?;
            to_json(&raft.pre_vote(from_json(&request)?).await.map_err(io::Error::other)?)
        }
        kind::TRANSFER => {
            let request: TransferLeaderRequest<Types> = from_json(&request)?;
            if *request.to_node_id() == inner.config.node {
                inner.failover.handed_over(request.from_leader().leader_id.term);
            }
            to_json(&raft.handle_transfer_leader(request).await.map_err(io::Error::other)?)
        }
        kind::CLOCK => Ok(clocks::answer()),
        kind::IS_DEAD => to_json(&failover::opinion(inner, from_json(&request)?)),
        kind::MEET => to_json(&inner.meetings.answer(caller.node, from_json(&request)?).await?),
        kind::ASK => to_json(&knowledge(inner).await?),
        kind::FOUND => to_json(&consent(inner, from_json(&request)?).await?),
        kind::ADMIT => {
            let asker: AdmitRequest = from_json(&request)?;
            let objection = intruder::objection(inner, &asker, caller.from).await;
            if objection.is_none() {
                let admitted = membership::admit(inner, asker.node, asker.has_data).await;
                admitted.map_err(io::Error::other)?;
            }
            to_json(&objection)
        }
        other => Err(unexpected(other)),
    };
    Ok((kind::ANSWER, answer?))
}

fn ensure_may_vote(inner: &Inner) -> io::Result<()> {
    if Instant::now() < inner.votes_from {
        let reason = "this node was restarted just now and does not vote yet";
        return Err(io::Error::other(reason));
    }
    Ok(())
}

fn no_predecessor() -> io::Error {
    io::Error::other("a conflict without a predecessor")
}

async fn knowledge(inner: &Inner) -> io::Result<Knowledge> {
    let founded = inner.raft.is_initialized().await.map_err(io::Error::other)?;
    Ok(Knowledge {
        founded,
        master: inner.master(),
        leads: inner.role.borrow().is_master() && inner.lease.holds(),
        takes_part: inner.admission.is_given(),
        last: inner.replica.journal.log_state().last,
        group_id: inner.replica.read().broker.group(),
        notice: inner.notice(),
        life: inner.meetings.life(),
    })
}

/// A node without data lets the member with the lowest number found the group, and nobody else.
async fn consent(inner: &Inner, request: FoundRequest) -> io::Result<bool> {
    let is_founded = inner.raft.is_initialized().await.map_err(io::Error::other)?;
    let lowest = inner.config.members.keys().next();
    if is_founded || lowest != Some(&request.founder) {
        return Ok(false);
    }
    inner.admission.give().await?;
    Ok(true)
}

async fn serve_snapshot(inner: &Arc<Inner>, peer: NodeId, connection: Connection) -> io::Result<()> {
    let Connection { mut reader, mut writer } = connection;
    if let Some((kind, reason)) = refusal(inner, peer) {
        return refuse(&mut writer, kind, &reason).await;
    }
    let head = match reader.read().await.map_err(io::Error::other)? {
        Some((kind::SNAPSHOT, head)) => head,
        Some((other, _)) => return Err(unexpected(other)),
        None => return Ok(()),
    };
    let begun = {
        let _none_is_installed = inner.installing.lock().await;
        inner.replica.journal.begin_install()
    };
    let (head, snapshot) = match snapshot::receive(&mut reader, begun, head).await {
        Ok(received) => received,
        Err(error) => {
            tracing::warn!(%error, "receiving a snapshot failed");
            return refuse(&mut writer, kind::REFUSED, &error.to_string()).await;
        }
    };
    // Goes on when the connection breaks: what was given to openraft is installed all the same.
    let response = tokio::spawn(install(inner.clone(), head, snapshot))
        .await
        .map_err(io::Error::other)??;
    writer
        .queue(kind::ANSWER, &[to_json(&response)?])
        .map_err(io::Error::other)?;
    writer.flush().await.map_err(io::Error::other)
}

/// Gives a snapshot to openraft. One at a time, and no other begins to arrive meanwhile, for two reasons:
///
/// - The journal gives an install up when another one begins. openraft takes that for a failed disk, and ends.
/// - openraft's issue 2116: it counts a snapshot's entries as purged when it accepts the snapshot, but as applied only when
///   it gets to the command that installs it. If it looks for entries to apply between the two, it panics. It gets to that
///   command in the same turn unless the head of its queue has to wait; and of what can wait there only the purge that
///   belongs to a snapshot still being installed leaves entries behind that one which are on disk and not applied. (The
///   other, a mark in the log that waits for a flush, stands for entries of a vote that is not yet the log's, which
///   it does not apply.) Purging after a snapshot of one's own is harmless: its entries have been applied.
async fn install(inner: Arc<Inner>, head: Head, snapshot: StateSnapshot) -> io::Result<SnapshotResponse<Types>> {
    let _one_at_a_time = inner.installing.lock().await;
    if snapshot.is_abandoned() {
        return Err(io::Error::other("another snapshot has begun to arrive meanwhile"));
    }
    if log_contains(&inner, &head.meta).await? {
        // Installing would drop entries behind the snapshot that this node has acknowledged.
        return Ok(SnapshotResponse::new(head.vote));
    }
    tracing::info!(index = ?head.meta.last_log_id, "installing a snapshot");
    let snapshot = Snapshot {
        meta: head.meta,
        snapshot,
    };
    let installed = inner.raft.install_full_snapshot(head.vote, snapshot).await;
    installed.map_err(io::Error::other)
}

/// Whether this node's log reaches to the end of the snapshot anyway, on disk.
async fn log_contains(inner: &Inner, meta: &SnapshotMeta) -> io::Result<bool> {
    let Some((term, index)) = meta.last_log_id.as_ref().map(term_and_index) else {
        return Ok(true);
    };
    let journal = &inner.replica.journal;
    let records = match journal.log_state().last {
        Some((_, last)) if last >= index => journal.read_log(index, index + 1, 1).map_err(io::Error::other)?,
        _ => return Ok(false),
    };
    let contains = records.first().is_some_and(|record| record.term == term);
    if contains {
        put_cell(journal, cell::SNAPSHOT, Bytes::copy_from_slice(&index.to_le_bytes())).await?;
    }
    Ok(contains)
}

/// Why this node must not vote or acknowledge to that one, if so, and the kind of frame that says it.
fn refusal(inner: &Inner, peer: NodeId) -> Option<(u8, String)> {
    let me = inner.config.node;
    if !inner.admission.is_given() {
        let lack = if inner.admission.is_lost() {
            "has lost data"
        } else {
            "has no data"
        };
        let reason = format!("node {me} {lack} and waits to be admitted to the group");
        return Some((kind::REFUSED, reason));
    }
    if inner.meetings.has_met(peer) {
        return None;
    }
    inner.meetings.forget(peer);
    let reason = format!("node {me} was started, and node {peer} does not know that yet");
    Some((kind::UNMET, reason))
}

async fn refuse<W: tokio::io::AsyncWrite + Unpin>(
    writer: &mut ferrymq_transport::FrameWriter<W>,
    kind: u8,
    reason: &str,
) -> io::Result<()> {
    writer
        .queue(kind, &[Bytes::copy_from_slice(reason.as_bytes())])
        .map_err(io::Error::other)?;
    writer.flush().await.map_err(io::Error::other)
}
