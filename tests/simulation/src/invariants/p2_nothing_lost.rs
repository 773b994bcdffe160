//! P2: nothing acknowledged is lost; and nothing is delivered that nobody sent.

use crate::{
    history::{History, Written},
    world::World,
};

/// A message is written to a consumer.
pub(crate) fn delivers(history: &mut History, written: &Written<'_>) {
    if !history.sent.contains_key(written.id) {
        history.break_promise(2, format!("{} was delivered, and nobody sent it", written.id));
    }
}

/// At the end: whatever was acknowledged has been delivered to everybody to whom it was promised.
pub(crate) fn at_the_end(world: &mut World) {
    let mut lost = Vec::new();
    for (id, sent) in &world.history.sent {
        if sent.acknowledged_us.is_none() {
            continue;
        }
        if sent.destination.starts_with("/topic/") {
            let takers = world.history.durable.get(&sent.destination).into_iter().flatten();
            lost.extend(
                takers
                    .filter(|taker| !sent.written.contains_key(*taker))
                    .map(|taker| format!("{id} was acknowledged and never delivered to {taker}")),
            );
        } else if sent.written.is_empty() {
            lost.push(format!(
                "{id} to {} was acknowledged and never delivered",
                sent.destination
            ));
        }
    }
    for text in lost {
        world.history.break_promise(2, text);
    }
}
