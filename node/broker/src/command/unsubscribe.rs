//! End a durable subscription and forget its backlog.

use bytes::BytesMut;

use crate::{
    ApplyError, Outcome, Owner,
    command::subscribe::{put_owner, take_owner},
    effect::Applied,
    queues::Queues,
    subscriptions::Subscriptions,
    transfers::{Transfers, abandon},
    wire::Reader,
};

/// Whose subscription ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unsubscribe {
    /// Its owner.
    pub owner: Owner,
}

impl Unsubscribe {
    pub(crate) fn encode(&self, out: &mut BytesMut) {
        put_owner(out, &self.owner);
    }
}

pub(crate) fn apply(
    queues: &mut Queues,
    subscriptions: &mut Subscriptions,
    transfers: &mut Transfers,
    mut body: Reader,
    out: &mut Applied,
) -> Result<Outcome, ApplyError> {
    let owner = take_owner(&mut body)?;
    match subscriptions.remove(&owner) {
        Some(queue) => {
            abandon(&mut transfers.outgoing, queue);
            queues.delete(queue, out);
            Ok(Outcome::Done)
        }
        None => Ok(Outcome::NotFound),
    }
}
