//! The admin port: a small JSON API over HTTP.
//!
//! *From* operators, the CLI and monitoring; *to* the node, through the [`Source`] and the [`Gate`] that it hands over.
//! *Never* knows what a status contains, nor anything else of ours.

pub mod gate;
pub mod source;

mod api;
mod bounded;
mod guard;

use std::{future::Future, io, net::SocketAddr, sync::Arc, time::Duration};

use tokio::{net::TcpListener, sync::watch};

pub use bounded::Cuts;
pub use gate::{Gate, Login, Wish};
pub use source::{Answer, Health, NewMember, Refusal, RefusalKind, Source};

/// Where the console listens and what it admits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The address to listen on; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Further host names under which browsers and tools may ask, such as the node's name in DNS. Loopback, and the
    /// address listened on, are always allowed.
    pub hosts: Vec<String>,
}

/// Connections held at one time; the next one waits to be accepted.
const CONNECTIONS_MAX: usize = 64;

/// How long requests under way may take after the console was told to stop.
const SHUTDOWN_MAX: Duration = Duration::from_secs(1);

/// A bound admin port, not yet serving.
#[derive(Debug)]
pub struct Console {
    listener: TcpListener,
    local: SocketAddr,
    config: Config,
    cuts: Cuts,
}

impl Console {
    /// Binds the admin port.
    ///
    /// # Errors
    /// Where the address is taken or is not one of this machine's.
    pub async fn bind(config: Config) -> io::Result<Self> {
        let listener = TcpListener::bind(config.listen).await?;
        let local = listener.local_addr()?;
        Ok(Self {
            listener,
            local,
            config,
            cuts: Cuts::default(),
        })
    }

    /// The address that it is bound to.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// Connections that end because a request is not complete in time, counted as long as it serves.
    pub fn cuts(&self) -> Cuts {
        self.cuts.clone()
    }

    /// Answers requests until `stop` is done; those under way then get a second.
    ///
    /// # Errors
    /// Where the listening socket fails.
    pub async fn serve(
        self,
        source: Arc<dyn Source>,
        gate: Arc<dyn Gate>,
        stop: impl Future<Output = ()> + Send + 'static,
    ) -> io::Result<()> {
        let app = api::router(source, gate, guard::Guard::new(self.local, self.config.hosts));
        let app = app.into_make_service_with_connect_info::<bounded::Caller>();
        let (stopping, mut stopped) = watch::channel(false);
        let listener = bounded::Bounded::new(self.listener, CONNECTIONS_MAX, self.cuts);
        let serving = axum::serve(listener, app).with_graceful_shutdown(async move {
            stop.await;
            stopping.send_replace(true);
        });
        let overdue = async move {
            // The sender lives in the future above: an error means that serving has ended by itself.
            if stopped.wait_for(|stopping| *stopping).await.is_err() {
                std::future::pending::<()>().await;
            }
            tokio::time::sleep(SHUTDOWN_MAX).await;
        };
        tokio::select! {
            result = serving => result,
            () = overdue => Ok(()),
        }
    }
}
