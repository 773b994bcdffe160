//! Subscribers of the moment: those who get what is published while they are there, and nothing else.

use std::collections::BTreeMap;

use ferrymq_broker::{is_pattern, matches};
use ferrymq_message::{Selector, StoredMessage};

use crate::{ConnectionId, ConsumerId};

/// A non-durable subscription.
#[derive(Debug, Clone)]
pub struct Subscriber {
    /// Whose it is.
    pub connection: ConnectionId,
    /// The topic, which may hold wildcards.
    pub topic: String,
    /// Which messages it wants; none means all.
    pub selector: Option<Selector>,
    /// Not those that came over its own connection (JMS: noLocal).
    pub no_local: bool,
    next_tag: u64,
}

impl Subscriber {
    /// A subscriber that wants everything.
    pub fn new(connection: ConnectionId, topic: impl Into<String>) -> Self {
        Self {
            connection,
            topic: topic.into(),
            selector: None,
            no_local: false,
            next_tag: 1,
        }
    }
}

/// One copy to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Copy {
    /// The subscriber.
    pub consumer: ConsumerId,
    /// Its connection.
    pub connection: ConnectionId,
    /// The subscriber's number for this delivery, from 1.
    pub tag: u64,
}

/// All non-durable subscriptions.
#[derive(Debug, Default)]
pub struct Topics {
    subscribers: BTreeMap<ConsumerId, Subscriber>,
    by_topic: BTreeMap<String, Vec<ConsumerId>>,
    patterns: Vec<ConsumerId>,
}

impl Topics {
    /// A subscriber comes.
    pub fn add(&mut self, id: ConsumerId, subscriber: Subscriber) {
        if is_pattern(&subscriber.topic) {
            self.patterns.push(id);
        } else {
            self.by_topic.entry(subscriber.topic.clone()).or_default().push(id);
        }
        self.subscribers.insert(id, subscriber);
    }

    /// A subscriber goes; returns its topic.
    pub fn remove(&mut self, id: ConsumerId) -> Option<String> {
        let subscriber = self.subscribers.remove(&id)?;
        self.patterns.retain(|&other| other != id);
        if let Some(ids) = self.by_topic.get_mut(&subscriber.topic) {
            ids.retain(|&other| other != id);
            if ids.is_empty() {
                self.by_topic.remove(&subscriber.topic);
            }
        }
        Some(subscriber.topic)
    }

    /// Subscribers of exactly this topic or pattern.
    pub fn count(&self, topic: &str) -> usize {
        if is_pattern(topic) {
            self.patterns
                .iter()
                .filter(|id| self.subscribers[id].topic == topic)
                .count()
        } else {
            self.by_topic.get(topic).map_or(0, Vec::len)
        }
    }

    /// The copies that one message makes. `from` is the connection that it came over.
    pub fn publish(&mut self, topic: &str, message: &StoredMessage, from: Option<ConnectionId>) -> Vec<Copy> {
        let mut ids = self.by_topic.get(topic).cloned().unwrap_or_default();
        ids.extend(
            self.patterns
                .iter()
                .filter(|id| matches(&self.subscribers[id].topic, topic)),
        );
        let mut decoded = None;
        let mut copies = Vec::with_capacity(ids.len());
        for id in ids {
            let Some(subscriber) = self.subscribers.get_mut(&id) else {
                continue;
            };
            if subscriber.no_local && from == Some(subscriber.connection) {
                continue;
            }
            if let Some(selector) = &subscriber.selector {
                let decoded = decoded.get_or_insert_with(|| message.decode().ok());
                if !decoded.as_ref().is_some_and(|message| selector.matches(message)) {
                    continue;
                }
            }
            let tag = subscriber.next_tag;
            subscriber.next_tag += 1;
            copies.push(Copy {
                consumer: id,
                connection: subscriber.connection,
                tag,
            });
        }
        copies
    }
}

#[cfg(test)]
mod tests {
    use ferrymq_message::{Destination, Message};

    use super::*;

    #[test]
    fn each_subscriber_gets_one_copy_unless_it_is_its_own() {
        let mut topics = Topics::default();
        topics.add(1, Subscriber::new(10, "news.de"));
        topics.add(2, Subscriber::new(11, "news.*"));
        topics.add(
            3,
            Subscriber {
                no_local: true,
                ..Subscriber::new(12, "news.de")
            },
        );
        topics.add(4, Subscriber::new(13, "other"));
        let message = StoredMessage::new(Message::new("m", Destination::topic("news.de"), "x").encode()).unwrap();
        let to = |copies: Vec<Copy>| copies.into_iter().map(|c| (c.consumer, c.tag)).collect::<Vec<_>>();
        assert_eq!(to(topics.publish("news.de", &message, Some(12))), vec![(1, 1), (2, 1)]);
        assert_eq!(
            to(topics.publish("news.de", &message, None)),
            vec![(1, 2), (3, 1), (2, 2)]
        );
        assert_eq!(topics.remove(2).as_deref(), Some("news.*"));
        assert_eq!(to(topics.publish("news.de", &message, Some(12))), vec![(1, 3)]);
        assert_eq!((topics.count("news.de"), topics.count("news.*")), (2, 0));
    }
}
