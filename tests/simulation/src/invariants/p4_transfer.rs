//! P4: one group owns a message at any time; at the end no transfer is in doubt.

use std::collections::{BTreeMap, BTreeSet};

use crate::world::World;

/// Now: no message is on a queue of two groups without being under offer in one of them.
pub(crate) fn audit(world: &mut World) {
    if world.groups.len() < 2 {
        return;
    }
    let mut owners: BTreeMap<String, usize> = BTreeMap::new();
    let mut broken = Vec::new();
    for group in 0..world.oracles.len() {
        for (id, queue) in world.oracles[group].owned() {
            match owners.insert(id.clone(), group) {
                Some(other) if other != group && !world.history.is_set_back(&id) => {
                    broken.push(format!("{id} on {queue} is owned by groups {other} and {group}"))
                }
                _ => {}
            }
        }
    }
    let mut there = BTreeSet::new();
    for oracle in &mut world.oracles {
        there.extend(oracle.on_queues(true).into_iter().map(|(id, _)| id));
    }
    for (id, sent) in &world.history.sent {
        let waits = sent.acknowledged_us.is_some()
            && !sent.set_back
            && !sent.may_be_gone()
            && sent.destination.starts_with("/queue/");
        if waits && !there.contains(id) {
            broken.push(format!("{id} is owned by no group, and nobody has acknowledged it"));
        }
    }
    for text in broken {
        world.history.break_promise(4, text);
    }
}

/// Whether anything is under way between groups.
pub(crate) fn in_doubt(world: &World) -> usize {
    world.oracles.iter().map(crate::oracle::Oracle::in_doubt).sum()
}
