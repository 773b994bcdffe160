//! A connection inside a group after its handshake: plain TCP or TLS over it.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio_rustls::TlsStream;

use crate::frame::{FrameReader, FrameWriter};

/// A connected peer's bytes, in both directions.
#[derive(Debug)]
pub struct PeerStream(Carrier);

#[derive(Debug)]
enum Carrier {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// The reading half of a [`PeerStream`].
#[derive(Debug)]
pub struct PeerReader(ReadCarrier);

/// The writing half of a [`PeerStream`].
#[derive(Debug)]
pub struct PeerWriter(WriteCarrier);

#[derive(Debug)]
enum ReadCarrier {
    Plain(OwnedReadHalf),
    Tls(ReadHalf<TlsStream<TcpStream>>),
}

#[derive(Debug)]
enum WriteCarrier {
    Plain(OwnedWriteHalf),
    Tls(WriteHalf<TlsStream<TcpStream>>),
}

impl PeerStream {
    pub(crate) fn plain(stream: TcpStream) -> Self {
        Self(Carrier::Plain(stream))
    }

    pub(crate) fn tls(stream: TlsStream<TcpStream>) -> Self {
        Self(Carrier::Tls(Box::new(stream)))
    }

    /// Splits into a reader and a writer of frames whose payloads are at most `frame_bytes_max` long. A reader that
    /// waits learns at once when the other process dies; when its host dies, after about [`SILENCE_MAX`].
    pub fn framed(self, frame_bytes_max: usize) -> (FrameReader<PeerReader>, FrameWriter<PeerWriter>) {
        let (read, write) = self.into_split();
        (
            FrameReader::with_limit(read, frame_bytes_max),
            FrameWriter::with_limit(write, frame_bytes_max),
        )
    }

    /// Splits into halves for two tasks. The connection closes when both are dropped.
    pub fn into_split(self) -> (PeerReader, PeerWriter) {
        match self.0 {
            // TCP's own halves need no lock between reading and writing.
            Carrier::Plain(stream) => {
                let (read, write) = stream.into_split();
                (
                    PeerReader(ReadCarrier::Plain(read)),
                    PeerWriter(WriteCarrier::Plain(write)),
                )
            }
            Carrier::Tls(stream) => {
                let (read, write) = tokio::io::split(*stream);
                (PeerReader(ReadCarrier::Tls(read)), PeerWriter(WriteCarrier::Tls(write)))
            }
        }
    }

    /// The other end's address, as long as the connection lasts.
    pub fn remote_addr(&self) -> Option<SocketAddr> {
        let tcp = match &self.0 {
            Carrier::Plain(stream) => stream,
            Carrier::Tls(stream) => stream.get_ref().0,
        };
        tcp.peer_addr().ok()
    }

    /// Whether the bytes are encrypted.
    pub fn is_encrypted(&self) -> bool {
        matches!(self.0, Carrier::Tls(_))
    }

    pub(crate) fn certificate(&self) -> Option<&rustls::pki_types::CertificateDer<'static>> {
        match &self.0 {
            Carrier::Plain(_) => None,
            Carrier::Tls(stream) => stream.get_ref().1.peer_certificates()?.first(),
        }
    }
}

/// Sends at once what is written, and finds out within [`SILENCE_MAX`] that the other host is gone.
pub(crate) fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    let keepalive = TcpKeepalive::new()
        .with_time(PROBE_PERIOD)
        .with_interval(PROBE_PERIOD)
        .with_retries(PROBES_MAX);
    socket.set_tcp_keepalive(&keepalive)?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(SILENCE_MAX))?;
    Ok(())
}

/// Reading and writing are the carrier's.
macro_rules! delegate_read {
    ($stream:ty, $carrier:ident) => {
        impl AsyncRead for $stream {
            fn poll_read(
                mut self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                buf: &mut ReadBuf<'_>,
            ) -> Poll<io::Result<()>> {
                match &mut self.0 {
                    $carrier::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
                    $carrier::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
                }
            }
        }
    };
}

macro_rules! delegate_write {
    ($stream:ty, $carrier:ident) => {
        impl AsyncWrite for $stream {
            fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
                match &mut self.0 {
                    $carrier::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
                    $carrier::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
                }
            }

            fn poll_write_vectored(
                mut self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                bufs: &[IoSlice<'_>],
            ) -> Poll<io::Result<usize>> {
                match &mut self.0 {
                    $carrier::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
                    $carrier::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
                }
            }

            fn is_write_vectored(&self) -> bool {
                match &self.0 {
                    $carrier::Plain(stream) => stream.is_write_vectored(),
                    $carrier::Tls(stream) => stream.is_write_vectored(),
                }
            }

            fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                match &mut self.0 {
                    $carrier::Plain(stream) => Pin::new(stream).poll_flush(cx),
                    $carrier::Tls(stream) => Pin::new(stream).poll_flush(cx),
                }
            }

            fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                match &mut self.0 {
                    $carrier::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
                    $carrier::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
                }
            }
        }
    };
}

delegate_read!(PeerStream, Carrier);
delegate_write!(PeerStream, Carrier);
delegate_read!(PeerReader, ReadCarrier);
delegate_write!(PeerWriter, WriteCarrier);

/// After this long without a sign of life from the other host, or with unacknowledged bytes, the connection fails.
pub const SILENCE_MAX: Duration = Duration::from_secs(4);
const PROBE_PERIOD: Duration = Duration::from_secs(1);
const PROBES_MAX: u32 = 3;
