//! A run of append requests to one slave, several of them under way at a time.
//!
//! openraft produces requests as fast as they are taken, so the window is kept here: a request is taken only while fewer
//! than `append_requests_max` are unanswered. A request that only moves the commit mark is held for a moment; the next
//! one with entries carries the mark as well and replaces it (otherwise half of all requests are such).

use std::collections::VecDeque;
use std::io;

use bytes::Bytes;
use ferrymq_transport::FrameError;
use futures_util::stream::{Stream, StreamExt};
use openraft::errors::RPCError;
use openraft::raft::{AppendEntriesRequest, StreamAppendResult};

use crate::clock::Instant;
use crate::network::{Peer, broken_session};
use crate::rpc::{Connection, unexpected};
use crate::types::{LogId, Types};
use crate::wire::{decode_appended, encode_append, kind};

/// Dropping it with requests unanswered drops the connection too, so that their answers cannot be taken for others'.
pub(crate) struct AppendSession<'p, S> {
    peer: &'p mut Peer,
    /// `None` once the session has failed.
    connection: Option<Connection>,
    input: S,
    input_ended: bool,
    unanswered: VecDeque<Sent>,
    held: Option<(AppendEntriesRequest<Types>, tokio::time::Instant)>,
}

struct Sent {
    prev: Option<LogId>,
    term: u64,
    at: Instant,
}

impl<'p, S> AppendSession<'p, S>
where
    S: Stream<Item = AppendEntriesRequest<Types>> + Unpin,
{
    pub(crate) fn new(peer: &'p mut Peer, connection: Connection, input: S) -> AppendSession<'p, S> {
        AppendSession {
            peer,
            connection: Some(connection),
            input,
            input_ended: false,
            unanswered: VecDeque::new(),
            held: None,
        }
    }

    /// The next answer; `None` when all requests are answered and no more will come, or after a failure.
    pub(crate) async fn next(&mut self) -> Option<Result<StreamAppendResult<Types>, RPCError<Types>>> {
        // Taken out while it is used: if it is not put back, it is dropped.
        let mut connection = self.connection.take()?;
        match self.drive(&mut connection).await {
            Ok(Some(Ok(matched))) => {
                self.connection = Some(connection);
                Some(Ok(Ok(matched)))
            }
            // A conflict or a higher vote ends the session on both sides.
            Ok(Some(Err(end))) => Some(Ok(Err(end))),
            Ok(None) => {
                self.peer.append = Some(connection);
                None
            }
            Err(error) => {
                self.peer.links.lease.lost(self.peer.target);
                Some(Err(broken_session(&error)))
            }
        }
    }

    async fn drive(&mut self, connection: &mut Connection) -> io::Result<Option<StreamAppendResult<Types>>> {
        loop {
            if self.input_ended && self.unanswered.is_empty() && self.held.is_none() {
                return Ok(None);
            }
            let has_room = self.unanswered.len() < self.peer.links.append_requests_max;
            let held_until = self.held.as_ref().map(|(_, until)| *until);
            tokio::select! {
                biased;
                // Also while nothing is unanswered: then it can only be the end, which ends the slave's part of the lease.
                frame = connection.reader.read() => return self.answer(frame).map(Some),
                request = self.input.next(), if has_room && !self.input_ended => match request {
                    Some(request) if request.entries.is_empty() && self.held.is_none() => {
                        let until = tokio::time::Instant::now() + self.peer.links.commit_hold;
                        self.held = Some((request, until));
                    }
                    Some(request) if request.entries.is_empty() => {
                        self.held = self.held.take().map(|(_, until)| (request, until));
                    }
                    Some(request) => {
                        self.held = None;
                        self.send(connection, request).await?;
                    }
                    None => {
                        self.input_ended = true;
                        self.send_held(connection).await?;
                    }
                },
                () = sleep_until(held_until), if held_until.is_some() && has_room => self.send_held(connection).await?,
            }
        }
    }

    async fn send_held(&mut self, connection: &mut Connection) -> io::Result<()> {
        match self.held.take() {
            Some((request, _)) => self.send(connection, request).await,
            None => Ok(()),
        }
    }

    async fn send(&mut self, connection: &mut Connection, request: AppendEntriesRequest<Types>) -> io::Result<()> {
        let (term, prev) = (request.vote.leader_id.term, request.prev_log_id);
        connection
            .writer
            .queue(kind::APPEND, &encode_append(request)?)
            .map_err(io::Error::other)?;
        self.unanswered.push_back(Sent {
            prev,
            term,
            at: Instant::now(),
        });
        connection.writer.flush().await.map_err(io::Error::other)
    }

    fn answer(&mut self, frame: Result<Option<(u8, Bytes)>, FrameError>) -> io::Result<StreamAppendResult<Types>> {
        match frame.map_err(io::Error::other)? {
            Some((kind::APPENDED, answer)) => {
                let Some(sent) = self.unanswered.pop_front() else {
                    return Err(unexpected(kind::APPENDED));
                };
                self.peer.note_room(&answer);
                let result = decode_appended(answer, sent.prev)?;
                self.peer.note_answer(&result, sent.term, sent.at);
                Ok(result)
            }
            Some((kind::UNMET, reason)) => {
                self.peer.links.meetings.forget(self.peer.target);
                Err(io::Error::other(String::from_utf8_lossy(&reason).into_owned()))
            }
            Some((kind::REFUSED, reason)) => Err(io::Error::other(String::from_utf8_lossy(&reason).into_owned())),
            Some((other, _)) => Err(unexpected(other)),
            None => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

async fn sleep_until(deadline: Option<tokio::time::Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
