//! Whether nothing listens any more at a UDP address. A process that was killed says no goodbye over QUIC, but its host's
//! system refuses what comes for its port (ICMP port unreachable), which a connected socket is told.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::time::timeout;

/// Asks one address, again and again.
#[derive(Debug)]
pub(crate) struct UdpProbe {
    socket: UdpSocket,
}

impl UdpProbe {
    /// For the process that listens at `addr`.
    ///
    /// # Errors
    /// If the system grants no socket.
    pub(crate) async fn new(addr: SocketAddr) -> io::Result<Self> {
        let any: SocketAddr = match addr {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        let socket = UdpSocket::bind(any).await?;
        socket.connect(addr).await?;
        Ok(Self { socket })
    }

    /// Whether the port was refused twice in a row, each time within `answer_within`, which must be longer than a round
    /// trip. False when there is no answer, which is how QUIC takes a datagram that is too short to mean anything, and
    /// how a firewall takes one that it does not like.
    pub(crate) async fn is_refused(&self, answer_within: Duration) -> bool {
        // Twice, since the first refusal may be of an earlier datagram, sent while the process was starting.
        self.ask(answer_within).await && self.ask(answer_within).await
    }

    /// Whether the port was refused now: once says little, as above, but systems answer only so many datagrams a second.
    pub(crate) async fn ask(&self, answer_within: Duration) -> bool {
        let is_refused = |error: io::Error| error.kind() == io::ErrorKind::ConnectionRefused;
        if let Err(error) = self.socket.send(&[0]).await {
            return is_refused(error);
        }
        let mut answer = [0; 1];
        match timeout(answer_within, self.socket.recv(&mut answer)).await {
            Ok(Err(error)) => is_refused(error),
            Ok(Ok(_)) | Err(_) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_port_is_refused_once_nobody_listens_there() {
        let listener = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let probe = UdpProbe::new(listener.local_addr().unwrap()).await.unwrap();
        let short = Duration::from_millis(20);
        assert!(!probe.is_refused(short).await, "somebody listens and says nothing");
        drop(listener);
        let long = Duration::from_secs(20);
        assert!(probe.is_refused(long).await);
        assert!(probe.is_refused(long).await, "and so on");
    }
}
