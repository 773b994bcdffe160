//! One message through a broker, to see that it serves; and taking away what a load has left behind.

use std::time::Duration;

use anyhow::{Context, Result};
use ferrymq_bench::{Driver, Endpoint, Load, Receiver, Sender};
use tokio::time::timeout;

/// How long one message may take; the next attempt follows.
const PROBE_MAX: Duration = Duration::from_secs(5);
/// Receivers that find nothing for so long have emptied a queue.
const QUIET: Duration = Duration::from_millis(700);

/// Sends one message to the queue `destination` and receives it.
///
/// # Errors
/// Where it is not confirmed and received in time.
pub(super) async fn probe<D: Driver>(senders: &D, receivers: &D, destination: &str) -> Result<()> {
    let exchange = async {
        let endpoint = endpoint(destination, 1);
        let mut receiver = receivers.receiver(endpoint.clone()).await?;
        let mut sender = senders.sender(endpoint).await?;
        sender.send("probe".into()).await?;
        sender.confirmed(&mut Vec::new()).await?;
        receiver.receive(&mut Vec::new()).await?;
        receiver.acknowledge().await
    };
    timeout(PROBE_MAX, exchange).await.context("no probe came through")?
}

/// Receives and acknowledges until nothing comes any more.
pub(super) async fn empty<D: Driver>(receivers: &D, load: &Load) -> Result<()> {
    for destination in super::destinations(load) {
        let mut receiver = receivers.receiver(endpoint(&destination, 1000)).await?;
        let mut bodies = Vec::new();
        while let Ok(received) = timeout(QUIET, receiver.receive(&mut bodies)).await {
            received?;
            bodies.clear();
            receiver.acknowledge().await?;
        }
    }
    Ok(())
}

fn endpoint(destination: &str, window_messages_max: usize) -> Endpoint {
    Endpoint {
        destination: destination.to_owned(),
        is_topic: false,
        persistent: true,
        window_messages_max,
        transaction_messages: 0,
    }
}
