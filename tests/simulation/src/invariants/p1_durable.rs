//! P1: a persistent send is acknowledged after a majority has synced it to disk.

use ferrymq_protocol::stomp::Frame;

use crate::{client::Job, world::World};

/// One receipt in so many is looked for on the disks themselves.
const LOOKED_FOR_ONE_IN: u64 = 6;

/// A node answers a client's send.
pub(crate) fn answered(world: &mut World, node: usize, client: usize, frame: &Frame) {
    let Job::Produce(producer) = &world.clients[client].job else {
        return;
    };
    let group = world.nodes[node].group;
    let receipt = frame.headers.get("receipt-id").unwrap_or_default();
    let id = format!("{}/{receipt}", producer.name);
    let stored = world.oracles[group].stored.contains_key(&id);
    // What is published while nobody subscribes is not stored.
    if !stored && !producer.destination.starts_with("/topic/") {
        let text = format!("{id} was acknowledged, and group {group} has not committed it");
        world.history.break_promise(1, text);
    }
    if stored && world.rng.one_in(LOOKED_FOR_ONE_IN) {
        look_on_disks(world, group, &id);
    }
}

/// A message that nobody can have consumed yet lies on the disks of a majority.
fn look_on_disks(world: &mut World, group: usize, id: &str) {
    let fresh = world.history.sent.get(id).is_some_and(|sent| sent.written.is_empty());
    let owned = world.oracles[group].owned().iter().any(|(owned, _)| owned == id);
    if !fresh || !owned {
        return;
    }
    let needle = format!("{id} ").into_bytes();
    let nodes = world.groups[group].clone();
    let holding = nodes
        .iter()
        .filter(|node| world.nodes[**node].machine.has_on_disk(&needle))
        .count();
    if holding < nodes.len() / 2 + 1 {
        let text = format!("{id} was acknowledged, and lies on {holding} of {} disks", nodes.len());
        world.history.break_promise(1, text);
    }
}
