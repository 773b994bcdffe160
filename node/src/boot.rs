//! From a checked configuration to a serving node, in the order in which things must come up; the end is its mirror.

use std::{collections::BTreeMap, fs, sync::Arc, time::Duration};

use anyhow::{Context, bail};
use ferrymq_broker::Settings;
use ferrymq_conf::{BacklogFull, Member, Node, Sync, Timestamps};
use ferrymq_console::Console;
use ferrymq_dispatch::Limits;
use ferrymq_journal::Journal;
use ferrymq_message::Destination;
use ferrymq_protocol::stomp::StompLimits;
use ferrymq_replication::{Group, NodeAddress, PeerDial};
use ferrymq_transport::{Identity, MeshSecret, PeerAuth, PeerListener, PeerName, PemFiles};
use tokio::sync::watch;

use crate::{
    access,
    admin::NodeSource,
    clock,
    connection::ConnectionLimits,
    door::{DOOR, Door},
    doorkeeper::Doorkeeper,
    files, footprint, hangup,
    leader::{LeaderConfig, Stamps, WhenFull},
    listener,
    load::Load,
    memory::Memory,
    mesh::MeshStarter,
    places::Places,
    terms,
    turned_away::TurnedAway,
    warden,
};

/// Bytes that one client may have sent and not had answered.
const UNANSWERED_BYTES_MAX: usize = 1 << 20;

/// Runs a node until it is told to stop or cannot go on.
///
/// # Errors
/// With what is wrong and how to cure it.
pub(crate) async fn run(node: Node) -> anyhow::Result<()> {
    footprint::prefer_small_pages();
    hangup::outlive();
    // 1. Every port first: a port in use must not be found out after the journal was opened.
    let auth = peer_auth(&node)?;
    let keeper = Arc::new(Doorkeeper::new(access::access(&node)?)?);
    let tls = access::tls_door(&node)?;
    let mut clients = Vec::new();
    for (name, address, tls) in [
        ("STOMP clients", node.listen.stomp, None),
        ("STOMP clients over TLS", node.listen.stomp_tls, tls.clone()),
    ] {
        if let Some(address) = address {
            clients.push((listener::bind(name, address).await?, tls));
        }
    }
    let peers = match node.listen.peer {
        Some(address) => Some(bind_peers(address, &auth).await?),
        None => None,
    };
    let console = bind_console(&node).await?;

    // 2. What is on disk.
    let journal = open_journal(&node)?;

    // 3. The group.
    let config = group_config(&node);
    let dial = Arc::new(PeerDial::new(
        auth.clone(),
        Duration::from_millis(config.dial_timeout_ms),
    ));
    let (group, events) = Group::start(config, journal, Settings::default(), dial)
        .await
        .with_context(|| format!("node {} of group {:?} cannot start", node.node, node.group))?;

    // 4. The mesh, and the doors.
    let load = Arc::new(Load::new(Memory::new(
        node.limits.memory_bytes_max as usize,
        node.limits.frame_bytes_max as usize,
    )));
    let places = Places::new(
        files::connections_max(&node),
        node.limits.connections_per_address_max as usize,
        load.clone(),
    );
    tokio::spawn(warden::run(load.clone()));
    let (current_sender, current) = watch::channel(None);
    let door = Door::new(
        current.clone(),
        group.role(),
        auth.clone(),
        keeper.clone(),
        ConnectionLimits {
            unanswered_bytes_max: UNANSWERED_BYTES_MAX,
            outbox_bytes_max: node.limits.outbox_bytes_max as usize,
            load: load.clone(),
            lease: {
                let group = group.clone();
                Arc::new(move || group.lease_valid())
            },
        },
        places.clone(),
        stomp_limits(&node),
        session_prefix(&node),
    );
    let mesh = MeshStarter::start(&node, &group).await?;
    let turned_away = TurnedAway {
        peer: auth.refusals().clone(),
        link: mesh.refusals(),
        stomp_tls: tls.map(|tls| tls.refusals().clone()),
        admin: console.as_ref().map(Console::cuts).unwrap_or_default(),
    };
    let source = Arc::new(NodeSource::new(
        group.clone(),
        current,
        mesh.discovery(),
        keeper.clone(),
        turned_away,
        load.clone(),
        places,
    ));
    if let Some(peers) = peers {
        tokio::spawn(serve_peers(peers, group.clone(), door.clone()));
    }
    for (listener, tls) in clients {
        tokio::spawn(listener::serve(listener, tls, door.clone(), load.clone()));
    }
    if let Some(console) = console {
        tokio::spawn(async move {
            if let Err(error) = console.serve(source, keeper, std::future::pending()).await {
                tracing::error!(%error, "the admin port has failed");
            }
        });
    }
    tracing::info!(group = node.group, node = node.node, "ready");

    // 5. The terms of this node, until it ends.
    let terms = terms::run(group.clone(), events, leader_config(&node, load)?, mesh, current_sender);
    tokio::select! {
        why = terms => bail!("{why}"),
        signal = stop_signal() => {
            tracing::info!(signal, "stopping");
            stop(&node, group).await;
            Ok(())
        }
    }
}

/// Hands mastership over, if there is anybody to take it, and closes the journal.
async fn stop(node: &Node, group: Group) {
    if group.role().borrow().is_master() && !node.is_alone() {
        match tokio::time::timeout(node.timers.shutdown, group.step_down(None)).await {
            Ok(Ok(to)) => tracing::info!(to, "mastership handed over"),
            Ok(Err(error)) => tracing::warn!(%error, "mastership could not be handed over"),
            Err(_) => tracing::warn!("mastership was not handed over in time"),
        }
    }
    if tokio::time::timeout(node.timers.shutdown, group.shutdown())
        .await
        .is_err()
    {
        tracing::warn!("the replica did not stop in time");
    }
}

async fn stop_signal() -> &'static str {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut terminate), Ok(mut interrupt)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    }
}

/// Passes each connection from another node of the group to whom it is for.
async fn serve_peers(mut peers: PeerListener, group: Group, door: Door) {
    loop {
        let connection = peers.accept().await;
        let (group, door) = (group.clone(), door.clone());
        tokio::spawn(async move {
            if connection.purpose == DOOR {
                door.enter_carried(connection.stream).await;
            } else if ferrymq_replication::purpose::is_replication(connection.purpose) {
                group
                    .serve(connection.purpose, connection.peer, connection.stream)
                    .await;
            } else {
                tracing::debug!(purpose = connection.purpose.0, "a peer wants something unknown");
            }
        });
    }
}

fn peer_auth(node: &Node) -> anyhow::Result<PeerAuth> {
    let mut auth = PeerAuth::new(PeerName::new(node.group.clone(), node.node)?);
    if node.mesh.certificates.is_some()
        && let Some(identity) = link_identity(node)?
    {
        auth = auth.with_tls(&identity)?;
    }
    if let Some(secret) = mesh_secret(node)? {
        auth = auth.with_secret(&secret);
    }
    Ok(auth)
}

/// The mesh secret, where one is configured.
pub(crate) fn mesh_secret(node: &Node) -> anyhow::Result<Option<MeshSecret>> {
    node.mesh
        .secret
        .as_ref()
        .map(|secret| Ok(MeshSecret::new(secret.expose())?))
        .transpose()
}

/// By what this node is known to other groups; none where there is nothing to trust each other by.
pub(crate) fn link_identity(node: &Node) -> anyhow::Result<Option<Identity>> {
    let name = PeerName::new(node.group.clone(), node.node)?;
    if let Some(files) = &node.mesh.certificates {
        let files = PemFiles {
            certificate: files.certificate.clone(),
            key: files.key.clone(),
            authorities: files.ca.clone(),
        };
        return Ok(Some(Identity::from_pem(name, &files)?));
    }
    match mesh_secret(node)? {
        Some(secret) => Ok(Some(Identity::from_secret(name, &secret)?)),
        None => Ok(None),
    }
}

async fn bind_peers(address: std::net::SocketAddr, auth: &PeerAuth) -> anyhow::Result<PeerListener> {
    PeerListener::bind(address, auth.clone())
        .await
        .with_context(|| format!("cannot listen for the other nodes of the group on {address}; see [listen] peer"))
}

async fn bind_console(node: &Node) -> anyhow::Result<Option<Console>> {
    let Some(listen) = node.listen.admin else {
        return Ok(None);
    };
    let console = Console::bind(ferrymq_console::Config {
        listen,
        hosts: Vec::new(),
    })
    .await
    .with_context(|| format!("cannot listen for administration on {listen}; see [listen] admin"))?;
    Ok(Some(console))
}

fn open_journal(node: &Node) -> anyhow::Result<Journal> {
    let dir = node.data.join("journal");
    fs::create_dir_all(&dir).with_context(|| {
        format!(
            "the data directory {} cannot be made; correct `data` or its permissions",
            node.data.display()
        )
    })?;
    let config = ferrymq_journal::Config {
        segment_bytes: node.store.segment_bytes,
        cache_bytes_max: node.store.cache_bytes_max as usize,
        sync: matches!(node.store.sync, Sync::QuorumDisk | Sync::LocalDisk),
        ..ferrymq_journal::Config::new(&dir)
    };
    Ok(Journal::open(config)?)
}

fn group_config(node: &Node) -> ferrymq_replication::Config {
    let members: BTreeMap<u64, NodeAddress> = node.members.iter().map(|(&id, member)| (id, address(member))).collect();
    let millis = |duration: Duration| duration.as_millis() as u64;
    ferrymq_replication::Config {
        sync: match node.store.sync {
            Sync::QuorumDisk => ferrymq_replication::Sync::QuorumDisk,
            Sync::QuorumMem => ferrymq_replication::Sync::QuorumMem,
            Sync::LocalDisk => ferrymq_replication::Sync::LocalDisk,
            Sync::LocalMem => ferrymq_replication::Sync::LocalMem,
        },
        heartbeat_ms: millis(node.timers.heartbeat),
        election_timeout_min_ms: millis(node.timers.election_min),
        election_timeout_max_ms: millis(node.timers.election_max),
        fast_failover: node.timers.fast_failover,
        snapshot_log_bytes: node.store.snapshot_log_bytes,
        // A store with small thresholds would otherwise never be smaller than the log kept for slaves that lag.
        log_keep_bytes: node.store.snapshot_log_bytes / 4,
        // Producers wait long before, see `store_reserve_bytes`: what is left is for acknowledgements.
        disk_reserve_bytes: node.store.segment_bytes,
        // Beyond what the journal calls room for a message, which is two segments.
        disk_short_bytes: store_reserve_bytes(node) + 4 * node.store.segment_bytes,
        store_limit_bytes: node.store.limit_bytes,
        ..ferrymq_replication::Config::new(node.group.clone(), node.node, members, node.data.clone())
    }
}

/// Disk that must stay free for producers to go on, in bytes.
fn store_reserve_bytes(node: &Node) -> u64 {
    node.store.reserve_bytes.max(2 * node.store.segment_bytes) + node.limits.transaction_bytes_max
}

/// A member's addresses as the group keeps them.
pub(crate) fn address(member: &Member) -> NodeAddress {
    NodeAddress {
        peer: member.peer.clone(),
        clients: member
            .stomp
            .iter()
            .map(|stomp| ("stomp".to_owned(), stomp.clone()))
            .collect(),
        link: member.link.clone(),
        admin: member.admin.clone(),
        provisional: false,
    }
}

fn leader_config(node: &Node, load: Arc<Load>) -> anyhow::Result<LeaderConfig> {
    let dead_letter_queue = node.limits.dead_letter_queue.parse::<Destination>().with_context(|| {
        format!(
            "[limits] dead_letter_queue = {:?} is not a destination",
            node.limits.dead_letter_queue
        )
    })?;
    Ok(LeaderConfig {
        dispatch: Limits {
            redeliveries_max: u16::try_from(node.limits.redeliveries_max).unwrap_or(u16::MAX - 1),
            dead_letter_queue,
            expired_to_dead_letter: node.limits.expired_to_dead_letter,
            direct_bytes_max: (node.limits.memory_bytes_max / 4) as usize,
            ..Limits::default()
        },
        outbox_bytes_max: node.limits.outbox_bytes_max as usize,
        transaction_bytes_max: node.limits.transaction_bytes_max as usize,
        store_bytes_max: node.store.limit_bytes,
        store_reserve_bytes: store_reserve_bytes(node),
        destinations_max: node.limits.destinations_max as usize,
        backlog_bytes_max: node.limits.backlog_bytes_max,
        group_backlog_bytes_max: node.mesh.backlog_bytes_max,
        group_backlog_when_full: match node.mesh.backlog_full {
            BacklogFull::Wait => WhenFull::Wait,
            BacklogFull::Refuse => WhenFull::Refuse,
        },
        topic_linger_ms: node.mesh.topic_linger.as_millis() as u64,
        stamps: stamps(node),
        load,
    })
}

fn stamps(node: &Node) -> Stamps {
    let ms = |life: Option<Duration>| life.map_or(0, |life| life.as_millis() as i64);
    match node.clients.timestamps {
        Timestamps::Client => Stamps::Client,
        Timestamps::Broker => Stamps::Broker {
            lives_ms: ms(node.clients.time_to_live),
            lives_max_ms: ms(node.clients.time_to_live_max),
        },
    }
}

fn stomp_limits(node: &Node) -> StompLimits {
    StompLimits {
        frame_bytes_max: node.limits.frame_bytes_max as usize,
        prefetch_queue: node.limits.prefetch,
        connect_timeout_ms: node.limits.login_wait.as_millis() as u64,
        ..StompLimits::default()
    }
}

/// Unique for each start of each node, because message ids begin with it.
fn session_prefix(node: &Node) -> String {
    format!("ID:{}-{}-{:x}", node.group, node.node, clock::now_ms())
}
