//! P10: a client may connect to any node of a group.

use crate::{
    client::{Client, Job, Link, Producer},
    world::{MS, World},
};

/// How long it may take until a client is served whichever node it knows.
const WITHIN_US: u64 = 10_000 * MS;

/// After the storm: one client for each node, which knows that node alone and sends one message.
pub(crate) fn knock(world: &mut World) {
    let mut knocking = Vec::new();
    for node in 0..world.nodes.len() {
        let id = world.clients.len();
        let group = world.nodes[node].group;
        let job = Job::Produce(Producer::new(&format!("door{node}"), "/queue/WORK", 1, 1, 1));
        let mut client = Client::new(id, format!("door{node}"), group, job);
        client.door = Some(node);
        world.add_client(client);
        knocking.push(id);
    }
    let served = world.run_until(WITHIN_US, |world| {
        knocking.iter().all(|id| {
            let client = &world.clients[*id];
            client.is_done() && matches!(&client.job, Job::Produce(producer) if producer.left == 0)
        })
    });
    if !served {
        let outside: Vec<String> = knocking
            .iter()
            .map(|id| &world.clients[*id])
            .filter(|client| client.link == Link::Away || !client.is_done())
            .map(|client| client.name.clone())
            .collect();
        world.history.break_promise(
            10,
            format!("not served after {} s: {outside:?}", WITHIN_US / MS / 1_000),
        );
    }
    for id in knocking {
        world.clients[id].gone = true;
        if let Some(connection) = world.clients[id].connection() {
            world.cut_by_client(connection);
        }
    }
}
