//! Why a call did not do what it was asked, in kinds that tell the application what it can do.

use std::{sync::Arc, time::Duration};

/// Why a connection was not made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    /// The URI cannot be understood.
    #[error("{0}")]
    Uri(String),
    /// TLS is wanted and cannot be had: files that cannot be read or do not fit, or none at all.
    #[error("TLS: {0}")]
    Tls(String),
    /// A broker answered and refused the login; trying again does not help.
    #[error("{address} refused the connection: {text}")]
    Refused {
        /// Who refused.
        address: String,
        /// In the broker's words.
        text: String,
    },
    /// Nobody was reached in time, or within the attempts that the URI allows.
    #[error("no broker was reached within {elapsed:.1?}; last: {last}")]
    Unreachable {
        /// How long it was tried.
        elapsed: Duration,
        /// Why the last attempt failed.
        last: String,
    },
}

/// Why a connection has ended for good; every call on it fails with this.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the connection has ended: {0}")]
pub struct Ended(pub Arc<str>);

/// Why a message was not sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// The broker refused a message of this producer, which will not be sent again. Later ones are not affected.
    #[error("message {sequence} was refused ({kind}): {text}")]
    Refused {
        /// Which one.
        sequence: u64,
        /// The broker's word for the reason, `unknown` where it gave none.
        kind: String,
        /// In the broker's words.
        text: String,
    },
    /// No room in the window within the `timeout` of the URI. The message was not taken; the connection stays.
    #[error("no receipt made room for the message within {0:?}")]
    TimedOut(Duration),
    /// The message cannot be sent at all.
    #[error("{0}")]
    Invalid(String),
    /// The connection is gone for good. What has no receipt may or may not have been stored.
    #[error(transparent)]
    Ended(#[from] Ended),
}

/// Why no message came.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReceiveError {
    /// The broker refused the subscription.
    #[error("the subscription was refused: {0}")]
    Refused(String),
    /// The connection is gone for good.
    #[error(transparent)]
    Ended(#[from] Ended),
}

/// Why an acknowledgement did not count.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AckError {
    /// The message came over a connection that was lost since: the broker delivers it again, marked as redelivered
    /// (P3).
    #[error("the connection that delivered this message was lost; it will be delivered again")]
    Stale,
    /// So many acknowledgements were under way when a connection was lost, or were refused. Their messages may be delivered again,
    /// marked as redelivered.
    #[error("{0} acknowledgements were under way when the connection was lost; their messages may come again")]
    Unconfirmed(u64),
    /// The connection is gone for good.
    #[error(transparent)]
    Ended(#[from] Ended),
}
