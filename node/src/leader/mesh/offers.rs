//! Handing messages over to other groups (P4), as the master's loop sees it: committed offers become transfers of the
//! mesh, and the steps that the mesh proposes meet their outcomes.

use bytes::Bytes;
use ferrymq_broker::{Broker, Carried, GroupId, Outcome, QueueId, TransferId};
use ferrymq_forwarding::{Failed, Input};
use ferrymq_message::Destination;
use ferrymq_replication::Failure;

use crate::{crash, leader::Leader};

/// The steps of handing over that the mesh proposes, and what it does where the log went back; the first step, the offer,
/// is the dispatcher's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum HandOver {
    Accept,
    Release,
    TakeBack,
    Forget,
    Renew,
}

impl HandOver {
    /// The crash point before the proposal.
    pub(super) fn proposed(self) -> &'static str {
        match self {
            Self::Accept => "accept-proposed",
            Self::Release => "release-proposed",
            Self::TakeBack => "take-back-proposed",
            Self::Renew => "renew-proposed",
            Self::Forget => "forget-proposed",
        }
    }

    /// The crash point between the commit and whatever follows from it.
    fn committed(self) -> &'static str {
        match self {
            Self::Accept => "accept-committed",
            Self::Release => "release-committed",
            Self::TakeBack => "take-back-committed",
            Self::Renew => "renew-committed",
            Self::Forget => "forget-committed",
        }
    }
}

impl Leader {
    pub(in super::super) fn tell_mesh(
        &mut self,
        token: u64,
        step: HandOver,
        accept: Option<(GroupId, TransferId)>,
        result: Result<Outcome, Failure>,
    ) {
        if let (Some((origin, transfer)), Err(Failure::Full)) = (accept, &result) {
            self.bridges.refused.entry(origin).or_insert(transfer);
        }
        if result.is_ok() {
            crash::point(step.committed());
        }
        let result = result.map_err(|failure| match failure {
            Failure::Full => Failed::Retry,
            Failure::NotMaster | Failure::Unknown | Failure::Fatal => Failed::NotMaster,
        });
        self.bridges.tell(Input::Proposed { token, result });
    }

    /// Hands a committed offer to the mesh.
    pub(in super::super) fn send_transfer(&mut self, to: GroupId, transfer: TransferId) {
        crash::point("offer-committed");
        let group = self.group.clone();
        let Some((queue, destination, target, places)) = group.with_broker(|broker| offered(broker, to, transfer))
        else {
            return;
        };
        let mut messages = Vec::with_capacity(places.len());
        for (place, mut carried) in places {
            let Some(message) = self.read(place) else { return };
            carried.message = message.bytes().clone();
            messages.push(carried);
        }
        self.bridges.tell(Input::Offered {
            queue,
            group: to,
            transfer,
            destination,
            target,
            messages,
        });
    }

    pub(super) fn on_reclaimed(&self, group: GroupId, below: TransferId) {
        self.bridges.tell(Input::Reclaimed { group, below });
    }
}

/// An offer's queue, destination and target, and its messages but for their bytes.
type Offered = (
    QueueId,
    Destination,
    Option<GroupId>,
    Vec<(ferrymq_broker::Place, Carried)>,
);

fn offered(broker: &Broker, to: GroupId, transfer: TransferId) -> Option<Offered> {
    let offer = broker.transfers().outgoing.get(&to)?.pending.get(&transfer)?;
    let queue = broker.queues().get(offer.queue)?;
    let places = offer
        .seqs
        .iter()
        .filter_map(|&seq| {
            let slot = queue.get(seq)?;
            let carried = Carried {
                redeliveries: slot.redeliveries,
                redelivered: queue.redelivered(seq, slot),
                hops: slot.hops.saturating_add(1),
                dead_letter: queue.dead_letter(seq).cloned(),
                message: Bytes::new(),
            };
            Some((slot.place, carried))
        })
        .collect();
    Some((offer.queue, queue.destination().clone(), queue.other_group(), places))
}

pub(super) fn is_under_offer(broker: &Broker, queue: QueueId) -> bool {
    broker
        .transfers()
        .outgoing
        .values()
        .any(|outgoing| outgoing.pending.values().any(|offer| offer.queue == queue))
}
