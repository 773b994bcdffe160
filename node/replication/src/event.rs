//! What a group tells its node, in log order: what was applied, what became of the commands submitted here, and the end.

use ferrymq_broker::{Effect, Outcome};

/// What became of one submitted command: the token that it was submitted with, and its outcome.
pub type Completion = (u64, Result<Outcome, Failure>);

/// Something the node's main loop must react to. Effects of an entry always come before, or with, its results.
#[derive(Debug, PartialEq)]
pub enum GroupEvent {
    /// An entry was applied. Sent while attached ([`crate::Group::attach`]) or when it was submitted on this node.
    Applied {
        /// The entry's log index.
        index: u64,
        /// What the master has to do; empty unless attached.
        effects: Vec<Effect>,
        /// Results of the commands submitted on this node, in order; empty when another node proposed the entry.
        results: Vec<Completion>,
    },
    /// Commands that were not applied, or of which nothing is known.
    Done {
        /// In the order of submission.
        results: Vec<Completion>,
    },
    /// The replica cannot go on: the process must end (non-zero) with this text. The first one counts; failures of
    /// what was under way may follow.
    Fatal(String),
}

/// Why a submitted command has no outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// It was certainly not stored: this node is not the master, or its lease has run out.
    #[error("this node is not the master")]
    NotMaster,
    /// It may or may not be stored: the master changed while it was under way. Resending is safe where duplicates are
    /// recognised (P5).
    #[error("the master changed before the outcome was known")]
    Unknown,
    /// It was certainly not stored: the disk is full.
    #[error("the disk is full")]
    Full,
    /// The replica has stopped; what became of the command is unknown.
    #[error("the replica has stopped")]
    Fatal,
}
