//! P3: what may have been delivered before is marked; what was acknowledged is not delivered again.

use crate::history::{History, Written};

/// A message is written to a consumer.
pub(crate) fn delivers(history: &mut History, written: &Written<'_>) {
    let (Some(sent), Some(taker)) = (history.sent.get(written.id), written.taker) else {
        return;
    };
    if sent.set_back {
        return;
    }
    let mut broken = Vec::new();
    if let Some((at_us, group)) = sent.consumed.get(taker)
        && *at_us < written.now_us
    {
        let promise = if *group == written.group { 3 } else { 4 };
        let text = format!(
            "{} was acknowledged in group {group}, and is delivered again in {}",
            written.id, written.group
        );
        broken.push((promise, text));
    }
    if !written.redelivered && sent.written.contains_key(taker) {
        broken.push((
            3,
            format!("{} is delivered to {taker} a second time without its mark", written.id),
        ));
    }
    for (promise, text) in broken {
        history.break_promise(promise, text);
    }
}
