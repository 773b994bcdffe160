//! The mesh between groups, as this node runs it: discovery and one QUIC endpoint for as long as the node lives, links
//! and bridges while it is master, a redirector while it is not.

use std::{
    collections::hash_map::RandomState,
    hash::BuildHasher,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::Context;
use ferrymq_broker::{Broker, GroupId, Life};
use ferrymq_conf::Node;
use ferrymq_discovery::{Announcement, Candidate, Discovery, Stats, Uri};
use ferrymq_forwarding::{Config, Driver, Input, PeerCandidate};
use ferrymq_replication::{Group, Role};
use ferrymq_transport::{LinkEndpoint, Refusals};
use serde_json::{Value, json};
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
};

use crate::{boot, clock, leader::MeshPort, renewal};

/// Starts the mesh of each term. Cheap to clone.
#[derive(Clone)]
pub(crate) struct MeshStarter {
    /// None where this node has nothing by which other groups could trust it.
    links: Option<Arc<Links>>,
    discovery: DiscoveryView,
}

/// What lives as long as the node.
struct Links {
    endpoint: Arc<LinkEndpoint>,
    /// Everyone whom discovery knows.
    peers: watch::Receiver<Vec<PeerCandidate>>,
    /// Where the master's links are, for those who dial a slave.
    master: watch::Receiver<Vec<String>>,
    redirector: Mutex<Option<Driver>>,
    group: String,
    node: u64,
    /// The replica, and where its data are.
    replica: Group,
    data: PathBuf,
    excluded: Vec<String>,
    included: Vec<String>,
}

/// The tasks of one term's mesh; they end when this is dropped, and the redirector takes their place.
pub(crate) struct RunningMesh {
    links: Arc<Links>,
    driver: Option<Driver>,
    feeders: Vec<JoinHandle<()>>,
}

/// How often the group's id and this node's role are looked at for announcements.
const ANNOUNCE_LOOK: Duration = Duration::from_millis(100);

impl MeshStarter {
    /// Binds the endpoint and starts looking for others.
    ///
    /// # Errors
    /// Where the port is taken or the certificate cannot be used.
    pub(crate) async fn start(node: &Node, group: &Group) -> anyhow::Result<Self> {
        let (stats, stats_seen) = watch::channel(None);
        let discovery = DiscoveryView { stats: stats_seen };
        let (Some(listen), Some(identity)) = (node.listen.link, boot::link_identity(node)?) else {
            return Ok(Self { links: None, discovery });
        };
        let endpoint = LinkEndpoint::bind(listen, &identity)
            .with_context(|| format!("cannot listen for other groups on {listen} (UDP); see [listen] link"))?;
        let uris = parse_uris(node)?;
        let secret_key = boot::mesh_secret(node)?.map(|secret| secret.announcement_key());
        let (peers_sender, peers) = watch::channel(Vec::new());
        let (master_sender, master) = watch::channel(Vec::new());
        let advertised: Vec<String> = node.me().link.clone().into_iter().collect();
        tokio::spawn(follow_master(group.clone(), master_sender));
        tokio::spawn(discover(Looking {
            group: group.clone(),
            name: node.group.clone(),
            node: node.node,
            endpoints: resolve(&advertised, listen).await,
            config: ferrymq_discovery::Config {
                uris,
                secret_key,
                ..ferrymq_discovery::Config::default()
            },
            peers: peers_sender,
            stats,
        }));
        let connectors = &node.mesh.connectors;
        let links = Arc::new(Links {
            endpoint: Arc::new(endpoint),
            peers,
            master,
            redirector: Mutex::new(None),
            group: node.group.clone(),
            node: node.node,
            replica: group.clone(),
            data: node.data.clone(),
            excluded: connectors.iter().flat_map(|c| c.excluded.clone()).collect(),
            // A connector that takes everything makes the others' lists moot.
            included: if connectors.iter().any(|c| c.included.is_empty()) {
                Vec::new()
            } else {
                connectors.iter().flat_map(|c| c.included.clone()).collect()
            },
        });
        links.redirect();
        Ok(Self {
            links: Some(links),
            discovery,
        })
    }

    /// Links refused by this node; none where it has no port for them.
    pub(crate) fn refusals(&self) -> Option<Arc<Refusals>> {
        self.links.as_ref().map(|links| links.endpoint.refusals().clone())
    }

    /// What discovery has heard, for status.
    pub(crate) fn discovery(&self) -> DiscoveryView {
        self.discovery.clone()
    }

    /// Starts the links and bridges of a term. Must be called within the runtime.
    pub(crate) fn start_term(&self, group_id: GroupId, life: Life, term: u64) -> Option<MeshPort> {
        let links = self.links.clone()?;
        drop(links.take_redirector());
        let mut config = Config::new(links.group.clone(), group_id, links.node, term);
        config.life = life;
        config.excluded = links.excluded.clone();
        config.dynamically_included = links.included.clone();
        let seed = RandomState::new().hash_one(term);
        let (driver, inputs, output) = Driver::start(config, links.endpoint.clone(), seed);

        // The master's loop never waits for the mesh; what it tells is bounded by the credit that others give.
        let (input, mut told) = mpsc::unbounded_channel();
        let to_driver = inputs.clone();
        let tell = tokio::spawn(async move {
            while let Some(input) = told.recv().await {
                if to_driver.send(input).await.is_err() {
                    return;
                }
            }
        });
        let mut peers = links.peers.clone();
        let feed = tokio::spawn(async move {
            loop {
                let now = peers.borrow_and_update().clone();
                if inputs.send(Input::Peers(now)).await.is_err() || peers.changed().await.is_err() {
                    return;
                }
            }
        });
        let mut feeders = vec![tell, feed];
        if renewal::is_asked(&links.data) {
            // An error means that the mesh has ended already; the next term's will see it.
            let _ = input.send(Input::Renew);
            feeders.push(tokio::spawn(note_renewal(links.clone(), life)));
        }
        let running = RunningMesh {
            links,
            driver: Some(driver),
            feeders,
        };
        Some(MeshPort { input, output, running })
    }
}

impl Links {
    /// Tells whoever dials this slave where the master is.
    fn redirect(&self) {
        let redirector = Driver::redirector(self.endpoint.clone(), self.master.clone());
        *self.redirector.lock().unwrap_or_else(PoisonError::into_inner) = Some(redirector);
    }

    fn take_redirector(&self) -> Option<Driver> {
        self.redirector.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Drop for RunningMesh {
    fn drop(&mut self) {
        for feeder in &self.feeders {
            feeder.abort();
        }
        drop(self.driver.take());
        self.links.redirect();
    }
}

impl std::fmt::Debug for RunningMesh {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RunningMesh").finish_non_exhaustive()
    }
}

/// Waits until the new life that the operator asked for has begun, and forgets that it was asked for.
async fn note_renewal(links: Arc<Links>, before: Life) {
    let mut look = tokio::time::interval(ANNOUNCE_LOOK);
    while links.replica.with_broker(Broker::life) == before {
        look.tick().await;
    }
    if let Err(error) = renewal::done(&links.data) {
        tracing::warn!(%error, "the group will begin a new life at the next start too, for nothing");
    }
}

fn parse_uris(node: &Node) -> anyhow::Result<Vec<Uri>> {
    node.mesh
        .connectors
        .iter()
        .map(|connector| {
            Uri::parse(&connector.uri).with_context(|| format!("connector {:?}: {}", connector.name, connector.uri))
        })
        .collect()
}

/// The advertised `host:port` as addresses; where it does not resolve, the address listened on.
async fn resolve(advertised: &[String], listen: std::net::SocketAddr) -> Vec<std::net::SocketAddr> {
    let mut found = Vec::new();
    for endpoint in advertised {
        match tokio::net::lookup_host(endpoint).await {
            Ok(addresses) => found.extend(addresses),
            Err(error) => tracing::warn!(endpoint, %error, "the advertised link address does not resolve"),
        }
    }
    if found.is_empty() {
        found.push(listen);
    }
    found
}

/// Keeps the master's link addresses for the redirector.
async fn follow_master(group: Group, master: watch::Sender<Vec<String>>) {
    let mut role = group.role();
    loop {
        let endpoints = match &*role.borrow_and_update() {
            Role::Slave {
                master: Some((_, address)),
                ..
            } => address.link.clone().into_iter().collect(),
            _ => Vec::new(),
        };
        master.send_replace(endpoints);
        if role.changed().await.is_err() {
            return;
        }
    }
}

/// What discovery works with.
struct Looking {
    group: Group,
    name: String,
    node: u64,
    endpoints: Vec<std::net::SocketAddr>,
    config: ferrymq_discovery::Config,
    peers: watch::Sender<Vec<PeerCandidate>>,
    stats: watch::Sender<Option<Stats>>,
}

/// Announces this node and gathers the others, from when the group has its id until the node ends.
async fn discover(looking: Looking) {
    if looking.config.uris.is_empty() {
        return;
    }
    let mut look = tokio::time::interval(ANNOUNCE_LOOK);
    let mut announcement = loop {
        look.tick().await;
        let group_id = looking.group.with_broker(Broker::group);
        if group_id != 0 {
            break Announcement {
                group: looking.name.clone(),
                group_id,
                epoch: 0,
                node: looking.node,
                incarnation: clock::now_ms() as u64,
                is_master: false,
                is_dead: false,
                endpoints: looking.endpoints.clone(),
            };
        }
    };
    let (me, me_seen) = watch::channel(announcement.clone());
    let discovery = Discovery::start(looking.config, me_seen);
    let mut candidates = discovery.candidates();
    let role = looking.group.role();
    loop {
        let life = looking.group.with_broker(Broker::life);
        let (is_master, epoch) = {
            let role = role.borrow();
            (role.is_master(), life.epoch(role.term()))
        };
        if (announcement.is_master, announcement.epoch) != (is_master, epoch) {
            (announcement.is_master, announcement.epoch) = (is_master, epoch);
            me.send_replace(announcement.clone());
        }
        tokio::select! {
            _ = look.tick() => {
                looking.stats.send_replace(Some(discovery.stats()));
            }
            changed = candidates.changed() => {
                if changed.is_err() {
                    return;
                }
                let known = candidates.borrow_and_update().iter().filter_map(|c| to_peer(c, &looking.name)).collect();
                looking.peers.send_replace(known);
            }
        }
    }
}

/// What the mesh needs of a candidate; none for this group's own nodes.
fn to_peer(candidate: &Candidate, own: &str) -> Option<PeerCandidate> {
    if candidate.group.as_deref() == Some(own) {
        return None;
    }
    Some(PeerCandidate {
        group: candidate.group.clone(),
        group_id: candidate.group_id,
        endpoints: candidate.endpoints.iter().map(ToString::to_string).collect(),
    })
}

/// What discovery knows, for status.
#[derive(Clone)]
pub(crate) struct DiscoveryView {
    stats: watch::Receiver<Option<Stats>>,
}

impl DiscoveryView {
    pub(crate) fn to_json(&self) -> Value {
        match &*self.stats.borrow() {
            Some(stats) => json!({
                "sent": stats.sent,
                "received": stats.received,
                "malformed": stats.malformed,
                "unauthenticated": stats.unauthenticated,
                "expired": stats.expired,
                "table_full": stats.table_full,
            }),
            None => Value::Null,
        }
    }
}
