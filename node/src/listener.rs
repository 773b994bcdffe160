//! Station 1 of a message's road: a listening socket, and a task for each connection that it accepts.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use tokio::{net::TcpListener, sync::Semaphore};

use crate::door::Door;

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

/// Accepts connections for ever.
pub(crate) async fn serve(listener: TcpListener, door: Door, connections_max: usize) {
    let places = Arc::new(Semaphore::new(connections_max));
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
            tracing::warn!(%from, connections_max, "a connection is refused: there are too many (see [limits] connections)");
            continue;
        };
        // Without it, the last part of a frame waits for the acknowledgement of the part before.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%from, %error, "a connection was lost at once");
            continue;
        }
        let door = door.clone();
        tokio::spawn(async move {
            door.enter(stream, from).await;
            drop(place);
        });
    }
}
