//! What the mesh tells the node.

use ferrymq_broker::{Command, DemandVersion, GroupId};
use ferrymq_message::Destination;

/// One thing that the mesh tells the node.
#[derive(Debug, Clone, PartialEq)]
pub enum Output {
    /// Commit this command (Accept, Release, Forget, TakeBack or Renew), and answer with [`Input::Proposed`](crate::Input::Proposed).
    /// In the order given: the node waits for room rather than skip one (P6). The mesh repeats it, under a new token,
    /// until it has an outcome.
    Propose {
        /// To be handed back with the outcome.
        token: u64,
        /// What to commit.
        command: Command,
    },
    /// What all other groups want of one destination now, absolute: at most one row per origin.
    Demand {
        /// Of which destination.
        destination: Destination,
        /// In order of origin; empty means nobody.
        rows: Vec<RemoteDemand>,
    },
    /// What is known of one other group now, absolute: whether it can be reached, and its durable demand for topics as of
    /// its last word. The node keeps the latter beyond its term.
    Group(KnownGroup),
    /// The state of every link, in order of the peers' names; told when something changed, at most once a second.
    Links(Vec<LinkStatus>),
    /// The answer to an [`Input::StatusAsked`](crate::Input::StatusAsked).
    Status {
        /// As in the question.
        ask: u64,
        /// As in [`Self::Links`], but with the figures of the moment at which the mesh heard the question.
        links: Vec<LinkStatus>,
    },
}

/// What is known of one other group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownGroup {
    /// Which.
    pub group: GroupId,
    /// Its name.
    pub name: String,
    /// True where a chain of links leads there and all on it have told each other everything: what it does not name now it
    /// does not want.
    pub is_present: bool,
    /// Which word of it `topics` is.
    pub version: DemandVersion,
    /// The groups on the way there, the next hop first and itself last; as of that word.
    pub path: Vec<GroupId>,
    /// Topics of which it has durable subscriptions, in order.
    pub topics: Vec<String>,
}

/// What one other group's consumers want of one destination, and the way there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteDemand {
    /// To whom messages for it are offered.
    pub next_hop: GroupId,
    /// Its name.
    pub next_hop_name: String,
    /// Whose consumers these are.
    pub origin: GroupId,
    /// Its name.
    pub origin_name: String,
    /// Consumers there.
    pub consumers: u32,
    /// Messages that may be offered now: the credit told, less what [`Input::Offered`](crate::Input::Offered) named and
    /// is not answered yet. Offers that are proposed and not committed yet are for the dispatcher to subtract.
    pub available: u32,
    /// Distinct selectors; `None` among them wants all.
    pub selectors: Vec<Option<String>>,
    /// True where a durable subscription is among them.
    pub durable: bool,
    /// Links on the way; 1 is a neighbour.
    pub distance: u32,
    /// Round trip to the next hop, in microseconds.
    pub rtt_us: u32,
    /// False for durable demand of a group that cannot be reached now: messages are to be kept for it, none sent.
    pub linked: bool,
}

/// Where a link stands. Each state but `Up` has a deadline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkState {
    /// Waiting to dial again.
    BackOff,
    /// Dialling.
    Dialling,
    /// Connected; hellos are exchanged.
    Hello,
    /// Hellos agreed; waiting for the first snapshot.
    Syncing,
    /// In use.
    Up,
}

/// One link or the attempt at one, for status and metrics. Counts are of this term.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkStatus {
    /// The peer group's name; its first endpoint where the name is not known yet.
    pub peer: String,
    /// Its id, once known.
    pub group_id: Option<GroupId>,
    /// Its master's node id, once known.
    pub node: Option<u64>,
    /// Its master's term, once known.
    pub term: Option<u64>,
    /// Its incarnation, once known.
    pub incarnation: Option<u64>,
    /// The state.
    pub state: LinkState,
    /// Since when, on the clock of the caller of the mesh, in milliseconds.
    pub since_ms: u64,
    /// Round trip, in microseconds; 0 until measured.
    pub rtt_us: u32,
    /// By how much its group's time is ahead of this group's, in milliseconds, as of its last word; none until both are
    /// known.
    pub skew_ms: Option<i64>,
    /// Rows of demand heard.
    pub rows_in: u64,
    /// Rows of demand told.
    pub rows_out: u64,
    /// Transfers to it that are not released yet: sent, or waiting for the link.
    pub transfers_in_doubt: u64,
    /// Messages sent to it, repeats included.
    pub sent: u64,
    /// Messages accepted from it.
    pub received: u64,
    /// Messages that it refused.
    pub refused: u64,
    /// Times that demand differed and was told anew (P12).
    pub resyncs: u64,
    /// What ended the last attempt.
    pub last_error: Option<String>,
}
