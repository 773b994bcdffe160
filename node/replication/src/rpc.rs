//! One request, one answer, to one node: votes, heartbeats, hand-over, questions. Keeps its connection.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use ferrymq_transport::{FrameReader, FrameWriter, PeerReader, PeerStream, PeerWriter};
use serde::{Serialize, de::DeserializeOwned};

use crate::config::NodeId;
use crate::dial::Dial;
use crate::purpose;
use crate::wire::{FRAME_BYTES_MAX, from_json, kind, to_json};

/// Both directions of a connection to a peer.
pub(crate) struct Connection {
    pub(crate) reader: FrameReader<PeerReader>,
    pub(crate) writer: FrameWriter<PeerWriter>,
}

/// Asks one node.
pub(crate) struct Rpc {
    dial: Arc<dyn Dial>,
    target: NodeId,
    address: String,
    connection: Option<Connection>,
}

impl Connection {
    pub(crate) fn new(stream: PeerStream) -> Connection {
        let (reader, writer) = stream.framed(FRAME_BYTES_MAX);
        Connection { reader, writer }
    }

    async fn ask(&mut self, kind: u8, request: &[Bytes]) -> io::Result<(u8, Bytes)> {
        self.writer.queue(kind, request).map_err(io::Error::other)?;
        self.writer.flush().await.map_err(io::Error::other)?;
        let answer = self.reader.read().await.map_err(io::Error::other)?;
        answer.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }
}

impl Rpc {
    pub(crate) fn new(dial: Arc<dyn Dial>, target: NodeId, address: String) -> Rpc {
        Rpc {
            dial,
            target,
            address,
            connection: None,
        }
    }

    /// Sends a request and waits for its answer. If the future is dropped, so is the connection: a late answer must not
    /// be taken for that of the next request.
    pub(crate) async fn ask(&mut self, kind: u8, request: &[Bytes]) -> io::Result<(u8, Bytes)> {
        // A kept connection may have died unnoticed; every request may be repeated.
        if let Some(mut connection) = self.connection.take()
            && let Ok(answer) = connection.ask(kind, request).await
        {
            self.connection = Some(connection);
            return refused(answer);
        }
        let stream = self.dial.dial(self.target, &self.address, purpose::RPC).await?;
        let mut connection = Connection::new(stream);
        let answer = connection.ask(kind, request).await?;
        self.connection = Some(connection);
        refused(answer)
    }

    /// [`Rpc::ask`] with JSON in both directions.
    pub(crate) async fn ask_json<T: DeserializeOwned>(&mut self, kind: u8, request: &impl Serialize) -> io::Result<T> {
        match self.ask(kind, &[to_json(request)?]).await? {
            (kind::ANSWER, answer) => from_json(&answer),
            (other, _) => Err(unexpected(other)),
        }
    }
}

fn refused(answer: (u8, Bytes)) -> io::Result<(u8, Bytes)> {
    match answer {
        (kind::REFUSED, reason) => Err(io::Error::other(String::from_utf8_lossy(&reason).into_owned())),
        answer => Ok(answer),
    }
}

/// An answer of another kind than was asked for.
pub(crate) fn unexpected(kind: u8) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("unexpected frame {kind} from a peer"),
    )
}
