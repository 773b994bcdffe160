//! NATS: three servers as a cluster with JetStream; work queues of three replicas with file storage.

use std::{cell::Cell, fs, path::Path, process::Command, time::Duration};

use anyhow::{Context, Result};
use ferrymq_bench::Load;
use ferrymq_tests::ports::Ports;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::{Programs, destinations, probe::probe};
use crate::{
    drivers::{
        NatsConnection,
        nats::{CONSUMER, NatsDriver, stream_of},
    },
    server::Server,
};

const SERVERS: usize = 3;
/// How long one request may take.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// See the module.
#[derive(Debug)]
pub(crate) struct Nats {
    pub(super) servers: Vec<Server>,
    /// Number 1 first.
    addresses: Vec<String>,
    /// The leader of the present stream first.
    order: Vec<String>,
    _ports: Ports,
}

impl Nats {
    pub(super) fn start(programs: &Programs, dir: &Path) -> Result<Self> {
        let program = programs.nats_server.as_ref().context("nats-server is not installed")?;
        let mut ports = Ports::take();
        let clients: Vec<u16> = (0..SERVERS).map(|_| ports.free()).collect();
        let routes: Vec<u16> = (0..SERVERS).map(|_| ports.free()).collect();
        let all_routes: Vec<String> = routes
            .iter()
            .map(|port| format!("\"nats://127.0.0.1:{port}\""))
            .collect();
        let mut servers = Vec::new();
        for at in 0..SERVERS {
            let name = format!("nats{}", at + 1);
            let config = format!(
                "server_name: {name}\nlisten: \"127.0.0.1:{}\"\n\
                 jetstream {{ store_dir: {:?}, max_memory_store: 1GB, max_file_store: 50GB }}\n\
                 cluster {{ name: compare, listen: \"127.0.0.1:{}\", routes: [{}] }}\n",
                clients[at],
                dir.join(&name).display().to_string(),
                routes[at],
                all_routes.join(", "),
            );
            let file = dir.join(format!("{name}.conf"));
            fs::write(&file, config)?;
            let mut command = Command::new(program);
            command.arg("-c").arg(&file);
            servers.push(Server::start(&name, dir, &command)?);
        }
        let addresses: Vec<String> = clients.iter().map(|port| format!("127.0.0.1:{port}")).collect();
        Ok(Self {
            servers,
            order: addresses.clone(),
            addresses,
            _ports: ports,
        })
    }

    pub(super) fn driver(&self) -> NatsDriver {
        NatsDriver {
            addresses: self.order.clone(),
            senders: Cell::new(0),
            receivers: Cell::new(0),
        }
    }

    pub(super) async fn check_ready(&mut self) -> Result<()> {
        for address in &self.addresses {
            NatsConnection::open(address, "ready")
                .await?
                .request("$JS.API.INFO", &json!({}))
                .await?;
        }
        let load = Load {
            prefix: "probe".into(),
            ..Load::default()
        };
        // A probe before this one may not have come to its end.
        let _ = self.clean(&load).await;
        self.prepare(&load).await?;
        let driver = self.driver();
        probe(&driver, &driver, "probe.0").await?;
        self.clean(&load).await
    }

    /// Makes a stream of three replicas and its consumer for each destination.
    pub(super) async fn prepare(&mut self, load: &Load) -> Result<()> {
        for destination in destinations(load) {
            let stream = stream_of(&destination);
            let config = json!({
                "name": stream, "subjects": [destination], "retention": "workqueue", "storage": "file",
                "num_replicas": SERVERS,
            });
            self.request(&format!("$JS.API.STREAM.CREATE.{stream}"), &config)
                .await?;
            // As much as all consumers together may hold.
            let ack_pending_max = load.consumers.max(1) * load.prefetch;
            let config = json!({ "stream_name": stream, "config": {
                "durable_name": CONSUMER, "ack_policy": "explicit", "deliver_policy": "all",
                "max_ack_pending": ack_pending_max, "max_waiting": 512,
            }});
            self.request(&format!("$JS.API.CONSUMER.DURABLE.CREATE.{stream}.{CONSUMER}"), &config)
                .await?;
            let state = self
                .request(&format!("$JS.API.STREAM.INFO.{stream}"), &json!({}))
                .await?;
            self.put_leader_first(&state)?;
        }
        Ok(())
    }

    pub(super) async fn clean(&self, load: &Load) -> Result<()> {
        for destination in destinations(load) {
            let delete = format!("$JS.API.STREAM.DELETE.{}", stream_of(&destination));
            self.request(&delete, &json!({})).await?;
        }
        Ok(())
    }

    /// The first connection goes to the leader, as with the other brokers.
    fn put_leader_first(&mut self, state: &Value) -> Result<()> {
        let leader = state["cluster"]["leader"]
            .as_str()
            .context("the stream has no leader yet")?;
        let number: usize = leader.trim_start_matches("nats").parse()?;
        self.order = self.addresses.clone();
        self.order.rotate_left(number.saturating_sub(1) % SERVERS);
        Ok(())
    }

    async fn request(&self, subject: &str, body: &Value) -> Result<Value> {
        let mut connection = NatsConnection::open(&self.addresses[0], "setup").await?;
        timeout(ANSWER_MAX, connection.request(subject, body))
            .await
            .with_context(|| format!("no answer to {subject}"))?
    }
}
