//! P6: one producer's messages to one queue reach a sole consumer in order. Looked at where there is a sole consumer all
//! the time: on the queue `ORDERED`.

use crate::history::{History, Written, split};

/// The queue with a sole consumer.
pub(crate) const ORDERED: &str = "/queue/ORDERED";

/// A message is written to a consumer.
pub(crate) fn delivers(history: &mut History, written: &Written<'_>) {
    let Some(taker) = written.taker.filter(|taker| *taker == ORDERED) else {
        return;
    };
    let Some((producer, number)) = split(written.id) else {
        return;
    };
    if history.is_set_back(written.id) {
        return;
    }
    let within = history
        .last_in_subscription
        .insert((written.subscription, producer.to_owned()), number);
    if let Some(last) = within.filter(|last| *last >= number) {
        let text = format!("{producer}/{number} came after {producer}/{last} within one subscription");
        history.break_promise(6, text);
    }
    let first = history
        .first_seen
        .entry((taker.clone(), producer.to_owned()))
        .or_default();
    if number > *first {
        let before = *first + 1..number;
        *first = number;
        // The first of those that are neither here nor set back.
        let skipped = before
            .into_iter()
            .find(|before| !history.is_set_back(&format!("{producer}/{before}")));
        if let Some(skipped) = skipped {
            let text = format!("{producer}/{number} came before {producer}/{skipped}");
            history.break_promise(6, text);
        }
    }
}
