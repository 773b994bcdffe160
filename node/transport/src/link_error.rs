//! Why there is no link to another group, or no longer one.

use std::io;

use crate::frame::FrameError;
use crate::name::PeerName;
use crate::refusal::Refusal;

/// Why there is no link to another group, or no longer one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// The other side closed the link and said why.
    #[error("closed by the other side: {text} (code {code})")]
    Closed {
        /// What the other side's user gave to `close`; 0 when it merely dropped the link.
        code: u32,
        /// For people.
        text: String,
    },
    /// This side closed the link.
    #[error("closed by this side")]
    ClosedHere,
    /// Nobody listens at the other side's port: its process is gone, or was not started.
    #[error("the other side's port is refused: no process listens there")]
    Refused,
    /// No sign of life within the idle time-out.
    #[error("nothing heard from the other side for too long")]
    Silent,
    /// The handshake took longer than allowed.
    #[error("no answer in time")]
    Timeout,
    /// No common trust: other mesh secret or other authority, on either side.
    #[error("TLS: {0} (do both sides have the same mesh secret, or certificates of a common authority?)")]
    Untrusted(String),
    /// A certificate is trusted but does not carry the name that its node claims.
    #[error("the certificate does not carry the name '{0}'")]
    WrongName(String),
    /// A node of another group than expected answered.
    #[error("expected a node of group '{expected}', found one of '{found}'")]
    WrongGroup {
        /// The group looked for.
        expected: String,
        /// The group found.
        found: String,
    },
    /// The other side speaks another version of the link's handshake.
    #[error("the other side speaks another version of the link's handshake: {0}")]
    Version(String),
    /// The other side does not keep to the form of a link.
    #[error("not a link: {0}")]
    Malformed(String),
    /// A frame was too large to send or to receive.
    #[error("a frame of {bytes} bytes is over the limit of {bytes_max}")]
    FrameTooLarge {
        /// Length of the payload.
        bytes: usize,
        /// The limit.
        bytes_max: usize,
    },
    /// The network or the other process failed.
    #[error("{0}")]
    Lost(String),
}

/// Why transport itself closes a link. Beyond the codes that users give, which have 32 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OwnCode {
    WrongName = 1,
    WrongGroup = 2,
    Version = 3,
    Malformed = 4,
    FrameTooLarge = 5,
}

impl OwnCode {
    pub(crate) fn varint(self) -> quinn::VarInt {
        quinn::VarInt::from_u64(OWN_CODES + self as u64).expect("below 2^62")
    }

    fn from_u64(code: u64) -> Option<Self> {
        [
            Self::WrongName,
            Self::WrongGroup,
            Self::Version,
            Self::Malformed,
            Self::FrameTooLarge,
        ]
        .into_iter()
        .find(|own| OWN_CODES + *own as u64 == code)
    }
}

impl LinkError {
    /// With which code transport closes the link because of this; `None` if the link is gone already.
    pub(crate) fn own_code(&self) -> Option<OwnCode> {
        match self {
            Self::WrongName(_) => Some(OwnCode::WrongName),
            Self::WrongGroup { .. } => Some(OwnCode::WrongGroup),
            Self::Version(_) => Some(OwnCode::Version),
            Self::Malformed(_) => Some(OwnCode::Malformed),
            Self::FrameTooLarge { .. } => Some(OwnCode::FrameTooLarge),
            _ => None,
        }
    }

    /// What the other side is told beside the code; it finds its own words for the rest.
    pub(crate) fn wire_text(&self) -> String {
        match self {
            Self::WrongName(text) | Self::Version(text) => text.clone(),
            other => other.to_string(),
        }
    }

    /// Under which reason an endpoint counts it.
    pub(crate) fn refusal(&self) -> Refusal {
        match self {
            Self::Untrusted(_) => Refusal::Untrusted,
            Self::WrongName(_) => Refusal::WrongName,
            Self::WrongGroup { .. } => Refusal::WrongGroup,
            Self::Version(_) => Refusal::Version,
            Self::Malformed(_) | Self::FrameTooLarge { .. } => Refusal::Garbage,
            _ => Refusal::Unfinished,
        }
    }

    /// What a failed read or write of a stream means: the connection's own reason, if it has one.
    pub(crate) fn of_stream(connection: &quinn::Connection, error: impl ToString) -> Self {
        match connection.close_reason() {
            Some(reason) => reason.into(),
            None => Self::Lost(error.to_string()),
        }
    }

    pub(crate) fn of_frame(connection: &quinn::Connection, error: FrameError) -> Self {
        match error {
            FrameError::TooLarge { bytes, bytes_max } => Self::FrameTooLarge { bytes, bytes_max },
            FrameError::Truncated | FrameError::Io(_) => Self::of_stream(connection, error),
        }
    }

    pub(crate) fn wrong_name(name: &PeerName) -> Self {
        Self::WrongName(name.to_string())
    }
}

impl From<quinn::ConnectionError> for LinkError {
    fn from(error: quinn::ConnectionError) -> Self {
        use quinn::ConnectionError as E;
        match error {
            E::ApplicationClosed(close) => {
                let text = String::from_utf8_lossy(&close.reason).into_owned();
                let code = close.error_code.into_inner();
                match (u32::try_from(code), OwnCode::from_u64(code)) {
                    (Ok(code), _) => Self::Closed { code, text },
                    (_, Some(OwnCode::WrongName)) => Self::WrongName(text),
                    (_, Some(OwnCode::Version)) => Self::Version(text),
                    _ => Self::Closed { code: 0, text },
                }
            }
            E::TransportError(error) if is_tls(error.code) => Self::Untrusted(error.to_string()),
            E::ConnectionClosed(close) if is_tls(close.error_code) => Self::Untrusted(close.to_string()),
            E::TimedOut => Self::Silent,
            E::LocallyClosed => Self::ClosedHere,
            other => Self::Lost(other.to_string()),
        }
    }
}

impl From<quinn::ConnectError> for LinkError {
    fn from(error: quinn::ConnectError) -> Self {
        Self::Lost(error.to_string())
    }
}

impl From<LinkError> for io::Error {
    fn from(error: LinkError) -> Self {
        Self::other(error)
    }
}

/// TLS alerts have the codes 0x100 to 0x1ff (RFC 9001 section 4.8).
fn is_tls(code: quinn::TransportErrorCode) -> bool {
    (0x100..0x200).contains(&u64::from(code))
}

const OWN_CODES: u64 = 1 << 32;
