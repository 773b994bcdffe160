//! All queues by number and by name.

use std::{
    collections::{BTreeMap, HashMap},
    ops::RangeBounds,
    sync::Arc,
};

use ferrymq_message::{Destination, DestinationKind};
use foldhash::fast::FixedState;

use crate::{Effect, Queue, QueueId, effect::Applied, queue::QueueKind};

/// All queues and the backlogs of durable subscriptions.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Queues {
    by_id: BTreeMap<QueueId, Queue>,
    names: HashMap<Arc<str>, QueueId, FixedState>,
    temporary_names: HashMap<Arc<str>, QueueId, FixedState>,
    pub(crate) next_id: QueueId,
}

impl Queues {
    /// The queue of this number.
    pub fn get(&self, id: QueueId) -> Option<&Queue> {
        self.by_id.get(&id)
    }

    pub(crate) fn get_mut(&mut self, id: QueueId) -> Option<&mut Queue> {
        self.by_id.get_mut(&id)
    }

    /// The queue of this name; topics have none.
    pub fn find(&self, kind: DestinationKind, name: &str) -> Option<QueueId> {
        match kind {
            DestinationKind::Queue => self.names.get(name).copied(),
            DestinationKind::TempQueue => self.temporary_names.get(name).copied(),
            _ => None,
        }
    }

    /// In the order of their numbers.
    pub fn iter(&self) -> impl Iterator<Item = &Queue> {
        self.by_id.values()
    }

    /// In the order of their numbers, those in this range.
    pub fn range(&self, range: impl RangeBounds<QueueId>) -> impl Iterator<Item = &Queue> {
        self.by_id.range(range).map(|(_, queue)| queue)
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Queue> {
        self.by_id.values_mut()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// True where there is none.
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// The queue of this name, made now if need be: queues come to be by being used, as in ActiveMQ.
    pub(crate) fn open(&mut self, destination: &Destination, out: &mut Applied) -> QueueId {
        if let Some(id) = self.find(destination.kind(), destination.name()) {
            return id;
        }
        self.create(QueueKind::Queue(destination.clone()), out)
    }

    pub(crate) fn create(&mut self, kind: QueueKind, out: &mut Applied) -> QueueId {
        // Unique as long as it matters: after four thousand million queues the numbers begin anew.
        self.next_id = self.next_id.wrapping_add(1);
        while self.by_id.contains_key(&self.next_id) {
            self.next_id = self.next_id.wrapping_add(1);
        }
        let id = self.next_id;
        self.insert(Queue::new(id, kind));
        out.effects.push(Effect::QueueCreated { queue: id });
        id
    }

    pub(crate) fn insert(&mut self, queue: Queue) {
        if let QueueKind::Queue(destination) = &queue.kind {
            let names = match destination.kind() {
                DestinationKind::TempQueue => &mut self.temporary_names,
                _ => &mut self.names,
            };
            names.insert(destination.name().into(), queue.id);
        }
        self.by_id.insert(queue.id, queue);
    }

    /// Takes a queue with all its messages out.
    pub(crate) fn delete(&mut self, id: QueueId, out: &mut Applied) -> bool {
        let Some(queue) = self.by_id.remove(&id) else {
            return false;
        };
        if let QueueKind::Queue(destination) = &queue.kind {
            match destination.kind() {
                DestinationKind::TempQueue => self.temporary_names.remove(destination.name()),
                _ => self.names.remove(destination.name()),
            };
        }
        for (_, slot) in queue.iter_from(0) {
            out.unpin(slot.place);
        }
        out.effects.push(Effect::QueueDeleted { queue: id });
        true
    }
}
