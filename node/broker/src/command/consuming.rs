//! Note that a queue has consumers, before the first message is dispatched to one; or that nothing is in flight any
//! more. So the next master knows which messages may have been delivered without any command saying so (P3).

use bytes::{BufMut, BytesMut};

use crate::{ApplyError, Effect, Outcome, QueueId, effect::Applied, queues::Queues, wire::Reader};

/// A queue's consumers come or have gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Consuming {
    /// The queue.
    pub queue: QueueId,
    /// They come.
    pub begins: bool,
}

impl Consuming {
    pub(crate) fn encode(&self, out: &mut BytesMut) {
        out.put_u32_le(self.queue);
        out.put_u8(u8::from(self.begins));
    }
}

pub(crate) fn apply(queues: &mut Queues, mut body: Reader, out: &mut Applied) -> Result<Outcome, ApplyError> {
    let queue = body.u32()?;
    let begins = body.u8()? != 0;
    let Some(found) = queues.get_mut(queue) else {
        return Ok(Outcome::NotFound);
    };
    found.consuming = begins;
    if begins {
        out.effects.push(Effect::ConsumingBegan { queue });
    }
    Ok(Outcome::Done)
}

/// A master begins its term: whatever its predecessor may have had in flight is marked.
pub(crate) fn begin_term(queues: &mut Queues) -> Outcome {
    for queue in queues.iter_mut().filter(|queue| queue.consuming) {
        queue.redelivered_below = queue.next_seq;
        queue.consuming = false;
    }
    Outcome::Done
}
