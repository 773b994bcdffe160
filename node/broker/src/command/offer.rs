//! Set messages aside for another group: step one of handing over (P4). Until that group has answered they go to
//! nobody else.

use bytes::{BufMut, BytesMut};

use crate::{
    ApplyError, Effect, GroupId, Outcome, QueueId,
    effect::Applied,
    life::{Life, first_transfer},
    queue::OFFERED,
    queues::Queues,
    transfers::{PendingOffer, Transfers},
    wire::{Reader, put_seqs, put_text},
};

/// Messages of one queue for one group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// Their queue.
    pub queue: QueueId,
    /// Their numbers, increasing.
    pub seqs: Vec<u64>,
    /// The group that shall own them.
    pub group: GroupId,
    /// Its name, for people.
    pub group_name: String,
}

impl Offer {
    pub(crate) fn encode(&self, out: &mut BytesMut) {
        out.put_u32_le(self.queue);
        put_seqs(out, &self.seqs);
        out.put_u64_le(self.group);
        put_text(out, &self.group_name);
    }
}

pub(crate) fn apply(
    queues: &mut Queues,
    transfers: &mut Transfers,
    life: Life,
    mut body: Reader,
    out: &mut Applied,
) -> Result<Outcome, ApplyError> {
    let queue = body.u32()?;
    let mut seqs = body.seqs()?;
    let group = body.u64()?;
    let group_name = body.text()?;
    let Some(messages) = queues.get_mut(queue) else {
        return Ok(Outcome::NotFound);
    };
    seqs.retain(|&seq| match messages.get_mut(seq) {
        Some(slot) if !slot.offered() => {
            slot.set(OFFERED, true);
            true
        }
        _ => false,
    });
    if seqs.is_empty() {
        return Ok(Outcome::NotFound);
    }
    let outgoing = transfers.outgoing.entry(group).or_default();
    outgoing.group_name = group_name;
    let transfer = outgoing.next.max(first_transfer(life.incarnation));
    outgoing.next = transfer + 1;
    outgoing.pending.insert(
        transfer,
        PendingOffer {
            queue,
            seqs: seqs.clone(),
        },
    );
    out.effects.push(Effect::Offered { queue, group, transfer });
    Ok(Outcome::Offered { transfer, taken: seqs })
}
