//! Take back messages that were dispatched and not acknowledged; those that came back too often go to the dead letter
//! queue (JMS: a provider may limit redelivery; ActiveMQ: `RedeliveryPolicy.maximumRedeliveries`).

use bytes::{BufMut, BytesMut};
use ferrymq_message::Destination;

use crate::{
    ApplyError, DeadLetter, Effect, Outcome, QueueId,
    command::enqueue::add,
    effect::Applied,
    queue::REDELIVERED,
    queues::Queues,
    wire::{Reader, put_destination, put_option, put_seqs, put_text},
};

/// Messages of one queue that come back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Return {
    /// The queue.
    pub queue: QueueId,
    /// The messages' numbers, increasing.
    pub seqs: Vec<u64>,
    /// Whether this counts as a redelivery. It does not where the message surely never reached a consumer.
    pub counted: bool,
    /// More redeliveries than this and the message goes to `dead_letter`.
    pub redeliveries_max: u16,
    /// The dead letter queue; none keeps the message where it is.
    pub dead_letter: Option<Destination>,
    /// For people.
    pub reason: String,
}

impl Return {
    pub(crate) fn encode(&self, out: &mut BytesMut) {
        out.put_u32_le(self.queue);
        put_seqs(out, &self.seqs);
        out.put_u8(u8::from(self.counted));
        out.put_u16_le(self.redeliveries_max);
        put_option(out, self.dead_letter.as_ref(), put_destination);
        put_text(out, &self.reason);
    }
}

pub(crate) fn apply(queues: &mut Queues, mut body: Reader, out: &mut Applied) -> Result<Outcome, ApplyError> {
    let queue = body.u32()?;
    let seqs = body.seqs()?;
    let counted = body.u8()? != 0;
    let redeliveries_max = body.u16()?;
    let dead_letter = body.option(Reader::queue_name)?;
    let reason = body.text()?;
    let Some(messages) = queues.get_mut(queue) else {
        return Ok(Outcome::NotFound);
    };
    let mut dead = Vec::new();
    for seq in seqs {
        // What is set aside for another group belongs to that group's answer alone (P4).
        let Some(slot) = messages.get_mut(seq).filter(|slot| !slot.offered()) else {
            continue;
        };
        if counted {
            slot.redeliveries = slot.redeliveries.saturating_add(1);
            slot.set(REDELIVERED, true);
        }
        if slot.redeliveries > redeliveries_max && dead_letter.is_some() {
            dead.push(seq);
        } else {
            out.effects.push(Effect::Available {
                queue,
                seq,
                returned: true,
            });
        }
    }
    if let Some(dead_letter) = dead_letter {
        bury(queues, queue, &dead, &dead_letter, &reason, out);
    }
    Ok(Outcome::Done)
}

/// Moves messages to a dead letter queue. Their bytes stay where they are; only the place moves.
pub(crate) fn bury(
    queues: &mut Queues,
    from: QueueId,
    seqs: &[u64],
    dead_letter: &Destination,
    reason: &str,
    out: &mut Applied,
) {
    if seqs.is_empty() {
        return;
    }
    let to = queues.open(dead_letter, out);
    for &seq in seqs {
        let Some(queue) = queues.get_mut(from) else { return };
        if to == from {
            // A dead letter that is rejected again has nowhere else to go.
            out.effects.push(Effect::Available {
                queue: from,
                seq,
                returned: true,
            });
            continue;
        }
        let original = queue.destination().clone();
        let redelivered = queue.get(seq).is_some_and(|slot| queue.redelivered(seq, slot));
        let Some(mut slot) = queue.remove(seq) else { continue };
        out.unpin(slot.place);
        out.effects.push(Effect::Removed { queue: from, seq });
        // An earlier master's deliveries are known by the number in the old queue only (P3).
        slot.set(REDELIVERED, redelivered);
        slot.expires_ms = 0;
        if let Some(seq) = add(queues, to, slot, out)
            && let Some(queue) = queues.get_mut(to)
        {
            queue.dead_letters.insert(
                seq,
                DeadLetter {
                    original,
                    reason: reason.to_owned(),
                },
            );
        }
    }
}
