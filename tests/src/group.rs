//! One group: its nodes, and who of them is master.

use std::{net::Ipv4Addr, path::Path, time::Duration};

use serde_json::Value;

use crate::{
    config::{GroupConfig, NodePorts},
    http,
    node::{NodeProcess, START_MAX},
    ports::Ports,
    wait_for,
};

/// See the module. Indices into `nodes` are node numbers less one.
#[derive(Debug)]
pub struct GroupOfNodes {
    /// The group's name.
    pub name: String,
    /// Number 1 first.
    pub nodes: Vec<NodeProcess>,
}

impl GroupOfNodes {
    /// Writes the configuration of `config.nodes.len()` nodes below `dir`, their data to `data_of(number)`; starts nothing.
    pub fn new(config: &GroupConfig, dir: &Path, data_of: impl Fn(usize) -> std::path::PathBuf) -> Self {
        let nodes = (1..=config.nodes.len()).map(|number| {
            let data = data_of(number);
            let name = format!("{}{number}", config.name);
            NodeProcess::new(&name, dir, &data, config.nodes[number - 1], &config.text(number, &data))
        });
        Self {
            name: config.name.clone(),
            nodes: nodes.collect(),
        }
    }

    /// Ports for so many nodes.
    pub fn ports(ports: &mut Ports, nodes: usize) -> Vec<NodePorts> {
        let one = |ports: &mut Ports| NodePorts {
            host: Ipv4Addr::LOCALHOST,
            stomp: ports.free(),
            peer: ports.free(),
            link: ports.free(),
            admin: ports.free(),
        };
        (0..nodes).map(|_| one(ports)).collect()
    }

    /// Starts every node that does not run, and waits for a master.
    #[track_caller]
    pub fn start(&mut self) {
        for node in self.nodes.iter_mut().filter(|node| !node.is_running()) {
            node.spawn();
        }
        self.master();
    }

    /// The master's index; waits until there is one.
    ///
    /// # Panics
    /// Where there is none for long.
    #[track_caller]
    pub fn master(&self) -> usize {
        let what = format!("group {} has a master", self.name);
        let (master, _) = wait_for(&what, START_MAX, || {
            self.nodes.iter().for_each(NodeProcess::assert_alive);
            self.nodes.iter().position(NodeProcess::is_master)
        });
        master
    }

    /// The index of a running node that is not the master.
    #[track_caller]
    pub fn slave(&self) -> usize {
        let master = self.master();
        let slave = (0..self.nodes.len())
            .rev()
            .find(|&at| at != master && self.nodes[at].is_running());
        slave.expect("the group has a slave")
    }

    /// `kill -9` of the master; returns its index.
    #[track_caller]
    pub fn kill_master(&mut self) -> usize {
        let master = self.master();
        self.nodes[master].kill();
        master
    }

    /// The master's status.
    #[track_caller]
    pub fn status(&self) -> Value {
        let what = format!("the master of {} tells its status", self.name);
        let found = wait_for(&what, START_MAX, || {
            let status = self
                .nodes
                .get(self.nodes.iter().position(NodeProcess::is_master)?)?
                .status()?;
            status["master"].is_object().then_some(status)
        });
        found.0
    }

    /// A queue's entry in the master's status; `name` is such as `queue://ORDERS`.
    #[track_caller]
    pub fn queue(&self, name: &str) -> Option<Value> {
        let status = self.status();
        status["master"]["queues"]
            .as_array()?
            .iter()
            .find(|queue| queue["name"] == name)
            .cloned()
    }

    /// Messages in a queue, 0 where there is none of that name.
    #[track_caller]
    pub fn messages(&self, name: &str) -> u64 {
        self.queue(name)
            .and_then(|queue| queue["messages"].as_u64())
            .unwrap_or(0)
    }

    /// Asks the master to hand over; returns the new master's index.
    ///
    /// # Panics
    /// Where it is refused.
    #[track_caller]
    pub fn step_down(&self) -> usize {
        let master = self.master();
        let (status, answer) =
            http::post_at(self.nodes[master].ports.admin_address(), "/api/step-down", "").expect("it answers");
        assert_eq!(status, 200, "{answer}");
        answer["master"].as_u64().expect("the answer names the new master") as usize - 1
    }

    /// Addresses for STOMP clients, number 1 first.
    pub fn addresses(&self) -> Vec<String> {
        self.nodes.iter().map(NodeProcess::address).collect()
    }

    /// `failover:(tcp://…,tcp://…)`.
    pub fn uri(&self) -> String {
        let all: Vec<String> = self
            .addresses()
            .iter()
            .map(|address| format!("tcp://{address}"))
            .collect();
        format!("failover:({})", all.join(","))
    }

    /// Waits until every running node has applied what the master has committed.
    #[track_caller]
    pub fn settle(&self, deadline: Duration) {
        let what = format!("the nodes of {} agree", self.name);
        wait_for(&what, deadline, || {
            let running = self.nodes.iter().filter(|node| node.is_running());
            let applied: Option<Vec<u64>> = running
                .map(|node| node.status()?["group"]["applied_index"].as_u64())
                .collect();
            applied?.windows(2).all(|pair| pair[0] == pair[1]).then_some(())
        });
    }
}
