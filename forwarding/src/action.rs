//! What the core wants done. The list is closed: the mesh has no other way to act.

use crate::{
    event::{DialId, LinkId},
    frame::Frame,
    output::Output,
};

/// One thing to do, in the order given.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Dial, and answer with `Connected` or `DialFailed`.
    Dial {
        /// The attempt's number.
        dial: DialId,
        /// `host:port`.
        endpoint: String,
        /// The group that must answer, where known.
        group: Option<String>,
        /// How long it may take; later it counts as failed.
        deadline_ms: u64,
    },
    /// Send a frame; frames of one lane stay in order.
    Send {
        /// Over this link.
        link: LinkId,
        /// The frame.
        frame: Frame,
    },
    /// End a link. No event for it is needed or heeded any more.
    Close {
        /// Which.
        link: LinkId,
        /// Told to the peer.
        reason: String,
    },
    /// Tell the node.
    Output(Output),
}
