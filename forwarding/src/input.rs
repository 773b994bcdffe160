//! What the node tells the mesh.

use ferrymq_broker::{Carried, GroupId, Outcome, QueueId, TransferId};
use ferrymq_message::Destination;

use crate::output::KnownGroup;

/// One thing that the node tells the mesh.
#[derive(Debug, Clone, PartialEq)]
pub enum Input {
    /// Everyone whom discovery knows now, absolute. A peer that is missing is dialled no more; a link that is up stays.
    Peers(Vec<PeerCandidate>),
    /// What this group's own consumers want of one destination now, absolute.
    LocalDemand {
        /// Of which destination.
        destination: Destination,
        /// Consumers here (for topics: subscriptions); 0 means that the demand is gone.
        consumers: u32,
        /// Free places of these consumers, less what already waits for them here, in messages.
        credit: u32,
        /// Their distinct selectors; `None` among them wants all.
        selectors: Vec<Option<String>>,
        /// True where a durable subscription is among them, whether its client is here or away.
        durable: bool,
        /// What may be sent ahead of the free places.
        pace: Pace,
    },
    /// How late it is for this group: once a second, since the mesh has a clock of its own for the time between. Messages
    /// cross with what is left of their lives by it.
    Time {
        /// The group's time, in milliseconds since 1970. None at the beginning of a term where it is not known yet: until it is
        /// nothing is handed over.
        time_ms: Option<u64>,
    },
    /// How much room this group has for messages from others now. It has all of it until told otherwise.
    Room(Room),
    /// An offer was committed, or is pending from an earlier term (and then may already be accepted there). Sent, and
    /// repeated until answered. To be told in the order of `transfer` per group.
    Offered {
        /// The queue that the messages are set aside in.
        queue: QueueId,
        /// The next hop.
        group: GroupId,
        /// Its number among all transfers to that group.
        transfer: TransferId,
        /// Where the messages go to.
        destination: Destination,
        /// Topics: the group this copy is for. `None` for queues.
        target: Option<GroupId>,
        /// The messages, in order.
        messages: Vec<Carried>,
    },
    /// Once at the start of a term, after the demand of durable subscriptions: how far earlier terms have come. Until then
    /// no floor is told to anyone, so that no receiver forgets a transfer that is still in doubt; nor does anyone take what
    /// is told of demand for this group's whole word.
    Settled {
        /// Per group to which there ever was a transfer: the next one's number. What lies below is settled but for …
        next: Vec<(GroupId, TransferId)>,
        /// … all those that are pending, and for each of which there is, before or after this, an [`Input::Offered`].
        pending: Vec<(GroupId, TransferId)>,
        /// Of other groups' transfers: each group's floor, and the number above the highest that was accepted.
        arrived: Vec<(GroupId, TransferId, TransferId)>,
    },
    /// The operator says that the log went back, as of a copy that was put back: begin a new life.
    Renew,
    /// Once at the start of a term, before [`Input::Settled`]: what earlier terms have kept of the other groups.
    Remembered(Vec<KnownGroup>),
    /// The operator gave up a group: forget what is remembered of its demand.
    Forgotten {
        /// The lost group.
        group: GroupId,
    },
    /// The operator took back what was offered to a group that is lost for good: forget these transfers.
    Reclaimed {
        /// The lost group.
        group: GroupId,
        /// Every transfer to it below this number is no longer pending.
        below: TransferId,
    },
    /// The answer to an [`Output::Propose`](crate::Output::Propose). An [`Input::LocalDemand`]
    /// that counts the messages of an accept comes after it; until then the mesh counts them itself.
    Proposed {
        /// As in the proposal.
        token: u64,
        /// Its outcome once committed and applied; or that there is none, and then it is proposed again.
        result: Result<Outcome, Failed>,
    },
    /// How do the links stand at this moment? Answered by an [`Output::Status`](crate::Output::Status).
    StatusAsked {
        /// To be handed back with the answer.
        ask: u64,
    },
    /// Nothing happened, but time passed. The driver ticks by itself; a test does it by hand.
    Tick,
}

/// How much the consumers of a destination do. A neighbour is told credit beyond their free places, for as much as they
/// finish until it hears that they have room again and the next message has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Pace {
    /// Consumers that have been at work lately.
    pub busy: u32,
    /// Messages that all of these finish in a second while they are at work.
    pub per_second: u32,
    /// Messages that wait for them here beyond their free places.
    pub behind: u32,
    /// Messages that they have in hand, not acknowledged.
    pub in_hand: u32,
}

/// How much room a group has for messages from others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Room {
    /// As much as its consumers have.
    #[default]
    Plenty,
    /// It is full, but has been for so long that it takes a little for consumers that have nothing to do: two groups that
    /// are full of what only the other one's consumers want would wait for each other for ever.
    Little,
    /// None: nobody is told any credit, and what arrives all the same waits unanswered, within the bounds of what may be
    /// in flight.
    None,
}

/// Somebody who may be the master, or any node, of another group. A hint: the link proves who it is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct PeerCandidate {
    /// The group's name, where known; a static address has none.
    pub group: Option<String>,
    /// The group's id, where known.
    pub group_id: Option<GroupId>,
    /// `host:port` of nodes of that one group, the likeliest master first.
    pub endpoints: Vec<String>,
}

/// Why a proposal has no outcome. It may have been committed nevertheless; every command proposed is idempotent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Failed {
    /// The queue of proposals is full, or the majority is not there: repeat it later.
    #[error("no outcome for now, to be repeated")]
    Retry,
    /// This node is no longer the master: the mesh stops proposing and closes its links.
    #[error("this node is no longer the master")]
    NotMaster,
}
