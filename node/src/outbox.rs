//! What one connection has on its way in and out, counted in bytes, so that neither a slow reader nor a flood of sends
//! can take more memory than it is allowed (P8).

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicU64, AtomicUsize, Ordering},
};

use ferrymq_protocol::Refusal;
use tokio::sync::Notify;

use crate::load::Load;

/// Shared between a connection, the master's loop and the warden.
#[derive(Debug)]
pub(crate) struct Outbox {
    load: Arc<Load>,
    /// Message bytes handed to the connection and not yet written to its socket.
    unwritten: AtomicUsize,
    /// What of it counts for the node: subscribers of a topic share a message's memory.
    charged: AtomicUsize,
    /// When the socket last took everything, or was last given something after that.
    moved_ms: AtomicU64,
    /// Message bytes that the client sent and that are not yet answered.
    unanswered: AtomicUsize,
    /// Bytes of what is not complete: a frame that has begun, and what its session has put aside.
    unfinished: AtomicUsize,
    /// Since when there is something unfinished without a break.
    unfinished_ms: AtomicU64,
    /// Transactions and subscriptions.
    kept: AtomicUsize,
    /// Bytes in transactions that are open, and when one last grew.
    in_transactions: AtomicUsize,
    transaction_ms: AtomicU64,
    /// Told when sends were answered.
    answered: Notify,
    /// Why the connection shall end, whether its client reads or not.
    ended: Mutex<Option<Refusal>>,
    ending: Notify,
}

/// How much a connection may read now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Allowance {
    Nothing,
    /// So many bytes: memory is short, but this may be the acknowledgement that makes room.
    Little(usize),
    Anything,
}

/// What a connection may always have in unfinished frames, in bytes.
pub(crate) const UNFINISHED_BYTES_FREE: usize = 16 << 10;
/// And what it may always have unanswered, so that an acknowledgement behind a send that waits is heard.
const UNANSWERED_BYTES_FREE: usize = 16 << 10;

impl Outbox {
    pub(crate) fn new(load: Arc<Load>) -> Self {
        Self {
            load,
            unwritten: AtomicUsize::new(0),
            charged: AtomicUsize::new(0),
            moved_ms: AtomicU64::new(0),
            unanswered: AtomicUsize::new(0),
            unfinished: AtomicUsize::new(0),
            unfinished_ms: AtomicU64::new(0),
            kept: AtomicUsize::new(0),
            in_transactions: AtomicUsize::new(0),
            transaction_ms: AtomicU64::new(0),
            answered: Notify::new(),
            ended: Mutex::new(None),
            ending: Notify::new(),
        }
    }

    pub(crate) fn unwritten_bytes(&self) -> usize {
        self.unwritten.load(Ordering::Relaxed)
    }

    /// So many bytes are on their way to the client, of which `charged` count for the node.
    pub(crate) fn hand_out(&self, bytes: usize, charged: usize) {
        if self.unwritten.fetch_add(bytes, Ordering::Relaxed) == 0 {
            self.moved_ms.store(self.load.now_ms(), Ordering::Relaxed);
        }
        self.charged.fetch_add(charged, Ordering::Relaxed);
        self.load.memory.outgoing.take(charged);
    }

    /// The socket has taken everything that it was given, which was so much.
    pub(crate) fn written(&self, bytes: usize, charged: usize) {
        self.unwritten.fetch_sub(bytes, Ordering::Relaxed);
        self.charged.fetch_sub(charged, Ordering::Relaxed);
        self.load.memory.outgoing.give_back(charged);
        self.moved_ms.store(self.load.now_ms(), Ordering::Relaxed);
    }

    /// May more be handed out? Whoever has nothing gets something as long as there is anything.
    pub(crate) fn has_room(&self, outbox_bytes_max: usize) -> bool {
        let own = self.unwritten_bytes();
        let outgoing = &self.load.memory.outgoing;
        own < outbox_bytes_max && (!outgoing.is_spent() || own == 0 && !outgoing.is_exhausted())
    }

    /// How long the socket has not taken what it was given, in milliseconds.
    pub(crate) fn stalled_ms(&self) -> u64 {
        if self.unwritten_bytes() == 0 {
            return 0;
        }
        self.load.now_ms().saturating_sub(self.moved_ms.load(Ordering::Relaxed))
    }

    pub(crate) fn unanswered_bytes(&self) -> usize {
        self.unanswered.load(Ordering::Relaxed)
    }

    pub(crate) fn take_in(&self, bytes: usize) {
        self.unanswered.fetch_add(bytes, Ordering::Relaxed);
        self.load.memory.incoming.take(bytes);
    }

    pub(crate) fn answer(&self, bytes: usize) {
        self.unanswered.fetch_sub(bytes, Ordering::Relaxed);
        self.load.memory.incoming.give_back(bytes);
        self.answered.notify_one();
    }

    /// So many bytes are unfinished now. Only the connection itself calls it.
    pub(crate) fn set_unfinished(&self, bytes: usize) {
        let before = self.unfinished.swap(bytes, Ordering::Relaxed);
        if before == bytes {
            return;
        }
        if before < bytes {
            self.load.memory.incoming.take(bytes - before);
        } else {
            self.load.memory.incoming.give_back(before - bytes);
        }
        // What is less than before belongs to a later frame.
        if before == 0 || bytes < before {
            self.unfinished_ms.store(self.load.now_ms(), Ordering::Relaxed);
        }
    }

    pub(crate) fn unfinished_bytes(&self) -> usize {
        self.unfinished.load(Ordering::Relaxed)
    }

    /// How long one frame has been coming, in milliseconds.
    pub(crate) fn unfinished_for_ms(&self) -> u64 {
        if self.unfinished_bytes() == 0 {
            return 0;
        }
        self.load
            .now_ms()
            .saturating_sub(self.unfinished_ms.load(Ordering::Relaxed))
    }

    /// How much may be read, of this client and in view of all.
    pub(crate) fn allowance(&self, unanswered_bytes_max: usize) -> Allowance {
        let (unanswered, unfinished) = (self.unanswered_bytes(), self.unfinished_bytes());
        if unanswered >= unanswered_bytes_max {
            Allowance::Nothing
        } else if !self.load.memory.incoming.is_spent() {
            Allowance::Anything
        } else if unanswered < UNANSWERED_BYTES_FREE && unfinished < UNFINISHED_BYTES_FREE {
            Allowance::Little(UNFINISHED_BYTES_FREE - unfinished)
        } else {
            Allowance::Nothing
        }
    }

    /// Keeps so much for longer; false where there is no memory for it.
    pub(crate) fn keep(&self, bytes: usize) -> bool {
        let kept = &self.load.memory.kept;
        if kept.held() + bytes > kept.max() {
            self.load.counts.keeps_refused.add();
            return false;
        }
        kept.take(bytes);
        self.kept.fetch_add(bytes, Ordering::Relaxed);
        true
    }

    pub(crate) fn let_go(&self, bytes: usize) {
        self.kept.fetch_sub(bytes, Ordering::Relaxed);
        self.load.memory.kept.give_back(bytes);
    }

    /// As [`Outbox::keep`], for a transaction.
    pub(crate) fn keep_in_transaction(&self, bytes: usize) -> bool {
        let keeps = self.keep(bytes);
        if keeps {
            self.in_transactions.fetch_add(bytes, Ordering::Relaxed);
            self.transaction_ms.store(self.load.now_ms(), Ordering::Relaxed);
        }
        keeps
    }

    /// A transaction that held so much has ended.
    pub(crate) fn end_transaction(&self, bytes: usize) {
        self.in_transactions.fetch_sub(bytes, Ordering::Relaxed);
        self.let_go(bytes);
    }

    pub(crate) fn transaction_bytes(&self) -> usize {
        self.in_transactions.load(Ordering::Relaxed)
    }

    /// How long no transaction has grown, in milliseconds.
    pub(crate) fn transactions_idle_ms(&self) -> u64 {
        if self.transaction_bytes() == 0 {
            return 0;
        }
        self.load
            .now_ms()
            .saturating_sub(self.transaction_ms.load(Ordering::Relaxed))
    }

    /// Ends the connection at once; the first reason counts.
    pub(crate) fn end(&self, why: Refusal) {
        let mut ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        ended.get_or_insert(why);
        self.ending.notify_one();
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// Completes when the connection shall end at once, with the reason.
    pub(crate) async fn wait_for_end(&self) -> Refusal {
        loop {
            if let Some(why) = &*self.ended.lock().unwrap_or_else(PoisonError::into_inner) {
                return why.clone();
            }
            self.ending.notified().await;
        }
    }

    /// Completes when something was answered since the last call.
    pub(crate) async fn wait_for_answer(&self) {
        self.answered.notified().await;
    }
}

impl Drop for Outbox {
    fn drop(&mut self) {
        // What was never answered or written, because the connection or the term ended first, is nobody's any more.
        let memory = &self.load.memory;
        memory
            .incoming
            .give_back(self.unanswered_bytes() + self.unfinished_bytes());
        memory.kept.give_back(self.kept.load(Ordering::Relaxed));
        memory.outgoing.give_back(self.charged.load(Ordering::Relaxed));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::Memory;

    fn outboxes() -> (Arc<Load>, Outbox, Outbox) {
        let load = Arc::new(Load::new(Memory::new(1 << 20, 64 << 10)));
        (load.clone(), Outbox::new(load.clone()), Outbox::new(load))
    }

    #[test]
    fn memory_that_one_client_holds_is_missing_to_others_but_for_a_little() {
        let (load, greedy, modest) = outboxes();
        greedy.take_in(load.memory.incoming.max());
        assert_eq!(greedy.allowance(usize::MAX), Allowance::Nothing);
        assert_eq!(modest.allowance(usize::MAX), Allowance::Little(UNFINISHED_BYTES_FREE));
        modest.set_unfinished(UNFINISHED_BYTES_FREE);
        assert_eq!(modest.allowance(usize::MAX), Allowance::Nothing);
        modest.set_unfinished(0);
        modest.take_in(UNANSWERED_BYTES_FREE);
        assert_eq!(modest.allowance(usize::MAX), Allowance::Nothing);
        modest.answer(UNANSWERED_BYTES_FREE);
        drop(greedy);
        assert_eq!(modest.allowance(usize::MAX), Allowance::Anything);
        modest.take_in(10);
        assert_eq!(modest.allowance(10), Allowance::Nothing, "its own bound");
        drop(modest);
        assert_eq!(load.memory.incoming.held(), 0);
    }

    #[test]
    fn a_consumer_that_has_nothing_gets_something_from_the_last_quarter() {
        let (load, slow, fresh) = outboxes();
        let max = load.memory.outgoing.max();
        slow.hand_out(max, max);
        assert!(!slow.has_room(usize::MAX) && fresh.has_room(usize::MAX));
        fresh.hand_out(1, 1);
        assert!(!fresh.has_room(usize::MAX), "it has something now");
        fresh.written(1, 1);
        slow.hand_out(max / 4, max / 4);
        assert!(!fresh.has_room(usize::MAX), "nothing is left");
        drop(slow);
        assert_eq!(load.memory.outgoing.held(), 0);
    }

    #[test]
    fn what_is_kept_has_a_bound_and_goes_with_the_connection() {
        let (load, one, other) = outboxes();
        let max = load.memory.kept.max();
        assert!(one.keep_in_transaction(max) && !other.keep(1));
        assert_eq!(load.counts.keeps_refused.get(), 1);
        one.end_transaction(max);
        assert!(other.keep(1));
        drop(other);
        assert_eq!(load.memory.kept.held(), 0);
    }
}
