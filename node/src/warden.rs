//! While memory is short, whoever only holds it and does not move has to go: consumers that do not read, senders that do
//! not complete their frame, transactions that do not end. While there is enough, everybody may be as slow as it likes.

use std::{sync::Arc, time::Duration};

use ferrymq_protocol::{Refusal, RefusalKind};

use crate::{
    load::{Count, Load},
    memory::Account,
    outbox::{Outbox, UNFINISHED_BYTES_FREE},
};

/// How often the accounts are looked at.
const LOOK: Duration = Duration::from_millis(100);
/// A consumer whose socket has taken nothing whole for so long does not move.
const STALLED_MS: u64 = 3_000;
/// A frame that has been coming for so long does not move, and as little does a transaction that has not grown.
const UNFINISHED_MS: u64 = 5_000;
const TRANSACTION_IDLE_MS: u64 = 10_000;

/// One kind of holding memory.
struct Watch {
    what: &'static str,
    account: fn(&Load) -> &Account,
    count: fn(&Load) -> &Count,
    /// Bytes that the connection holds without moving; 0 where it moves.
    holds: fn(&Outbox) -> usize,
}

const WATCHES: [Watch; 3] = [
    Watch {
        what: "this client does not take the messages that were sent to it",
        account: |load| &load.memory.outgoing,
        count: |load| &load.counts.slow_consumers_cut,
        holds: |outbox| {
            if outbox.stalled_ms() >= STALLED_MS {
                // What others share is its as well: it may be the last one that holds it.
                outbox.unwritten_bytes()
            } else {
                0
            }
        },
    },
    Watch {
        what: "this client does not complete the frame that it has begun",
        account: |load| &load.memory.incoming,
        count: |load| &load.counts.slow_senders_cut,
        holds: |outbox| {
            let bytes = outbox.unfinished_bytes();
            // Whoever waits for an answer may not be read from meanwhile; that is not its fault.
            let waits = outbox.unanswered_bytes() > 0;
            if !waits && bytes >= UNFINISHED_BYTES_FREE && outbox.unfinished_for_ms() >= UNFINISHED_MS {
                bytes
            } else {
                0
            }
        },
    },
    Watch {
        what: "this client leaves its transaction open",
        account: |load| &load.memory.kept,
        count: |load| &load.counts.idle_transactions_cut,
        holds: |outbox| {
            if outbox.transactions_idle_ms() >= TRANSACTION_IDLE_MS {
                outbox.transaction_bytes()
            } else {
                0
            }
        },
    },
];

/// Runs as long as the node.
pub(crate) async fn run(load: Arc<Load>) {
    let mut look = tokio::time::interval(LOOK);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        look.tick().await;
        for watch in &WATCHES {
            watch.look(&load);
        }
    }
}

impl Watch {
    /// Ends those that hold most, until what is left is not tight any more; nobody where that would change little.
    fn look(&self, load: &Load) {
        let account = (self.account)(load);
        if !account.is_tight() {
            return;
        }
        let mut held: Vec<_> = load
            .connections()
            .into_iter()
            .map(|(connection, outbox)| ((self.holds)(&outbox), connection, outbox))
            .filter(|(bytes, _, outbox)| *bytes > 0 && !outbox.has_ended())
            .collect();
        if held.iter().map(|(bytes, ..)| bytes).sum::<usize>() < account.max() / 4 {
            return;
        }
        held.sort_unstable_by_key(|(bytes, connection, _)| (std::cmp::Reverse(*bytes), *connection));
        let mut left = account.held();
        for (bytes, connection, outbox) in held {
            if left < account.tight_at() {
                break;
            }
            left = left.saturating_sub(bytes);
            tracing::warn!(
                connection,
                bytes,
                "memory is short, and {}: it is disconnected",
                self.what
            );
            (self.count)(load).add();
            let text = format!("the node's memory is short (see [limits] memory), and {}", self.what);
            outbox.end(Refusal::new(RefusalKind::Full, text));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::Memory;

    #[test]
    fn the_largest_that_do_not_move_go_and_no_more_than_must() {
        let load = Arc::new(Load::new(Memory::new(2_000, 100)));
        let held = [300, 500, 100];
        let outboxes: Vec<Arc<Outbox>> = held
            .iter()
            .enumerate()
            .map(|(id, bytes)| {
                let outbox = Arc::new(Outbox::new(load.clone()));
                outbox.hand_out(*bytes, *bytes);
                load.add(id as u64, outbox.clone());
                outbox
            })
            .collect();
        let watch = |holds| Watch { holds, ..WATCHES[0] };
        watch(|_| 0).look(&load);
        assert!(outboxes.iter().all(|outbox| !outbox.has_ended()), "all of them move");
        watch(Outbox::unwritten_bytes).look(&load);
        let ended: Vec<bool> = outboxes.iter().map(|outbox| outbox.has_ended()).collect();
        assert_eq!(ended, [false, true, false]);
        assert_eq!(load.counts.slow_consumers_cut.get(), 1);
    }

    #[test]
    fn nobody_goes_where_that_would_change_little() {
        let load = Arc::new(Load::new(Memory::new(2_000, 100)));
        load.memory.outgoing.take(900);
        let outbox = Arc::new(Outbox::new(load.clone()));
        outbox.hand_out(100, 100);
        load.add(1, outbox.clone());
        let watch = Watch {
            holds: Outbox::unwritten_bytes,
            ..WATCHES[0]
        };
        watch.look(&load);
        assert!(!outbox.has_ended());
    }
}
