//! A listener that holds a limited number of connections; the next one waits in the kernel's queue. A connection ends
//! where its next request does not come, or does not come to an end, in time.

use std::{
    future::Future,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    extract::connect_info::Connected,
    serve::{IncomingStream, Listener},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, Sleep, sleep},
};

/// Time for the head of a request, from the connection's beginning or from the answer before it.
const HEAD_MAX: Duration = Duration::from_secs(10);
/// Time for the rest of a request and its answer; a hand-over of mastership takes a while.
const REQUEST_MAX: Duration = Duration::from_secs(60);
const HEAD_END: &[u8; 4] = b"\r\n\r\n";

/// A TCP listener and the connections that it may still take.
pub(crate) struct Bounded {
    listener: TcpListener,
    places: Arc<Semaphore>,
    cuts: Cuts,
}

/// How many connections ended because a request was not complete in time. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Cuts(Arc<AtomicU64>);

impl Cuts {
    /// So many, since the start.
    pub fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Bounded {
    pub(crate) fn new(listener: TcpListener, connections_max: usize, cuts: Cuts) -> Self {
        Self {
            listener,
            places: Arc::new(Semaphore::new(connections_max)),
            cuts,
        }
    }
}

impl Listener for Bounded {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        let place = self
            .places
            .clone()
            .acquire_owned()
            .await
            .expect("the semaphore is never closed");
        // axum's own accept waits a second where the process has no file descriptor left.
        let (stream, address) = Listener::accept(&mut self.listener).await;
        let connection = Connection {
            stream,
            deadline: Box::pin(sleep(HEAD_MAX)),
            matched: 0,
            is_idle: false,
            cuts: self.cuts.clone(),
            _place: place,
        };
        (connection, address)
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}

/// Where a request comes from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Caller(pub(crate) SocketAddr);

impl Connected<IncomingStream<'_, Bounded>> for Caller {
    fn connect_info(stream: IncomingStream<'_, Bounded>) -> Self {
        Self(*stream.remote_addr())
    }
}

/// A connection, and the place that it takes until it is dropped.
pub(crate) struct Connection {
    stream: TcpStream,
    deadline: Pin<Box<Sleep>>,
    /// How many of the bytes that end a request's head were the last ones that came.
    matched: usize,
    /// Nothing has come since the answer before: to end it then is no cut.
    is_idle: bool,
    cuts: Cuts,
    _place: OwnedSemaphorePermit,
}

impl Connection {
    fn look_for_head_end(&mut self, bytes: &[u8]) {
        for byte in bytes {
            // What follows is the body.
            if self.matched == HEAD_END.len() {
                break;
            }
            self.matched = match *byte == HEAD_END[self.matched] {
                true => self.matched + 1,
                false => usize::from(*byte == HEAD_END[0]),
            };
        }
        if self.matched == HEAD_END.len() {
            self.deadline.as_mut().reset(Instant::now() + REQUEST_MAX);
        }
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        if let Poll::Ready(read) = Pin::new(&mut self.stream).poll_read(cx, buf) {
            self.is_idle &= buf.filled().len() == before;
            self.look_for_head_end(&buf.filled()[before..]);
            return Poll::Ready(read);
        }
        self.deadline.as_mut().poll(cx).map(|()| {
            self.cuts.0.fetch_add(u64::from(!self.is_idle), Ordering::Relaxed);
            Err(io::ErrorKind::TimedOut.into())
        })
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.matched = 0;
        self.is_idle = true;
        self.deadline.as_mut().reset(Instant::now() + HEAD_MAX);
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// An answer may take longer than a head: also one to a request whose body comes along with its head.
    #[tokio::test]
    async fn a_body_behind_the_head_leaves_the_time_for_the_answer() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let mut bounded = Bounded::new(listener, 1, Cuts::default());
        let (mut connection, _) = bounded.accept().await;
        client.write_all(b"POST / HTTP/1.1\r\n\r\n{}").await.unwrap();
        let mut request = [0; 21];
        connection.read_exact(&mut request).await.unwrap();
        assert!(connection.deadline.deadline() > Instant::now() + HEAD_MAX);
    }
}
