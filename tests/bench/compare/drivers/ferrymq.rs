//! The load over FerryMQ's own client library. Connections begin at the nodes in turn, as with the other brokers; the
//! library then goes to the master by itself, as it does for every application.

use std::cell::Cell;

use anyhow::Result;
use ferrymq_bench::{
    driver::{Driver, Endpoint},
    ferry::FerryDriver,
};
use ferrymq_client::Options;

/// Connections go to the nodes in turn.
#[derive(Debug)]
pub(crate) struct LibraryDriver {
    pub(crate) addresses: Vec<String>,
    pub(crate) senders: Cell<usize>,
    pub(crate) receivers: Cell<usize>,
}

impl LibraryDriver {
    fn next(&self, turn: &Cell<usize>) -> FerryDriver {
        let mut order = self.addresses.clone();
        order.rotate_left(turn.get() % self.addresses.len());
        turn.set(turn.get() + 1);
        let all: Vec<String> = order.iter().map(|address| format!("tcp://{address}")).collect();
        let url = format!("failover:({})?randomize=false", all.join(","));
        FerryDriver::new(url, Options::default())
    }
}

impl Driver for LibraryDriver {
    type Sender = <FerryDriver as Driver>::Sender;
    type Receiver = <FerryDriver as Driver>::Receiver;

    async fn sender(&self, endpoint: Endpoint) -> Result<Self::Sender> {
        self.next(&self.senders).sender(endpoint).await
    }

    async fn receiver(&self, endpoint: Endpoint) -> Result<Self::Receiver> {
        self.next(&self.receivers).receiver(endpoint).await
    }
}
