//! Forget messages that a consumer has acknowledged. What is gone already is passed over, so a repeat does no harm.

use bytes::{BufMut, BytesMut};

use crate::{
    ApplyError, Effect, Outcome, QueueId,
    effect::Applied,
    queues::Queues,
    wire::{Reader, put_seqs},
};

/// Consumed messages of one queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acknowledge {
    /// The queue.
    pub queue: QueueId,
    /// The messages' numbers, increasing.
    pub seqs: Vec<u64>,
}

impl Acknowledge {
    pub(crate) fn encode(&self, out: &mut BytesMut) {
        out.put_u32_le(self.queue);
        put_seqs(out, &self.seqs);
    }
}

pub(crate) fn apply(queues: &mut Queues, mut body: Reader, out: &mut Applied) -> Result<Outcome, ApplyError> {
    let queue = body.u32()?;
    let seqs = body.seqs()?;
    let Some(messages) = queues.get_mut(queue) else {
        return Ok(Outcome::NotFound);
    };
    for seq in seqs {
        if let Some(slot) = messages.remove(seq) {
            out.unpin(slot.place);
            out.effects.push(Effect::Removed { queue, seq });
        }
    }
    Ok(Outcome::Done)
}
