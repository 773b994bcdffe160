//! Make a durable subscription, or take up the one that is there. One that names another topic or selector than before
//! begins anew, as JMS demands of `createDurableSubscriber`.

use std::collections::BTreeMap;

use bytes::BytesMut;
use ferrymq_message::Destination;

use crate::{
    ApplyError, GroupId, Outcome, Owner,
    effect::Applied,
    queue::QueueKind,
    queues::Queues,
    subscriptions::Subscriptions,
    transfers::{Outgoing, Transfers, abandon},
    wire::{Reader, put_destination, put_text},
};

/// A subscription whose messages wait while its owner is away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscribe {
    /// The topic, which may hold wildcards.
    pub topic: Destination,
    /// Whose it is.
    pub owner: Owner,
    /// Text of the selector, empty for none.
    pub selector: String,
}

impl Subscribe {
    pub(crate) fn encode(&self, out: &mut BytesMut) {
        put_destination(out, &self.topic);
        put_owner(out, &self.owner);
        put_text(out, &self.selector);
    }
}

pub(crate) fn put_owner(out: &mut BytesMut, owner: &Owner) {
    use bytes::BufMut;
    match owner {
        Owner::Client { client_id, name } => {
            out.put_u8(0);
            put_text(out, client_id);
            put_text(out, name);
        }
        Owner::Group { group, topic } => {
            out.put_u8(1);
            out.put_u64_le(*group);
            put_text(out, topic);
        }
    }
}

pub(crate) fn take_owner(body: &mut Reader) -> Result<Owner, ApplyError> {
    match body.u8()? {
        0 => Ok(Owner::Client {
            client_id: body.text()?,
            name: body.text()?,
        }),
        1 => Ok(Owner::Group {
            group: body.u64()?,
            topic: body.text()?,
        }),
        _ => Err(ApplyError::Malformed("owner")),
    }
}

pub(crate) fn apply(
    queues: &mut Queues,
    subscriptions: &mut Subscriptions,
    transfers: &mut Transfers,
    mut body: Reader,
    out: &mut Applied,
) -> Result<Outcome, ApplyError> {
    let topic = body.destination()?;
    let owner = take_owner(&mut body)?;
    let selector = body.text()?;
    Ok(Outcome::Queue(subscribe(
        queues,
        subscriptions,
        &mut transfers.outgoing,
        topic,
        owner,
        selector,
        out,
    )))
}

pub(crate) fn subscribe(
    queues: &mut Queues,
    subscriptions: &mut Subscriptions,
    outgoing: &mut BTreeMap<GroupId, Outgoing>,
    topic: Destination,
    owner: Owner,
    selector: String,
    out: &mut Applied,
) -> crate::QueueId {
    let kind = QueueKind::Subscription {
        topic: topic.clone(),
        owner: owner.clone(),
        selector,
    };
    if let Some(id) = subscriptions.find(&owner) {
        if queues.get(id).is_some_and(|queue| queue.kind == kind) {
            return id;
        }
        subscriptions.remove(&owner);
        abandon(outgoing, id);
        queues.delete(id, out);
    }
    let id = queues.create(kind, out);
    subscriptions.insert(owner, topic.name(), id);
    id
}
