//! The types that openraft is instantiated with, and short names for those that follow from them.

use std::fmt;

use bytes::Bytes;
use ferrymq_broker::{Effect, Outcome};
use openraft::raft::ClientWriteResult;
use openraft::raft::responder::Responder;
use openraft::{EntryPayload, OptionalSend};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::config::{NodeAddress, NodeId};
use crate::state_machine::StateMachine;

pub(crate) type Raft = openraft::Raft<Types, StateMachine>;
pub(crate) type LogId = openraft::alias::LogIdOf<Types>;
pub(crate) type Vote = openraft::alias::VoteOf<Types>;
pub(crate) type Entry = openraft::alias::EntryOf<Types>;
pub(crate) type StoredMembership = openraft::alias::StoredMembershipOf<Types>;
pub(crate) type SnapshotMeta = openraft::alias::SnapshotMetaOf<Types>;
pub(crate) type Written = ClientWriteResult<Types>;
type LeaderId = openraft::impls::leader_id_std::LeaderId<u64, NodeId>;

/// The instantiation. Written by hand because the library's macro takes no generic `Responder`.
///
/// Log ids are (term, index): one master a term (P7), and the journal's record headers carry exactly these.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Types;

impl openraft::RaftTypeConfig for Types {
    type D = Batch;
    type R = Reply;
    type NodeId = NodeId;
    type Node = NodeAddress;
    type Term = u64;
    type LeaderId = LeaderId;
    type Vote = openraft::impls::Vote<LeaderId>;
    type Payload = EntryPayload<Batch, NodeId, NodeAddress>;
    type Entry = openraft::impls::Entry<
        <LeaderId as openraft::vote::RaftLeaderId>::Committed,
        EntryPayload<Batch, NodeId, NodeAddress>,
    >;
    type AsyncRuntime = openraft::impls::TokioRuntime;
    type Responder<T>
        = Answer<T>
    where
        T: OptionalSend + 'static;
    type Batch<T>
        = openraft::impls::InlineBatch<T>
    where
        T: OptionalSend + 'static;
    type ErrorSource = openraft::impls::BoxedErrorSource;
}

/// An entry's payload: the commands of one batch as the broker encoded them. Cloning counts a reference.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Batch(pub(crate) Bytes);

impl fmt::Debug for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Batch({} bytes)", self.0.len())
    }
}

impl fmt::Display for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

// The library asks for serde of every payload. Entries are encoded by hand (entry.rs, wire.rs), so this is only reached
// by a mistake, and even then it is right.
impl Serialize for Batch {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.as_ref().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Batch {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Batch, D::Error> {
        Vec::<u8>::deserialize(deserializer).map(|bytes| Batch(Bytes::from(bytes)))
    }
}

/// What applying an entry gave, for the node that proposed it.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Reply {
    pub(crate) index: u64,
    #[serde(skip)]
    pub(crate) effects: Vec<Effect>,
    #[serde(skip)]
    pub(crate) outcomes: Vec<Outcome>,
}

/// Takes the result of a proposal to its proposer. Called exactly once: with `None` when the replica ended without one.
pub(crate) struct Answer<T>(Option<Box<dyn FnOnce(Option<T>) + Send>>);

impl<T> Answer<T> {
    pub(crate) fn new(answer: impl FnOnce(Option<T>) + Send + 'static) -> Answer<T> {
        Answer(Some(Box::new(answer)))
    }
}

impl<T: OptionalSend + 'static> Responder<Types, T> for Answer<T> {
    fn on_complete(mut self, result: T) {
        if let Some(answer) = self.0.take() {
            answer(Some(result));
        }
    }
}

impl<T> Drop for Answer<T> {
    fn drop(&mut self) {
        if let Some(answer) = self.0.take() {
            answer(None);
        }
    }
}

/// The journal's pair for a log id.
pub(crate) fn term_and_index(log_id: &LogId) -> (u64, u64) {
    (log_id.leader_id.term, log_id.index)
}

/// The log id for the journal's pair.
pub(crate) fn log_id(term: u64, index: u64) -> LogId {
    LogId::new(term.into(), index)
}
