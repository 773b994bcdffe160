//! Frames over a byte stream: a length, a kind, a payload. Bodies are written from where they lie, without a copy.
//!
//! ```text
//! | length u32 LE (of the payload) | kind u8 | payload … |
//! ```

use std::collections::VecDeque;
use std::io::{self, IoSlice};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Bytes in front of a payload.
pub const FRAME_HEADER_BYTES: usize = 5;
/// Largest payload unless configured otherwise, in bytes.
pub const FRAME_BYTES_MAX_DEFAULT: usize = 8 * 1024 * 1024;

/// A frame that cannot be sent, or a stream that carries none.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The payload is longer than this side allows. The stream cannot be read further.
    #[error("a frame of {bytes} bytes is over the limit of {bytes_max}")]
    TooLarge {
        /// Length of the payload.
        bytes: usize,
        /// The limit.
        bytes_max: usize,
    },
    /// The stream ended inside a frame.
    #[error("the connection ended inside a frame")]
    Truncated,
    /// The connection failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Gathers frames and writes them with vectored writes.
///
/// Cancel-safe: what was not yet written stays gathered and is written by the next [`flush`](Self::flush).
#[derive(Debug)]
pub struct FrameWriter<W> {
    inner: W,
    outbox: Outbox,
    frame_bytes_max: usize,
}

/// Bytes on their way to a stream, as pieces in order. Small pieces share one buffer, large ones are not copied.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    pieces: VecDeque<Bytes>,
    tail: BytesMut,
    bytes: usize,
}

impl<W: AsyncWrite + Unpin> FrameWriter<W> {
    /// Writes to `inner`; payloads are bounded by [`FRAME_BYTES_MAX_DEFAULT`].
    pub fn new(inner: W) -> Self {
        Self::with_limit(inner, FRAME_BYTES_MAX_DEFAULT)
    }

    /// Writes to `inner`; refuses payloads over `frame_bytes_max`.
    pub fn with_limit(inner: W, frame_bytes_max: usize) -> Self {
        Self {
            inner,
            outbox: Outbox::default(),
            frame_bytes_max: frame_bytes_max.min(u32::MAX as usize),
        }
    }

    /// Adds a frame whose payload is `chunks` one after the other, and writes once more than 1 MiB has gathered.
    /// The frame is taken at once: if the future is dropped, the frame still goes out with the next flush.
    ///
    /// # Errors
    /// [`FrameError::TooLarge`], with nothing added; [`FrameError::Io`].
    pub async fn write(&mut self, kind: u8, chunks: &[Bytes]) -> Result<(), FrameError> {
        self.queue(kind, chunks)?;
        if self.outbox.bytes > GATHERED_BYTES_MAX {
            self.flush().await
        } else {
            Ok(())
        }
    }

    /// Adds a frame without writing. The caller bounds [`gathered_bytes`](Self::gathered_bytes).
    ///
    /// # Errors
    /// [`FrameError::TooLarge`], with nothing added.
    pub fn queue(&mut self, kind: u8, chunks: &[Bytes]) -> Result<(), FrameError> {
        self.outbox.push_frame(kind, chunks, self.frame_bytes_max)
    }

    /// Bytes gathered and not yet written, headers included.
    pub fn gathered_bytes(&self) -> usize {
        self.outbox.bytes
    }

    /// Writes everything that has gathered.
    ///
    /// # Errors
    /// [`FrameError::Io`]; the stream is of no further use then.
    pub async fn flush(&mut self) -> Result<(), FrameError> {
        self.outbox.seal();
        while !self.outbox.pieces.is_empty() {
            let written = if self.inner.is_write_vectored() {
                let mut slices = [IoSlice::new(&[]); SLICES_MAX];
                let used = self.outbox.fill(&mut slices);
                self.inner.write_vectored(&slices[..used]).await?
            } else {
                self.inner.write(&self.outbox.pieces[0]).await?
            };
            if written == 0 {
                return Err(io::Error::from(io::ErrorKind::WriteZero).into());
            }
            self.outbox.advance(written);
        }
        self.inner.flush().await?;
        Ok(())
    }

    /// Writes everything and closes the writing side, so that the other end reads an end of stream.
    ///
    /// # Errors
    /// [`FrameError::Io`].
    pub async fn shutdown(&mut self) -> Result<(), FrameError> {
        self.flush().await?;
        self.inner.shutdown().await?;
        Ok(())
    }

    /// Gives the stream back; frames not flushed are lost.
    pub fn into_inner(self) -> W {
        self.inner
    }
}

impl Outbox {
    pub(crate) fn push_frame(&mut self, kind: u8, chunks: &[Bytes], bytes_max: usize) -> Result<(), FrameError> {
        let bytes = chunks.iter().map(Bytes::len).sum::<usize>();
        let length = u32::try_from(bytes).unwrap_or(u32::MAX);
        if bytes > bytes_max || length as usize != bytes {
            return Err(FrameError::TooLarge { bytes, bytes_max });
        }
        if self.tail.capacity() - self.tail.len() < FRAME_HEADER_BYTES {
            self.tail.reserve(TAIL_BYTES);
        }
        self.tail.put_u32_le(length);
        self.tail.put_u8(kind);
        for chunk in chunks {
            if chunk.len() <= COPIED_BYTES_MAX {
                self.tail.extend_from_slice(chunk);
            } else {
                self.seal();
                self.pieces.push_back(chunk.clone());
            }
        }
        self.bytes += FRAME_HEADER_BYTES + bytes;
        Ok(())
    }

    /// Moves the shared buffer's bytes behind the pieces that are ready.
    pub(crate) fn seal(&mut self) {
        if !self.tail.is_empty() {
            self.pieces.push_back(self.tail.split().freeze());
        }
    }

    /// Everything gathered, as pieces in order.
    pub(crate) fn take(&mut self) -> Vec<Bytes> {
        self.seal();
        self.bytes = 0;
        std::mem::take(&mut self.pieces).into()
    }

    fn fill<'a>(&'a self, slices: &mut [IoSlice<'a>; SLICES_MAX]) -> usize {
        let mut used = 0;
        for (slice, piece) in slices.iter_mut().zip(&self.pieces) {
            *slice = IoSlice::new(piece);
            used += 1;
        }
        used
    }

    fn advance(&mut self, mut written: usize) {
        self.bytes -= written;
        while written > 0 {
            let first = self.pieces.front_mut().expect("no more is written than lies here");
            if first.len() > written {
                first.advance(written);
                return;
            }
            written -= first.len();
            self.pieces.pop_front();
        }
    }
}

/// Reads frames. Cancel-safe: what was read of a frame stays for the next [`read`](Self::read).
#[derive(Debug)]
pub struct FrameReader<R> {
    inner: R,
    buffer: BytesMut,
    frame_bytes_max: usize,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    /// Reads from `inner`; payloads are bounded by [`FRAME_BYTES_MAX_DEFAULT`].
    pub fn new(inner: R) -> Self {
        Self::with_limit(inner, FRAME_BYTES_MAX_DEFAULT)
    }

    /// Reads from `inner`; a payload over `frame_bytes_max` is an error before any memory is taken for it.
    pub fn with_limit(inner: R, frame_bytes_max: usize) -> Self {
        Self {
            inner,
            buffer: BytesMut::new(),
            frame_bytes_max,
        }
    }

    /// The next frame's kind and payload; `None` when the other side has closed between frames.
    ///
    /// # Errors
    /// See [`FrameError`]; the stream is of no further use then.
    pub async fn read(&mut self) -> Result<Option<(u8, Bytes)>, FrameError> {
        loop {
            if let Some(frame) = self.take()? {
                return Ok(Some(frame));
            }
            if self.inner.read_buf(&mut self.buffer).await? == 0 {
                return if self.buffer.is_empty() {
                    Ok(None)
                } else {
                    Err(FrameError::Truncated)
                };
            }
        }
    }

    /// The next frame if it has been read whole already; never waits. Lets a caller take all of a batch.
    ///
    /// # Errors
    /// [`FrameError::TooLarge`].
    pub fn take(&mut self) -> Result<Option<(u8, Bytes)>, FrameError> {
        let Some(header) = self.buffer.first_chunk::<FRAME_HEADER_BYTES>() else {
            self.buffer.reserve(READ_BYTES);
            return Ok(None);
        };
        let [a, b, c, d, kind] = *header;
        let bytes = u32::from_le_bytes([a, b, c, d]) as usize;
        if bytes > self.frame_bytes_max {
            return Err(FrameError::TooLarge {
                bytes,
                bytes_max: self.frame_bytes_max,
            });
        }
        let whole = FRAME_HEADER_BYTES + bytes;
        if self.buffer.len() < whole {
            self.buffer.reserve((whole - self.buffer.len()).max(READ_BYTES));
            return Ok(None);
        }
        self.buffer.advance(FRAME_HEADER_BYTES);
        let payload = if bytes <= DETACHED_BYTES_MAX {
            // A small payload that is kept for long must not keep the whole buffer alive.
            let payload = Bytes::copy_from_slice(&self.buffer[..bytes]);
            self.buffer.advance(bytes);
            payload
        } else {
            self.buffer.split_to(bytes).freeze()
        };
        Ok(Some((kind, payload)))
    }

    /// Gives the stream back; bytes read ahead are lost.
    pub fn into_inner(self) -> R {
        self.inner
    }
}

/// Above this many gathered bytes [`FrameWriter::write`] flushes.
const GATHERED_BYTES_MAX: usize = 1024 * 1024;
/// Pieces up to this size are cheaper to copy than to give a slice of their own.
const COPIED_BYTES_MAX: usize = 512;
/// Growth of the buffer shared by headers and small pieces.
const TAIL_BYTES: usize = 4096;
/// Slices in one vectored write; Linux takes 1,024, but few are ever filled.
const SLICES_MAX: usize = 64;
/// Least room offered to a read.
const READ_BYTES: usize = 64 * 1024;
/// Payloads up to this size are copied out of the read buffer.
const DETACHED_BYTES_MAX: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn frames_arrive_as_sent_whatever_their_pieces() {
        let (near, far) = tokio::io::duplex(1000);
        let sizes = [0_usize, 1, 4, 511, 512, 513, 4096, 4097, 70_000, 1_500_000];
        let writing = tokio::spawn(async move {
            let mut writer = FrameWriter::new(near);
            for (kind, size) in sizes.iter().enumerate() {
                let body = Bytes::from((0..*size).map(|i| i as u8).collect::<Vec<_>>());
                let cut = size / 3;
                writer
                    .write(kind as u8, &[body.slice(..cut), body.slice(cut..)])
                    .await
                    .unwrap();
            }
            writer.shutdown().await.unwrap();
        });
        let mut reader = FrameReader::new(far);
        for (kind, size) in sizes.iter().enumerate() {
            let (found, payload) = reader.read().await.unwrap().unwrap();
            assert_eq!((found as usize, payload.len()), (kind, *size));
            assert!(payload.iter().enumerate().all(|(i, byte)| *byte == i as u8));
        }
        assert!(reader.read().await.unwrap().is_none());
        writing.await.unwrap();
    }

    #[tokio::test]
    async fn oversized_frames_stop_on_both_sides() {
        let (near, far) = tokio::io::duplex(4096);
        let mut writer = FrameWriter::with_limit(near, 100);
        let refused = writer
            .write(1, &[Bytes::from(vec![0; 60]), Bytes::from(vec![0; 41])])
            .await;
        assert!(matches!(
            refused,
            Err(FrameError::TooLarge {
                bytes: 101,
                bytes_max: 100
            })
        ));
        assert_eq!(writer.gathered_bytes(), 0);
        writer.write(1, &[Bytes::from(vec![0; 100])]).await.unwrap();
        writer.flush().await.unwrap();
        let mut reader = FrameReader::with_limit(far, 99);
        assert!(matches!(
            reader.read().await,
            Err(FrameError::TooLarge {
                bytes: 100,
                bytes_max: 99
            })
        ));
        assert!(reader.buffer.capacity() <= READ_BYTES + 4096);
    }

    #[tokio::test]
    async fn an_end_inside_a_frame_is_told_from_one_between_frames() {
        let mut reader = FrameReader::new(&[3_u8, 0, 0, 0, 7, 1, 2][..]);
        assert!(matches!(reader.read().await, Err(FrameError::Truncated)));
        let mut reader = FrameReader::new(&[3_u8, 0, 0][..]);
        assert!(matches!(reader.read().await, Err(FrameError::Truncated)));
        let mut reader = FrameReader::new(&[1_u8, 0, 0, 0, 7, 9][..]);
        assert_eq!(reader.read().await.unwrap(), Some((7, Bytes::from_static(&[9]))));
        assert_eq!(reader.read().await.unwrap(), None);
    }

    #[tokio::test]
    async fn a_dropped_flush_or_read_loses_nothing() {
        let (near, far) = tokio::io::duplex(10);
        let mut writer = FrameWriter::new(near);
        let mut reader = FrameReader::new(far);
        writer.queue(5, &[Bytes::from(vec![8; 1000])]).unwrap();
        let mut rounds = 0;
        let payload = loop {
            rounds += 1;
            // Each side is polled until it would wait and is then dropped.
            tokio::select! { biased; done = writer.flush() => done.unwrap(), () = std::future::ready(()) => {} }
            tokio::select! { biased;
                frame = reader.read() => break frame.unwrap().unwrap().1,
                () = std::future::ready(()) => {}
            }
        };
        assert!(rounds > 50);
        assert_eq!(payload, vec![8; 1000]);
    }
}
