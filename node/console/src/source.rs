//! What the console asks of the node that it is a window on.

use std::{future::Future, pin::Pin};

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A boxed future: `Source` is handed over as a trait object.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A running node, as the admin port sees it. Implemented by node/src/admin.rs.
///
/// No method may block or wait without a deadline of its own: the console adds none.
pub trait Source: Send + Sync + 'static {
    /// The whole status as JSON; its form belongs to the node.
    fn status(&self) -> Answer<'_, Value>;

    /// Whether this node can do its work right now.
    fn health(&self) -> Answer<'_, Health>;

    /// Hands mastership to `to`, or to the slave that is furthest along. Answers what was done.
    fn step_down(&self, to: Option<u64>) -> Answer<'_, Result<Value, Refusal>>;

    /// Begins to add a node to the group; returns once it is reached. See [`Source::member`] for what becomes of it.
    fn add_member(&self, member: NewMember) -> Answer<'_, Result<Value, Refusal>>;

    /// How far a node is that was added: `state` is `reaching`, `catching_up`, `voting`, `voter` or `failed`, with what goes
    /// with it. Only the master knows.
    fn member(&self, node: u64) -> Answer<'_, Result<Value, Refusal>>;

    /// Takes back what is under offer to a group that is lost for good, by name or id. Answers how much that was.
    fn reclaim(&self, group: String) -> Answer<'_, Result<Value, Refusal>>;

    /// Forgets a group that is lost for good, by name or id: what is kept for it, what it was offered, what it wanted; with
    /// `dry_run` nothing is done. Answers how much that is.
    fn forget_group(&self, group: String, dry_run: bool) -> Answer<'_, Result<Value, Refusal>>;

    /// Takes a node out of the group for ever: its number is not used again.
    fn remove_member(&self, node: u64) -> Answer<'_, Result<Value, Refusal>>;
}

/// The answer of `GET /api/health`: 200 where `ok`, otherwise 503.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Health {
    /// True where clients are served: the group has a master and this node reaches it.
    pub ok: bool,
    /// `master`, `slave` or `no master`, and what is wrong where something is.
    pub reason: String,
}

/// The body of `POST /api/members`: each address is `host:port`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewMember {
    /// A number that the group has never used.
    pub node: u64,
    /// For the other nodes of the group.
    pub peer: String,
    /// For STOMP clients.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stomp: Option<String>,
    /// For other groups.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link: Option<String>,
    /// For administration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub admin: Option<String>,
}

/// Why something was not done; `kind` decides the HTTP status.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct Refusal {
    /// What the caller can do about it.
    pub kind: RefusalKind,
    /// One sentence for the operator, with the cure where there is one.
    pub text: String,
}

/// What the caller of an admin request can do about a refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefusalKind {
    /// Only the master can do this (409). The text names it.
    NotMaster,
    /// The request makes no sense (400).
    Invalid,
    /// No such node or group (404).
    NotFound,
    /// As things are it must not be done (409).
    Conflict,
    /// The request must not come in this way (403). Made by the console itself.
    Forbidden,
    /// A login is missing or wrong (401).
    Unauthorized,
    /// Too many log-ins have failed (429).
    TooMany,
    /// The path takes other methods (405). Made by the console itself.
    Method,
    /// No majority, or a deadline has passed; what was asked may still happen (503).
    Unavailable,
}
