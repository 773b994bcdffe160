//! P2: nothing acknowledged is lost; and nothing is delivered that nobody sent.

use crate::{
    history::{History, Sent, Written},
    world::World,
};

/// A message is written to a consumer.
pub(crate) fn delivers(history: &mut History, written: &Written<'_>) {
    if !history.sent.contains_key(written.id) {
        history.break_promise(2, format!("{} was delivered, and nobody sent it", written.id));
    }
}

/// At the end: whatever was acknowledged has been delivered to everybody to whom it was promised, and acknowledged by
/// them or taken from the dead letter queue. One that was delivered, not acknowledged and then forgotten is lost.
pub(crate) fn at_the_end(world: &mut World) {
    let mut lost = Vec::new();
    for (id, sent) in &world.history.sent {
        if sent.acknowledged_us.is_none() || sent.set_back {
            continue;
        }
        if sent.destination.starts_with("/topic/") {
            let takers = world.history.durable.get(&sent.destination).into_iter().flatten();
            lost.extend(
                takers
                    .filter(|taker| !sent.settled.contains(*taker))
                    .map(|taker| format!("{id} was acknowledged and is lost to {taker}{}", delivered(sent, taker))),
            );
        } else if !sent.may_be_gone() {
            let destination = &sent.destination;
            lost.push(format!(
                "{id} to {destination} was acknowledged and is lost{}",
                delivered(sent, destination)
            ));
        }
    }
    for text in lost {
        world.history.break_promise(2, text);
    }
}

fn delivered(sent: &Sent, taker: &str) -> &'static str {
    match sent.written.contains_key(taker) {
        true => " after a delivery that nobody acknowledged",
        false => " before any delivery",
    }
}
