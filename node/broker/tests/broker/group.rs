//! One group's replicated state as the tests drive it: a log that only grows, and checks after every entry.

use std::collections::BTreeMap;

use bytes::Bytes;
use ferrymq_broker::{
    Accept, Applied, BatchBuilder, Broker, Carried, Command, GroupId, Outcome, Place, QueueId, Refused, Settings,
    TransferId,
};
use ferrymq_message::{Destination, Message, StoredMessage};

/// A group of which only the state matters.
#[derive(Debug, Clone)]
pub(crate) struct Group {
    pub(crate) broker: Broker,
    pub(crate) index: u64,
    pub(crate) log: BTreeMap<u64, Bytes>,
    /// The sum of all changes of liveness: (references, bytes) by entry.
    live: BTreeMap<u64, (i64, i64)>,
}

impl Group {
    /// Founded under this id.
    pub(crate) fn new(id: GroupId) -> Self {
        let mut group = Self {
            broker: Broker::new(Settings::default()),
            index: 0,
            log: BTreeMap::new(),
            live: BTreeMap::new(),
        };
        group.apply(&Command::Found(id));
        group
    }

    /// Commits one command in an entry of its own.
    pub(crate) fn apply(&mut self, command: &Command) -> Applied {
        self.batch(std::slice::from_ref(command))
    }

    /// The outcome of one command in an entry of its own.
    pub(crate) fn outcome(&mut self, command: &Command) -> Outcome {
        self.apply(command).outcomes.remove(0)
    }

    /// Commits commands in one entry and checks what must always hold.
    pub(crate) fn batch(&mut self, commands: &[Command]) -> Applied {
        let mut batch = BatchBuilder::default();
        for command in commands {
            batch.push(&command.encode());
        }
        let payload = batch.finish();
        self.index += 1;
        self.log.insert(self.index, payload.clone());
        let applied = self.broker.apply(self.index, &payload).unwrap();
        assert_eq!(applied.outcomes.len(), commands.len());
        for change in &applied.live {
            let (references, bytes) = self.live.entry(change.index).or_default();
            *references += change.references;
            *bytes += change.bytes;
            assert!(
                *references >= 0 && *bytes >= 0,
                "entry {} is let go of too often",
                change.index
            );
        }
        self.live.retain(|_, counts| *counts != (0, 0));
        self.check();
        applied
    }

    /// What holds after every entry.
    fn check(&self) {
        let live: Vec<(u64, u64, u64)> = self
            .live
            .iter()
            .map(|(&index, &(references, bytes))| (index, references as u64, bytes as u64))
            .collect();
        assert_eq!(self.broker.live_counts(), live, "the sum of all changes is what lives");
        let mut offered: Vec<(QueueId, u64)> = Vec::new();
        for outgoing in self.broker.transfers().outgoing.values() {
            for offer in outgoing.pending.values() {
                assert!(
                    self.broker.queues().get(offer.queue).is_some(),
                    "an offer outlived its queue"
                );
                offered.extend(offer.seqs.iter().map(|&seq| (offer.queue, seq)));
            }
        }
        let count = offered.len();
        offered.sort_unstable();
        offered.dedup();
        assert_eq!(offered.len(), count, "a message is under offer twice");
        for queue in self.broker.queues().iter() {
            let slots: Vec<_> = queue.iter_from(0).collect();
            assert_eq!(queue.len(), slots.len() as u64);
            assert_eq!(
                queue.bytes,
                slots.iter().map(|(_, slot)| u64::from(slot.place.len)).sum::<u64>()
            );
            assert_eq!(queue.enqueued - queue.dequeued, queue.len());
            let expiring = slots.iter().filter(|(_, slot)| slot.expires_ms != 0).count();
            assert_eq!(queue.expiring(), expiring as u64);
            for (seq, slot) in slots {
                assert_eq!(
                    slot.offered(),
                    offered.contains(&(queue.id, seq)),
                    "{:?} #{seq}",
                    queue.kind
                );
                assert_eq!(queue.get(seq), Some(slot));
                self.read(slot.place);
            }
        }
    }

    /// The message at a place.
    pub(crate) fn read(&self, place: Place) -> Message {
        StoredMessage::new(self.bytes(place)).unwrap().decode().unwrap()
    }

    fn bytes(&self, place: Place) -> Bytes {
        let start = place.offset as usize;
        self.log[&place.index].slice(start..start + place.len as usize)
    }

    /// The queue of this name.
    pub(crate) fn queue(&self, destination: &Destination) -> Option<QueueId> {
        self.broker.queues().find(destination.kind(), destination.name())
    }

    /// The messages' ids, in the order of the queue.
    pub(crate) fn ids(&self, queue: QueueId) -> Vec<String> {
        let queue = self.broker.queues().get(queue).unwrap();
        queue.iter_from(0).map(|(_, slot)| self.read(slot.place).id).collect()
    }

    /// What the master would send of a transfer that is under offer; `refuse` says what the receiver does not take.
    pub(crate) fn carry(&self, to: GroupId, transfer: TransferId, refuse: &[u32]) -> Option<Accept> {
        let offer = self.broker.transfers().outgoing.get(&to)?.pending.get(&transfer)?;
        let queue = self.broker.queues().get(offer.queue)?;
        let mut messages = Vec::new();
        let mut refused = Vec::new();
        for (position, &seq) in (0u32..).zip(&offer.seqs) {
            if refuse.contains(&position) {
                refused.push(Refused { position, reason: 1 });
                continue;
            }
            let slot = queue.get(seq)?;
            messages.push(Carried {
                redeliveries: slot.redeliveries,
                redelivered: queue.redelivered(seq, slot),
                hops: slot.hops + 1,
                dead_letter: queue.dead_letter(seq).cloned(),
                message: self.bytes(slot.place),
            });
        }
        Some(Accept {
            origin: self.broker.group(),
            transfer,
            destination: queue.destination().clone(),
            target: queue.other_group(),
            messages,
            refused,
        })
    }
}
