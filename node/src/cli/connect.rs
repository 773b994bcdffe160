//! What producing and consuming have in common: whom to connect to, and what happens to the connection.

use std::{path::PathBuf, time::Duration};

use clap::Args;
use ferrymq_client::{ConnectError, Connection, Event, Options, TlsOptions};
use serde_json::{Value, json};
use tokio::sync::broadcast::{Receiver, error::TryRecvError};

use super::{Exit, Failure, credentials::CredentialArgs};

/// Whom to connect to.
#[derive(Debug, Args)]
pub(crate) struct ConnectArgs {
    /// The brokers: failover:(tcp://a:61613,tcp://b:61613)?options, or tcp://a:61613
    #[arg(short, long, env = "FERRYMQ_URL", default_value = "failover:(tcp://127.0.0.1:61613)")]
    url: String,
    #[command(flatten)]
    credentials: CredentialArgs,
    #[command(flatten)]
    tls: TlsArgs,
    /// The name under which durable subscriptions are kept
    #[arg(long)]
    client_id: Option<String>,
}

/// What is trusted and shown where the URL asks for TLS
#[derive(Debug, Clone, Args)]
pub(crate) struct TlsArgs {
    /// For ssl:// addresses: PEM file with the authorities that may have signed a broker's certificate
    #[arg(long, env = "FERRYMQ_CA", value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Own certificate (PEM), for brokers that ask for one
    #[arg(long, value_name = "FILE", requires = "key", requires = "ca")]
    certificate: Option<PathBuf>,
    /// Its private key (PEM)
    #[arg(long, value_name = "FILE", requires = "certificate")]
    key: Option<PathBuf>,
}

impl TlsArgs {
    pub(crate) fn read(&self) -> Option<TlsOptions> {
        Some(TlsOptions {
            ca: self.ca.clone()?,
            own: self.certificate.clone().zip(self.key.clone()),
        })
    }
}

impl ConnectArgs {
    /// Connects, within ten seconds.
    ///
    /// # Errors
    /// Exit code 2 where the URL is wrong, otherwise 3.
    pub(crate) async fn connect(&self) -> Result<(Connection, Story), Failure> {
        let credentials = self.credentials.read()?;
        let options = Options {
            login: credentials.as_ref().map(|credentials| credentials.user.clone()),
            passcode: credentials.map(|credentials| credentials.password),
            tls: self.tls.read(),
            client_id: self.client_id.clone(),
            startup_timeout: Duration::from_secs(10),
            ..Options::default()
        };
        match Connection::connect(&self.url, options).await {
            Ok(connection) => {
                let story = Story::new(connection.events());
                Ok((connection, story))
            }
            Err(error @ ConnectError::Tls(_)) => Err(Failure::new(Exit::Usage, error)),
            Err(error @ ConnectError::Uri(_)) => Err(Failure::new(Exit::Usage, format!("--url: {error}"))),
            Err(error) => Err(Failure::new(Exit::Unreachable, error)),
        }
    }
}

/// What has happened to a connection so far.
#[derive(Debug)]
pub(crate) struct Story {
    events: Receiver<Event>,
    /// How long each fail-over took, from the loss to the new connection.
    failovers: Vec<Duration>,
}

impl Story {
    fn new(events: Receiver<Event>) -> Self {
        Self {
            events,
            failovers: Vec::new(),
        }
    }

    /// Takes in what has happened; `tell` gets a line for each thing that a person wants to know.
    pub(crate) fn follow(&mut self, tell: impl Fn(String)) {
        loop {
            match self.events.try_recv() {
                Ok(Event::Lost { address, reason }) => tell(format!("lost {address}: {reason}")),
                Ok(Event::Reconnected { address, after, resent }) => {
                    self.failovers.push(after);
                    tell(format!(
                        "reconnected to {address} after {} ms, {resent} sent again",
                        after.as_millis()
                    ));
                }
                Ok(_) | Err(TryRecvError::Lagged(_)) => {}
                Err(TryRecvError::Empty | TryRecvError::Closed) => return,
            }
        }
    }

    /// `, 2 fail-overs (longest 31 ms)`, or nothing.
    pub(crate) fn summary(&self) -> String {
        let Some(longest) = self.failovers.iter().max() else {
            return String::new();
        };
        let count = self.failovers.len();
        format!(
            ", {count} fail-over{} (longest {} ms)",
            if count == 1 { "" } else { "s" },
            longest.as_millis()
        )
    }

    /// How long each fail-over took, in milliseconds.
    pub(crate) fn to_json(&self) -> Value {
        json!(
            self.failovers
                .iter()
                .map(|time| time.as_secs_f64() * 1e3)
                .collect::<Vec<_>>()
        )
    }
}
