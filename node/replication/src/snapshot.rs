//! A snapshot on its way between nodes: the state, and the living bodies that it refers to, in bounded memory.
//!
//! ```text
//! SNAPSHOT  JSON: vote, meta, state bytes          STATE  a piece of the state …
//! BODIES    crc32 of the rest u32 | count u32 | count × (index u64, offset u32, bytes u32) | bytes …
//! END       bodies u64 in all                      ← ANSWER  JSON: the receiver's vote
//! ```

use std::io;
use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use ferrymq_broker::Place;
use ferrymq_journal::Install;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;

use ferrymq_transport::{FrameReader, FrameWriter};

use crate::replica::{Pin, Replica, journal_place};
use crate::types::{SnapshotMeta, Vote};
use crate::wire::{from_json, kind, to_json};

/// openraft's snapshot data.
pub(crate) struct StateSnapshot {
    /// `Broker::encode`.
    pub(crate) state: Bytes,
    pub(crate) bodies: Bodies,
}

impl StateSnapshot {
    /// Whether another one has begun to arrive, so that this one cannot be installed.
    pub(crate) fn is_abandoned(&self) -> bool {
        matches!(&self.bodies, Bodies::Arrived(install) if install.is_abandoned())
    }
}

/// Where a snapshot's bodies are.
pub(crate) enum Bodies {
    /// In this node's journal, held there.
    Here(Pin),
    /// Not needed: the snapshot stays on this node.
    Nowhere,
    /// They came from another node and wait in the journal for its mark.
    Arrived(Install),
}

/// The first frame.
#[derive(Serialize, Deserialize)]
pub(crate) struct Head {
    pub(crate) vote: Vote,
    pub(crate) meta: SnapshotMeta,
    state_bytes: u64,
}

/// Bytes of state in one frame, and the least bytes of bodies before a frame goes out.
const PIECE_BYTES: usize = 1024 * 1024;
const PLACE_BYTES: usize = 16;
/// Bodies in one frame, whatever their size.
const PIECE_BODIES_MAX: usize = 4096;
/// Frames read from the journal ahead of the network, or from the network ahead of the disk.
const PIECES_AHEAD_MAX: usize = 2;

/// Why a snapshot was not sent.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SendError {
    /// A living body cannot be read from this node's journal.
    #[error("a message of the snapshot cannot be read: {0}")]
    Unreadable(#[from] ferrymq_journal::Error),
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Sends a snapshot. The answer is left to the caller.
pub(crate) async fn send<W: AsyncWrite + Unpin>(
    writer: &mut FrameWriter<W>,
    replica: &Arc<Replica>,
    vote: Vote,
    meta: SnapshotMeta,
    snapshot: StateSnapshot,
) -> Result<(), SendError> {
    let Bodies::Here(pin) = snapshot.bodies else {
        return Err(io::Error::other("a snapshot that was received is not passed on").into());
    };
    let head = Head {
        vote,
        meta,
        state_bytes: snapshot.state.len() as u64,
    };
    write(writer, kind::SNAPSHOT, &[to_json(&head)?]).await?;
    let mut state = snapshot.state;
    while state.has_remaining() {
        let piece = state.split_to(state.len().min(PIECE_BYTES));
        write(writer, kind::STATE, &[piece]).await?;
    }
    let bodies = pin.places.len() as u64;
    let (pieces, mut ready) = mpsc::channel(PIECES_AHEAD_MAX);
    let replica = replica.clone();
    let reader = tokio::task::spawn_blocking(move || read_bodies(&replica, &pin, &pieces));
    while let Some(piece) = ready.recv().await {
        write(writer, kind::BODIES, &piece).await?;
    }
    reader.await.map_err(io::Error::other)??;
    write(writer, kind::END, &[Bytes::copy_from_slice(&bodies.to_le_bytes())]).await?;
    Ok(writer.flush().await.map_err(io::Error::other)?)
}

async fn write<W: AsyncWrite + Unpin>(writer: &mut FrameWriter<W>, kind: u8, chunks: &[Bytes]) -> io::Result<()> {
    writer.write(kind, chunks).await.map_err(io::Error::other)
}

/// Reads the held bodies in the order of the log, so that each record is read once. Blocks on the disk.
fn read_bodies(replica: &Replica, pin: &Pin, pieces: &mpsc::Sender<Vec<Bytes>>) -> Result<(), ferrymq_journal::Error> {
    let mut places = pin.places.iter().copied().peekable();
    while places.peek().is_some() {
        let (mut taken, mut bodies, mut bytes) = (Vec::new(), Vec::new(), 0);
        while bytes < PIECE_BYTES && taken.len() < PIECE_BODIES_MAX {
            let Some(place) = places.next() else { break };
            let body = replica.journal.read_place(journal_place(place))?;
            bytes += body.len();
            taken.push(place);
            bodies.push(body);
        }
        if pieces.blocking_send(encode_bodies(&taken, bodies)).is_err() {
            return Ok(()); // The connection is gone; its error is reported there.
        }
    }
    Ok(())
}

fn encode_bodies(places: &[Place], mut bodies: Vec<Bytes>) -> Vec<Bytes> {
    let mut heads = BytesMut::with_capacity(4 + places.len() * PLACE_BYTES);
    heads.put_u32_le(places.len() as u32);
    for place in places {
        heads.put_u64_le(place.index);
        heads.put_u32_le(place.offset);
        heads.put_u32_le(place.len);
    }
    bodies.insert(0, heads.freeze());
    let mut crc = crc32fast::Hasher::new();
    bodies.iter().for_each(|chunk| crc.update(chunk));
    bodies.insert(0, Bytes::copy_from_slice(&crc.finalize().to_le_bytes()));
    bodies
}

pub(crate) fn decode_bodies(mut piece: Bytes) -> io::Result<Vec<(Place, Bytes)>> {
    need(&piece, 8)?;
    if piece.get_u32_le() != crc32fast::hash(&piece) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "bodies of a snapshot arrived damaged",
        ));
    }
    let count = piece.get_u32_le() as usize;
    need(&piece, count.saturating_mul(PLACE_BYTES))?;
    let mut heads = piece.split_to(count * PLACE_BYTES);
    let mut bodies = Vec::with_capacity(count);
    while heads.has_remaining() {
        let place = Place {
            index: heads.get_u64_le(),
            offset: heads.get_u32_le(),
            len: heads.get_u32_le(),
        };
        need(&piece, place.len as usize)?;
        bodies.push((place, piece.split_to(place.len as usize)));
    }
    Ok(bodies)
}

/// Receives a snapshot whose head has been read, into `install`. Its bodies are in the journal then, but count for
/// nothing yet.
pub(crate) async fn receive<R: AsyncRead + Unpin>(
    reader: &mut FrameReader<R>,
    install: Install,
    head: Bytes,
) -> io::Result<(Head, StateSnapshot)> {
    let head: Head = from_json(&head)?;
    let mut state = BytesMut::new();
    let (pieces, arriving) = mpsc::channel(PIECES_AHEAD_MAX);
    let writer = tokio::task::spawn_blocking(move || write_bodies(install, arriving));
    let announced = loop {
        match reader.read().await.map_err(io::Error::other)? {
            Some((kind::STATE, piece)) if (state.len() + piece.len()) as u64 <= head.state_bytes => state.put(piece),
            Some((kind::BODIES, piece)) => {
                if pieces.send(piece).await.is_err() {
                    break None; // The writer's error comes out below.
                }
            }
            Some((kind::END, count)) => break count.first_chunk::<8>().map(|count| u64::from_le_bytes(*count)),
            Some((other, _)) => return Err(unexpected(other)),
            None => return Err(io::ErrorKind::UnexpectedEof.into()),
        }
    };
    drop(pieces);
    let (install, bodies) = writer.await.map_err(io::Error::other)??;
    if announced != Some(bodies) || state.len() as u64 != head.state_bytes {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "a snapshot arrived incomplete",
        ));
    }
    Ok((
        head,
        StateSnapshot {
            state: state.freeze(),
            bodies: Bodies::Arrived(install),
        },
    ))
}

/// Puts arriving bodies into the journal. Blocks on the disk.
fn write_bodies(mut install: Install, mut arriving: mpsc::Receiver<Bytes>) -> io::Result<(Install, u64)> {
    let mut count = 0;
    while let Some(piece) = arriving.blocking_recv() {
        for (place, body) in decode_bodies(piece)? {
            install.put(journal_place(place), &body).map_err(io::Error::other)?;
            count += 1;
        }
    }
    Ok((install, count))
}

fn need(piece: &Bytes, bytes: usize) -> io::Result<()> {
    if piece.remaining() < bytes {
        Err(io::ErrorKind::UnexpectedEof.into())
    } else {
        Ok(())
    }
}

fn unexpected(kind: u8) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("unexpected frame {kind} inside a snapshot"),
    )
}

/// Two bodies as they are sent, without the checksum, for `fuzz.rs`.
#[cfg(test)]
pub(crate) fn bodies_of_two() -> Bytes {
    let place = |index| Place {
        index,
        offset: 5,
        len: 4,
    };
    let bodies = vec![Bytes::from_static(b"body"), Bytes::from_static(b"more")];
    Bytes::from(encode_bodies(&[place(3), place(9)], bodies).concat()).slice(4..)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_survive_and_damage_is_found() {
        let places = [
            Place {
                index: 3,
                offset: 5,
                len: 4,
            },
            Place {
                index: 9,
                offset: 0,
                len: 2,
            },
        ];
        let bodies = vec![Bytes::from_static(b"body"), Bytes::from_static(b"ab")];
        let whole = encode_bodies(&places, bodies.clone()).concat();
        let got = decode_bodies(Bytes::from(whole.clone())).unwrap();
        assert_eq!(got, places.into_iter().zip(bodies).collect::<Vec<_>>());
        for at in 0..whole.len() {
            let mut bad = whole.clone();
            bad[at] ^= 1;
            assert!(decode_bodies(Bytes::from(bad)).is_err(), "flipped at {at}");
            assert!(
                decode_bodies(Bytes::copy_from_slice(&whole[..at])).is_err(),
                "cut at {at}"
            );
        }
    }
}
