//! What a client can do wrong in STOMP; the text goes into the ERROR frame.

use ferrymq_message::{ParseDestinationError, SelectorError};

use super::Version;

/// A breach of the protocol or of a limit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StompError {
    /// The first line of a frame names no command.
    #[error("unknown command \"{0}\"")]
    UnknownCommand(String),
    /// A line of the head is longer than is allowed.
    #[error("a header line has more than {0} bytes")]
    HeaderTooLong(usize),
    /// The head is longer than is allowed.
    #[error("the headers of a frame have more than {0} bytes")]
    HeadTooLong(usize),
    /// There are more headers than are allowed.
    #[error("a frame has more than {0} headers")]
    TooManyHeaders(usize),
    /// A name that has to be remembered is longer than is allowed.
    #[error("a {header} header has more than {max} bytes")]
    NameTooLong {
        /// The header's name.
        header: &'static str,
        /// How many bytes are allowed.
        max: usize,
    },
    /// The body is longer than is allowed.
    #[error("the body of a frame has more than {0} bytes")]
    BodyTooLong(usize),
    /// A command or header is not UTF-8.
    #[error("a header is not UTF-8")]
    NotUtf8,
    /// A header line has no colon, or nothing before it.
    #[error("a header line needs a name and a colon")]
    NoHeaderName,
    /// A backslash is followed by something that means nothing in this version.
    #[error("undefined escape sequence in a header")]
    BadEscape,
    /// The frame ends before its headers do.
    #[error("a NUL stands among the headers; a blank line must end them")]
    NulInHead,
    /// The `content-length` is no number, or too large for one.
    #[error("content-length is not a number of bytes")]
    BadContentLength,
    /// The body does not end where `content-length` says.
    #[error("no NUL follows the {0} bytes that content-length announced")]
    MissingNul(usize),
    /// A frame that only a server sends, or that this state has no place for.
    #[error("{0} has no place here")]
    Unexpected(&'static str),
    /// The first frame is not CONNECT.
    #[error("not connected: the first frame must be CONNECT or STOMP")]
    NotConnected,
    /// A second CONNECT.
    #[error("already connected")]
    AlreadyConnected,
    /// CONNECT did not come in time.
    #[error("no CONNECT came within {0} ms")]
    ConnectTimeout(u64),
    /// The client is silent for twice the heart-beat that it promised.
    #[error("no heart-beat came within {0} ms")]
    HeartBeatMissed(u64),
    /// No common version.
    #[error("supported versions are {all}", all = Version::ALL)]
    NoCommonVersion,
    /// The command lacks a header.
    #[error("{command} needs the header {header}")]
    MissingHeader {
        /// The frame's command.
        command: &'static str,
        /// The header's name.
        header: &'static str,
    },
    /// A header's value cannot be used.
    #[error("the header {header} must be {expected}")]
    BadHeader {
        /// The header's name.
        header: &'static str,
        /// What it must be.
        expected: &'static str,
    },
    /// The destination is not a valid one.
    #[error("bad destination: {0}")]
    Destination(#[from] ParseDestinationError),
    /// The selector cannot be read.
    #[error("bad selector: {0}")]
    Selector(SelectorError),
    /// The command does not exist in the connection's version.
    #[error("{command} is not part of STOMP {version}", version = .version.as_str())]
    NotInVersion {
        /// The command.
        command: &'static str,
        /// The connection's version.
        version: Version,
    },
    /// BEGIN names a transaction that is open.
    #[error("the transaction is already open")]
    TransactionOpen,
    /// A frame names a transaction that is not open.
    #[error("no such transaction is open")]
    UnknownTransaction,
    /// SUBSCRIBE uses the id of another subscription.
    #[error("the subscription id is in use")]
    SubscriptionInUse,
    /// UNSUBSCRIBE matches no subscription.
    #[error("no subscription matches")]
    UnknownSubscription,
    /// ACK or NACK of something that this connection does not hold; the connection goes on, as in ActiveMQ.
    #[error("no such message awaits acknowledgement")]
    UnknownDelivery,
    /// A durable subscription without a client id.
    #[error("a durable subscription needs the header client-id at CONNECT")]
    NoClientId,
    /// What this kind of destination does not offer.
    #[error("{0}")]
    NotOffered(&'static str),
    /// A limit in number is reached.
    #[error("at most {max} {what} at a time")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many are allowed.
        max: usize,
    },
}
