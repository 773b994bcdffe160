//! P7: one master a term; a deposed one delivers nothing.

use crate::{group::Role, world::World};

/// After a node's turn.
pub(crate) fn look(world: &mut World, node: usize) {
    let Some(process) = world.nodes[node].process.as_ref() else {
        return;
    };
    let Role::Master { term } = process.replica.role() else {
        return;
    };
    let group = world.nodes[node].group;
    let oracle = &mut world.oracles[group];
    oracle.term = oracle.term.max(term);
    match oracle.masters.insert(term, node) {
        Some(other) if other != node => {
            let text = format!("nodes {other} and {node} are both master of group {group} in term {term}");
            world.history.break_promise(7, text);
        }
        _ => {}
    }
}

/// A node writes a message to a client.
pub(crate) fn delivers(world: &mut World, node: usize) {
    let group = world.nodes[node].group;
    let Some(process) = world.nodes[node].process.as_ref() else {
        return;
    };
    let term = process
        .running
        .as_ref()
        .map_or(process.replica.term, |running| running.term);
    let newest = world.oracles[group].term;
    if term < newest {
        let text = format!("node {node}, master of term {term}, delivers while term {newest} has a master");
        world.history.break_promise(7, text);
    }
}
