//! What may be done with a destination, and the answer to whoever may not.

use std::fmt;

use ferrymq_message::Destination;

/// What somebody wants to do with a destination (ActiveMQ's `authorizationEntry`: read, write, admin).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Right {
    /// Consume, browse, subscribe, and drop a durable subscription.
    Read,
    /// Send.
    Write,
    /// Delete and purge.
    Admin,
}

impl Right {
    /// The word in the configuration and in errors.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Somebody may not do what they want to. The text says the same whether the destination exists or not.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not authorized: {name} has no {right} right on {destination}")]
pub struct Denied {
    /// Who asked.
    pub name: String,
    /// For what.
    pub right: Right,
    /// Where.
    pub destination: Destination,
}
