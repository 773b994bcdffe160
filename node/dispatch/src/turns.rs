//! The consumers of one queue in the order in which they are served: by priority, and in turn among equals.
//!
//! Whoever was asked goes behind the others of its priority, whether it took the message or not. So a message costs one
//! look while consumers have room, however many there are.

use std::collections::VecDeque;

use crate::ConsumerId;

/// Consumers in their order.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    /// The highest priority first; no class is empty.
    classes: Vec<Class>,
}

#[derive(Debug)]
struct Class {
    priority: i8,
    consumers: VecDeque<ConsumerId>,
}

impl Turns {
    /// A consumer comes; it is the last of its priority.
    pub(crate) fn push(&mut self, id: ConsumerId, priority: i8) {
        let at = self.classes.partition_point(|class| class.priority > priority);
        if self.classes.get(at).is_none_or(|class| class.priority != priority) {
            let consumers = VecDeque::new();
            self.classes.insert(at, Class { priority, consumers });
        }
        self.classes[at].consumers.push_back(id);
    }

    /// A consumer goes; tells whether it was there.
    pub(crate) fn remove(&mut self, id: ConsumerId) -> bool {
        let before = self.len();
        for class in &mut self.classes {
            class.consumers.retain(|&other| other != id);
        }
        let removed = self.len() < before;
        self.classes.retain(|class| !class.consumers.is_empty());
        removed
    }

    pub(crate) fn len(&self) -> usize {
        self.classes.iter().map(|class| class.consumers.len()).sum()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.classes.is_empty()
    }

    /// As they would be served now.
    pub(crate) fn iter(&self) -> impl Iterator<Item = ConsumerId> {
        self.classes.iter().flat_map(|class| class.consumers.iter().copied())
    }

    /// The first that takes, asked in turn; each that was asked goes behind its equals.
    pub(crate) fn first_that(&mut self, mut takes: impl FnMut(ConsumerId) -> bool) -> Option<ConsumerId> {
        for class in &mut self.classes {
            for _ in 0..class.consumers.len() {
                let id = class.consumers.pop_front()?;
                class.consumers.push_back(id);
                if takes(id) {
                    return Some(id);
                }
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equals_take_turns_and_higher_priorities_come_first() {
        let mut turns = Turns::default();
        for (id, priority) in [(1, 0), (2, 5), (3, 0), (4, 5), (5, -1)] {
            turns.push(id, priority);
        }
        assert_eq!(turns.iter().collect::<Vec<_>>(), [2, 4, 1, 3, 5]);
        let served: Vec<_> = (0..3).map(|_| turns.first_that(|_| true)).collect();
        assert_eq!(served, [Some(2), Some(4), Some(2)]);
        let lower: Vec<_> = (0..3).map(|_| turns.first_that(|id| id != 2 && id != 4)).collect();
        assert_eq!(lower, [Some(1), Some(3), Some(1)]);
        assert_eq!(turns.first_that(|_| false), None);
        assert_eq!(turns.len(), 5);

        turns.remove(2);
        turns.remove(4);
        assert_eq!(turns.iter().collect::<Vec<_>>(), [3, 1, 5]);
        for id in [1, 3, 5, 5] {
            turns.remove(id);
        }
        assert!(turns.is_empty());
        assert_eq!(turns.first_that(|_| true), None);
    }
}
