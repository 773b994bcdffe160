//! P5: a resent send is stored once. The oracle counts as it applies (`oracle.rs`); here is what it cannot see: the same
//! message sent to one group and stored in two by their producers' resends would have two owners (P4).

use crate::world::World;

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
