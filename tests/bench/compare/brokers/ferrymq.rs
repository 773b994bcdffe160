//! FerryMQ: a group of three nodes, a group of one, or two linked groups of three.

use std::{cell::Cell, fs, net::SocketAddr, path::Path, process::Command};

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use ferrymq_bench::{Load, Report, Sample};
use ferrymq_tests::{
    GroupOfNodes,
    config::{GroupConfig, NodePorts},
    http,
    ports::Ports,
};
use serde_json::Value;

use super::{Kind, Programs, probe};
use crate::{
    drivers::{ferrymq::LibraryDriver, stomp::StompDriver},
    server::Server,
};

/// With what the load speaks to FerryMQ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Client {
    /// `ferrymq-client`, as applications use it.
    Library,
    /// The same STOMP driver as for ActiveMQ.
    Stomp,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct FerryMq {
    pub(super) servers: Vec<Server>,
    client: Client,
    groups: Vec<Group>,
    _ports: Ports,
}

#[derive(Debug)]
struct Group {
    name: String,
    nodes: Vec<NodePorts>,
    /// STOMP addresses, the master's first.
    addresses: Vec<String>,
}

impl FerryMq {
    pub(super) fn start(kind: Kind, programs: &Programs, dir: &Path) -> Result<Self> {
        let (nodes, groups, sync) = match kind {
            Kind::FerryMem => (3, 1, "quorum_mem"),
            Kind::FerryOne => (1, 1, "quorum_disk"),
            Kind::FerryMesh => (3, 2, "quorum_disk"),
            _ => (3, 1, "quorum_disk"),
        };
        let mut ports = Ports::take();
        let mut configs: Vec<GroupConfig> = (0..groups)
            .map(|group| GroupConfig {
                name: ["north", "south"][group].to_owned(),
                nodes: GroupOfNodes::ports(&mut ports, nodes),
                secret: (groups > 1).then(|| "of the comparison only".to_owned()),
                // Defaults, but for what is told here; the harness's own ones are for tests.
                more: format!("\n[store]\nsync = {sync:?}\n\n[limits]\nframe = \"32MiB\"\n\n[log]\nlevel = \"warn\"\n"),
                connectors: Vec::new(),
            })
            .collect();
        if let [north, south] = &mut configs[..] {
            let links = south
                .nodes
                .iter()
                .map(|node| format!("tcp://{}:{}", node.host, node.link));
            north.connectors = vec![format!("static:({})", links.collect::<Vec<_>>().join(","))];
        }
        let mut servers = Vec::new();
        for config in &configs {
            for number in 1..=config.nodes.len() {
                let name = format!("{}{number}", config.name);
                let file = dir.join(format!("{name}.toml"));
                fs::write(&file, config.text(number, &dir.join(&name)))?;
                let mut command = Command::new(&programs.ferrymq);
                command.arg("serve").arg("--config").arg(&file);
                servers.push(Server::start(&name, dir, &command)?);
            }
        }
        let groups = configs.into_iter().map(|config| Group {
            name: config.name,
            nodes: config.nodes,
            addresses: Vec::new(),
        });
        Ok(Self {
            servers,
            client: programs.ferrymq_client,
            groups: groups.collect(),
            _ports: ports,
        })
    }

    /// That each group has a master that serves, and that the groups are linked.
    pub(super) async fn check_ready(&mut self) -> Result<()> {
        let peers: Vec<String> = self.groups.iter().map(|group| group.name.clone()).collect();
        for group in &mut self.groups {
            let status = group.find_master()?;
            let links = status["master"]["mesh"]["links"].as_array();
            for peer in peers.iter().filter(|peer| **peer != group.name) {
                let is_up = links
                    .into_iter()
                    .flatten()
                    .any(|link| link["peer"] == **peer && link["state"] == "up");
                ensure!(is_up, "{} is not linked to {peer}", group.name);
            }
        }
        match self.client {
            Client::Library => {
                let (senders, receivers) = self.library();
                probe::probe(&senders, &receivers, "probe").await
            }
            Client::Stomp => {
                let (senders, receivers) = self.stomp();
                probe::probe(&senders, &receivers, "probe").await
            }
        }
    }

    /// Makes the load from the first group to the last.
    pub(super) async fn run(&self, load: &Load, progress: impl FnMut(&Sample)) -> Result<Report> {
        match self.client {
            Client::Library => {
                let (senders, receivers) = self.library();
                ferrymq_bench::run(load, &senders, &receivers, progress).await
            }
            Client::Stomp => {
                let (senders, receivers) = self.stomp();
                ferrymq_bench::run(load, &senders, &receivers, progress).await
            }
        }
    }

    /// What the masters say of these destinations and of their links, where messages have not come through.
    pub(super) fn explain(&mut self, load: &Load) {
        for group in &mut self.groups {
            let Ok(status) = group.find_master() else { continue };
            let master = &status["master"];
            let queues = master["queues"].as_array().into_iter().flatten();
            let ours = queues.filter(|queue| queue["name"].as_str().is_some_and(|name| name.contains(&load.prefix)));
            eprintln!(
                "{}: queues {} mesh {}",
                group.name,
                Value::from_iter(ours.cloned()),
                master["mesh"]
            );
        }
    }

    pub(super) async fn clean(&self, load: &Load) -> Result<()> {
        probe::empty(&self.stomp().1, load).await
    }

    fn library(&self) -> (LibraryDriver, LibraryDriver) {
        let driver = |group: &Group| LibraryDriver {
            addresses: group.addresses.clone(),
            senders: Cell::new(0),
            receivers: Cell::new(0),
        };
        self.first_and_last(driver)
    }

    fn stomp(&self) -> (StompDriver, StompDriver) {
        let driver = |group: &Group| StompDriver {
            addresses: group.addresses.clone(),
            senders: Cell::new(0),
            receivers: Cell::new(0),
        };
        self.first_and_last(driver)
    }

    fn first_and_last<D>(&self, driver: impl Fn(&Group) -> D) -> (D, D) {
        (driver(&self.groups[0]), driver(&self.groups[self.groups.len() - 1]))
    }
}

impl Group {
    /// The master's status; its address is put first.
    fn find_master(&mut self) -> Result<Value> {
        let statuses = self.nodes.iter().map(|node| status_of(node.admin_address()));
        let mut masters = statuses.enumerate().filter_map(|(at, status)| {
            let status = status.ok()?;
            let serves = status["group"]["role"] == "master" && status["group"]["lease_valid"] == true;
            serves.then_some((at, status))
        });
        let (master, status) = masters
            .next_back()
            .with_context(|| format!("{} has no master", self.name))?;
        self.addresses = self
            .nodes
            .iter()
            .map(|node| format!("{}:{}", node.host, node.stomp))
            .collect();
        self.addresses.rotate_left(master);
        Ok(status)
    }
}

fn status_of(admin: SocketAddr) -> Result<Value> {
    Ok(http::get_at(admin, "/api/status")?.1)
}
