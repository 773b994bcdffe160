//! The connection to one broker: TCP, or TLS over it.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll},
};

use ferrymq_transport::{TlsClientStream, TlsDialer};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

use crate::endpoints::SECURE;

/// Bytes to and from a broker.
#[derive(Debug)]
pub(crate) enum Carrier {
    Plain(TcpStream),
    Secure(TlsClientStream),
}

impl Carrier {
    /// Connects to an address of [`crate::endpoints::Endpoints`].
    pub(crate) async fn dial(address: &str, tls: Option<&TlsDialer>) -> io::Result<Self> {
        let (secure, plain) = match address.strip_prefix(SECURE) {
            Some(plain) => (true, plain),
            None => (false, address),
        };
        let stream = TcpStream::connect(plain).await?;
        stream.set_nodelay(true)?;
        if !secure {
            return Ok(Self::Plain(stream));
        }
        let tls = tls.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "TLS was not prepared"))?;
        Ok(Self::Secure(tls.connect(host_of(address), stream).await?))
    }
}

/// The host in an address of [`crate::endpoints::Endpoints`].
pub(crate) fn host_of(address: &str) -> &str {
    let plain = address.strip_prefix(SECURE).unwrap_or(address);
    plain.rsplit_once(':').map_or(plain, |(host, _)| host)
}

impl AsyncRead for Carrier {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Secure(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Carrier {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match &mut *self {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Secure(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut *self {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::Secure(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Secure(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Secure(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Secure(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
