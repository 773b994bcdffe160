//! Both sides of handing messages over between groups (P4): what is under offer, and what was accepted.
//!
//! The owner numbers its transfers to one group in their order, without gaps within one of its lives (see
//! [`life`](crate::life)). The receiver remembers each accepted number until the
//! owner says that everything below a floor is settled; from then on a number below the floor stores nothing. So a late
//! copy of a transfer, from whichever master and over whichever link, can never be stored twice.

use std::collections::BTreeMap;

use crate::{GroupId, QueueId, Refused, TransferId};

/// Messages set aside for another group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PendingOffer {
    /// Their queue.
    pub queue: QueueId,
    /// Their numbers in it.
    pub seqs: Vec<u64>,
}

/// The owner's side towards one group.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Outgoing {
    /// The receiving group's name, for people.
    pub group_name: String,
    /// The next transfer's number.
    pub next: TransferId,
    /// Offered and not yet released.
    pub pending: BTreeMap<TransferId, PendingOffer>,
}

impl Outgoing {
    /// Every transfer below this number is settled.
    pub fn floor(&self) -> TransferId {
        self.pending.keys().next().copied().unwrap_or(self.next)
    }
}

/// Drops what is under offer of a queue that is no more. The receiver may still accept such a transfer and then owns its
/// messages; or the floor passes it, and nobody does, as with the rest of the queue.
/// Returns how many transfers that were.
pub(crate) fn abandon(outgoing: &mut BTreeMap<GroupId, Outgoing>, queue: QueueId) -> u64 {
    let mut abandoned = 0;
    for group in outgoing.values_mut() {
        let before = group.pending.len();
        group.pending.retain(|_, offer| offer.queue != queue);
        abandoned += (before - group.pending.len()) as u64;
    }
    abandoned
}

/// The receiver's side towards one owner.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Incoming {
    /// Every transfer below this number is settled.
    pub floor: TransferId,
    /// Accepted and not yet known to be settled, with what was refused of each.
    pub accepted: BTreeMap<TransferId, Vec<Refused>>,
}

/// All transfers of this group.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Transfers {
    /// By receiving group.
    pub outgoing: BTreeMap<GroupId, Outgoing>,
    /// By owner.
    pub incoming: BTreeMap<GroupId, Incoming>,
}
