//! What happens to a connection, for progress bars and logs.

use std::time::Duration;

/// One step in a connection's life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Connected for the first time.
    Connected {
        /// `host:port`.
        address: String,
    },
    /// The connection broke; another one is being looked for.
    Lost {
        /// The one that was lost.
        address: String,
        /// Why.
        reason: String,
    },
    /// An attempt failed; the next one follows.
    AttemptFailed {
        /// Who was tried.
        address: String,
        /// Why it failed.
        reason: String,
    },
    /// Connected again; consumers are subscribed anew and sends without receipt were sent again.
    Reconnected {
        /// The new one.
        address: String,
        /// Time since the loss.
        after: Duration,
        /// Messages that were sent again.
        resent: usize,
    },
    /// The connection is over for good.
    Ended {
        /// Why.
        reason: String,
    },
}
