//! Which life of its group a state belongs to. A group's log can go back: a copy is restored, or a power cut takes what
//! was acknowledged from memory only. What it said in the life that was lost must not answer what it says in the next
//! one, so each life has a number of its own, its incarnation, and what groups tell each other is ordered by it first.
//!
//! Epochs and transfers' numbers carry the incarnation in their upper bits, so that one comparison orders them:
//!
//! ```text
//! 63 ‥ 40 incarnation | 39 ‥ 0 term of the master, or number of the transfer within the incarnation
//! ```
//!
//! Data of before there were incarnations are of incarnation 0, and read as they are.

use crate::TransferId;

/// See the file's head.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Life {
    /// Grows with each renewal.
    pub incarnation: u64,
    /// Drawn at random at the renewal: two copies of one state that were renewed apart differ in it. 0 until the first one.
    pub lineage: u64,
}

const LOWER_BITS: u32 = 40;
/// No state is renewed beyond it, whatever a neighbour says: numbers of transfers stay far below where they overflow.
pub const INCARNATION_MAX: u64 = 1 << 20;

impl Life {
    /// The epoch of this life's master in its term.
    pub fn epoch(&self, term: u64) -> u64 {
        epoch_of(self.incarnation, term)
    }
}

/// The epoch of a master: a later incarnation is later, whichever its term is.
pub fn epoch_of(incarnation: u64, term: u64) -> u64 {
    (incarnation << LOWER_BITS) | term
}

/// The incarnation that an epoch or a transfer's number is of.
pub fn incarnation_of(number: u64) -> u64 {
    number >> LOWER_BITS
}

/// The master's term within its incarnation.
pub fn term_of(epoch: u64) -> u64 {
    epoch & ((1 << LOWER_BITS) - 1)
}

/// The lowest number of a transfer in this incarnation.
pub fn first_transfer(incarnation: u64) -> TransferId {
    incarnation << LOWER_BITS
}
