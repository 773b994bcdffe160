//! Store a message that a master had handed out without the log and got back: it goes behind its queue's last message,
//! or to the dead letter queue.
//!
//! Its producer's number is not asked for: this is no resend of anything that the log knows.

use bytes::{BufMut, Bytes, BytesMut};
use ferrymq_message::Destination;

use crate::{
    ApplyError, DeadLetter, Outcome, QueueId,
    command::enqueue::{add, take_slot},
    effect::Applied,
    queue::REDELIVERED,
    queues::Queues,
    wire::{Reader, put_dead_letter, put_option},
};

/// One message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PutBack {
    /// Its queue.
    pub queue: QueueId,
    /// Times it was dispatched and came back, at least 1.
    pub redeliveries: u16,
    /// Where it goes instead, with where it came from and why.
    pub dead_letter: Option<(Destination, DeadLetter)>,
    /// Its stored form.
    pub message: Bytes,
}

impl PutBack {
    pub(crate) fn encode(&self, out: &mut BytesMut) {
        out.put_u32_le(self.queue);
        out.put_u16_le(self.redeliveries);
        put_option(out, self.dead_letter.as_ref(), |out, (to, letter)| {
            crate::wire::put_destination(out, to);
            put_dead_letter(out, letter);
        });
        out.put_slice(&self.message);
    }
}

pub(crate) fn apply(
    queues: &mut Queues,
    index: u64,
    mut body: Reader,
    out: &mut Applied,
) -> Result<Outcome, ApplyError> {
    let queue = body.u32()?;
    let redeliveries = body.u16()?;
    let dead_letter = body.option(|body| Ok((body.queue_name()?, body.dead_letter()?)))?;
    let (mut slot, _) = take_slot(body, index)?;
    slot.redeliveries = redeliveries;
    slot.set(REDELIVERED, true);
    let Some((to, letter)) = dead_letter else {
        return Ok(match add(queues, queue, slot, out) {
            Some(_) => Outcome::Done,
            // The queue was deleted, and its messages with it.
            None => Outcome::NotFound,
        });
    };
    slot.expires_ms = 0;
    let to = queues.open(&to, out);
    if let Some(seq) = add(queues, to, slot, out)
        && let Some(queue) = queues.get_mut(to)
    {
        queue.dead_letters.insert(seq, letter);
    }
    Ok(Outcome::Done)
}
