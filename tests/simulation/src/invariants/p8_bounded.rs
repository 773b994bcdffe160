//! P8: memory is bounded. A consumer holds no more than its prefetch (looked at by the client itself, in
//! `client/consumer.rs`), what waits to be written to a client stays below its bound, and a group that has no room takes
//! nothing from others.

use crate::{process::OUTBOX_BYTES_MAX, world::World};

/// The largest message of the simulation, with its headers, in bytes: one may begin below the bound and end above it.
const MESSAGE_BYTES_MAX: usize = 4 << 10;

/// After a node's turn.
pub(crate) fn look(world: &mut World, node: usize) {
    let Some(process) = world.nodes[node].process.as_ref() else {
        return;
    };
    let overfilled = process.running.as_ref().and_then(|running| running.overfilled.clone());
    let worst = process
        .connections
        .values()
        .map(crate::process::Served::waiting_bytes)
        .max()
        .unwrap_or(0);
    if worst > OUTBOX_BYTES_MAX + MESSAGE_BYTES_MAX {
        let text = format!("{worst} bytes wait for one client of node {node}; the bound is {OUTBOX_BYTES_MAX}");
        world.history.break_promise(8, text);
    }
    if let Some(text) = overfilled {
        world.history.break_promise(8, format!("node {node}: {text}"));
    }
}
