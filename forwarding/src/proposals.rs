//! Commands given to the node to be committed: which are open, and which are to be given again.

use std::collections::BTreeMap;

use ferrymq_broker::{GroupId, Renew, TransferId};

/// What a proposal is for; the command is made anew from the tables each time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Store an arrived transfer.
    Accept { origin: GroupId, transfer: TransferId },
    /// Forget an answered one.
    Release { group: GroupId, transfer: TransferId },
    /// Take back one of an earlier life that is settled there.
    TakeBack { group: GroupId, transfer: TransferId },
    /// Drop the marks below this floor.
    Forget { origin: GroupId, floor: TransferId },
    /// Begin a new life of this group.
    Renew(Renew),
}

/// Open and failed proposals.
#[derive(Debug, Default)]
pub(crate) struct Proposals {
    next_token: u64,
    open: BTreeMap<u64, (Purpose, u64)>,
    /// By the time when they are due and the order in which they failed.
    failed: BTreeMap<(u64, u64), Purpose>,
}

impl Proposals {
    /// A new open proposal's token.
    pub(crate) fn open(&mut self, purpose: Purpose, now_ms: u64) -> u64 {
        self.next_token += 1;
        self.open.insert(self.next_token, (purpose, now_ms));
        self.next_token
    }

    /// The purpose of an open proposal, which is closed by that.
    pub(crate) fn close(&mut self, token: u64) -> Option<Purpose> {
        self.open.remove(&token).map(|(purpose, _)| purpose)
    }

    /// To be given again at this time.
    pub(crate) fn again_at(&mut self, due_ms: u64, purpose: Purpose) {
        self.next_token += 1;
        self.failed.insert((due_ms, self.next_token), purpose);
    }

    /// What is due to be given again.
    pub(crate) fn due(&mut self, now_ms: u64) -> Vec<Purpose> {
        let later = self.failed.split_off(&(now_ms + 1, 0));
        std::mem::replace(&mut self.failed, later).into_values().collect()
    }

    /// Proposals that the node has left unanswered since before this time; they are closed by that.
    pub(crate) fn unanswered_since(&mut self, before_ms: u64) -> Vec<Purpose> {
        let late = self
            .open
            .iter()
            .filter(|(_, (_, at_ms))| *at_ms < before_ms)
            .map(|(token, _)| *token);
        let late: Vec<u64> = late.collect();
        late.into_iter().filter_map(|token| self.close(token)).collect()
    }

    /// When [`Self::due`] next yields something.
    pub(crate) fn due_at_ms(&self) -> Option<u64> {
        self.failed.keys().next().map(|(due_ms, _)| *due_ms)
    }
}
