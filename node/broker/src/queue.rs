//! One queue's messages: their order and their places, never their bytes.
//!
//! A queue of millions must cost little memory and a removal little time, so messages lie in chunks of
//! [`CHUNK_MESSAGES`] consecutive numbers. A removal marks its slot; a chunk is squeezed when half of it is gone and
//! dropped with its last message. One old message therefore pins at most one small chunk.

use std::collections::BTreeMap;

use ferrymq_message::Destination;

use crate::{DeadLetter, GroupId, Place, QueueId, subscriptions::Owner};

/// Consecutive numbers in one chunk.
pub const CHUNK_MESSAGES: u64 = 256;

/// What the state knows about one message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot {
    /// Where its bytes lie.
    pub place: Place,
    /// JMSExpiration; 0 means never.
    pub expires_ms: i64,
    /// How often it was dispatched and came back.
    pub redeliveries: u16,
    /// How many times it was handed to another group.
    pub hops: u8,
    /// JMSPriority.
    pub priority: u8,
    pub(crate) flags: u8,
}

pub(crate) const PERSISTENT: u8 = 1;
/// May have been delivered before, whatever the count says (P3).
pub(crate) const REDELIVERED: u8 = 2;
/// Set aside for another group under a transfer.
pub(crate) const OFFERED: u8 = 4;
/// Refused by other groups too often to be offered again.
pub(crate) const PARKED: u8 = 8;
const GONE: u8 = 128;
/// Every flag that a snapshot may hold.
pub(crate) const KEPT_FLAGS: u8 = PERSISTENT | REDELIVERED | OFFERED | PARKED;

impl Slot {
    pub(crate) fn new(place: Place, expires_ms: i64, priority: u8, persistent: bool) -> Self {
        let flags = if persistent { PERSISTENT } else { 0 };
        Self {
            place,
            expires_ms,
            redeliveries: 0,
            hops: 0,
            priority,
            flags,
        }
    }

    /// JMSDeliveryMode.
    pub fn persistent(&self) -> bool {
        self.flags & PERSISTENT != 0
    }

    /// Set aside for another group: nobody else gets it until that group has answered.
    pub fn offered(&self) -> bool {
        self.flags & OFFERED != 0
    }

    /// Not to be offered to other groups any more.
    pub fn parked(&self) -> bool {
        self.flags & PARKED != 0
    }

    pub(crate) fn set(&mut self, flag: u8, on: bool) {
        if on {
            self.flags |= flag;
        } else {
            self.flags &= !flag;
        }
    }
}

/// What a queue is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum QueueKind {
    /// A destination of that name.
    Queue(Destination),
    /// The backlog of a durable subscription, or of another group's demand for a topic.
    Subscription {
        /// The topic, which may hold wildcards.
        topic: Destination,
        /// Whose it is.
        owner: Owner,
        /// Text of the selector, empty for none.
        selector: String,
    },
}

/// A queue, or the backlog of a durable subscription.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Queue {
    /// Its number.
    pub id: QueueId,
    /// What it is for.
    pub kind: QueueKind,
    /// The next message's number.
    pub next_seq: u64,
    /// Consumers take from it: what is dispatched now may reach somebody although no command says so.
    pub consuming: bool,
    /// Messages below this number may have been delivered by an earlier master (P3).
    pub redelivered_below: u64,
    /// Messages that ever came in.
    pub enqueued: u64,
    /// Messages that ever left.
    pub dequeued: u64,
    /// Bytes of the messages in it.
    pub bytes: u64,
    pub(crate) chunks: BTreeMap<u64, Chunk>,
    pub(crate) dead_letters: BTreeMap<u64, DeadLetter>,
    pub(crate) refusals: BTreeMap<u64, u8>,
    len: u64,
    expiring: u64,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Chunk {
    /// Position inside the chunk's range, increasing; parallel to `slots`.
    positions: Vec<u8>,
    slots: Vec<Slot>,
    live: u32,
}

impl Queue {
    pub(crate) fn new(id: QueueId, kind: QueueKind) -> Self {
        Self {
            id,
            kind,
            next_seq: 0,
            consuming: false,
            redelivered_below: 0,
            enqueued: 0,
            dequeued: 0,
            bytes: 0,
            chunks: BTreeMap::new(),
            dead_letters: BTreeMap::new(),
            refusals: BTreeMap::new(),
            len: 0,
            expiring: 0,
        }
    }

    /// Messages in it, those in flight and those under offer included.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Messages in it that have an expiry.
    pub fn expiring(&self) -> u64 {
        self.expiring
    }

    /// True where there is no message.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The queue's or the topic's name.
    pub fn destination(&self) -> &Destination {
        match &self.kind {
            QueueKind::Queue(destination) => destination,
            QueueKind::Subscription { topic, .. } => topic,
        }
    }

    /// The group for whose subscribers this backlog is.
    pub fn other_group(&self) -> Option<GroupId> {
        match self.kind {
            QueueKind::Subscription {
                owner: Owner::Group { group, .. },
                ..
            } => Some(group),
            _ => None,
        }
    }

    /// The message of this number.
    pub fn get(&self, seq: u64) -> Option<&Slot> {
        self.chunks.get(&(seq / CHUNK_MESSAGES))?.get(seq)
    }

    pub(crate) fn get_mut(&mut self, seq: u64) -> Option<&mut Slot> {
        self.chunks.get_mut(&(seq / CHUNK_MESSAGES))?.get_mut(seq)
    }

    /// May the message have been delivered before?
    pub fn redelivered(&self, seq: u64, slot: &Slot) -> bool {
        slot.redeliveries > 0 || slot.flags & REDELIVERED != 0 || seq < self.redelivered_below
    }

    /// Why the message is in this dead letter queue.
    pub fn dead_letter(&self, seq: u64) -> Option<&DeadLetter> {
        self.dead_letters.get(&seq)
    }

    /// The first message at or after this number.
    pub fn first_from(&self, seq: u64) -> Option<(u64, &Slot)> {
        self.iter_from(seq).next()
    }

    /// Messages in order, from this number on.
    pub fn iter_from(&self, seq: u64) -> impl Iterator<Item = (u64, &Slot)> {
        let number = seq / CHUNK_MESSAGES;
        self.chunks.range(number..).flat_map(move |(&chunk_number, chunk)| {
            let from = if chunk_number == number {
                (seq % CHUNK_MESSAGES) as u8
            } else {
                0
            };
            let start = chunk.positions.partition_point(|&position| position < from);
            let base = chunk_number * CHUNK_MESSAGES;
            chunk.positions[start..]
                .iter()
                .zip(&chunk.slots[start..])
                .filter(|(_, slot)| slot.flags & GONE == 0)
                .map(move |(&position, slot)| (base + u64::from(position), slot))
        })
    }

    /// Appends a message and returns its number.
    pub(crate) fn push(&mut self, slot: Slot) -> u64 {
        let seq = self.next_seq;
        self.next_seq += 1;
        self.enqueued += 1;
        self.restore(seq, slot);
        seq
    }

    /// Puts a message with a known number at the end; used by `push` and when a snapshot is read.
    pub(crate) fn restore(&mut self, seq: u64, slot: Slot) {
        let chunk = self.chunks.entry(seq / CHUNK_MESSAGES).or_default();
        chunk.positions.push((seq % CHUNK_MESSAGES) as u8);
        chunk.slots.push(slot);
        chunk.live += 1;
        self.bytes += u64::from(slot.place.len);
        self.len += 1;
        self.expiring += u64::from(slot.expires_ms != 0);
    }

    /// Takes a message out.
    pub(crate) fn remove(&mut self, seq: u64) -> Option<Slot> {
        let number = seq / CHUNK_MESSAGES;
        let chunk = self.chunks.get_mut(&number)?;
        let slot = chunk.get_mut(seq)?;
        let taken = *slot;
        slot.set(GONE, true);
        chunk.live -= 1;
        if chunk.live == 0 {
            self.chunks.remove(&number);
        } else if (chunk.live as usize) * 2 < chunk.slots.len() {
            chunk.squeeze();
        }
        self.bytes -= u64::from(taken.place.len);
        self.len -= 1;
        self.expiring -= u64::from(taken.expires_ms != 0);
        self.dequeued += 1;
        if !self.dead_letters.is_empty() {
            self.dead_letters.remove(&seq);
        }
        if !self.refusals.is_empty() {
            self.refusals.remove(&seq);
        }
        Some(taken)
    }
}

/// Chunks are equal when the same messages live in them, whatever was squeezed out already: a state read from a
/// snapshot equals the one that wrote it.
impl PartialEq for Chunk {
    fn eq(&self, other: &Self) -> bool {
        self.live == other.live && self.iter().eq(other.iter())
    }
}

impl Eq for Chunk {}

impl Chunk {
    /// Living messages with their positions.
    fn iter(&self) -> impl Iterator<Item = (u8, &Slot)> {
        let all = self.positions.iter().zip(&self.slots);
        all.filter(|(_, slot)| slot.flags & GONE == 0)
            .map(|(&position, slot)| (position, slot))
    }

    fn find(&self, seq: u64) -> Option<usize> {
        let position = (seq % CHUNK_MESSAGES) as u8;
        // Nearly always nothing was squeezed out, and a slot lies at its own position.
        let at = usize::from(position);
        let at = match self.positions.get(at) {
            Some(&found) if found == position => at,
            _ => self.positions.binary_search(&position).ok()?,
        };
        (self.slots[at].flags & GONE == 0).then_some(at)
    }

    fn get(&self, seq: u64) -> Option<&Slot> {
        self.find(seq).map(|at| &self.slots[at])
    }

    fn get_mut(&mut self, seq: u64) -> Option<&mut Slot> {
        self.find(seq).map(|at| &mut self.slots[at])
    }

    fn squeeze(&mut self) {
        let live = |slot: &Slot| slot.flags & GONE == 0;
        self.positions = self
            .positions
            .iter()
            .zip(&self.slots)
            .filter(|(_, slot)| live(slot))
            .map(|(&p, _)| p)
            .collect();
        self.slots.retain(live);
        self.slots.shrink_to_fit();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot(index: u64) -> Slot {
        Slot::new(
            Place {
                index,
                offset: 0,
                len: 10,
            },
            0,
            4,
            true,
        )
    }

    #[test]
    fn removal_in_any_order_leaves_the_rest_in_order() {
        let mut queue = Queue::new(1, QueueKind::Queue(Destination::queue("Q")));
        for i in 0..2000 {
            assert_eq!(queue.push(slot(i)), i);
        }
        let mut expected: Vec<u64> = (0..2000).collect();
        for step in [7u64, 3, 2] {
            for seq in expected.clone().into_iter().filter(|s| s % step == 0) {
                assert_eq!(queue.remove(seq).map(|s| s.place.index), Some(seq));
                assert_eq!(queue.remove(seq), None);
            }
            expected.retain(|s| s % step != 0);
            let left: Vec<u64> = queue.iter_from(0).map(|(seq, _)| seq).collect();
            assert_eq!(left, expected);
            assert_eq!(queue.len(), expected.len() as u64);
        }
        assert_eq!(queue.first_from(1990).map(|(s, _)| s), Some(1991));
        for seq in expected {
            queue.remove(seq);
        }
        assert!(queue.is_empty() && queue.chunks.is_empty() && queue.bytes == 0);
    }

    #[test]
    fn a_slot_stays_small() {
        assert!(
            std::mem::size_of::<Slot>() <= 32,
            "a backlog's memory is this times its length"
        );
    }
}
