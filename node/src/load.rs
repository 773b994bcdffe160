//! What the clients of this node make it bear, who they are, and what was done about it: one for all connections.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::Instant,
};

use bytes::Bytes;
use ferrymq_dispatch::ConnectionId;
use ferrymq_message::StoredMessage;
use serde_json::{Value, json};

use crate::{clock, memory::Memory, outbox::Outbox};

/// See the file's head.
#[derive(Debug)]
pub(crate) struct Load {
    pub(crate) memory: Memory,
    pub(crate) counts: Counts,
    connections: Mutex<BTreeMap<ConnectionId, Arc<Outbox>>>,
    begun: Instant,
    /// The group's time less that since boot; [`UNKNOWN`] before the first term.
    group_time_ms: AtomicI64,
}

const UNKNOWN: i64 = i64::MIN;

/// What has happened since the start.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    /// Connections that came in.
    pub(crate) accepted: Count,
    /// Accepts that failed, mostly for want of file descriptors.
    pub(crate) accept_errors: Count,
    /// Refused because there were too many.
    pub(crate) refused: Count,
    /// Refused because too many came from one address.
    pub(crate) refused_address: Count,
    /// Ended before their log-in, to make room for others.
    pub(crate) strangers_cut: Count,
    /// Ended for a breach of the protocol or a missed deadline.
    pub(crate) protocol_errors: Count,
    /// Ended while memory was short: they did not take what was sent to them.
    pub(crate) slow_consumers_cut: Count,
    /// Ended while memory was short: they did not complete what they had begun to send.
    pub(crate) slow_senders_cut: Count,
    /// Ended while memory was short: they held a transaction open.
    pub(crate) idle_transactions_cut: Count,
    /// Requests refused because there was no memory to keep what they hold.
    pub(crate) keeps_refused: Count,
    /// Requests refused because there are as many destinations as there may be.
    pub(crate) destinations_refused: Count,
    /// Times that a producer had to wait for room.
    pub(crate) producers_slowed: Count,
}

/// Something counted.
#[derive(Debug, Default)]
pub(crate) struct Count(AtomicU64);

impl Count {
    pub(crate) fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Load {
    pub(crate) fn new(memory: Memory) -> Self {
        Self {
            memory,
            counts: Counts::default(),
            connections: Mutex::default(),
            begun: Instant::now(),
            group_time_ms: AtomicI64::new(UNKNOWN),
        }
    }

    /// Milliseconds since the node's start, at least 1.
    pub(crate) fn now_ms(&self) -> u64 {
        self.begun.elapsed().as_millis() as u64 + 1
    }

    /// How late it is for the group, in milliseconds since 1970; by this node's wall clock before the first term here.
    pub(crate) fn group_time_ms(&self) -> i64 {
        match self.group_time_ms.load(Ordering::Relaxed) {
            UNKNOWN => clock::now_ms(),
            from_boot_ms => clock::boot_ms().saturating_add(from_boot_ms),
        }
    }

    /// The master says how late it is.
    pub(crate) fn set_group_time(&self, time_ms: i64) {
        let from_boot_ms = time_ms.saturating_sub(clock::boot_ms());
        self.group_time_ms.store(from_boot_ms, Ordering::Relaxed);
    }

    pub(crate) fn add(&self, connection: ConnectionId, outbox: Arc<Outbox>) {
        self.lock().insert(connection, outbox);
    }

    pub(crate) fn remove(&self, connection: ConnectionId) {
        self.lock().remove(&connection);
    }

    /// Those that are served here, with what each holds.
    pub(crate) fn connections(&self) -> Vec<(ConnectionId, Arc<Outbox>)> {
        let connections = self.lock();
        connections.iter().map(|(id, outbox)| (*id, outbox.clone())).collect()
    }

    /// The message with its memory counted, once, until the last copy of it is gone.
    pub(crate) fn shared(self: &Arc<Self>, message: &StoredMessage) -> StoredMessage {
        let bytes = message.bytes().clone();
        self.memory.outgoing.take(bytes.len());
        let load = self.clone();
        StoredMessage::new(Bytes::from_owner(Shared { bytes, load })).unwrap_or_else(|_| message.clone())
    }

    pub(crate) fn to_json(&self) -> Value {
        let counts = &self.counts;
        json!({
            "memory": self.memory.to_json(),
            "served": self.lock().len(),
            "accepted": counts.accepted.get(),
            "accept_errors": counts.accept_errors.get(),
            "refused": counts.refused.get(),
            "refused_address": counts.refused_address.get(),
            "strangers_cut": counts.strangers_cut.get(),
            "protocol_errors": counts.protocol_errors.get(),
            "slow_consumers_cut": counts.slow_consumers_cut.get(),
            "slow_senders_cut": counts.slow_senders_cut.get(),
            "idle_transactions_cut": counts.idle_transactions_cut.get(),
            "keeps_refused": counts.keeps_refused.get(),
            "destinations_refused": counts.destinations_refused.get(),
            "producers_slowed": counts.producers_slowed.get(),
        })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<ConnectionId, Arc<Outbox>>> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A message's bytes that several deliveries share.
struct Shared {
    bytes: Bytes,
    load: Arc<Load>,
}

impl AsRef<[u8]> for Shared {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.load.memory.outgoing.give_back(self.bytes.len());
    }
}

#[cfg(test)]
mod tests {
    use ferrymq_message::{Destination, Message};

    use super::*;

    #[test]
    fn a_shared_message_counts_once_and_until_its_last_piece_is_gone() {
        let load = Arc::new(Load::new(Memory::new(1 << 20, 1 << 10)));
        let message = StoredMessage::new(Message::new("m", Destination::topic("T"), vec![7; 5000]).encode()).unwrap();
        let shared = load.shared(&message);
        let copies = vec![shared.clone(); 100];
        let bytes = message.bytes().len();
        assert_eq!(load.memory.outgoing.held(), bytes);
        let body = shared.body();
        drop((shared, copies));
        assert_eq!(load.memory.outgoing.held(), bytes, "the body is part of it");
        drop(body);
        assert_eq!(load.memory.outgoing.held(), 0);
    }
}
