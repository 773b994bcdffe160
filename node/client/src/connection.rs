//! The application's handle on a connection that survives the loss of brokers.

use std::{sync::Arc, time::Duration};

use ferrymq_transport::TlsDialer;
use tokio::sync::{Notify, broadcast, oneshot};

use crate::{
    consumer::Consumer,
    consumer_state::ConsumerState,
    destination::wire_destination,
    driver::{self, Shared},
    endpoints::{Endpoints, unique_name},
    error::{ConnectError, SendError},
    event::Event,
    options::{ConsumerOptions, Options, ProducerOptions},
    outgoing::send_prefix,
    producer::Producer,
    producer_state::ProducerState,
};

/// A connection to a group of brokers, any of which will do (P10). Cheap to clone. It ends with
/// [`Connection::close`], or when the last clone, producer and consumer is dropped; what has no receipt then may not
/// have been sent.
#[derive(Clone)]
pub struct Connection {
    handle: Arc<Handle>,
}

/// Ends the task when nobody is left who could use it.
pub(crate) struct Handle {
    pub(crate) shared: Arc<Shared>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.stop();
    }
}

impl Connection {
    /// Connects to one of the brokers of `uri`: `failover:(tcp://a:61613,tcp://b:61613)?option=…` or `tcp://a:61613`.
    /// After that, a lost broker is replaced by another one without the application's help.
    ///
    /// # Errors
    /// Where the URI is wrong, a broker refuses the login, or none is reached in time.
    pub async fn connect(uri: &str, options: Options) -> Result<Self, ConnectError> {
        let endpoints = Endpoints::parse(uri, &options)?;
        let tls = match (endpoints.wants_tls(), &options.tls) {
            (false, _) => None,
            (true, Some(tls)) => {
                let own = tls
                    .own
                    .as_ref()
                    .map(|(certificate, key)| (certificate.as_path(), key.as_path()));
                let dialer = TlsDialer::from_pem(&tls.ca, own).map_err(|error| ConnectError::Tls(error.to_string()))?;
                Some(dialer)
            }
            (true, None) => {
                let text = "say which authorities are trusted (Options::tls; --ca on the command line)";
                return Err(ConnectError::Tls(text.to_owned()));
            }
        };
        let shared = Arc::new(Shared::new(endpoints, options, tls));
        // Made first, so that a caller who gives up while this waits ends the task.
        let handle = Arc::new(Handle { shared: shared.clone() });
        let (first, connected) = oneshot::channel();
        tokio::spawn(driver::run(shared, first));
        match connected.await {
            Ok(result) => result?,
            Err(_) => {
                let (elapsed, last) = (Duration::ZERO, "the runtime is shutting down".to_owned());
                return Err(ConnectError::Unreachable { elapsed, last });
            }
        }
        Ok(Self { handle })
    }

    /// What happens to the connection from now on. A listener that falls behind misses the oldest events.
    pub fn events(&self) -> broadcast::Receiver<Event> {
        self.handle.shared.events.subscribe()
    }

    /// A producer for `destination`: `queue://ORDERS`, `topic://NEWS`, or as STOMP writes them, `/queue/ORDERS`.
    ///
    /// # Errors
    /// Where the destination is not a valid one, or the name of a producer that is to be resumed is missing.
    pub fn producer(&self, destination: &str, options: ProducerOptions) -> Result<Producer, SendError> {
        let destination = wire_destination(destination).map_err(|error| SendError::Invalid(error.to_string()))?;
        let name = match (options.id, options.resume) {
            (Some(id), true) => id,
            (Some(id), false) => format!("{id}-{}", unique_name()),
            (None, false) => unique_name(),
            (None, true) => {
                let text = "a producer that goes on where an earlier one ended needs its name (ProducerOptions::id)";
                return Err(SendError::Invalid(text.into()));
            }
        };
        let (changed, answered) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let state = ProducerState::new(
            send_prefix(&destination, options.persistent, &name),
            options.first_sequence,
            options.window_messages_max,
            options.window_bytes_max,
            options.transaction_messages,
            changed.clone(),
            answered.clone(),
        );
        let id = self.handle.shared.core().add_producer(state);
        Ok(Producer::new(self.handle.clone(), id, name, changed, answered))
    }

    /// A consumer of `destination`. That the broker refuses it is told by [`Consumer::recv`].
    ///
    /// # Errors
    /// Where the destination is not a valid one.
    pub fn consumer(&self, destination: &str, options: ConsumerOptions) -> Result<Consumer, SendError> {
        let destination = wire_destination(destination).map_err(|error| SendError::Invalid(error.to_string()))?;
        let changed = Arc::new(Notify::new());
        let state = ConsumerState::new(destination, options, changed.clone());
        let id = self.handle.shared.core().add_consumer(state);
        self.handle.shared.output.notify_one();
        Ok(Consumer::new(self.handle.clone(), id, changed))
    }

    /// Leaves in good order: waits up to `patience` until everything has its receipt. `true` where that was reached;
    /// otherwise some of it may not have been taken by a broker.
    pub async fn close(self, patience: Duration) -> bool {
        let shared = &self.handle.shared;
        let settled = tokio::time::timeout(patience, async {
            wait_until_idle(shared).await;
            shared.core().disconnect();
            shared.output.notify_one();
            wait_until_idle(shared).await;
        });
        let settled = settled.await.is_ok() && shared.core().check_ended().is_ok();
        shared.stop();
        settled
    }
}

async fn wait_until_idle(shared: &Shared) {
    loop {
        let mut answered = std::pin::pin!(shared.answered.notified());
        answered.as_mut().enable();
        {
            let core = shared.core();
            if core.is_idle() || core.check_ended().is_err() {
                return;
            }
        }
        answered.await;
    }
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection")
            .field("addresses", &self.handle.shared.endpoints.addresses)
            .finish_non_exhaustive()
    }
}
