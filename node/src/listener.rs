//! Station 1 of a message's road: a listening socket, and a task for each connection that it accepts.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use ferrymq_transport::TlsDoor;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};

use crate::{door::Door, doorkeeper::Visitor};

/// Pause after an accept that failed: without it a node that is out of file descriptors would spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

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

/// Accepts connections for ever; with `tls` they have to be encrypted. Several listeners may share `places`.
pub(crate) async fn serve(listener: TcpListener, tls: Option<TlsDoor>, door: Door, places: Arc<Semaphore>) {
    loop {
        let (stream, from) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Ok(place) = places.clone().try_acquire_owned() else {
            tracing::warn!(%from, "a connection is refused: there are too many (see [limits] connections)");
            continue;
        };
        // Without it, the last part of a frame waits for the acknowledgement of the part before.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%from, %error, "a connection was lost at once");
            continue;
        }
        let (door, tls) = (door.clone(), tls.clone());
        tokio::spawn(async move {
            enter(stream, from, tls, door).await;
            drop(place);
        });
    }
}

async fn enter(stream: TcpStream, from: SocketAddr, tls: Option<TlsDoor>, door: Door) {
    let plain = Visitor {
        address: from,
        certificate: Vec::new(),
    };
    let Some(tls) = tls else {
        return door.enter(stream, plain).await;
    };
    // What fails is counted and logged where it was refused.
    if let Some((stream, certificate)) = tls.accept(stream, from, TLS_MAX).await {
        door.enter(stream, Visitor { certificate, ..plain }).await;
    }
}
