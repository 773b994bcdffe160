//! Several groups that shall find each other, on one machine.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use serde_json::Value;

use crate::{GroupOfNodes, History, config::GroupConfig, net::Net, ports::Ports, scratch::Scratch, wait_until};

/// How long two groups may take to find and trust each other.
pub const LINK_MAX: Duration = Duration::from_secs(30);

/// How groups find each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Discovery {
    /// Each group lists the nodes of its neighbours.
    Static,
    /// Announcements to a group of 239.255.2.3.
    Multicast,
    /// `_ferrymq._udp.local.`
    Mdns,
}

/// What a mesh shall be.
#[derive(Debug)]
pub struct MeshBuilder {
    name: String,
    groups: Vec<(String, usize)>,
    links: Vec<(usize, usize)>,
    discovery: Discovery,
    more: String,
    data: Option<PathBuf>,
    net: Option<Net>,
    secret: bool,
}

/// Running groups. Order of the fields: processes end before their directory goes.
#[derive(Debug)]
pub struct Mesh {
    /// In the order in which they were asked for.
    pub groups: Vec<GroupOfNodes>,
    links: Vec<(usize, usize)>,
    scratch: Scratch,
    /// Where the nodes run on machines of their own: in the order of the groups, number 1 first.
    pub net: Option<Net>,
    _ports: Ports,
}

impl MeshBuilder {
    /// A mesh for the test of this name; without groups yet.
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            groups: Vec::new(),
            links: Vec::new(),
            discovery: Discovery::Static,
            more: String::new(),
            data: None,
            net: None,
            secret: false,
        }
    }

    /// The nodes share a secret, also where there is only one group.
    #[must_use]
    pub fn secret(mut self) -> Self {
        self.secret = true;
        self
    }

    /// One more group.
    #[must_use]
    pub fn group(mut self, name: &str, nodes: usize) -> Self {
        self.groups.push((name.to_owned(), nodes));
        self
    }

    /// The two groups at these positions shall be linked (with static discovery; otherwise all are).
    #[must_use]
    pub fn link(mut self, one: usize, other: usize) -> Self {
        self.links.push((one, other));
        self
    }

    /// The list of the group at this position names its own nodes, too, as one list for all groups does.
    #[must_use]
    pub fn listing_itself(mut self, group: usize) -> Self {
        self.links.push((group, group));
        self
    }

    /// How the groups find each other.
    #[must_use]
    pub fn discovery(mut self, discovery: Discovery) -> Self {
        self.discovery = discovery;
        self
    }

    /// Sections for every node's configuration.
    #[must_use]
    pub fn more(mut self, sections: &str) -> Self {
        self.more = sections.to_owned();
        self
    }

    /// Node data goes to `DIR/north1` and so on, instead of the test's own directory.
    #[must_use]
    pub fn data(mut self, dir: &Path) -> Self {
        self.data = Some(dir.to_owned());
        self
    }

    /// Each node runs on a machine of its own, whose network can be cut.
    #[must_use]
    pub fn on_machines(mut self) -> Self {
        self.net = Some(Net::new(self.groups.iter().map(|(_, nodes)| nodes).sum()));
        self
    }

    /// Starts all nodes; waits for a master of each group and for every link.
    #[track_caller]
    pub fn start(self) -> Mesh {
        let mut mesh = self.prepare();
        for group in &mut mesh.groups {
            for node in &mut group.nodes {
                node.spawn();
            }
        }
        for group in &mesh.groups {
            group.master();
        }
        mesh.wait_linked();
        mesh
    }

    /// Writes all files and starts nothing.
    pub fn prepare(self) -> Mesh {
        let scratch = Scratch::new(&self.name);
        let mut ports = Ports::take();
        let mut configs: Vec<GroupConfig> = Vec::new();
        for (name, nodes) in &self.groups {
            configs.push(GroupConfig {
                name: name.clone(),
                nodes: GroupOfNodes::ports(&mut ports, *nodes),
                secret: (self.groups.len() > 1 || self.net.is_some() || self.secret)
                    .then(|| "a secret for tests only".to_owned()),
                more: self.more.clone(),
                connectors: Vec::new(),
            });
        }
        let hosts = configs.iter_mut().flat_map(|config| &mut config.nodes);
        for (machine, node) in hosts.enumerate() {
            if let Some(net) = &self.net {
                node.host = net.address(machine);
            }
        }
        // Tests that run at the same time must not find each other's groups.
        let name = format!("test-{}", std::process::id());
        match self.discovery {
            Discovery::Static => {
                for &(one, other) in &self.links {
                    let list: Vec<String> = configs[other]
                        .nodes
                        .iter()
                        .map(|node| format!("tcp://{}:{}", node.host, node.link))
                        .collect();
                    configs[one].connectors.push(format!("static:({})", list.join(",")));
                }
            }
            Discovery::Multicast => {
                for config in &mut configs {
                    config.connectors.push(format!("multicast://default?group={name}"));
                }
            }
            Discovery::Mdns => {
                for config in &mut configs {
                    config.connectors.push(format!("mdns://?group={name}"));
                }
            }
        }
        let data = self.data.unwrap_or_else(|| scratch.path().to_owned());
        let groups = configs.iter().map(|config| {
            GroupOfNodes::new(config, scratch.path(), |number| {
                data.join(format!("{}{number}", config.name))
            })
        });
        let mut groups: Vec<GroupOfNodes> = groups.collect();
        for (machine, node) in groups.iter_mut().flat_map(|group| &mut group.nodes).enumerate() {
            node.namespace = self.net.as_ref().map(|net| net.namespace(machine));
        }
        Mesh {
            groups,
            links: self.links,
            scratch,
            net: self.net,
            _ports: ports,
        }
    }
}

impl Mesh {
    /// A single group without a mesh.
    #[track_caller]
    pub fn one_group(test: &str, nodes: usize) -> Self {
        MeshBuilder::new(test).group("north", nodes).start()
    }

    /// `north` and `south`, three nodes each, linked.
    #[track_caller]
    pub fn two_groups(test: &str, discovery: Discovery) -> Self {
        MeshBuilder::new(test)
            .group("north", 3)
            .group("south", 3)
            .link(0, 1)
            .discovery(discovery)
            .start()
    }

    /// Where configuration and logs are.
    pub fn dir(&self) -> &Path {
        self.scratch.path()
    }

    /// Waits until both ends of each link say that it is up.
    #[track_caller]
    pub fn wait_linked(&self) -> Duration {
        let mut longest = Duration::ZERO;
        for &(one, other) in self.links.iter().filter(|(one, other)| one != other) {
            for (from, to) in [(one, other), (other, one)] {
                longest = longest.max(self.wait_link(from, to));
            }
        }
        longest
    }

    #[track_caller]
    fn wait_link(&self, from: usize, to: usize) -> Duration {
        let what = format!("{} is linked to {}", self.groups[from].name, self.groups[to].name);
        wait_until(&what, LINK_MAX, || self.linked_to(from, to).is_some())
    }

    /// The node of group `to` with which the master of group `from` is linked, as that one sees it.
    #[track_caller]
    pub fn linked_to(&self, from: usize, to: usize) -> Option<u64> {
        let links = self.links_of(from).into_iter();
        let mut up = links.filter(|link| link["peer"] == *self.groups[to].name && link["state"] == "up");
        up.next()?["node"].as_u64()
    }

    /// All links of a group, and all attempts at one.
    #[track_caller]
    pub fn links_of(&self, at: usize) -> Vec<Value> {
        let status = self.groups[at].status();
        status["master"]["mesh"]["links"]
            .as_array()
            .cloned()
            .unwrap_or_default()
    }

    /// Waits until group `at` knows of so many consumers of a destination in other groups.
    #[track_caller]
    pub fn wait_demand(&self, at: usize, destination: &str, consumers: u64) -> Duration {
        let group = &self.groups[at];
        let what = format!(
            "{} knows of {consumers} consumers of {destination} elsewhere",
            group.name
        );
        wait_until(&what, LINK_MAX, || self.demand(at, destination) == consumers)
    }

    /// Consumers of a destination in other groups, as group `at` knows them.
    #[track_caller]
    pub fn demand(&self, at: usize, destination: &str) -> u64 {
        let status = self.groups[at].status();
        let demand = status["master"]["mesh"]["demand"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        let rows = demand.iter().filter(|row| row["destination"] == destination);
        rows.flat_map(|row| row["groups"].as_array().cloned().unwrap_or_default())
            .filter_map(|group| group["consumers"].as_u64())
            .sum()
    }

    /// Messages that group `at` has sent over its links in this term of its master, repeats included.
    #[track_caller]
    pub fn sent(&self, at: usize) -> u64 {
        self.links_of(at).iter().filter_map(|link| link["sent"].as_u64()).sum()
    }

    /// Waits until so many different messages were received, every queue of this name is empty and nothing is on its
    /// way: from here on nothing can be delivered any more, and whatever is not settled is lost. (An acknowledgement may count although its receipt was lost
    /// with a master, so confirmed ones cannot be waited for.)
    #[track_caller]
    pub fn drain(&self, history: &History, received: usize, queues: &[&str], deadline: Duration) {
        wait_until("everything is received", deadline, || history.received() >= received);
        for group in &self.groups {
            for queue in queues {
                wait_until(&format!("{queue} in {} is empty", group.name), deadline, || {
                    group.messages(queue) == 0
                });
            }
        }
        self.wait_nothing_in_doubt();
    }

    /// Waits until nothing is on its way between groups.
    #[track_caller]
    pub fn wait_nothing_in_doubt(&self) {
        for group in &self.groups {
            wait_until(&format!("{} has nothing in doubt", group.name), LINK_MAX, || {
                group.status()["master"]["mesh"]["in_doubt"]
                    .as_array()
                    .is_none_or(Vec::is_empty)
            });
        }
    }
}
