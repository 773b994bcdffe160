//! P11: bad input ends that connection, never the node. A client that sends no frames is part of every world; a node
//! that ends because of it ends without a cause (`p9_damage.rs` tells the two apart).

use crate::{
    client::{Client, Job},
    world::World,
};

/// Adds the client.
pub(crate) fn add(world: &mut World) {
    let id = world.clients.len();
    let home = world.rng.below(world.groups.len() as u64) as usize;
    world.add_client(Client::new(id, "garbage".into(), home, Job::Garbage));
}
