//! Take out messages that are past their time. The master looks at the clock; the replicas just do it.

use bytes::{BufMut, BytesMut};
use ferrymq_message::Destination;

use crate::{
    ApplyError, Effect, Outcome, QueueId,
    command::return_::bury,
    effect::Applied,
    queues::Queues,
    wire::{Reader, put_destination, put_option, put_seqs},
};

/// Expired messages of one queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expire {
    /// The queue.
    pub queue: QueueId,
    /// The messages' numbers, increasing.
    pub seqs: Vec<u64>,
    /// Where persistent ones go (ActiveMQ: `processExpired`); none drops them. Others are always dropped, as in
    /// ActiveMQ (`processNonPersistent=false`).
    pub dead_letter: Option<Destination>,
}

impl Expire {
    pub(crate) fn encode(&self, out: &mut BytesMut) {
        out.put_u32_le(self.queue);
        put_seqs(out, &self.seqs);
        put_option(out, self.dead_letter.as_ref(), put_destination);
    }
}

pub(crate) fn apply(queues: &mut Queues, mut body: Reader, out: &mut Applied) -> Result<Outcome, ApplyError> {
    let queue = body.u32()?;
    let mut seqs = body.seqs()?;
    let dead_letter = body.option(Reader::queue_name)?;
    let Some(messages) = queues.get_mut(queue) else {
        return Ok(Outcome::NotFound);
    };
    // What expires in the dead letter queue itself has nowhere else to go (ActiveMQ: `sendToDeadLetterQueue`).
    let dead_letter = dead_letter.filter(|dead_letter| dead_letter != messages.destination());
    seqs.retain(|&seq| messages.get(seq).is_some_and(|slot| !slot.offered()));
    let (kept, dropped): (Vec<_>, Vec<_>) = seqs
        .into_iter()
        .partition(|&seq| dead_letter.is_some() && messages.get(seq).is_some_and(crate::Slot::persistent));
    for seq in dropped {
        if let Some(slot) = messages.remove(seq) {
            out.unpin(slot.place);
            out.effects.push(Effect::Removed { queue, seq });
        }
    }
    if let Some(dead_letter) = dead_letter {
        bury(queues, queue, &kept, &dead_letter, "expired", out);
    }
    Ok(Outcome::Done)
}
