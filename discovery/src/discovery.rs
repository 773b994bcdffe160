//! Runs the agents and keeps the merged picture of what they hear.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};

use crate::address::NodeAddress;
use crate::agent::Surroundings;
use crate::announcement::{Announcement, TagKey};
use crate::mdns::{MDNS_PORT, Mdns};
use crate::multicast::Multicast;
use crate::options::ReconnectOptions;
use crate::peers::{Candidate, Peers, Report, Taken};
use crate::statics;
use crate::stats::{Counters, Stats};
use crate::uri::Uri;

/// How to look for others.
#[derive(Clone)]
pub struct Config {
    /// Where to look, all at once.
    pub uris: Vec<Uri>,
    /// Whether to announce this node by multicast and mDNS too, or only to listen.
    pub announce: bool,
    /// The key of the announcements' tags; with one, only rightly tagged announcements are believed.
    pub secret_key: Option<[u8; 32]>,
    /// Name or address of the only interface for multicast and mDNS, where the URI names none.
    pub interface: Option<String>,
    /// Most announced nodes that are kept.
    pub candidates_max: usize,
    /// The UDP port of mDNS. Another one than 5353 is for tests.
    pub mdns_port: u16,
}

/// One entry of a fixed list.
#[derive(Debug, Clone, PartialEq)]
pub struct StaticList {
    /// Nodes of one group.
    pub nodes: Vec<NodeAddress>,
    /// How to come back to it.
    pub reconnect: ReconnectOptions,
}

/// The running agents. Dropping it stops them without a goodbye; see [`stop`](Self::stop).
#[derive(Debug)]
pub struct Discovery {
    candidates: watch::Receiver<Vec<Candidate>>,
    reports: mpsc::Sender<Report>,
    counters: Arc<Counters>,
    stop: watch::Sender<bool>,
    agents: JoinSet<()>,
    table: AbortHandle,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            uris: Vec::new(),
            announce: true,
            secret_key: None,
            interface: None,
            candidates_max: 1024,
            mdns_port: MDNS_PORT,
        }
    }
}

impl Config {
    /// The entries of all fixed lists, in the order of the URIs: what [`Candidate::static_list`] counts.
    pub fn static_lists(&self) -> Vec<StaticList> {
        let entries = |uri: &Uri| match uri {
            Uri::Static(uri) => uri
                .lists
                .iter()
                .map(|nodes| StaticList {
                    nodes: nodes.clone(),
                    reconnect: uri.reconnect.clone(),
                })
                .collect(),
            Uri::Multicast(_) | Uri::Mdns(_) => Vec::new(),
        };
        self.uris.iter().flat_map(entries).collect()
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("uris", &self.uris)
            .field("announce", &self.announce)
            .field("secret_key", &self.secret_key.map(|_| "…"))
            .field("interface", &self.interface)
            .field("candidates_max", &self.candidates_max)
            .finish_non_exhaustive()
    }
}

impl Discovery {
    /// Starts all agents. `me` is what this node says of itself; a change is announced soon. Must be called within a
    /// tokio runtime. An agent that cannot work (no interface, no socket) logs and tries again or ends.
    pub fn start(config: Config, me: watch::Receiver<Announcement>) -> Self {
        let (reports, reported) = mpsc::channel(REPORTS_MAX);
        let (greet, newcomers) = watch::channel(0);
        let (stop, stopping) = watch::channel(false);
        let (publish, candidates) = watch::channel(Vec::new());
        let counters = Arc::new(Counters::default());
        let key = config.secret_key.as_ref().map(TagKey::new);
        let own = (me.borrow().group.clone(), me.borrow().group_id);
        let peers = Peers::new(own, config.candidates_max, key.is_some());
        let around = Surroundings {
            me,
            announce: config.announce,
            key,
            reports: reports.clone(),
            newcomers,
            counters: counters.clone(),
            stop: stopping,
        };
        let mut agents = JoinSet::new();
        for (place, list) in config.static_lists().into_iter().enumerate() {
            agents.spawn(statics::run(place, list.nodes, around.clone()));
        }
        for uri in config.uris {
            match uri {
                Uri::Static(_) => {}
                Uri::Multicast(mut uri) => {
                    uri.interface = uri.interface.or_else(|| config.interface.clone());
                    agents.spawn(Multicast::run(uri, around.clone()));
                }
                Uri::Mdns(mut uri) => {
                    uri.interface = uri.interface.or_else(|| config.interface.clone());
                    agents.spawn(Mdns::run(uri, around.clone(), config.mdns_port, config.candidates_max));
                }
            }
        }
        let table = Table {
            peers,
            counters: counters.clone(),
            greet,
            publish,
        };
        let table = tokio::spawn(table.run(reported)).abort_handle();
        Self {
            candidates,
            reports,
            counters,
            stop,
            agents,
            table,
        }
    }

    /// The merged picture, which changes whenever it does.
    pub fn candidates(&self) -> watch::Receiver<Vec<Candidate>> {
        self.candidates.clone()
    }

    /// Tells whose a fixed list is, as a link to it has proven; its candidate is then merged with what that group
    /// announces, or vanishes if it is the own group.
    pub async fn identified(&self, list: usize, group: &str, group_id: u64) {
        let known = Report::Known {
            list,
            group: group.to_owned(),
            group_id,
        };
        // Fails only while the runtime is going down.
        let _ = self.reports.send(known).await;
    }

    /// The counters.
    pub fn stats(&self) -> Stats {
        self.counters.read()
    }

    /// Says goodbye, so that others forget this node at once, and stops.
    pub async fn stop(mut self) {
        let _ = self.stop.send(true);
        let goodbye = async { while self.agents.join_next().await.is_some() {} };
        if tokio::time::timeout(STOP_TIMEOUT, goodbye).await.is_err() {
            tracing::warn!("discovery did not stop in time");
        }
    }
}

impl Drop for Discovery {
    fn drop(&mut self) {
        self.table.abort();
    }
}

/// The owner of the merged picture.
struct Table {
    peers: Peers,
    counters: Arc<Counters>,
    greet: watch::Sender<u64>,
    publish: watch::Sender<Vec<Candidate>>,
}

impl Table {
    async fn run(mut self, mut reported: mpsc::Receiver<Report>) {
        loop {
            let expiry = self.peers.next_expiry();
            let expired = async {
                match expiry {
                    Some(when) => tokio::time::sleep_until(when.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                report = reported.recv() => {
                    let Some(report) = report else { return };
                    self.take(report);
                    // What has come meanwhile belongs into the same picture.
                    while let Ok(report) = reported.try_recv() {
                        self.take(report);
                    }
                }
                () = expired => {}
            }
            Counters::add(&self.counters.expired, self.peers.expire(Instant::now()));
            let picture = self.peers.candidates();
            self.publish.send_if_modified(|published| {
                let changed = *published != picture;
                *published = picture;
                changed
            });
        }
    }

    fn take(&mut self, report: Report) {
        match report {
            Report::Heard {
                announcement,
                source,
                lifetime,
            } => match self.peers.heard(announcement, source, lifetime, Instant::now()) {
                Taken::New => self.greet.send_modify(|newcomers| *newcomers += 1),
                Taken::Full => Counters::add(&self.counters.table_full, 1),
                Taken::Known | Taken::Old => {}
            },
            Report::Gone {
                source,
                group,
                group_id,
                node,
            } => self.peers.gone(source, group, group_id, node),
            Report::Resolved { list, endpoints } => self.peers.resolved(list, endpoints),
            Report::Known { list, group, group_id } => self.peers.known(list, group, group_id),
        }
    }
}

/// Reports that wait for the table; a flood is dropped and counted.
const REPORTS_MAX: usize = 256;
const STOP_TIMEOUT: Duration = Duration::from_secs(3);
