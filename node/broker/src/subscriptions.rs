//! Durable subscriptions, and other groups' demand for topics: who gets a copy of what is published.

use std::collections::BTreeMap;

use crate::{GroupId, QueueId};

/// Whose subscription it is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Owner {
    /// A client's durable subscription (JMS: client id and subscription name).
    Client {
        /// JMS client id.
        client_id: String,
        /// The subscription's name.
        name: String,
    },
    /// Another group that has subscribers of the topic. One for each topic.
    Group {
        /// The group.
        group: GroupId,
        /// The topic's name, since a group has one subscription per topic.
        topic: String,
    },
}

/// Subscriptions by owner and by topic.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Subscriptions {
    by_owner: BTreeMap<Owner, QueueId>,
    by_topic: BTreeMap<String, Vec<QueueId>>,
    /// Those whose topic holds wildcards: (pattern, queue).
    patterns: Vec<(String, QueueId)>,
}

impl Subscriptions {
    /// The backlog of this owner's subscription.
    pub fn find(&self, owner: &Owner) -> Option<QueueId> {
        self.by_owner.get(owner).copied()
    }

    /// The subscriptions of another group.
    pub fn of_group(&self, group: GroupId) -> impl Iterator<Item = &Owner> {
        let first = Owner::Group {
            group,
            topic: String::new(),
        };
        let all = self.by_owner.range(first..).map(|(owner, _)| owner);
        all.take_while(move |owner| matches!(owner, Owner::Group { group: other, .. } if *other == group))
    }

    /// All owners, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&Owner, QueueId)> {
        self.by_owner.iter().map(|(owner, &queue)| (owner, queue))
    }

    pub(crate) fn insert(&mut self, owner: Owner, topic: &str, queue: QueueId) {
        self.by_owner.insert(owner, queue);
        if is_pattern(topic) {
            self.patterns.push((topic.to_owned(), queue));
        } else {
            self.by_topic.entry(topic.to_owned()).or_default().push(queue);
        }
    }

    pub(crate) fn remove(&mut self, owner: &Owner) -> Option<QueueId> {
        let queue = self.by_owner.remove(owner)?;
        self.patterns.retain(|&(_, id)| id != queue);
        self.by_topic.retain(|_, queues| {
            queues.retain(|&id| id != queue);
            !queues.is_empty()
        });
        Some(queue)
    }

    /// The backlogs that get a copy of what is published on this topic, each once.
    pub fn matching(&self, topic: &str) -> Vec<QueueId> {
        let mut queues = self.by_topic.get(topic).cloned().unwrap_or_default();
        queues.extend(
            self.patterns
                .iter()
                .filter(|(pattern, _)| matches(pattern, topic))
                .map(|&(_, id)| id),
        );
        queues
    }
}

/// Does the name hold one of ActiveMQ's wildcards, `*` for one part and `>` for all that follow?
pub fn is_pattern(name: &str) -> bool {
    name.split('.').any(|part| part == "*" || part == ">")
}

/// Matches a dotted name against a pattern, as ActiveMQ's `DestinationFilter` does: `*` stands for one part, `>` at
/// the end for any number of parts.
pub fn matches(pattern: &str, name: &str) -> bool {
    let mut parts = name.split('.');
    for wanted in pattern.split('.') {
        match (wanted, parts.next()) {
            (">", _) => return true,
            ("*", Some(_)) => {}
            (wanted, Some(part)) if wanted == part => {}
            _ => return false,
        }
    }
    parts.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_follow_activemq() {
        for (pattern, name, expected) in [
            ("A.B", "A.B", true),
            ("A.*", "A.B", true),
            ("A.*", "A", false),
            ("A.*", "A.B.C", false),
            ("A.>", "A.B.C", true),
            ("A.>", "A", true),
            (">", "X.Y", true),
            ("*.B", "A.B", true),
            ("A.B", "A.C", false),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} against {name}");
        }
    }
}
