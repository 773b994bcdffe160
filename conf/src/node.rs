//! A node's configuration as the program needs it: every default filled in, every rule checked.

use std::{collections::BTreeMap, fmt, net::SocketAddr, path::PathBuf, time::Duration};

/// Everything that a node is told at boot. Made only by [`crate::read`] and [`crate::load`], so it is always valid.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// This node's number in its group, 1 or more; never given to another node again.
    pub node: u64,
    /// The group's name, `[A-Za-z0-9._-]{1,64}`.
    pub group: String,
    /// The directory that holds the journal; made at the first start. A relative one is relative to the working
    /// directory of the process, as in every other program.
    pub data: PathBuf,
    /// The founding members of the group with their addresses; always contains this node.
    pub members: BTreeMap<u64, Member>,
    /// Where this node listens.
    pub listen: Listen,
    /// How groups find and trust each other.
    pub mesh: Mesh,
    /// Who may connect and what they may do.
    pub access: Access,
    /// What clients that connect with TLS are shown. Given where `listen.stomp_tls` is.
    pub tls: Option<Tls>,
    /// What is kept on disk, and how.
    pub store: Store,
    /// What clients may do.
    pub limits: Limits,
    /// What is done with what clients send.
    pub clients: Clients,
    /// How quickly a dead master is noticed.
    pub timers: Timers,
    /// What is logged.
    pub log: Log,
}

impl Node {
    /// This node's own entry under `[members]`.
    pub fn me(&self) -> &Member {
        self.members
            .get(&self.node)
            .expect("reading refuses a file whose members lack the node itself")
    }

    /// True where the group has one member, the embedded default.
    pub fn is_alone(&self) -> bool {
        self.members.len() == 1
    }
}

/// The addresses under which the other nodes and the clients reach one node, each `host:port`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// For the other nodes of the group (TCP).
    pub peer: String,
    /// For STOMP clients. `None` where the node does not listen for them.
    pub stomp: Option<String>,
    /// For other groups (UDP, QUIC). `None` where the node takes no links.
    pub link: Option<String>,
    /// For administration.
    pub admin: Option<String>,
}

/// Listening sockets; `None` means "off".
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listen {
    /// STOMP clients (TCP). Default `127.0.0.1:61613`.
    pub stomp: Option<SocketAddr>,
    /// STOMP clients over TLS. Default off.
    pub stomp_tls: Option<SocketAddr>,
    /// The other nodes of the group (TCP). Default: this node's own `peer` address under `[members]`, otherwise
    /// `127.0.0.1:61617`; but off for a group of one that has users and nothing to trust other nodes by. Always on where
    /// the group has other members.
    pub peer: Option<SocketAddr>,
    /// Other groups (UDP, QUIC). Default `127.0.0.1:61618` where there is something to trust them by (a secret or
    /// certificates), otherwise off.
    pub link: Option<SocketAddr>,
    /// Administration (HTTP). Default `127.0.0.1:8161`.
    pub admin: Option<SocketAddr>,
}

/// How groups find and trust each other.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Mesh {
    /// Shared by every node of every group of the mesh, 16 bytes or more.
    pub secret: Option<Secret>,
    /// Certificates by which links are trusted in place of those derived from the secret.
    pub certificates: Option<Certificates>,
    /// Whom to look for, in the order of the file.
    pub connectors: Vec<Connector>,
    /// Of one topic's messages, what may be kept for one other group. Default a tenth of `limit` under `[store]`.
    pub backlog_bytes_max: u64,
    /// What sends to that topic do beyond it. Default `wait`.
    pub backlog_full: BacklogFull,
    /// How long a linked group must not have wanted a topic before what is kept of it for that group is dropped. Default
    /// 30 s.
    pub topic_linger: Duration,
}

/// What sends to a topic do when a backlog that is kept for another group has reached its bound. Nothing is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum BacklogFull {
    /// They wait until there is room again.
    #[default]
    Wait,
    /// They are refused.
    Refuse,
}

/// A text that is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Shortest secret, in bytes.
    pub const BYTES_MIN: usize = 16;

    pub(crate) fn new(text: String) -> Self {
        Self(text)
    }

    /// The secret itself.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// PEM files for mutual TLS on links.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificates {
    /// This node's certificate, and those between it and `ca`.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// The authority that signed every node's certificate.
    pub ca: PathBuf,
}

/// Where to look for other groups, and what may cross: ActiveMQ's `networkConnector`.
#[derive(Debug, Clone, PartialEq)]
pub struct Connector {
    /// Shown in status and logs; unique in the file. Default `connector-1`, `connector-2`, …
    pub name: String,
    /// A discovery URI: `static:(…)`, `masterslave:(…)`, `multicast://…`, `mdns:…`.
    pub uri: String,
    /// Destinations that never cross, with the wildcards `*` and `>`: `queue://LOCAL.>`. Checked first.
    pub excluded: Vec<String>,
    /// Where not empty, only these destinations cross.
    pub included: Vec<String>,
}

/// Who may connect and what they may do. Without users nobody is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Access {
    /// Whether clients without a login come in. Default: only where there are no users.
    pub anonymous: bool,
    /// Groups whose members may do everything, and administer nodes. Default `["admins"]`.
    pub admins: Vec<String>,
    /// In the order of the file.
    pub users: Vec<User>,
    /// In the order of the file. Without any, users may read and write everything.
    pub permissions: Vec<Permission>,
}

impl Access {
    /// The group of those who connect without a login. No user is in it.
    pub const ANONYMOUS: &str = "anonymous";
    /// In place of a group: everybody who came in.
    pub const EVERYBODY: &str = "*";
}

/// One user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Unique in the file.
    pub name: String,
    /// The argon2id hash of the password, a PHC string that was checked. None: comes with a certificate only.
    pub password: Option<Secret>,
    /// Groups, from which rights follow.
    pub groups: Vec<String>,
}

/// What groups may do with the destinations of a pattern: ActiveMQ's `authorizationEntry`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Permission {
    /// With the wildcards `*` and `>`: `queue://orders.>`.
    pub destination: String,
    /// Groups that may consume.
    pub read: Vec<String>,
    /// Groups that may send.
    pub write: Vec<String>,
    /// Groups that may delete and purge.
    pub admin: Vec<String>,
}

/// PEM files for clients that connect with TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// The certificate that clients see, and those between it and the authority that they know.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// What clients show, if they are asked for a certificate at all.
    pub client: Option<ClientCertificates>,
}

/// Mutual TLS with clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCertificates {
    /// The authority that signs clients' certificates.
    pub ca: PathBuf,
    /// Whether a client without one is turned away. Default true.
    pub required: bool,
}

/// When a persistent send counts as done (P1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Sync {
    /// A majority has synced it to disk. Survives a power loss of every node at once.
    #[default]
    QuorumDisk,
    /// A majority has it in memory. A power loss of a majority at once may lose it.
    QuorumMem,
    /// The master has synced it to disk. The loss of the master may lose it.
    LocalDisk,
    /// The master has it in memory.
    LocalMem,
}

impl Sync {
    /// The word that stands in the file.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::QuorumDisk => "quorum_disk",
            Self::QuorumMem => "quorum_mem",
            Self::LocalDisk => "local_disk",
            Self::LocalMem => "local_mem",
        }
    }
}

/// What is kept on disk, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Store {
    /// When a persistent send counts as done. Default `quorum_disk`.
    pub sync: Sync,
    /// Size of one journal file. Default 64 MiB.
    pub segment_bytes: u64,
    /// Journal records kept in memory for readers. Default 64 MiB.
    pub cache_bytes_max: u64,
    /// Disk that the journal may take; producers are slowed before it is reached. Default 100 GiB.
    pub limit_bytes: u64,
    /// Disk that must stay free for the rest of the machine; producers are refused below it. Default two segments.
    pub reserve_bytes: u64,
    /// Log after which a snapshot of the state is taken. Default 256 MiB.
    pub snapshot_log_bytes: u64,
}

/// What clients may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Largest frame that a client may send. Default 32 MiB.
    pub frame_bytes_max: u64,
    /// Client connections at one time. Default 5,000.
    pub connections_max: u32,
    /// Of them, those from one address. Default as many as there may be at all.
    pub connections_per_address_max: u32,
    /// How long a connection may take to log in. Default 10 s.
    pub login_wait: Duration,
    /// Memory for messages on their way in and out, and for what clients keep here: transactions, subscriptions.
    /// Producers are slowed before it is reached (P8). Default 256 MiB.
    pub memory_bytes_max: u64,
    /// Memory for the places of messages that wait; producers are slowed when it is reached (P8). Default 1 GiB, which is
    /// 22 million messages.
    pub backlog_bytes_max: u64,
    /// What one transaction may hold back. Default 64 MiB, at most a quarter of `memory`.
    pub transaction_bytes_max: u64,
    /// Queues and durable subscriptions at one time. Default 250,000.
    pub destinations_max: u32,
    /// Bytes waiting for one slow client before dispatch to it pauses. Default 4 MiB.
    pub outbox_bytes_max: u64,
    /// Messages sent to a consumer ahead of its acknowledgements, where it does not say. Default 1,000 (ActiveMQ).
    pub prefetch: u32,
    /// Redeliveries before a message is dead. Default 6 (ActiveMQ's `RedeliveryPolicy.maximumRedeliveries`).
    pub redeliveries_max: u32,
    /// The queue that dead messages go to. Default `ActiveMQ.DLQ`.
    pub dead_letter_queue: String,
    /// Whether expired messages go there too. Default true (ActiveMQ's `processExpired`).
    pub expired_to_dead_letter: bool,
}

/// What is done with what clients send.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Clients {
    /// By whose clock messages are stamped. Default `client`.
    pub timestamps: Timestamps,
    /// How long messages live for which the client has given no end. Only with `timestamps = "broker"` (ActiveMQ's
    /// `zeroExpirationOverride`). Default for ever.
    pub time_to_live: Option<Duration>,
    /// How long messages live at most. Only with `timestamps = "broker"` (ActiveMQ's `ttlCeiling`). Default without a
    /// bound.
    pub time_to_live_max: Option<Duration>,
}

/// By whose clock clients' messages are stamped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Timestamps {
    /// What the client has written counts.
    #[default]
    Client,
    /// The group's time: a message gets a new timestamp and lives on from there for as long as lay between those that the
    /// client has given (ActiveMQ's `TimeStampingBrokerPlugin`).
    Broker,
}

/// How quickly a dead master is noticed. `heartbeat` < `election_min` / 2 and `election_min` < `election_max`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timers {
    /// The master tells its slaves that it lives. Default 60 ms.
    pub heartbeat: Duration,
    /// Shortest silence after which a slave wants to become master; also the master's lease (P7). Default 250 ms.
    pub election_min: Duration,
    /// Longest such silence; each slave draws its own between the two. Default 400 ms.
    pub election_max: Duration,
    /// Whether a master whose connections have ended and whose port refuses new ones is replaced at once. Default true;
    /// false where something between the nodes resets and refuses connections.
    pub fast_failover: bool,
    /// How long a stopping node waits for its clients and for the hand-over of mastership. Default 10 s.
    pub shutdown: Duration,
}

/// What is logged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// `error`, `warn`, `info`, `debug` or `trace`, or directives of tracing's `EnvFilter` such as
    /// `info,ferrymq=debug`. Default `info`.
    pub level: String,
}
