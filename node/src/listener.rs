//! Station 1 of a message's road: a listening socket, and a task for each connection that it accepts.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use ferrymq_transport::{Throttle, TlsDoor};
use tokio::net::{TcpListener, TcpStream};

use crate::{
    door::Door,
    doorkeeper::Visitor,
    load::Load,
    places::{NoPlace, Place},
};

/// Pause after an accept that failed: without it a node that is out of file descriptors would spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// A flood shall not fill the log.
const LOG_PERIOD: Duration = Duration::from_secs(1);

/// Binds a client port.
///
/// # Errors
/// Where the address is taken or is not one of this machine's; the text names it.
pub(crate) async fn bind(name: &str, address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|error| {
        let cure = match error.kind() {
            io::ErrorKind::AddrInUse => "another process listens there; stop it or choose another port under [listen]",
            io::ErrorKind::AddrNotAvailable => "this machine has no such address; correct it under [listen]",
            io::ErrorKind::PermissionDenied => "ports below 1024 need privileges; choose another one under [listen]",
            _ => "see [listen] in the configuration",
        };
        anyhow::anyhow!("cannot listen for {name} on {address}: {error}; {cure}")
    })
}

/// How long a client may take for its part of a TLS handshake.
const TLS_MAX: Duration = Duration::from_secs(10);

/// Accepts connections for ever; with `tls` they have to be encrypted.
pub(crate) async fn serve(listener: TcpListener, tls: Option<TlsDoor>, door: Door, load: Arc<Load>) {
    let (failed, refused) = (Throttle::new(LOG_PERIOD), Throttle::new(LOG_PERIOD));
    loop {
        let (stream, from) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                load.counts.accept_errors.add();
                if let Some(suppressed) = failed.pass() {
                    tracing::warn!(%error, suppressed, "a connection could not be accepted");
                }
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let place = match door.places().enter(from.ip()) {
            Ok(place) => place,
            Err(why) => {
                if let Some(suppressed) = refused.pass() {
                    let key = match why {
                        NoPlace::Full => "connections",
                        NoPlace::Address => "connections_per_address",
                    };
                    tracing::warn!(%from, suppressed, "a connection is refused: there are too many (see [limits] {key})");
                }
                continue;
            }
        };
        // Without it, the last part of a frame waits for the acknowledgement of the part before.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%from, %error, "a connection was lost at once");
            continue;
        }
        let (door, tls) = (door.clone(), tls.clone());
        tokio::spawn(async move { enter(stream, from, tls, door, place).await });
    }
}

async fn enter(stream: TcpStream, from: SocketAddr, tls: Option<TlsDoor>, door: Door, place: Place) {
    let plain = Visitor {
        address: from,
        certificate: Vec::new(),
    };
    let Some(tls) = tls else {
        return door.enter(stream, plain, place).await;
    };
    let accepted = tokio::select! {
        accepted = tls.accept(stream, from, TLS_MAX) => accepted,
        () = place.lost() => return tracing::debug!(%from, "a client has lost its place in the TLS handshake"),
    };
    // What fails is counted and logged where it was refused.
    if let Some((stream, certificate)) = accepted {
        door.enter(stream, Visitor { certificate, ..plain }, place).await;
    }
}
