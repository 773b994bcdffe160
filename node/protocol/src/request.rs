//! What a session asks of the broker and what the broker tells it, in words that no client language owns.

use std::fmt;

use ferrymq_message::{Destination, Message, Selector, StoredMessage};

/// Names one request of a session until its reply; the session chooses it and never uses it twice.
pub type Token = u64;

/// When a message counts as consumed (JMS session acknowledgement modes).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AckMode {
    /// As soon as it is written; the session acknowledges by itself.
    #[default]
    Auto,
    /// When the client says so, together with every earlier one of the subscription.
    Client,
    /// When the client says so, each by itself.
    Individual,
}

/// Who the client says it is.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Login {
    /// User name.
    pub login: Option<String>,
    /// Password; never shown by `Debug`.
    pub passcode: Option<String>,
    /// The name under which durable subscriptions are kept.
    pub client_id: Option<String>,
    /// The virtual host that the client wants.
    pub host: Option<String>,
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login")
            .field("login", &self.login)
            .field("passcode", &self.passcode.as_ref().map(|_| "…"))
            .field("client_id", &self.client_id)
            .field("host", &self.host)
            .finish()
    }
}

/// Which durable subscription a consumer takes up.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Durable {
    /// The client's id.
    pub client_id: String,
    /// The subscription's name within that client.
    pub name: String,
}

/// A consumer to be made.
#[derive(Debug, Clone, PartialEq)]
pub struct Subscribe {
    /// The session's own number for it, never used twice in a session.
    pub subscription: u32,
    /// Where to consume from.
    pub destination: Destination,
    /// Which messages it wants; `None` is all of them.
    pub selector: Option<Selector>,
    /// How many unacknowledged messages it may hold, at least 1.
    pub prefetch: u32,
    /// A subscription of a topic that outlives the connection.
    pub durable: Option<Durable>,
    /// Leave out what this connection sent.
    pub no_local: bool,
    /// Be the only consumer as long as it lives.
    pub exclusive: bool,
    /// Look at the queue's messages without taking them; their end is [`crate::Session::on_browse_end`].
    pub browser: bool,
    /// Consumers of higher priority are served first; 0 is normal.
    pub priority: i8,
    /// When a message counts as consumed.
    pub ack: AckMode,
}

/// Which deliveries an acknowledgement is about, by [`Delivery::tag`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AckTarget {
    /// This one and every earlier one of the subscription that is not acknowledged yet.
    UpTo(u64),
    /// Only this one.
    One(u64),
}

/// What became of a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Done with; it is never delivered again.
    Consumed,
    /// The client cannot take it (NACK, ActiveMQ's poison acknowledgement): redelivery or dead letter, by policy.
    Rejected,
}

/// One thing that a session asks of the broker. Requests with a token get exactly one reply; a failed one without a
/// token is told to [`crate::Session::on_failure`]. Transactions are named by the client, per connection.
#[derive(Debug, Clone, PartialEq)]
#[allow(
    clippy::large_enum_variant,
    reason = "most requests are sends, so a box would only cost an allocation"
)]
pub enum Request {
    /// Checks the login and opens the connection; nothing else is asked before its reply.
    Connect {
        /// Names the reply.
        token: Token,
        /// Who the client says it is.
        login: Login,
    },
    /// Stores a message.
    Send {
        /// `None` where the client wants no receipt.
        token: Option<Token>,
        /// What to store.
        message: Message,
        /// Of what the client wrote, where its producer numbers messages; else [`ferrymq_message::NO_DIGEST`]. A resend has
        /// the same one, over another connection too: what the broker adds and what belongs to the connection is no part.
        digest: u64,
        /// Held back until this transaction commits.
        transaction: Option<String>,
    },
    /// Makes a consumer.
    Subscribe {
        /// Names the reply.
        token: Option<Token>,
        /// The consumer.
        subscribe: Subscribe,
    },
    /// Ends a consumer; what it has not acknowledged goes back.
    Unsubscribe {
        /// Names the reply.
        token: Option<Token>,
        /// The consumer's number.
        subscription: u32,
    },
    /// Deletes a durable subscription with its backlog.
    ForgetDurable {
        /// Names the reply.
        token: Option<Token>,
        /// The client's id.
        client_id: String,
        /// The subscription's name.
        name: String,
    },
    /// Tells what became of deliveries. One that comes too late (the message went back meanwhile) is refused as
    /// [`RefusalKind::NotFound`], and without a token not told at all. For a browser it only makes room for more.
    Acknowledge {
        /// Names the reply.
        token: Option<Token>,
        /// The consumer's number.
        subscription: u32,
        /// Which deliveries.
        target: AckTarget,
        /// What became of them.
        verdict: Verdict,
        /// Takes effect when this transaction commits.
        transaction: Option<String>,
    },
    /// Opens a transaction.
    Begin {
        /// Names the reply.
        token: Option<Token>,
        /// The client's name for it.
        transaction: String,
    },
    /// Makes a transaction's sends and acknowledgements happen, all or none.
    Commit {
        /// Names the reply.
        token: Option<Token>,
        /// The client's name for it.
        transaction: String,
    },
    /// Drops a transaction.
    Abort {
        /// Names the reply.
        token: Option<Token>,
        /// The client's name for it.
        transaction: String,
    },
    /// The client leaves in good order.
    Disconnect {
        /// Names the reply.
        token: Option<Token>,
    },
}

/// What kind of refusal it is: what the client can do about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RefusalKind {
    /// This node is not the master; try another one of the group.
    NotMaster,
    /// The group has no majority; try again later.
    NoQuorum,
    /// The message is larger than is allowed.
    TooLarge,
    /// A limit of memory or disk is reached; try again later.
    Full,
    /// Wrong login, or no right to do this.
    Unauthorized,
    /// The destination, subscription, transaction or delivery does not exist.
    NotFound,
    /// Another client holds it.
    InUse,
    /// The request makes no sense.
    Malformed,
    /// Understood, but not offered here.
    Unsupported,
    /// It came too late.
    Expired,
    /// The node is shutting down.
    Stopping,
}

impl RefusalKind {
    /// The kind as one word, for headers and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotMaster => "not-master",
            Self::NoQuorum => "no-quorum",
            Self::TooLarge => "too-large",
            Self::Full => "full",
            Self::Unauthorized => "unauthorized",
            Self::NotFound => "not-found",
            Self::InUse => "in-use",
            Self::Malformed => "malformed",
            Self::Unsupported => "unsupported",
            Self::Expired => "expired",
            Self::Stopping => "stopping",
        }
    }

    /// The kind behind a word of [`RefusalKind::as_str`].
    pub fn from_word(word: &str) -> Option<Self> {
        use RefusalKind::{
            Expired, Full, InUse, Malformed, NoQuorum, NotFound, NotMaster, Stopping, TooLarge, Unauthorized,
            Unsupported,
        };
        let all = [
            NotMaster,
            NoQuorum,
            TooLarge,
            Full,
            Unauthorized,
            NotFound,
            InUse,
            Malformed,
            Unsupported,
            Expired,
            Stopping,
        ];
        all.into_iter().find(|kind| kind.as_str() == word)
    }
}

/// Why the broker did not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct Refusal {
    /// What the client can do about it.
    pub kind: RefusalKind,
    /// For people: what was refused and why.
    pub text: String,
}

impl Refusal {
    /// A refusal of this kind.
    pub fn new(kind: RefusalKind, text: impl Into<String>) -> Self {
        Self {
            kind,
            text: text.into(),
        }
    }
}

/// Where a dead letter comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// Where it was sent at first.
    pub original: Destination,
    /// Why it could not be delivered there.
    pub reason: String,
}

/// A message for one subscription of the session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// [`Subscribe::subscription`].
    pub subscription: u32,
    /// Names this delivery in an acknowledgement; grows with every delivery of the subscription.
    pub tag: u64,
    /// The message.
    pub message: StoredMessage,
    /// How often it was delivered before and came back.
    pub redelivery_count: u32,
    /// It may have been delivered before (P3).
    pub redelivered: bool,
    /// Set where it is a dead letter.
    pub dead_letter: Option<DeadLetter>,
}
