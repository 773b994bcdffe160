//! The client side of a group: how openraft reaches its peers. Log entries, rare requests and snapshots each have a
//! connection of their own, so that a heartbeat never waits behind entries.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{self, Stream, StreamExt};
use openraft::OptionalSend;
use openraft::base::{BoxFuture, BoxStream};
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{
    Backoff, NetBackoff, NetSnapshot, NetStreamAppend, NetTransferLeader, NetVote, RPCOption, RaftNetworkFactory,
};
use openraft::raft::{
    AppendEntriesRequest, SnapshotResponse, StreamAppendResult, TransferLeaderRequest, TransferLeaderResponse,
    VoteRequest, VoteResponse,
};
use serde::{Serialize, de::DeserializeOwned};

use crate::append_session::AppendSession;
use crate::clock::Instant;
use crate::config::{NodeAddress, NodeId};
use crate::dial::Dial;
use crate::event::GroupEvent;
use crate::failover::Failover;
use crate::lease::Lease;
use crate::meeting::Meetings;
use crate::purpose;
use crate::replica::Replica;
use crate::rpc::{Connection, Rpc, unexpected};
use crate::snapshot::{self, SendError, StateSnapshot};
use crate::types::{Types, Vote};
use crate::wire::{decode_appended, encode_append, from_json, kind, room_of, to_json};

/// What every connection of this node needs.
pub(crate) struct Links {
    pub(crate) dial: Arc<dyn Dial>,
    pub(crate) replica: Arc<Replica>,
    pub(crate) lease: Arc<Lease>,
    pub(crate) failover: Arc<Failover>,
    pub(crate) meetings: Arc<Meetings>,
    /// Append requests without an answer, per slave.
    pub(crate) append_requests_max: usize,
    /// How long a mere commit mark waits for entries to carry it.
    pub(crate) commit_hold: Duration,
}

/// Makes clients for openraft.
pub(crate) struct Network(pub(crate) Arc<Links>);

/// A client for one peer. openraft has one for entries, one for heartbeats, and short-lived ones for the rest.
pub(crate) struct Peer {
    pub(crate) links: Arc<Links>,
    pub(crate) target: NodeId,
    address: String,
    for_heartbeats: bool,
    /// Kept between sessions as long as every request is answered.
    pub(crate) append: Option<Connection>,
    rpc: Rpc,
}

type Appended = Result<StreamAppendResult<Types>, RPCError<Types>>;
type SnapshotOf = openraft::alias::SnapshotOf<Types, StateSnapshot>;

impl RaftNetworkFactory<Types> for Network {
    type Network = Peer;

    async fn new_client(&mut self, target: NodeId, node: &NodeAddress) -> Peer {
        Peer::new(self.0.clone(), target, node, false)
    }

    async fn new_heartbeat_client(&mut self, target: NodeId, node: &NodeAddress) -> Peer {
        Peer::new(self.0.clone(), target, node, true)
    }
}

impl Peer {
    fn new(links: Arc<Links>, target: NodeId, node: &NodeAddress, for_heartbeats: bool) -> Peer {
        let rpc = Rpc::new(links.dial.clone(), target, node.peer.clone());
        Peer {
            links,
            target,
            address: node.peer.clone(),
            for_heartbeats,
            append: None,
            rpc,
        }
    }

    /// Makes sure that both have met: what a node answers whose life is not known here must not count.
    async fn meet(&mut self) -> io::Result<()> {
        self.links.meetings.ensure(&mut self.rpc, self.target).await
    }

    /// Asks; once more where the other one has been started since both met.
    async fn ask(&mut self, kind: u8, request: &[Bytes]) -> io::Result<(u8, Bytes)> {
        self.meet().await?;
        match self.rpc.ask(kind, request).await? {
            (kind::UNMET, _) => {
                self.links.meetings.forget(self.target);
                self.meet().await?;
                self.rpc.ask(kind, request).await
            }
            answer => Ok(answer),
        }
    }

    async fn ask_json<T: DeserializeOwned>(&mut self, kind: u8, request: &impl Serialize) -> io::Result<T> {
        match self.ask(kind, &[to_json(request)?]).await? {
            (kind::ANSWER, answer) => from_json(&answer),
            (other, _) => Err(unexpected(other)),
        }
    }

    /// The kept append connection, or a new one.
    pub(crate) async fn append_connection(&mut self) -> io::Result<Connection> {
        self.meet().await?;
        match self.append.take() {
            Some(connection) => Ok(connection),
            None => {
                let stream = self
                    .links
                    .dial
                    .dial(self.target, &self.address, purpose::APPEND)
                    .await?;
                Ok(Connection::new(stream))
            }
        }
    }

    async fn heartbeat(&mut self, request: AppendEntriesRequest<Types>) -> io::Result<StreamAppendResult<Types>> {
        let (term, prev) = (request.vote.leader_id.term, request.prev_log_id);
        let sent = Instant::now();
        match self.ask(kind::APPEND, &encode_append(request)?).await? {
            (kind::APPENDED, answer) => {
                self.note_room(&answer);
                let result = decode_appended(answer, prev)?;
                self.note_answer(&result, term, sent);
                Ok(result)
            }
            (other, _) => Err(unexpected(other)),
        }
    }

    /// Any answer but a higher vote renews the lease.
    pub(crate) fn note_answer(&self, result: &StreamAppendResult<Types>, term: u64, sent: Instant) {
        if !matches!(result, Err(openraft::raft::StreamAppendError::HigherVote(_))) {
            self.links.lease.answered(self.target, term, sent);
        }
    }

    /// An answer tells what room the node has.
    pub(crate) fn note_room(&self, answer: &[u8]) {
        if let Some(free_bytes) = room_of(answer) {
            let voters = self.links.lease.voters();
            let rooms = &self.links.replica.rooms;
            rooms.told(self.target, free_bytes, voters, std::time::Instant::now());
        }
    }

    /// The node cannot be reached any more: it gives this master no lease.
    fn lost(&self, error: &io::Error) -> RPCError<Types> {
        self.links.lease.lost(self.target);
        unreachable_peer(error)
    }

    /// A slave that needs what this node cannot read will not get it by trying again: the node ends, and another one,
    /// which has it, becomes master (P9). But for what is gone: after a restart the state may be behind its own journal,
    /// which has let go of what was consumed in the entries between; those are committed, and applied soon.
    fn cannot_read(&self, error: &ferrymq_journal::Error) -> io::Error {
        let text = format!("a message that node {} needs cannot be read: {error}", self.target);
        if !matches!(error, ferrymq_journal::Error::Gone { .. }) {
            self.links.replica.tell(GroupEvent::Fatal(text.clone()));
        }
        io::Error::other(text)
    }

    async fn send_snapshot(&mut self, vote: Vote, snapshot: SnapshotOf) -> io::Result<SnapshotResponse<Types>> {
        self.meet().await?;
        let stream = self
            .links
            .dial
            .dial(self.target, &self.address, purpose::SNAPSHOT)
            .await?;
        let mut connection = Connection::new(stream);
        let replica = &self.links.replica;
        let sent = snapshot::send(&mut connection.writer, replica, vote, snapshot.meta, snapshot.snapshot).await;
        let sent = match sent {
            Err(SendError::Unreadable(error)) => return Err(self.cannot_read(&error)),
            Err(SendError::Io(error)) => Err(error),
            Ok(()) => Ok(()),
        };
        // When the other side refuses half-way, its reason tells more than the broken pipe.
        match connection.reader.read().await {
            Ok(Some((kind::ANSWER, answer))) => from_json(&answer),
            Ok(Some((kind::REFUSED | kind::UNMET, reason))) => Err(io::Error::other(format!(
                "node {} refuses the snapshot: {}",
                self.target,
                String::from_utf8_lossy(&reason)
            ))),
            Ok(Some((other, _))) => Err(unexpected(other)),
            Ok(None) => sent.and(Err(io::ErrorKind::UnexpectedEof.into())),
            Err(error) => sent.and(Err(io::Error::other(error))),
        }
    }
}

impl NetStreamAppend<Types> for Peer {
    fn stream_append<'s, S>(
        &'s mut self,
        mut input: S,
        _option: RPCOption,
    ) -> BoxFuture<'s, Result<BoxStream<'s, Appended>, RPCError<Types>>>
    where
        S: Stream<Item = AppendEntriesRequest<Types>> + OptionalSend + Unpin + 'static,
    {
        Box::pin(async move {
            if self.for_heartbeats {
                let Some(request) = input.next().await else {
                    return Ok(stream::empty().boxed());
                };
                let answer = self.heartbeat(request).await.map_err(|error| self.lost(&error));
                return Ok(stream::once(async { answer }).boxed());
            }
            // openraft waits between two attempts where the next request is taken: who dials before that, dials without
            // a pause.
            let Some(first) = input.next().await else {
                return Ok(stream::empty().boxed());
            };
            let connection = self.append_connection().await.map_err(|error| self.lost(&error))?;
            let session = AppendSession::new(self, connection, stream::iter([first]).chain(input));
            let answers = stream::unfold(session, |mut session| async move {
                session.next().await.map(|answer| (answer, session))
            });
            Ok(answers.boxed())
        })
    }
}

impl NetVote<Types> for Peer {
    async fn vote(
        &mut self,
        mut request: VoteRequest<Types>,
        _: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        // The master did not hand over: each voter goes by its own evidence.
        let term = request.vote.leader_id.term;
        if self.links.failover.stands_for(term) {
            request.leadership_transfer = false;
        }
        let answer: io::Result<VoteResponse<Types>> = self.ask_json(kind::VOTE, &request).await;
        if answer.as_ref().is_ok_and(|answer| answer.vote_granted) {
            self.links.meetings.granted(self.target, term);
        }
        answer.map_err(|error| unreachable_peer(&error))
    }

    /// An error when unreachable: no answer is no consent.
    async fn pre_vote(
        &mut self,
        request: VoteRequest<Types>,
        _: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        self.ask_json(kind::PRE_VOTE, &request)
            .await
            .map_err(|error| unreachable_peer(&error))
    }
}

impl NetTransferLeader<Types> for Peer {
    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<Types>,
        _: RPCOption,
    ) -> Result<TransferLeaderResponse<Types>, RPCError<Types>> {
        self.ask_json(kind::TRANSFER, &request)
            .await
            .map_err(|error| unreachable_peer(&error))
    }
}

impl NetSnapshot<Types> for Peer {
    type SnapshotData = StateSnapshot;

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: SnapshotOf,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        let sent = tokio::time::timeout(option.hard_ttl(), self.send_snapshot(vote, snapshot));
        tokio::select! {
            sent = sent => match sent {
                Ok(Ok(answer)) => Ok(answer),
                Ok(Err(error)) => {
                    tracing::warn!(node = self.target, %error, "sending a snapshot failed");
                    Err(StreamingError::Unreachable(Unreachable::new(&error)))
                }
                Err(late) => Err(StreamingError::Unreachable(Unreachable::new(&late))),
            },
            closed = cancel => Err(StreamingError::Closed(closed)),
        }
    }
}

impl NetBackoff<Types> for Peer {
    fn backoff(&self) -> Option<Backoff> {
        Some(Backoff::new(std::iter::repeat(RETRY)))
    }
}

/// Between two attempts to reach a peer that cannot be reached.
const RETRY: Duration = Duration::from_millis(100);

/// Waits before the next attempt.
pub(crate) fn unreachable_peer(error: &io::Error) -> RPCError<Types> {
    RPCError::Unreachable(Unreachable::new(error))
}

/// Tries again at once.
pub(crate) fn broken_session(error: &io::Error) -> RPCError<Types> {
    RPCError::Network(NetworkError::new(error))
}
