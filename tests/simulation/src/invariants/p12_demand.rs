//! P12: two seconds after the last change, each group knows exactly what the others want.

use std::collections::BTreeMap;

use ferrymq_message::Destination;

use crate::{
    client::{Job, Link},
    world::{MS, World},
};

const WITHIN_US: u64 = 2_000 * MS;

/// (group, destination) → consumers there.
type Wanted = BTreeMap<(usize, String), u32>;

fn wanted(world: &World) -> Wanted {
    let mut wanted = Wanted::new();
    for client in &world.clients {
        // Where it is connected, not where it means to go next.
        if let (Link::Open(connection), Job::Consume(consumer)) = (client.link, &client.job)
            && let Some(connection) = world.connections.get(&connection)
            && consumer.subscribed
            && consumer.destination.starts_with("/queue/")
        {
            *wanted
                .entry((world.nodes[connection.door].group, consumer.destination.clone()))
                .or_default() += 1;
        }
    }
    wanted
}

fn known(world: &World, group: usize, destination: &str) -> BTreeMap<usize, u32> {
    let Some(running) = world
        .master_of(group)
        .and_then(|node| world.nodes[node].process.as_ref()?.running.as_ref())
    else {
        return BTreeMap::new();
    };
    let name = destination.trim_start_matches("/queue/");
    let rows = running.known.get(&Destination::queue(name)).into_iter().flatten();
    let origin = |name: &str| name.trim_start_matches('g').parse().unwrap_or(usize::MAX);
    rows.filter(|row| row.linked)
        .map(|row| (origin(&row.origin_name), row.consumers))
        .collect()
}

/// What differs, if anything.
fn difference(world: &World) -> Option<String> {
    let wanted = wanted(world);
    let mut destinations: Vec<String> = world
        .clients
        .iter()
        .filter_map(|client| match &client.job {
            Job::Consume(consumer) if consumer.destination.starts_with("/queue/") => Some(consumer.destination.clone()),
            _ => None,
        })
        .collect();
    destinations.sort();
    destinations.dedup();
    for group in 0..world.groups.len() {
        for destination in &destinations {
            let known = known(world, group, destination);
            let told: BTreeMap<usize, u32> = (0..world.groups.len())
                .filter(|other| *other != group)
                .filter_map(|other| Some((other, *wanted.get(&(other, destination.clone()))?)))
                .collect();
            if known != told {
                return Some(format!(
                    "group {group} believes of {destination} {known:?}, true is {told:?}"
                ));
            }
        }
    }
    None
}

/// After the storm, with links up and nobody coming or going.
pub(crate) fn converges(world: &mut World) {
    if world.groups.len() < 2 {
        return;
    }
    world.run(WITHIN_US);
    if world.history.violations.is_empty()
        && let Some(text) = difference(world)
    {
        world.history.break_promise(12, text);
    }
}
