//! The file as written → [`Node`]: every section, key, default and limit, in the order in which a reader meets them.
//! Rules that compare keys with each other are in [`crate::check`].

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use toml::de::DeValue;

use crate::{
    node::{
        BacklogFull, Certificates, Clients, Limits, Listen, Log, Member, Mesh, Node, Secret, Store, Sync, Timers,
        Timestamps,
    },
    section::{Entry, Raw, Section},
    values, written_access,
    written_connectors::connectors,
};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// A node's number: small enough to be typed, large enough never to be used twice.
const NODE_MAX: u64 = 65_535;

/// The whole file. What is missing or wrong is reported and stands at its default, so that one run finds everything.
pub(crate) fn node(root: &Section<'_>) -> Node {
    let node = root.read("node", values::whole(1..=NODE_MAX)).unwrap_or(1);
    let group = root
        .require("group", "the group's name, the same on each of its nodes", name)
        .unwrap_or_default();
    let data = root
        .require("data", "the directory for this node's journal", values::filled)
        .unwrap_or_default();
    let mut members = members(root);
    if !members.is_empty() && !root.report.is_given("node") {
        root.complain_here("\"node\" is missing: which of the members this node is");
    }
    let mut mesh = mesh(root);
    let access = written_access::access(root);
    let listen = listen(root, members.get(&node), &mesh, !access.users.is_empty());
    if members.is_empty() {
        members.insert(node, alone(&listen));
    }
    for member in members.values_mut() {
        advertise(member, &listen);
    }
    let store = store(root);
    if !root.report.is_given("mesh.backlog") {
        mesh.backlog_bytes_max = store.limit_bytes / 10;
    }
    Node {
        node,
        group,
        data: PathBuf::from(data),
        members,
        listen,
        mesh,
        tls: written_access::tls(root),
        access,
        store,
        limits: limits(root),
        clients: clients(root),
        timers: timers(root),
        log: log(root),
    }
}

fn name(raw: &Raw<'_>) -> Result<String, String> {
    let found = values::text(raw)?;
    let good = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    if found.is_empty() || found.len() > 64 || !found.chars().all(good) {
        return Err(format!(
            "{found:?} is not a name; use 1 to 64 letters, digits and . _ -"
        ));
    }
    Ok(found)
}

fn members(root: &Section<'_>) -> BTreeMap<u64, Member> {
    let section = root.section("members");
    let mut members = BTreeMap::new();
    for (key, entry) in section.free_entries() {
        section.report.note(format!("members.{key}"), entry.place.clone());
        let number = key.parse::<u64>().ok().filter(|number| (1..=NODE_MAX).contains(number));
        let Some(number) = number else {
            let text = format!(
                "members: {key:?} is not the number of a node; write a line such as 2 = \"10.0.0.2:61617\" for each"
            );
            section.complain(&entry.place, text);
            continue;
        };
        if let Some(member) = member(&section, key, &entry)
            && members.insert(number, member).is_some()
        {
            section.complain(&entry.place, format!("members: node {number} stands here twice"));
        }
    }
    members
}

/// `"host:port"`, or a table with one address for each purpose.
fn member<'a>(section: &Section<'a>, key: &str, entry: &Entry<'a>) -> Option<Member> {
    if let Raw::Toml(DeValue::Table(table)) = &entry.value {
        let inner = section.unnamed(format!("members.{key}"), entry.place.clone(), table);
        let peer = inner.require(
            "peer",
            "the address for the other nodes of the group",
            values::reachable,
        );
        let stomp = inner.read("stomp", values::reachable);
        let link = inner.read("link", values::reachable);
        let admin = inner.read("admin", values::reachable);
        inner.finish();
        return Some(Member {
            peer: peer?,
            stomp,
            link,
            admin,
        });
    }
    match values::reachable(&entry.value) {
        Ok(peer) => Some(Member {
            peer,
            stomp: None,
            link: None,
            admin: None,
        }),
        Err(text) => {
            section.complain(&entry.place, format!("members.{key}: {text}"));
            None
        }
    }
}

/// The entry of a group of one that lists no members.
fn alone(listen: &Listen) -> Member {
    let peer = listen
        .peer
        .map_or_else(|| "127.0.0.1:61617".to_owned(), |address| address.to_string());
    Member {
        peer,
        stomp: None,
        link: None,
        admin: None,
    }
}

/// Where a member says nothing about a purpose: the host of its peer address, with the port that this node uses for
/// that purpose; the nodes of a group are usually configured alike.
fn advertise(member: &mut Member, listen: &Listen) {
    let host = member.peer.rsplit_once(':').map_or("", |(host, _)| host).to_owned();
    let fill = |address: &mut Option<String>, listen: Option<std::net::SocketAddr>| {
        if let (None, Some(listen)) = (&address, listen) {
            *address = Some(format!("{host}:{}", listen.port()));
        }
    };
    fill(&mut member.stomp, listen.stomp);
    fill(&mut member.link, listen.link);
    fill(&mut member.admin, listen.admin);
}

fn listen(root: &Section<'_>, me: Option<&Member>, mesh: &Mesh, has_users: bool) -> Listen {
    let section = root.section("listen");
    let local = |port| Some(std::net::SocketAddr::from(([127, 0, 0, 1], port)));
    let own = me.and_then(|me| me.peer.replace("localhost", "127.0.0.1").parse().ok());
    let trusted = mesh.secret.is_some() || mesh.certificates.is_some();
    // Where clients are asked who they are, no door may be open to other nodes that nobody asks.
    let peer = if has_users && !trusted && me.is_none() {
        None
    } else {
        own.or(local(61_617))
    };
    let listen = Listen {
        stomp: section.read("stomp", values::listen).unwrap_or(local(61_613)),
        stomp_tls: section.read("stomp_tls", values::listen).unwrap_or(None),
        peer: section.read("peer", values::listen).unwrap_or(peer),
        link: section
            .read("link", values::listen)
            .unwrap_or(if trusted { local(61_618) } else { None }),
        admin: section.read("admin", values::listen).unwrap_or(local(8_161)),
    };
    section.finish();
    listen
}

fn mesh(root: &Section<'_>) -> Mesh {
    let section = root.section("mesh");
    let secret = secret(&section);
    let certificate = section.read("certificate", values::filled);
    let key = section.read("key", values::filled);
    let ca = section.read("ca", values::filled);
    let certificates = match (certificate, key, ca) {
        (Some(certificate), Some(key), Some(ca)) => Some(Certificates {
            certificate: certificate.into(),
            key: key.into(),
            ca: ca.into(),
        }),
        (None, None, None) => None,
        (certificate, key, ca) => {
            let found = [("certificate", certificate), ("key", key), ("ca", ca)];
            let missing: Vec<&str> = found
                .iter()
                .filter(|(_, file)| file.is_none())
                .map(|(name, _)| *name)
                .collect();
            let text = format!(
                "certificate, key and ca belong together; missing: {}",
                missing.join(", ")
            );
            section.complain_here(text);
            None
        }
    };
    let connectors = connectors(root, &section);
    let mesh = Mesh {
        secret,
        certificates,
        connectors,
        backlog_bytes_max: section
            .read("backlog", values::bytes(64 * KIB..=1 << 60))
            .unwrap_or(GIB),
        backlog_full: section
            .read("backlog_full", values::choice(&BACKLOG_FULL))
            .unwrap_or_default(),
        topic_linger: section
            .read(
                "topic_linger",
                values::duration(Duration::from_millis(100)..=Duration::from_secs(86_400)),
            )
            .unwrap_or(Duration::from_secs(30)),
    };
    section.finish();
    mesh
}

const BACKLOG_FULL: [(&str, BacklogFull); 2] = [("wait", BacklogFull::Wait), ("refuse", BacklogFull::Refuse)];

/// `secret`, or the first line of `secret_file`.
fn secret(section: &Section<'_>) -> Option<Secret> {
    let direct = section.read("secret", |raw| check_secret(&values::text(raw)?));
    let file = section.read("secret_file", |raw| {
        let path = values::filled(raw)?;
        let text = std::fs::read_to_string(&path).map_err(|error| format!("cannot read {path}: {error}"))?;
        if is_open_to_all(&path) {
            let text = format!("every user of this machine can read {path}; cure: chmod 600 {path}");
            section.report.warn_at("mesh.secret_file", text);
        }
        check_secret(text.lines().next().unwrap_or("")).map_err(|text| format!("{path}: {text}"))
    });
    if section.report.is_given("mesh.secret") && section.report.is_given("mesh.secret_file") {
        section.complain_here("secret and secret_file are both given; keep one of them");
    }
    direct.or(file)
}

#[cfg(unix)]
fn is_open_to_all(path: &str) -> bool {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(path).is_ok_and(|metadata| metadata.permissions().mode() & 0o007 != 0)
}

#[cfg(not(unix))]
fn is_open_to_all(_path: &str) -> bool {
    false
}

fn check_secret(text: &str) -> Result<Secret, String> {
    let text = text.trim();
    if text.len() < Secret::BYTES_MIN {
        // Its length is told, never the secret itself.
        return Err(format!(
            "the secret has {} bytes, at least {} are needed; make one with: openssl rand -base64 32",
            text.len(),
            Secret::BYTES_MIN
        ));
    }
    Ok(Secret::new(text.to_owned()))
}

fn store(root: &Section<'_>) -> Store {
    let section = root.section("store");
    let segment_bytes = section
        .read("segment", values::bytes(MIB..=4 * GIB))
        .unwrap_or(64 * MIB);
    let store = Store {
        sync: section.read("sync", values::choice(&SYNCS)).unwrap_or_default(),
        segment_bytes,
        cache_bytes_max: section
            .read("cache", values::bytes(MIB..=1024 * GIB))
            .unwrap_or(64 * MIB),
        limit_bytes: section
            .read("limit", values::bytes(4 * MIB..=1 << 60))
            .unwrap_or(100 * GIB),
        reserve_bytes: section
            .read("reserve", values::bytes(0..=1 << 60))
            .unwrap_or(2 * segment_bytes),
        snapshot_log_bytes: section
            .read("snapshot_log", values::bytes(MIB..=1 << 60))
            .unwrap_or(256 * MIB),
    };
    section.finish();
    store
}

const SYNCS: [(&str, Sync); 4] = [
    ("quorum_disk", Sync::QuorumDisk),
    ("quorum_mem", Sync::QuorumMem),
    ("local_disk", Sync::LocalDisk),
    ("local_mem", Sync::LocalMem),
];

fn limits(root: &Section<'_>) -> Limits {
    let section = root.section("limits");
    let count = |number: Option<u64>, default: u32| {
        number.map_or(default, |number| {
            u32::try_from(number).expect("the limits below fit into 32 bits")
        })
    };
    let connections_max = count(section.read("connections", values::whole(1..=1_000_000)), 5_000);
    let memory_bytes_max = section
        .read("memory", values::bytes(16 * MIB..=1024 * GIB))
        .unwrap_or(256 * MIB);
    let limits = Limits {
        frame_bytes_max: section.read("frame", values::bytes(64 * KIB..=GIB)).unwrap_or(32 * MIB),
        connections_max,
        connections_per_address_max: count(
            section.read("connections_per_address", values::whole(1..=1_000_000)),
            connections_max,
        ),
        login_wait: section
            .read(
                "login_wait",
                values::duration(Duration::from_millis(100)..=Duration::from_secs(600)),
            )
            .unwrap_or(Duration::from_secs(10)),
        memory_bytes_max,
        backlog_bytes_max: section.read("backlog", values::bytes(MIB..=1024 * GIB)).unwrap_or(GIB),
        transaction_bytes_max: section
            .read("transaction", values::bytes(64 * KIB..=GIB))
            .unwrap_or((64 * MIB).min(memory_bytes_max / 4)),
        destinations_max: count(section.read("destinations", values::whole(1..=100_000_000)), 250_000),
        outbox_bytes_max: section.read("outbox", values::bytes(64 * KIB..=GIB)).unwrap_or(4 * MIB),
        prefetch: count(section.read("prefetch", values::whole(1..=1_000_000)), 1_000),
        redeliveries_max: count(section.read("redeliveries_max", values::whole(0..=65_534)), 6),
        dead_letter_queue: section
            .read("dead_letter_queue", queue)
            .unwrap_or_else(|| "ActiveMQ.DLQ".to_owned()),
        expired_to_dead_letter: section.read("expired_to_dead_letter", values::boolean).unwrap_or(true),
    };
    section.finish();
    limits
}

fn clients(root: &Section<'_>) -> Clients {
    let section = root.section("clients");
    let life = || values::duration(Duration::from_millis(1)..=LIFE_MAX);
    let clients = Clients {
        timestamps: section
            .read("timestamps", values::choice(&TIMESTAMPS))
            .unwrap_or_default(),
        time_to_live: section.read("time_to_live", life()),
        time_to_live_max: section.read("time_to_live_max", life()),
    };
    section.finish();
    clients
}

const TIMESTAMPS: [(&str, Timestamps); 2] = [("client", Timestamps::Client), ("broker", Timestamps::Broker)];
/// Ten years.
const LIFE_MAX: Duration = Duration::from_secs(10 * 366 * 24 * 3_600);

/// The name of a queue, with or without `queue://`.
fn queue(raw: &Raw<'_>) -> Result<String, String> {
    let written = values::filled(raw)?;
    let name = written.strip_prefix("queue://").unwrap_or(&written);
    if name.is_empty() || name.len() > 1024 || name.contains("://") || name.contains(char::is_control) {
        return Err(format!("{written:?} is not the name of a queue"));
    }
    Ok(name.to_owned())
}

fn timers(root: &Section<'_>) -> Timers {
    let section = root.section("timers");
    let ms = Duration::from_millis;
    let timers = Timers {
        heartbeat: section
            .read("heartbeat", values::duration(ms(5)..=ms(10_000)))
            .unwrap_or(ms(60)),
        election_min: section
            .read("election_min", values::duration(ms(20)..=ms(60_000)))
            .unwrap_or(ms(250)),
        election_max: section
            .read("election_max", values::duration(ms(30)..=ms(120_000)))
            .unwrap_or(ms(400)),
        fast_failover: section.read("fast_failover", values::boolean).unwrap_or(true),
        shutdown: section
            .read("shutdown", values::duration(ms(100)..=ms(600_000)))
            .unwrap_or(ms(10_000)),
    };
    section.finish();
    timers
}

fn log(root: &Section<'_>) -> Log {
    let section = root.section("log");
    let level = section.read("level", |raw| {
        let level = values::filled(raw)?;
        // Directives such as `info,ferrymq=debug` are the logging library's to judge.
        if level.contains(['=', ',']) {
            Ok(level)
        } else {
            values::choice(&LEVELS)(raw).map(str::to_owned)
        }
    });
    section.finish();
    Log {
        level: level.unwrap_or_else(|| "info".to_owned()),
    }
}

const LEVELS: [(&str, &str); 5] = [
    ("error", "error"),
    ("warn", "warn"),
    ("info", "info"),
    ("debug", "debug"),
    ("trace", "trace"),
];
