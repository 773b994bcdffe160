//! Forget another group that is lost for good: what is kept for it, what is under offer to it, what it wanted. Only the
//! operator can know that it is lost. What comes back to queues is marked redelivered, because that group may have delivered
//! it.
//!
//! Numbers stay: should the group not have been lost after all, a transfer of either side still means what it meant.

use bytes::{BufMut, BytesMut};

use crate::{
    ApplyError, GroupId, Outcome, Owner,
    command::reclaim::take_back,
    effect::{Applied, Forgotten},
    queues::Queues,
    subscriptions::Subscriptions,
    transfers::{Transfers, abandon},
    wants::Wants,
    wire::Reader,
};

/// The lost group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForgetGroup {
    /// Its id.
    pub group: GroupId,
}

impl ForgetGroup {
    pub(crate) fn encode(&self, out: &mut BytesMut) {
        out.put_u64_le(self.group);
    }
}

pub(crate) fn apply(
    queues: &mut Queues,
    subscriptions: &mut Subscriptions,
    transfers: &mut Transfers,
    wants: &mut Wants,
    mut body: Reader,
    out: &mut Applied,
) -> Result<Outcome, ApplyError> {
    let group = body.u64()?;
    let mut forgotten = Forgotten::default();
    let owners: Vec<Owner> = subscriptions.of_group(group).cloned().collect();
    for owner in owners {
        let Some(id) = subscriptions.remove(&owner) else {
            continue;
        };
        if let Some(queue) = queues.get(id) {
            forgotten.backlogs += 1;
            forgotten.messages += queue.len();
            forgotten.bytes += queue.bytes;
        }
        forgotten.transfers += abandon(&mut transfers.outgoing, id);
        queues.delete(id, out);
    }
    if let Some(outgoing) = transfers.outgoing.get_mut(&group) {
        let (taken_back, returned) = take_back(queues, outgoing, out);
        forgotten.transfers += taken_back;
        forgotten.returned += returned;
    }
    if let Some(incoming) = transfers.incoming.get_mut(&group)
        && let Some((&last, _)) = incoming.accepted.last_key_value()
    {
        incoming.floor = incoming.floor.max(last + 1);
        incoming.accepted.clear();
    }
    if let Some(wanted) = wants.by_group.get_mut(&group) {
        // Its last word stays, without what it said: nobody's memory of the same word brings it back.
        wanted.topics.clear();
    }
    Ok(Outcome::Forgotten(forgotten))
}
