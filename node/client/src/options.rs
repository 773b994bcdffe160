//! What an application may choose; every default is safe and bounded.

use std::{path::PathBuf, time::Duration};

use ferrymq_protocol::AckMode;

/// PEM files for TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsOptions {
    /// The authorities that may have signed a broker's certificate. It must also carry the name by which the URI names
    /// the broker.
    pub ca: PathBuf,
    /// Own certificate and its key, for brokers that ask for one.
    pub own: Option<(PathBuf, PathBuf)>,
}

/// Choices for a connection. What the `failover:(…)` URI says itself goes before these.
#[derive(Clone)]
pub struct Options {
    /// User name.
    pub login: Option<String>,
    /// Password.
    pub passcode: Option<String>,
    /// The name under which durable subscriptions are kept; unique in the mesh.
    pub client_id: Option<String>,
    /// Whom to trust, and what to show; needed where the URI names a broker with `ssl://`.
    pub tls: Option<TlsOptions>,
    /// How long one attempt (connecting and logging in) may take. Default 5 s.
    pub attempt_timeout: Duration,
    /// How long [`crate::Connection::connect`] tries, where the URI sets no bound. Default 30 s: ActiveMQ's client waits
    /// for ever here and locks up its application at start.
    pub startup_timeout: Duration,
    /// Longest pause between attempts, even where the URI allows longer ones. Default 2 s: ActiveMQ's 30 s keep clients
    /// away long after the broker is back.
    pub reconnect_delay_max: Duration,
    /// How often each side shows that it is alive; a silence of twice that ends the connection. Zero: never. Default
    /// 10 s.
    pub heartbeat: Duration,
    /// Whether, of several nodes, the one that is the master is chosen. Any node takes a client, but one that carries it to
    /// the master costs every message a hop more. Default true.
    pub follow_master: bool,
    /// Deliveries waiting in this process, in bytes; above it, nothing more is read from the socket. Default 64 MiB.
    pub inbox_bytes_max: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            login: None,
            passcode: None,
            client_id: None,
            tls: None,
            attempt_timeout: Duration::from_secs(5),
            startup_timeout: Duration::from_secs(30),
            reconnect_delay_max: Duration::from_secs(2),
            heartbeat: Duration::from_secs(10),
            follow_master: true,
            inbox_bytes_max: 64 << 20,
        }
    }
}

impl std::fmt::Debug for Options {
    /// Without the password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options")
            .field("login", &self.login)
            .field("client_id", &self.client_id)
            .field("tls", &self.tls)
            .field("attempt_timeout", &self.attempt_timeout)
            .field("startup_timeout", &self.startup_timeout)
            .field("reconnect_delay_max", &self.reconnect_delay_max)
            .field("heartbeat", &self.heartbeat)
            .field("follow_master", &self.follow_master)
            .field("inbox_bytes_max", &self.inbox_bytes_max)
            .finish_non_exhaustive()
    }
}

/// Choices for a producer.
#[derive(Debug, Clone)]
pub struct ProducerOptions {
    /// Messages survive the loss of any minority of the nodes (P1, P2). Default true.
    pub persistent: bool,
    /// Sends that may await their receipts, in messages. Default 1,000.
    pub window_messages_max: usize,
    /// The same in bytes. Default 16 MiB. One message is always let through.
    pub window_bytes_max: usize,
    /// What the producer's name begins with, 200 bytes at most; a part that nobody else has is put behind it. Default:
    /// nothing. By name and number the group knows a resend (P5), so no two producers may have the same name, not even two
    /// runs of one program; see `resume` for the exception.
    pub id: Option<String>,
    /// The number of the first message. Default 1.
    pub first_sequence: u64,
    /// `id` is the whole name: this producer goes on where an earlier one of that name has ended. It has to know its
    /// numbers: `first_sequence` is one that was not used, or that of a message that is sent again unchanged. The
    /// group refuses any other message under a number that was used. Default false.
    pub resume: bool,
    /// Messages of one transaction: they are stored together, and have one receipt. [`crate::Producer::flush`] ends a
    /// transaction early. After the loss of a broker a transaction without receipt is sent again as a whole. 0, the
    /// default: no transactions.
    pub transaction_messages: usize,
}

impl Default for ProducerOptions {
    fn default() -> Self {
        Self {
            persistent: true,
            window_messages_max: 1_000,
            window_bytes_max: 16 << 20,
            id: None,
            first_sequence: 1,
            resume: false,
            transaction_messages: 0,
        }
    }
}

/// Choices for a consumer.
#[derive(Debug, Clone)]
pub struct ConsumerOptions {
    /// When a message counts as consumed. Default: each when it is acknowledged by itself.
    pub ack: AckMode,
    /// Messages sent ahead of their acknowledgements. Default 1,000 (ActiveMQ's for queues).
    pub prefetch: u32,
    /// Which messages, in JMS's selector language.
    pub selector: Option<String>,
    /// The name of a durable subscription (topics only; needs [`Options::client_id`]).
    pub durable: Option<String>,
    /// Leave out what this connection sent itself.
    pub no_local: bool,
    /// Be the queue's only consumer as long as this one lives.
    pub exclusive: bool,
    /// Look at the queue's messages without taking them.
    pub browser: bool,
    /// Consumers of higher priority are served first; 0 is normal.
    pub priority: i8,
    /// Ask the broker to confirm each acknowledgement, so that [`crate::Consumer::flush`] can wait for it. Default true.
    /// Without, acknowledgements that a lost connection takes with it go unnoticed until their messages come again, as
    /// with most brokers' clients, and each costs one frame less.
    pub ack_receipts: bool,
}

impl Default for ConsumerOptions {
    fn default() -> Self {
        Self {
            ack: AckMode::Individual,
            prefetch: 1_000,
            selector: None,
            durable: None,
            no_local: false,
            exclusive: false,
            browser: false,
            priority: 0,
            ack_receipts: true,
        }
    }
}
