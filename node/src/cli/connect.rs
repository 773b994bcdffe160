//! What producing and consuming have in common: whom to connect to, and what happens to the connection.

use std::time::Duration;

use clap::Args;
use ferrymq_client::{ConnectError, Connection, Event, Options};
use serde_json::{Value, json};
use tokio::sync::broadcast::{Receiver, error::TryRecvError};

use super::{Exit, Failure};

/// Whom to connect to.
#[derive(Debug, Args)]
pub(crate) struct ConnectArgs {
    /// The brokers: failover:(tcp://a:61613,tcp://b:61613)?options, or tcp://a:61613
    #[arg(short, long, env = "FERRYMQ_URL", default_value = "failover:(tcp://127.0.0.1:61613)")]
    url: String,
    /// User name
    #[arg(long)]
    login: Option<String>,
    /// Password
    #[arg(long, env = "FERRYMQ_PASSCODE", hide_env_values = true)]
    passcode: Option<String>,
    /// The name under which durable subscriptions are kept
    #[arg(long)]
    client_id: Option<String>,
}

impl ConnectArgs {
    /// Connects, within ten seconds.
    ///
    /// # Errors
    /// Exit code 2 where the URL is wrong, otherwise 3.
    pub(crate) async fn connect(&self) -> Result<(Connection, Story), Failure> {
        let options = Options {
            login: self.login.clone(),
            passcode: self.passcode.clone(),
            client_id: self.client_id.clone(),
            startup_timeout: Duration::from_secs(10),
            ..Options::default()
        };
        match Connection::connect(&self.url, options).await {
            Ok(connection) => {
                let story = Story::new(connection.events());
                Ok((connection, story))
            }
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
