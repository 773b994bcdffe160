//! A transaction's messages are stored all or none; those of an aborted one never.

use crate::{
    history::{History, Written},
    world::World,
};

/// A message is written to a consumer.
pub(crate) fn delivers(history: &mut History, written: &Written<'_>) {
    let aborted = history
        .sent
        .get(written.id)
        .and_then(|sent| history.transactions.get(&sent.transaction?))
        .is_some_and(|transaction| transaction.aborted);
    if aborted {
        history.break_promise(
            0,
            format!("{} is delivered, and its transaction was aborted", written.id),
        );
    }
}

/// At the end.
pub(crate) fn at_the_end(world: &mut World) {
    let mut broken = Vec::new();
    for (number, transaction) in &world.history.transactions {
        if transaction.messages.iter().any(|id| world.history.is_set_back(id)) {
            continue;
        }
        let stored = |id: &&String| world.oracles.iter().any(|oracle| oracle.stored.contains_key(*id));
        let there = transaction.messages.iter().filter(stored).count();
        let all = transaction.messages.len();
        if there != 0 && there != all {
            broken.push(format!(
                "of transaction {number}, {there} of {all} messages were stored"
            ));
        }
        if transaction.committed && there == 0 {
            broken.push(format!(
                "transaction {number} was committed, and nothing of it was stored"
            ));
        }
    }
    for text in broken {
        world.history.break_promise(0, text);
    }
}
