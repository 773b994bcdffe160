//! What absent groups wanted: of each group all its durable demand for topics, as of the freshest word of it that has come
//! here, over whichever way. It outlives links, and the node keeps it beyond terms (P2).
//!
//! Invariant: `rows` holds one row for each topic of each head, with that head's path, as one that is not linked.

use std::collections::{BTreeMap, BTreeSet};

use ferrymq_broker::{DemandVersion, GroupId};
use ferrymq_message::{Destination, DestinationKind};

use super::tellers::keys_of;
use crate::{
    output::KnownGroup,
    row::{Key, Row},
};

/// See the file's head.
#[derive(Debug)]
pub(super) struct Memory {
    rows_max: usize,
    heads: BTreeMap<GroupId, Head>,
    rows: BTreeMap<Key, Row>,
}

/// One group's word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) name: String,
    pub(super) version: DemandVersion,
    /// The next hop first, the group itself last.
    pub(super) path: Vec<GroupId>,
    topics: BTreeSet<Destination>,
}

impl Memory {
    pub(super) fn new(rows_max: usize) -> Self {
        Self {
            rows_max,
            heads: BTreeMap::new(),
            rows: BTreeMap::new(),
        }
    }

    /// Whether a word of this version is news.
    pub(super) fn is_older_than(&self, group: GroupId, version: DemandVersion) -> bool {
        self.heads.get(&group).is_none_or(|head| head.version < version)
    }

    /// Whether a word of another version is remembered; one without a version is no whole word.
    pub(super) fn differs(&self, group: GroupId, version: DemandVersion) -> bool {
        version != DemandVersion::default() && self.heads.get(&group).is_some_and(|head| head.version != version)
    }

    pub(super) fn has(&self, key: &Key) -> bool {
        self.rows.contains_key(key)
    }

    /// One more topic of a group that is known.
    pub(super) fn add(&mut self, row: Row) -> bool {
        let (Some(head), Some(topic)) = (self.heads.get_mut(&row.key.origin), &row.key.destination) else {
            return false;
        };
        if self.rows.len() >= self.rows_max {
            return false;
        }
        head.topics.insert(topic.clone());
        let remembered = Row {
            path: head.path.clone(),
            credit: 0,
            linked: false,
            ..row
        };
        self.rows.insert(remembered.key.clone(), remembered);
        true
    }

    /// The keys of what is remembered of a group.
    pub(super) fn topics(&self, group: GroupId) -> impl Iterator<Item = Key> {
        let topics = self.heads.get(&group).into_iter().flat_map(|head| &head.topics);
        topics.map(move |topic| Key::of(topic, group))
    }

    /// Takes in a fresher word: all durable rows of a group, as one neighbour tells them. Nothing is remembered of groups
    /// that never had any. Returns the keys that have come or gone.
    pub(super) fn learn(&mut self, presence: &Row, told: Vec<Row>) -> BTreeSet<Key> {
        let group = presence.key.origin;
        if told.is_empty() && !self.heads.contains_key(&group) {
            return BTreeSet::new();
        }
        let mut touched = self.drop_rows(group);
        let mut head = Head {
            name: presence.name.clone(),
            version: presence.version,
            path: presence.path.clone(),
            topics: BTreeSet::new(),
        };
        for row in told {
            let Some(topic) = row.key.destination.clone() else {
                continue;
            };
            if self.rows.len() >= self.rows_max {
                tracing::warn!(topic = %topic, "more durable demand of other groups than is remembered");
                break;
            }
            head.topics.insert(topic);
            touched.insert(row.key.clone());
            let remembered = Row {
                path: presence.path.clone(),
                credit: 0,
                linked: false,
                ..row
            };
            self.rows.insert(remembered.key.clone(), remembered);
        }
        self.heads.insert(group, head);
        touched
    }

    /// As [`Self::learn`], of what the node has kept from an earlier term.
    pub(super) fn restore(&mut self, known: &KnownGroup) -> BTreeSet<Key> {
        let presence = Row {
            version: known.version,
            path: known.path.clone(),
            ..Row::presence(known.group, &known.name)
        };
        let topics = known.topics.iter();
        let topics = topics.filter_map(|topic| Destination::new(DestinationKind::Topic, topic).ok());
        let rows = topics.map(|topic| Row {
            key: Key::of(&topic, known.group),
            name: String::new(),
            selectors: vec![None],
            durable: true,
            version: DemandVersion::default(),
            ..presence.clone()
        });
        let rows: Vec<Row> = rows.collect();
        let touched = self.learn(&presence, rows);
        let head = Head {
            name: known.name.clone(),
            version: known.version,
            path: known.path.clone(),
            topics: BTreeSet::new(),
        };
        // One that has given everything up is known nevertheless, so that nobody's older word counts.
        self.heads.entry(known.group).or_insert(head);
        touched
    }

    /// One topic is not wanted any more.
    pub(super) fn remove(&mut self, key: &Key) -> bool {
        if let (Some(head), Some(topic)) = (self.heads.get_mut(&key.origin), &key.destination) {
            head.topics.remove(topic);
        }
        self.rows.remove(key).is_some()
    }

    /// Forgets what a group wanted, but not which word that was.
    pub(super) fn forget(&mut self, group: GroupId) -> BTreeSet<Key> {
        let touched = self.drop_rows(group);
        if let Some(head) = self.heads.get_mut(&group) {
            head.topics.clear();
        }
        touched
    }

    fn drop_rows(&mut self, group: GroupId) -> BTreeSet<Key> {
        let keys: BTreeSet<Key> = self.topics(group).collect();
        keys.iter().for_each(|key| _ = self.rows.remove(key));
        keys
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = &Key> {
        self.rows.keys()
    }

    /// The rows of a destination, in order of origin.
    pub(super) fn about(&self, destination: &Destination) -> impl Iterator<Item = &Row> {
        self.rows.range(keys_of(Some(destination))).map(|(_, row)| row)
    }

    pub(super) fn head(&self, group: GroupId) -> Option<&Head> {
        self.heads.get(&group)
    }

    /// Groups of which something is or was remembered.
    pub(super) fn groups(&self) -> impl Iterator<Item = GroupId> {
        self.heads.keys().copied()
    }
}

impl Head {
    /// The row that tells who this is, where there is no live way.
    pub(super) fn presence(&self, group: GroupId) -> Row {
        Row {
            path: self.path.clone(),
            version: self.version,
            linked: false,
            ..Row::presence(group, &self.name)
        }
    }

    pub(super) fn topics(&self) -> Vec<String> {
        self.topics.iter().map(|topic| topic.name().to_owned()).collect()
    }
}
