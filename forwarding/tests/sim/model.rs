//! A model of one group's replicated state: just enough of the broker to know where each message is (P4).

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use ferrymq_broker::{Carried, Command, GroupId, Life, Outcome, Refused, TransferId, first_transfer};
use ferrymq_message::{Destination, DestinationKind, Message, StoredMessage};

/// A queue, or for topics the copies for one group (`None`: for subscribers here).
pub(crate) type Place = (Destination, Option<GroupId>);

/// What survives a change of master.
#[derive(Debug, Default, Clone)]
pub(crate) struct Model {
    pub(crate) group: GroupId,
    pub(crate) life: Life,
    pub(crate) queues: BTreeMap<Place, VecDeque<Carried>>,
    pub(crate) outgoing: BTreeMap<GroupId, Outgoing>,
    pub(crate) incoming: BTreeMap<GroupId, Incoming>,
    /// Acknowledged message ids, in order.
    pub(crate) consumed: Vec<String>,
    pub(crate) parked: Vec<Carried>,
}

#[derive(Debug, Default, Clone)]
pub(crate) struct Outgoing {
    pub(crate) next: TransferId,
    pub(crate) pending: BTreeMap<TransferId, (Place, Vec<Carried>)>,
}

#[derive(Debug, Default, Clone)]
pub(crate) struct Incoming {
    pub(crate) floor: TransferId,
    pub(crate) accepted: BTreeMap<TransferId, Vec<Refused>>,
}

pub(crate) fn message(id: &str, destination: &Destination) -> Carried {
    let message: Bytes = Message::new(id, destination.clone(), id.to_owned()).encode();
    Carried {
        redeliveries: 0,
        redelivered: false,
        hops: 0,
        dead_letter: None,
        message,
    }
}

pub(crate) fn id_of(carried: &Carried) -> String {
    let stored = StoredMessage::new(carried.message.clone()).expect("only readable messages are taken");
    String::from_utf8(stored.body().to_vec()).expect("bodies are ids")
}

impl Model {
    /// Sets up to `count` messages aside for the next hop.
    pub(crate) fn offer(
        &mut self,
        place: &Place,
        next_hop: GroupId,
        count: usize,
    ) -> Option<(TransferId, Vec<Carried>)> {
        let queue = self.queues.get_mut(place)?;
        let mut messages: Vec<Carried> = queue.drain(..count.min(queue.len())).collect();
        if messages.is_empty() {
            return None;
        }
        messages.iter_mut().for_each(|carried| carried.hops += 1);
        let outgoing = self.outgoing.entry(next_hop).or_default();
        let transfer = outgoing.next.max(first_transfer(self.life.incarnation));
        outgoing.next = transfer + 1;
        outgoing.pending.insert(transfer, (place.clone(), messages.clone()));
        Some((transfer, messages))
    }

    /// How far other groups' transfers have come.
    pub(crate) fn arrived(&self) -> Vec<(GroupId, TransferId, TransferId)> {
        let arrived = self.incoming.iter().map(|(origin, incoming)| {
            let last = incoming.accepted.keys().next_back().map_or(0, |last| last + 1);
            (*origin, incoming.floor, last.max(incoming.floor))
        });
        arrived.collect()
    }

    /// The ids of all messages that are anywhere in it.
    pub(crate) fn ids(&self) -> BTreeSet<String> {
        let pending = self.outgoing.values().flat_map(|outgoing| outgoing.pending.values());
        let offered = pending.flat_map(|(_, messages)| messages);
        let queued = self.queues.values().flatten();
        queued.chain(offered).map(id_of).collect()
    }

    pub(crate) fn apply(&mut self, command: &Command) -> Outcome {
        match command {
            Command::Accept(accept) => {
                let incoming = self.incoming.entry(accept.origin).or_default();
                if accept.transfer < incoming.floor {
                    return Outcome::Settled;
                }
                if let Some(refused) = incoming.accepted.get(&accept.transfer) {
                    return Outcome::Accepted {
                        refused: refused.clone(),
                    };
                }
                incoming.accepted.insert(accept.transfer, accept.refused.clone());
                let onward = accept.target.filter(|&group| group != self.group);
                let topic = accept.destination.kind() == DestinationKind::Topic;
                let place = (accept.destination.clone(), if topic { onward } else { None });
                self.queues
                    .entry(place)
                    .or_default()
                    .extend(accept.messages.iter().cloned());
                Outcome::Accepted {
                    refused: accept.refused.clone(),
                }
            }
            Command::Release(release) => {
                let outgoing = self.outgoing.entry(release.group).or_default();
                let Some((_, messages)) = outgoing.pending.remove(&release.transfer) else {
                    return Outcome::NotFound;
                };
                for refused in &release.refused {
                    self.parked.push(messages[refused.position as usize].clone());
                }
                Outcome::Done
            }
            Command::Forget(forget) => {
                // A floor above what is in doubt would make a transfer vanish.
                let incoming = self.incoming.entry(forget.origin).or_default();
                incoming.floor = incoming.floor.max(forget.floor);
                incoming.accepted = incoming.accepted.split_off(&incoming.floor);
                Outcome::Done
            }
            Command::TakeBack(back) => {
                assert!(back.transfer < first_transfer(self.life.incarnation), "{back:?}");
                let outgoing = self.outgoing.entry(back.group).or_default();
                let Some((place, mut messages)) = outgoing.pending.remove(&back.transfer) else {
                    return Outcome::NotFound;
                };
                messages.iter_mut().for_each(|carried| carried.redelivered = true);
                self.queues.entry(place).or_default().extend(messages);
                Outcome::Done
            }
            Command::Renew(renew) => {
                if renew.incarnation > self.life.incarnation {
                    let (incarnation, lineage) = (renew.incarnation, renew.lineage);
                    self.life = Life { incarnation, lineage };
                }
                let Life { incarnation, lineage } = self.life;
                Outcome::Renewed { incarnation, lineage }
            }
            other => panic!("the mesh proposed {other:?}"),
        }
    }
}
