//! Producers in the order of their latest messages: the longest silent is the first.
//!
//! A list whose links are positions in one vector, so that a producer goes to the end, and the first one away, in
//! constant time.

use super::{key::Key, seen::Seen};

/// Where a producer stands in memory, as long as it is remembered.
pub(super) type At = u32;

/// See the file's head. Positions that are handed in are those of producers that are remembered.
#[derive(Debug, Clone)]
pub(super) struct Line {
    nodes: Vec<Node>,
    /// Positions without a producer.
    free: Vec<At>,
    first: At,
    last: At,
}

#[derive(Debug, Clone)]
struct Node {
    key: Key,
    seen: Seen,
    before: At,
    after: At,
}

/// No position.
const NOBODY: At = At::MAX;

impl Default for Line {
    fn default() -> Self {
        Self {
            nodes: Vec::new(),
            free: Vec::new(),
            first: NOBODY,
            last: NOBODY,
        }
    }
}

impl Line {
    /// Who has been silent for longest.
    pub(super) fn first(&self) -> Option<At> {
        (self.first != NOBODY).then_some(self.first)
    }

    /// Whose message was the latest.
    pub(super) fn last(&self) -> Option<At> {
        (self.last != NOBODY).then_some(self.last)
    }

    /// Who was silent for a little longer.
    pub(super) fn before(&self, at: At) -> Option<At> {
        let before = self.nodes[at as usize].before;
        (before != NOBODY).then_some(before)
    }

    /// Who was silent for a little less.
    pub(super) fn after(&self, at: At) -> Option<At> {
        let after = self.nodes[at as usize].after;
        (after != NOBODY).then_some(after)
    }

    pub(super) fn seen(&self, at: At) -> &Seen {
        &self.nodes[at as usize].seen
    }

    pub(super) fn seen_mut(&mut self, at: At) -> &mut Seen {
        &mut self.nodes[at as usize].seen
    }

    /// All, the longest silent first.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&Key, &Seen)> {
        let mut next = self.first();
        std::iter::from_fn(move || {
            let node = &self.nodes[next? as usize];
            next = (node.after != NOBODY).then_some(node.after);
            Some((&node.key, &node.seen))
        })
    }

    /// A new one, as the last.
    pub(super) fn push(&mut self, key: Key, seen: Seen) -> At {
        let node = Node {
            key,
            seen,
            before: NOBODY,
            after: NOBODY,
        };
        let at = match self.free.pop() {
            Some(at) => {
                self.nodes[at as usize] = node;
                at
            }
            None => {
                self.nodes.push(node);
                (self.nodes.len() - 1) as At
            }
        };
        self.link_last(at);
        at
    }

    /// Makes it the last.
    pub(super) fn make_last(&mut self, at: At) {
        if at != self.last {
            self.unlink(at);
            self.link_last(at);
        }
    }

    pub(super) fn remove(&mut self, at: At) -> (Key, Seen) {
        self.unlink(at);
        self.free.push(at);
        let node = &mut self.nodes[at as usize];
        (std::mem::take(&mut node.key), std::mem::take(&mut node.seen))
    }

    fn link_last(&mut self, at: At) {
        let before = std::mem::replace(&mut self.last, at);
        match before {
            NOBODY => self.first = at,
            _ => self.nodes[before as usize].after = at,
        }
        let node = &mut self.nodes[at as usize];
        (node.before, node.after) = (before, NOBODY);
    }

    fn unlink(&mut self, at: At) {
        let Node { before, after, .. } = self.nodes[at as usize];
        match before {
            NOBODY => self.first = after,
            _ => self.nodes[before as usize].after = after,
        }
        match after {
            NOBODY => self.last = before,
            _ => self.nodes[after as usize].before = before,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::key::Who, *};

    fn key(id: &str) -> Key {
        Key::new(Who { user: None, id })
    }

    fn ids(line: &Line) -> String {
        let forward: Vec<&str> = line.iter().map(|(key, _)| key.who().id).collect();
        let mut backward = Vec::new();
        let mut next = line.last();
        while let Some(at) = next {
            backward.push(line.nodes[at as usize].key.who().id);
            next = line.before(at);
        }
        backward.reverse();
        assert_eq!(forward, backward);
        forward.concat()
    }

    #[test]
    fn producers_go_to_the_end_and_away_from_any_place() {
        let mut line = Line::default();
        assert!(line.first().is_none() && line.last().is_none() && line.iter().next().is_none());
        let at: Vec<At> = "abcd"
            .split("")
            .filter(|id| !id.is_empty())
            .map(|id| line.push(key(id), Seen::first(1, 1)))
            .collect();
        assert_eq!(ids(&line), "abcd");
        for (moved, expected) in [(3, "abcd"), (0, "bcda"), (2, "bdac"), (1, "dacb")] {
            line.make_last(at[moved]);
            assert_eq!(ids(&line), expected);
        }
        for (removed, expected) in [(0, "dcb"), (3, "cb"), (1, "c"), (2, "")] {
            line.remove(at[removed]);
            assert_eq!(ids(&line), expected);
        }
        for id in ["e", "f", "g", "h"] {
            line.push(key(id), Seen::default());
        }
        assert_eq!(
            (ids(&line).as_str(), line.nodes.len()),
            ("efgh", 4),
            "places are used again"
        );
    }
}
