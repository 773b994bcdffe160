//! P5: a resent send is stored once. The oracle counts as it applies (`oracle.rs`); here is what it cannot see: the same
//! message sent to one group and stored in two by their producers' resends would have two owners (P4).

use ferrymq_protocol::stomp::Frame;

use crate::{client::Job, world::World};

/// A node answers a client's send: it is stored, and was not taken for a resend of something else.
pub(crate) fn answered(world: &mut World, node: usize, client: usize, frame: &Frame) {
    let Job::Restart(_) = &world.clients[client].job else {
        return;
    };
    let id = frame.headers.get("receipt-id").unwrap_or_default();
    let group = world.nodes[node].group;
    if !world.oracles[group].stored.contains_key(id) {
        let text = format!("{id} was confirmed, and group {group} has stored another message under its number");
        world.history.break_promise(5, text);
    }
}

/// At the end: each message that was stored was stored once.
pub(crate) fn at_the_end(world: &mut World) {
    let doubled: Vec<String> = world
        .oracles
        .iter()
        .flat_map(|oracle| oracle.stored.iter().filter(|(_, times)| **times != 1))
        .map(|(id, times)| format!("{id} was stored {times} times"))
        .collect();
    for text in doubled {
        world.history.break_promise(5, text);
    }
}
