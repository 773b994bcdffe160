//! A socket that says what it likes, and as slowly as it likes.

use std::{
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream, ToSocketAddrs},
    time::{Duration, Instant},
};

/// A TCP connection without any manners.
pub(crate) struct Wire(TcpStream);

/// For writes to a side that has stopped reading.
const WRITE_MAX: Duration = Duration::from_millis(500);

pub(crate) const CONNECT: &[u8] = b"CONNECT\naccept-version:1.2\nhost:x\nheart-beat:0,0\n\n\0";

impl Wire {
    /// Connects; fails where nobody answers within a few seconds.
    pub(crate) fn open(address: &str) -> std::io::Result<Self> {
        let address: SocketAddr = address.to_socket_addrs()?.next().unwrap();
        let stream = TcpStream::connect_timeout(&address, Duration::from_secs(5))?;
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(WRITE_MAX))?;
        Ok(Self(stream))
    }

    /// Connects and logs in.
    pub(crate) fn log_in(address: &str) -> std::io::Result<Self> {
        let mut wire = Self::open(address)?;
        wire.write_all(CONNECT)?;
        let answer = wire.answer(Duration::from_secs(20));
        if !answer.starts_with(b"CONNECTED") {
            return Err(std::io::Error::other(String::from_utf8_lossy(&answer).into_owned()));
        }
        Ok(wire)
    }

    pub(crate) fn write_all(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.0.write_all(bytes)
    }

    /// Writes as long as the other side takes it and `go_on` says so; returns how much it took.
    pub(crate) fn pour(&mut self, bytes: &[u8], mut go_on: impl FnMut() -> bool) -> u64 {
        let mut taken = 0;
        let mut at = 0;
        while go_on() {
            match self.0.write(&bytes[at..]) {
                Ok(0) => break,
                Ok(len) => {
                    taken += len as u64;
                    at = (at + len) % bytes.len();
                }
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(_) => break,
            }
        }
        taken
    }

    /// What comes up to the first NUL, the end, or the deadline.
    pub(crate) fn answer(&mut self, wait: Duration) -> Vec<u8> {
        let deadline = Instant::now() + wait;
        let mut found = Vec::new();
        let mut byte = [0; 4096];
        while Instant::now() < deadline && !found.contains(&0) {
            self.0.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
            match self.0.read(&mut byte) {
                Ok(0) => break,
                Ok(len) => found.extend_from_slice(&byte[..len]),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(_) => break,
            }
        }
        found
    }

    /// Whether the other side has closed; what it said before is thrown away.
    pub(crate) fn is_closed(&mut self) -> bool {
        self.0.set_nonblocking(true).unwrap();
        let mut bytes = [0; 4096];
        let closed = loop {
            match self.0.read(&mut bytes) {
                Ok(0) => break true,
                Ok(_) => {}
                Err(error) => break error.kind() != ErrorKind::WouldBlock,
            }
        };
        self.0.set_nonblocking(false).unwrap();
        closed
    }
}
