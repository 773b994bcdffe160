//! Announces and listens by UDP multicast, on one socket for each interface.
//!
//! An announcement goes out every interval, soon after a change, and within a second after a newcomer was heard, so
//! that it need not wait for the interval. ActiveMQ's agents may use the same address: each ignores the other's.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep_until};

use crate::agent::Surroundings;
use crate::announcement::{Announcement, DATAGRAM_BYTES_MAX};
use crate::interfaces::ipv4_interfaces;
use crate::peers::Source;
use crate::stats::Counters;
use crate::uri::MulticastUri;

/// One agent for each multicast URI.
pub(crate) struct Multicast {
    uri: MulticastUri,
    around: Surroundings,
    sockets: BTreeMap<Ipv4Addr, Open>,
    heard: mpsc::Sender<(Vec<u8>, SocketAddr)>,
}

struct Open {
    socket: Arc<UdpSocket>,
    reader: AbortHandle,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

impl Multicast {
    /// Runs until told to stop.
    pub(crate) async fn run(uri: MulticastUri, around: Surroundings) {
        let (heard, mut incoming) = mpsc::channel(DATAGRAMS_MAX);
        let interval = Duration::from_millis(uri.keep_alive_interval_ms);
        let mut agent = Self {
            uri,
            around: around.clone(),
            sockets: BTreeMap::new(),
            heard,
        };
        let Surroundings {
            mut me, mut newcomers, ..
        } = around.clone();
        let mut stopping = around;
        let start = Instant::now();
        let (mut next_send, mut last_sent, mut last_greeted) = (start, None::<Instant>, None::<Instant>);
        let mut next_scan = start;
        loop {
            tokio::select! {
                biased;
                () = stopping.stopped() => break,
                () = sleep_until(next_scan) => {
                    agent.scan();
                    next_scan = Instant::now() + SCAN_PERIOD;
                }
                () = sleep_until(next_send) => {
                    agent.announce(false).await;
                    let now = Instant::now();
                    (last_sent, next_send) = (Some(now), now + interval);
                }
                Ok(()) = me.changed() => next_send = earlier(next_send, last_sent, CHANGE_GAP),
                Ok(()) = newcomers.changed() => {
                    next_send = earlier(next_send, last_greeted, GREETING_GAP);
                    last_greeted = Some(next_send);
                }
                Some((datagram, from)) = incoming.recv() => agent.hear(&datagram, from),
            }
        }
        agent.announce(true).await;
    }

    fn hear(&self, datagram: &[u8], from: SocketAddr) {
        let read = Announcement::decode(datagram, &self.uri.group, self.around.key.as_ref()).map(|mut announcement| {
            announcement.fill_in(from.ip());
            announcement
        });
        let lifetime = Duration::from_millis(self.uri.keep_alive_interval_ms) * INTERVALS_MISSED_MAX;
        self.around.hear(read, Source::Multicast, lifetime);
    }

    async fn announce(&self, is_dead: bool) {
        if !self.around.announce {
            return;
        }
        let mut said = self.around.me.borrow().clone();
        said.is_dead |= is_dead;
        let datagram = said.encode(&self.uri.group, self.around.key.as_ref());
        let to = SocketAddrV4::new(self.uri.address, self.uri.port);
        for (interface, open) in &self.sockets {
            match open.socket.send_to(&datagram, to).await {
                Ok(_) => Counters::add(&self.around.counters.sent, 1),
                // An interface may go down at any time; the next scan closes its socket.
                Err(error) => tracing::debug!(%interface, %error, "cannot announce by multicast"),
            }
        }
    }

    /// Opens sockets for new interfaces and closes those of interfaces that are gone.
    fn scan(&mut self) {
        let found = match ipv4_interfaces(self.uri.interface.as_deref()) {
            Ok(found) => found,
            Err(error) => {
                tracing::warn!(%error, "cannot list the network interfaces for multicast");
                return;
            }
        };
        self.sockets.retain(|ip, _| found.values().any(|found| found == ip));
        for (name, ip) in found {
            if self.sockets.contains_key(&ip) {
                continue;
            }
            match open(&self.uri, ip) {
                Ok(socket) => {
                    let socket = Arc::new(socket);
                    let reader = tokio::spawn(read(socket.clone(), self.heard.clone())).abort_handle();
                    self.sockets.insert(ip, Open { socket, reader });
                }
                Err(error) => tracing::debug!(interface = name, %ip, %error, "no multicast here"),
            }
        }
        if self.sockets.is_empty() {
            let wanted = self.uri.interface.as_deref().unwrap_or("any");
            tracing::warn!(
                interface = wanted,
                "no interface for multicast; looking again every {SCAN_PERIOD:?}"
            );
        }
    }
}

/// Not later than planned, but `gap` after the last time.
fn earlier(planned: Instant, last: Option<Instant>, gap: Duration) -> Instant {
    let now = Instant::now();
    planned.min(last.map_or(now, |last| now.max(last + gap)))
}

/// Only what comes to the group over this interface is received: joined there, and not what others on this machine
/// have joined.
fn open(uri: &MulticastUri, interface: Ipv4Addr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    // Several nodes, and ActiveMQ, may listen on one machine.
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, uri.port).into())?;
    #[cfg(target_os = "linux")]
    socket.set_multicast_all_v4(false)?;
    socket.join_multicast_v4(&uri.address, &interface)?;
    socket.set_multicast_if_v4(&interface)?;
    socket.set_multicast_ttl_v4(u32::from(uri.time_to_live))?;
    socket.set_multicast_loop_v4(!uri.loop_back_mode)?;
    UdpSocket::from_std(socket.into())
}

async fn read(socket: Arc<UdpSocket>, heard: mpsc::Sender<(Vec<u8>, SocketAddr)>) {
    // One byte more, so that a longer datagram is seen to be cut.
    let mut buffer = [0; DATAGRAM_BYTES_MAX + 1];
    loop {
        match socket.recv_from(&mut buffer).await {
            Ok((bytes, from)) if bytes <= DATAGRAM_BYTES_MAX => {
                if heard.send((buffer[..bytes].to_vec(), from)).await.is_err() {
                    return;
                }
            }
            Ok(_) => {}
            Err(error) => {
                tracing::debug!(%error, "cannot receive by multicast");
                tokio::time::sleep(READ_RETRY).await;
            }
        }
    }
}

/// A node is forgotten after so many intervals without an announcement, as in ActiveMQ.
const INTERVALS_MISSED_MAX: u32 = 10;
/// Least time between an announcement and the next because of a change.
const CHANGE_GAP: Duration = Duration::from_millis(50);
/// Least time between two announcements because of newcomers.
const GREETING_GAP: Duration = Duration::from_secs(1);
const SCAN_PERIOD: Duration = Duration::from_secs(5);
const READ_RETRY: Duration = Duration::from_millis(100);
/// Datagrams read and not yet looked at.
const DATAGRAMS_MAX: usize = 64;
