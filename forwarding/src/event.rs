//! What the driver tells the core about links.

use crate::frame::Frame;

/// One connection, from its beginning to its end; never used twice in one term.
pub type LinkId = u64;
/// One attempt at dialling.
pub type DialId = u64;

/// One thing that happened on the network.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// A connection is there, its peer's identity proved by the transport.
    Connected {
        /// The new link.
        link: LinkId,
        /// The attempt that led to it; `None` where the peer dialled.
        dial: Option<DialId>,
        /// The peer's group by its certificate.
        group: String,
        /// Its node by its certificate.
        node: u64,
    },
    /// An attempt led to nothing.
    DialFailed {
        /// Which.
        dial: DialId,
        /// Why, for people.
        error: String,
    },
    /// A frame came in.
    Frame {
        /// Over this link.
        link: LinkId,
        /// The frame.
        frame: Frame,
    },
    /// The round trip as measured by the transport.
    RoundTrip {
        /// Of this link.
        link: LinkId,
        /// Microseconds.
        rtt_us: u32,
    },
    /// Nothing is heard over a link any more, not even a sign of life, or something is again. It has not ended yet.
    Silence {
        /// Which.
        link: LinkId,
        /// False where it is heard again.
        is_silent: bool,
    },
    /// A link ended, or its bytes are no frames.
    Closed {
        /// Which.
        link: LinkId,
        /// Why, for people.
        reason: String,
    },
}
