//! Announces and listens by mDNS, as service `_ferrymq._udp.local.`, with what a node says in the TXT record.
//!
//! TXT: `v` 1, `mesh`, `group`, `id`, `epoch`, `node`, `inc`arnation, `role` master or slave, `ep0` … endpoints, and
//! `tag` in hexadecimal, over the same bytes as in a datagram. A node that stops says so; one that is killed is
//! forgotten when its records run out, after two minutes.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use mdns_sd::{IfKind, Receiver, ResolvedService, ServiceDaemon, ServiceEvent, ServiceInfo};
use tokio::time::{Instant, sleep_until};

use crate::agent::Surroundings;
use crate::announcement::{Announcement, ENDPOINTS_MAX, NAME_BYTES_MAX, NotForUs, TAG_BYTES, TagKey};
use crate::interfaces::ipv4_interfaces;
use crate::peers::{Report, Source};
use crate::stats::Counters;
use crate::uri::MdnsUri;

/// One agent for each mDNS URI.
pub(crate) struct Mdns {
    uri: MdnsUri,
    around: Surroundings,
    daemon: ServiceDaemon,
    /// By full name of the service, whom it announced, for when it is removed.
    heard: BTreeMap<String, Announcement>,
    heard_max: usize,
}

/// mDNS's port (RFC 6762).
pub(crate) const MDNS_PORT: u16 = 5353;

impl Mdns {
    /// Runs until told to stop.
    pub(crate) async fn run(uri: MdnsUri, around: Surroundings, port: u16, heard_max: usize) {
        let daemon = match start(&uri, port) {
            Ok(daemon) => daemon,
            Err(error) => {
                tracing::warn!(error, "no discovery by mDNS");
                return;
            }
        };
        let mut me = around.me.clone();
        let mut stopping = around.clone();
        let mut agent = Self {
            uri,
            around,
            daemon,
            heard: BTreeMap::new(),
            heard_max,
        };
        let mut events = agent.browse();
        let mut next_repeat = Instant::now() + REPEAT_PERIOD;
        let (mut next_register, mut last_registered) = (Some(Instant::now()), None::<Instant>);
        loop {
            tokio::select! {
                biased;
                () = stopping.stopped() => break,
                Ok(()) = me.changed() => {
                    let now = Instant::now();
                    next_register = Some(last_registered.map_or(now, |last| now.max(last + REGISTER_GAP)));
                }
                () = at(next_register) => {
                    last_registered = Some(Instant::now());
                    next_register = if agent.register() { None } else { last_registered.map(|now| now + RETRY) };
                }
                () = sleep_until(next_repeat) => {
                    agent.repeat().await;
                    next_repeat = Instant::now() + REPEAT_PERIOD;
                }
                event = next(events.as_ref()) => match event {
                    Some(event) => agent.hear(event).await,
                    // The daemon closes the channel of a receiver that fell behind.
                    None => {
                        tokio::time::sleep(RETRY).await;
                        events = agent.browse();
                    }
                },
            }
        }
        agent.leave().await;
    }

    fn browse(&self) -> Option<Receiver<ServiceEvent>> {
        // A second search for one service would take the first one's place, and is told what is known already.
        let _ = self.daemon.stop_browse(SERVICE);
        self.daemon
            .browse(SERVICE)
            .inspect_err(|error| tracing::debug!(%error, "cannot search by mDNS now"))
            .ok()
    }

    /// Says what there is to say; false if it must be tried again.
    fn register(&self) -> bool {
        if !self.around.announce {
            return true;
        }
        let me = self.around.me.borrow().clone();
        let registered =
            service(&me, &self.uri.group, self.around.key.as_ref()).and_then(|service| self.daemon.register(service));
        match registered {
            Ok(()) => {
                Counters::add(&self.around.counters.sent, 1);
                true
            }
            Err(error) => {
                tracing::debug!(%error, "cannot announce by mDNS now");
                false
            }
        }
    }

    async fn hear(&mut self, event: ServiceEvent) {
        match event {
            ServiceEvent::ServiceResolved(service) => {
                let read = read(&service, &self.uri.group, self.around.key.as_ref());
                if let Ok(announcement) = &read {
                    // The same is reported for each interface and address family.
                    if self.heard.get(&service.fullname) == Some(announcement) {
                        return;
                    }
                    if self.heard.len() >= self.heard_max && !self.heard.contains_key(&service.fullname) {
                        Counters::add(&self.around.counters.table_full, 1);
                        return;
                    }
                    self.heard.insert(service.fullname.clone(), announcement.clone());
                }
                self.around.hear_surely(read, Source::Mdns).await;
            }
            ServiceEvent::ServiceRemoved(_, fullname) => {
                if let Some(Announcement {
                    group, group_id, node, ..
                }) = self.heard.remove(&fullname)
                {
                    let source = Source::Mdns;
                    self.around
                        .report_surely(Report::Gone {
                            source,
                            group,
                            group_id,
                            node,
                        })
                        .await;
                }
            }
            _ => {}
        }
    }

    /// Says again what is known, since each service is told only once: the table may have been full then.
    async fn repeat(&self) {
        for announcement in self.heard.values() {
            self.around.hear_surely(Ok(announcement.clone()), Source::Mdns).await;
        }
    }

    async fn leave(self) {
        let full_name = format!("{}.{SERVICE}", instance(&self.around.me.borrow()));
        if let Ok(done) = self.daemon.unregister(&full_name) {
            let _ = tokio::time::timeout(LEAVE_TIMEOUT, done.recv_async()).await;
        }
        if let Ok(done) = self.daemon.shutdown() {
            let _ = tokio::time::timeout(LEAVE_TIMEOUT, done.recv_async()).await;
        }
    }
}

async fn at(when: Option<Instant>) {
    match when {
        Some(when) => sleep_until(when).await,
        None => std::future::pending().await,
    }
}

async fn next(events: Option<&Receiver<ServiceEvent>>) -> Option<ServiceEvent> {
    events?.recv_async().await.ok()
}

/// A daemon on the chosen interfaces only: it would use all, those of containers too.
fn start(uri: &MdnsUri, port: u16) -> Result<ServiceDaemon, String> {
    let interfaces = ipv4_interfaces(uri.interface.as_deref()).map_err(|error| error.to_string())?;
    if interfaces.is_empty() {
        return Err(format!(
            "there is no interface '{}'",
            uri.interface.as_deref().unwrap_or("any")
        ));
    }
    let chosen: Vec<IfKind> = interfaces
        .into_values()
        .map(|ip| IfKind::Addr(IpAddr::V4(ip)))
        .collect();
    let daemon = ServiceDaemon::new_with_port(port).map_err(|error| error.to_string())?;
    daemon
        .disable_interface(IfKind::All)
        .and_then(|()| daemon.enable_interface(chosen))
        .map_err(|error| error.to_string())?;
    Ok(daemon)
}

/// A DNS label, so shorter than a group's name may be.
fn instance(me: &Announcement) -> String {
    format!("n{}-{:x}", me.node, me.group_id)
}

fn service(me: &Announcement, mesh: &str, key: Option<&TagKey>) -> Result<ServiceInfo, mdns_sd::Error> {
    let mut txt = vec![
        ("v".to_owned(), VERSION.to_owned()),
        ("mesh".to_owned(), mesh.to_owned()),
        ("group".to_owned(), me.group.clone()),
        ("id".to_owned(), me.group_id.to_string()),
        ("epoch".to_owned(), me.epoch.to_string()),
        ("node".to_owned(), me.node.to_string()),
        ("inc".to_owned(), me.incarnation.to_string()),
        (
            "role".to_owned(),
            if me.is_master { MASTER } else { "slave" }.to_owned(),
        ),
    ];
    for (place, endpoint) in me.endpoints.iter().take(ENDPOINTS_MAX).enumerate() {
        txt.push((format!("ep{place}"), endpoint.to_string()));
    }
    if let Some(key) = key {
        txt.push((
            "tag".to_owned(),
            me.tag(mesh, key).iter().map(|byte| format!("{byte:02x}")).collect(),
        ));
    }
    let port = me.endpoints.first().map_or(0, SocketAddr::port);
    let name = instance(me);
    let service = ServiceInfo::new(SERVICE, &name, &format!("ferrymq-{name}.local."), "", port, &txt[..])?;
    Ok(service.enable_addr_auto())
}

fn read(service: &ResolvedService, mesh: &str, key: Option<&TagKey>) -> Result<Announcement, NotForUs> {
    let text = |name: &str| service.get_property_val_str(name);
    let number = |name: &str| text(name).and_then(|text| text.parse().ok()).ok_or(NotForUs::Malformed);
    if text("v") != Some(VERSION) {
        return Err(NotForUs::Version);
    }
    if text("mesh") != Some(mesh) {
        return Err(NotForUs::OtherMesh);
    }
    let group = text("group")
        .filter(|group| (1..=NAME_BYTES_MAX).contains(&group.len()))
        .ok_or(NotForUs::Malformed)?;
    let mut announcement = Announcement {
        group: group.to_owned(),
        group_id: number("id")?,
        epoch: number("epoch")?,
        node: number("node")?,
        incarnation: number("inc")?,
        is_master: text("role") == Some(MASTER),
        is_dead: false,
        endpoints: (0..ENDPOINTS_MAX)
            .map_while(|place| text(&format!("ep{place}")))
            .map(|endpoint| endpoint.parse().map_err(|_| NotForUs::Malformed))
            .collect::<Result<_, _>>()?,
    };
    if let Some(key) = key {
        let tag = text("tag").and_then(unhex);
        if tag.is_none_or(|tag| !announcement.has_tag(mesh, key, &tag)) {
            return Err(NotForUs::Unauthenticated);
        }
    }
    // Where it listens on every address, these are what mDNS says of the host.
    let mut hosts: Vec<IpAddr> = service.get_addresses_v4().into_iter().map(IpAddr::V4).collect();
    hosts.sort_unstable();
    announcement.endpoints = announcement
        .endpoints
        .iter()
        .flat_map(|endpoint| match endpoint.ip().is_unspecified() {
            true => hosts
                .iter()
                .map(|host| SocketAddr::new(*host, endpoint.port()))
                .collect(),
            false => vec![*endpoint],
        })
        .take(ENDPOINTS_MAX)
        .collect();
    Ok(announcement)
}

fn unhex(text: &str) -> Option<[u8; TAG_BYTES]> {
    let mut tag = [0; TAG_BYTES];
    if text.len() != 2 * TAG_BYTES || !text.is_ascii() {
        return None;
    }
    for (place, byte) in tag.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * place..2 * place + 2], 16).ok()?;
    }
    Some(tag)
}

const SERVICE: &str = "_ferrymq._udp.local.";
const VERSION: &str = "1";
const MASTER: &str = "master";
/// Least time between two announcements (RFC 6762 section 8.3).
const REGISTER_GAP: Duration = Duration::from_secs(1);
const REPEAT_PERIOD: Duration = Duration::from_secs(30);
const RETRY: Duration = Duration::from_secs(1);
const LEAVE_TIMEOUT: Duration = Duration::from_secs(1);
