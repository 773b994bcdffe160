//! Delete a queue: a temporary one whose connection ended, an idle one, or one that the operator wants gone.

use bytes::{BufMut, BytesMut};
use ferrymq_message::Destination;

use crate::{
    ApplyError, Outcome,
    effect::Applied,
    queues::Queues,
    transfers::{Transfers, abandon},
    wire::{Reader, put_destination},
};

/// The queue that goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeleteDestination {
    /// Its name.
    pub destination: Destination,
    /// Only where it is empty.
    pub if_empty: bool,
}

impl DeleteDestination {
    pub(crate) fn encode(&self, out: &mut BytesMut) {
        put_destination(out, &self.destination);
        out.put_u8(u8::from(self.if_empty));
    }
}

pub(crate) fn apply(
    queues: &mut Queues,
    transfers: &mut Transfers,
    mut body: Reader,
    out: &mut Applied,
) -> Result<Outcome, ApplyError> {
    let destination = body.destination()?;
    let if_empty = body.u8()? != 0;
    let Some(id) = queues.find(destination.kind(), destination.name()) else {
        return Ok(Outcome::NotFound);
    };
    let under_offer = transfers
        .outgoing
        .values()
        .any(|o| o.pending.values().any(|offer| offer.queue == id));
    // A temporary queue ends with its connection, whoever was to get its messages.
    if under_offer && (if_empty || !destination.kind().is_temporary()) {
        return Ok(Outcome::Refused(
            "messages of this queue are under offer to another group".into(),
        ));
    }
    if if_empty && queues.get(id).is_some_and(|queue| !queue.is_empty()) {
        return Ok(Outcome::Refused("the queue is not empty".into()));
    }
    abandon(&mut transfers.outgoing, id);
    queues.delete(id, out);
    Ok(Outcome::Done)
}
