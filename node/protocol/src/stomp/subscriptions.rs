//! The subscriptions of one connection, and for 1.0 and 1.1 which deliveries bear which message id.

use std::collections::{BTreeMap, VecDeque};

use ferrymq_message::Destination;

use crate::{AckMode, AckTarget};

/// Most deliveries remembered for a subscription, twice ActiveMQ's largest prefetch: what the broker took back without
/// a word is forgotten in the end.
const IN_FLIGHT_MAX: usize = 65_536;

/// One subscription.
#[derive(Debug)]
pub(super) struct Subscription {
    /// The client's id for it; 1.0 does without.
    pub(super) id: Option<String>,
    /// Where it consumes from.
    pub(super) destination: Destination,
    /// When its messages count as consumed.
    pub(super) ack: AckMode,
    /// The latest delivery's tag.
    pub(super) last_tag: u64,
    /// Deliveries that a message id in ACK may name, oldest first; at most the prefetch are outstanding.
    in_flight: VecDeque<InFlight>,
}

#[derive(Debug)]
struct InFlight {
    tag: u64,
    message_id: String,
    /// The open transaction whose commit will settle it.
    transaction: Option<u32>,
}

impl Subscription {
    /// A subscription that has delivered nothing yet.
    pub(super) fn new(id: Option<String>, destination: Destination, ack: AckMode) -> Self {
        Self {
            id,
            destination,
            ack,
            last_tag: 0,
            in_flight: VecDeque::new(),
        }
    }

    /// Remembers which delivery bears a message id.
    pub(super) fn on_delivery(&mut self, tag: u64, message_id: String) {
        if self.in_flight.len() == IN_FLIGHT_MAX {
            self.in_flight.pop_front();
        }
        self.in_flight.push_back(InFlight {
            tag,
            message_id,
            transaction: None,
        });
    }

    /// The delivery of this message id that nobody has settled yet.
    pub(super) fn find(&self, message_id: &str) -> Option<u64> {
        let unsettled = |entry: &&InFlight| entry.transaction.is_none() && entry.message_id == message_id;
        self.in_flight.iter().find(unsettled).map(|entry| entry.tag)
    }

    /// Forgets deliveries that are settled, or marks them until their transaction ends.
    pub(super) fn settle(&mut self, target: AckTarget, transaction: Option<u32>) {
        // Tags grow, so the entries are in their order.
        let range = match target {
            AckTarget::UpTo(tag) => 0..self.in_flight.partition_point(|entry| entry.tag <= tag),
            AckTarget::One(tag) => {
                let at = self.in_flight.partition_point(|entry| entry.tag < tag);
                at..self.in_flight.partition_point(|entry| entry.tag <= tag)
            }
        };
        match transaction {
            Some(_) => {
                let unsettled = self
                    .in_flight
                    .range_mut(range)
                    .filter(|entry| entry.transaction.is_none());
                unsettled.for_each(|entry| entry.transaction = transaction);
            }
            None => {
                let mut at = range.start;
                for _ in range {
                    if self.in_flight[at].transaction.is_some() {
                        at += 1;
                    } else {
                        self.in_flight.remove(at);
                    }
                }
            }
        }
    }

    fn end_transaction(&mut self, transaction: u32, committed: bool) {
        if committed {
            self.in_flight.retain(|entry| entry.transaction != Some(transaction));
        } else {
            let held = self
                .in_flight
                .iter_mut()
                .filter(|entry| entry.transaction == Some(transaction));
            held.for_each(|entry| entry.transaction = None);
        }
    }
}

/// All subscriptions, by the session's number and the client's id.
#[derive(Debug, Default)]
pub(super) struct Subscriptions {
    by_number: BTreeMap<u32, Subscription>,
    by_id: BTreeMap<String, u32>,
}

impl Subscriptions {
    /// Adds one; false where its id is in use.
    pub(super) fn add(&mut self, number: u32, subscription: Subscription) -> bool {
        if let Some(id) = &subscription.id {
            if self.by_id.contains_key(id) {
                return false;
            }
            self.by_id.insert(id.clone(), number);
        }
        self.by_number.insert(number, subscription);
        true
    }

    /// Takes one out by its number.
    pub(super) fn remove(&mut self, number: u32) -> Option<Subscription> {
        let subscription = self.by_number.remove(&number)?;
        if let Some(id) = &subscription.id {
            self.by_id.remove(id);
        }
        Some(subscription)
    }

    /// The number behind a client's id.
    pub(super) fn number_of(&self, id: &str) -> Option<u32> {
        self.by_id.get(id).copied()
    }

    /// The oldest subscription of a destination, as 1.0 may name it.
    pub(super) fn number_at(&self, destination: &Destination) -> Option<u32> {
        self.by_number
            .iter()
            .find(|(_, subscription)| subscription.destination == *destination)
            .map(|(number, _)| *number)
    }

    /// The one of this number.
    pub(super) fn get_mut(&mut self, number: u32) -> Option<&mut Subscription> {
        self.by_number.get_mut(&number)
    }

    /// The tag of an unsettled delivery of this message id in one subscription.
    pub(super) fn find_in(&self, number: u32, message_id: &str) -> Option<u64> {
        self.by_number.get(&number)?.find(message_id)
    }

    /// The oldest subscription that holds an unsettled delivery of this message id, and its tag: 1.0 need not say which
    /// subscription it means.
    pub(super) fn find(&self, message_id: &str) -> Option<(u32, u64)> {
        self.by_number
            .iter()
            .find_map(|(number, subscription)| Some((*number, subscription.find(message_id)?)))
    }

    /// Settles or gives back what a transaction holds.
    pub(super) fn end_transaction(&mut self, transaction: u32, committed: bool) {
        for subscription in self.by_number.values_mut() {
            subscription.end_transaction(transaction, committed);
        }
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.by_number.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_deliveries() -> Subscription {
        let mut subscription = Subscription::new(None, Destination::queue("A"), AckMode::Client);
        for (tag, id) in [(1, "a"), (2, "b"), (3, "c")] {
            subscription.on_delivery(tag, id.into());
        }
        subscription
    }

    #[test]
    fn settled_deliveries_are_forgotten() {
        let mut subscription = with_deliveries();
        subscription.settle(AckTarget::UpTo(2), None);
        assert_eq!(
            (subscription.find("a"), subscription.find("b"), subscription.find("c")),
            (None, None, Some(3))
        );
    }

    #[test]
    fn a_transaction_holds_them_until_it_ends() {
        let mut all = Subscriptions::default();
        assert!(all.add(7, with_deliveries()));
        all.get_mut(7).unwrap().settle(AckTarget::One(2), Some(1));
        assert_eq!(all.find("b"), None);
        all.end_transaction(1, false);
        assert_eq!(all.find("b"), Some((7, 2)));
        all.get_mut(7).unwrap().settle(AckTarget::UpTo(2), Some(2));
        all.end_transaction(2, true);
        assert_eq!(
            (all.find("a"), all.find("b"), all.find("c")),
            (None, None, Some((7, 3)))
        );
    }

    #[test]
    fn ids_are_unique_while_in_use() {
        let named = || Subscription::new(Some("x".into()), Destination::queue("A"), AckMode::Auto);
        let mut all = Subscriptions::default();
        assert!(all.add(1, named()));
        assert!(!all.add(2, named()));
        assert_eq!(all.number_of("x"), Some(1));
        assert_eq!(all.number_at(&Destination::queue("A")), Some(1));
        assert_eq!(all.number_at(&Destination::queue("B")), None);
        assert!(all.remove(1).is_some());
        assert!(all.add(2, named()));
        assert_eq!(all.len(), 1);
    }
}
