//! What all clients together hold of this node's memory, in three accounts (P8). `limits.memory` is their sum.

use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};

/// The accounts of one node.
#[derive(Debug)]
pub(crate) struct Memory {
    /// Frames that are not complete, and what was sent and is not answered.
    pub(crate) incoming: Account,
    /// What stays for longer: transactions, and what clients have subscribed to.
    pub(crate) kept: Account,
    /// Messages handed out and not written to their sockets.
    pub(crate) outgoing: Account,
}

/// Bytes that are held, and how many may be.
#[derive(Debug)]
pub(crate) struct Account {
    held: AtomicUsize,
    peak: AtomicUsize,
    max: usize,
}

/// Room above the largest frame in the account that must take it.
const FRAME_SPARE_BYTES: usize = 64 << 10;

impl Memory {
    /// Half of it is for what goes out, a quarter for what comes in (one frame at least), a quarter for what is kept.
    pub(crate) fn new(bytes_max: usize, frame_bytes_max: usize) -> Self {
        Self {
            incoming: Account::new((bytes_max / 4).max(frame_bytes_max + FRAME_SPARE_BYTES)),
            kept: Account::new(bytes_max / 4),
            outgoing: Account::new(bytes_max / 2),
        }
    }

    pub(crate) fn to_json(&self) -> Value {
        json!({
            "incoming": self.incoming.to_json(),
            "kept": self.kept.to_json(),
            "outgoing": self.outgoing.to_json(),
        })
    }
}

impl Account {
    pub(crate) fn new(max: usize) -> Self {
        Self {
            held: AtomicUsize::new(0),
            peak: AtomicUsize::new(0),
            max,
        }
    }

    pub(crate) fn take(&self, bytes: usize) {
        let held = self.held.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if held > self.peak.load(Ordering::Relaxed) {
            self.peak.fetch_max(held, Ordering::Relaxed);
        }
    }

    pub(crate) fn give_back(&self, bytes: usize) {
        self.held.fetch_sub(bytes, Ordering::Relaxed);
    }

    pub(crate) fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    pub(crate) fn max(&self) -> usize {
        self.max
    }

    /// Three quarters are taken: whoever only holds and does not move has to go.
    pub(crate) fn is_tight(&self) -> bool {
        self.held() >= self.tight_at()
    }

    /// Where it is tight, in bytes.
    pub(crate) fn tight_at(&self) -> usize {
        self.max - self.max / 4
    }

    /// All is taken: only those who have nothing get something.
    pub(crate) fn is_spent(&self) -> bool {
        self.held() >= self.max
    }

    /// What is left for those who have nothing is taken, too.
    pub(crate) fn is_exhausted(&self) -> bool {
        self.held() >= self.max + self.max / 4
    }

    fn to_json(&self) -> Value {
        json!({ "held": self.held(), "peak": self.peak.load(Ordering::Relaxed), "max": self.max })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_is_tight_then_spent_then_exhausted_and_remembers_its_peak() {
        let account = Account::new(100);
        let state = |account: &Account| (account.is_tight(), account.is_spent(), account.is_exhausted());
        account.take(74);
        assert_eq!(state(&account), (false, false, false));
        account.take(1);
        assert_eq!(state(&account), (true, false, false));
        account.take(25);
        assert_eq!(state(&account), (true, true, false));
        account.take(25);
        assert_eq!(state(&account), (true, true, true));
        account.give_back(125);
        assert_eq!((account.held(), account.to_json()["peak"].as_u64()), (0, Some(125)));
    }

    #[test]
    fn one_frame_always_fits() {
        let memory = Memory::new(16 << 20, 16 << 20);
        assert!(memory.incoming.max() > 16 << 20);
    }
}
