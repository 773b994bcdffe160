//! What is remembered of other groups' durable demand: learned from what neighbours tell, kept by the node beyond terms.

use std::collections::{BTreeMap, BTreeSet};

use ferrymq_broker::{DemandVersion, GroupId};

use super::{DemandTable, Neighbour, memory::Head};
use crate::{
    output::KnownGroup,
    route::usable,
    row::{Key, Row},
};

impl DemandTable {
    /// What an earlier term has kept of a group.
    pub(crate) fn restore(&mut self, known: &KnownGroup) {
        if known.group != self.us && !known.path.contains(&self.us) && known.path.last() == Some(&known.group) {
            let touched = self.memory.restore(known);
            self.remembered_anew(known.group, touched);
        }
    }

    /// The operator gives this group up.
    pub(crate) fn forget(&mut self, group: GroupId) {
        let touched = self.memory.forget(group);
        self.remembered_anew(group, touched);
    }

    fn remembered_anew(&mut self, group: GroupId, touched: BTreeSet<Key>) {
        touched.iter().for_each(|key| self.touch_row(key));
        self.touch_row(&Key::presence(group));
    }

    /// A neighbour's word about other groups is remembered where it is fresher than what is known. A group's own word about
    /// itself always is: one that was restored from a copy may number its words anew.
    pub(super) fn learn<'a>(&mut self, teller: GroupId, touched: impl Iterator<Item = &'a Key>) {
        let Some(neighbour) = self.neighbours.get(&teller).filter(|neighbour| neighbour.synced) else {
            return;
        };
        let fresher = |key: &&Key| {
            let presence = neighbour.heard.get(key);
            presence.is_some_and(|presence| {
                usable(presence, teller, self.us, self.hops_max)
                    && (self.memory.is_older_than(key.origin, presence.version)
                        || (teller == key.origin && self.memory.differs(key.origin, presence.version)))
            })
        };
        let presences = touched.filter(|key| key.destination.is_none()).filter(fresher);
        let mut words: BTreeMap<GroupId, Vec<Row>> = presences.map(|key| (key.origin, Vec::new())).collect();
        if words.is_empty() {
            return;
        }
        for row in neighbour.heard.iter().filter(|row| row.durable) {
            let is_topic = row.key.destination.as_ref().is_some_and(|name| name.kind().is_topic());
            if let (true, Some(word)) = (is_topic, words.get_mut(&row.key.origin)) {
                word.push(row.clone());
            }
        }
        for (origin, mut rows) in words {
            let told: BTreeSet<Key> = rows.iter().map(|row| row.key.clone()).collect();
            let remembered = self.memory.topics(origin).filter(|key| !told.contains(key));
            // Of a way through us this neighbour does not tell us.
            rows.extend(remembered.filter_map(|key| self.live_durable(&key).cloned()));
            if let Some(presence) = heard_of(&self.neighbours, teller, &Key::presence(origin)) {
                let touched = self.memory.learn(presence, rows);
                self.remembered_anew(origin, touched);
            }
        }
    }

    /// The row that tells of a durable subscription of a topic along the best way, where there is one.
    fn live_durable(&self, key: &Key) -> Option<&Row> {
        let row = self.neighbours.get(&self.best(key)?)?.heard.get(key)?;
        row.durable.then_some(row)
    }

    /// What a group that is there wants is remembered at once, whichever of its words it came with.
    pub(super) fn remember_live<'a>(&mut self, touched: impl Iterator<Item = &'a Key>) {
        for key in touched.filter(|key| key.destination.as_ref().is_some_and(|name| name.kind().is_topic())) {
            if self.memory.has(key) {
                continue;
            }
            let Some(row) = self.live_durable(key).cloned() else {
                continue;
            };
            if self.memory.add(row) {
                self.for_node.row(&Key::presence(key.origin));
            }
        }
    }

    /// What a group that is there does not name any more, to nobody, is not remembered either.
    pub(super) fn give_up<'a>(&mut self, teller: GroupId, touched: impl Iterator<Item = &'a Key>) {
        let heard = self.neighbours.get(&teller).map(|neighbour| &neighbour.heard);
        let gone = |key: &&Key| {
            let still_told = heard.is_some_and(|heard| heard.get(key).is_some());
            key.destination.is_some() && !still_told && self.best(key).is_none() && self.is_present(key.origin)
        };
        let keys: Vec<Key> = touched.filter(gone).cloned().collect();
        for key in keys {
            let presence = heard_of(&self.neighbours, teller, &Key::presence(key.origin));
            let is_live = presence.is_some_and(|presence| presence.linked);
            if is_live && self.memory.remove(&key) {
                self.remembered_anew(key.origin, BTreeSet::from([key]));
            }
        }
    }

    /// What the node is to know of a group.
    pub(crate) fn known(&self, group: GroupId) -> KnownGroup {
        let head = self.memory.head(group);
        let live = self.best(&Key::presence(group));
        let live = live.and_then(|teller| self.neighbours.get(&teller)?.heard.get(&Key::presence(group)));
        KnownGroup {
            group,
            name: self.name_of(group),
            is_present: self.is_present(group),
            version: head.map_or_else(
                || live.map_or_else(DemandVersion::default, |row| row.version),
                |head| head.version,
            ),
            path: head.map_or_else(
                || live.map_or_else(|| vec![group], |row| row.path.clone()),
                |head| head.path.clone(),
            ),
            topics: head.map_or_else(Vec::new, Head::topics),
        }
    }
}

fn heard_of<'a>(neighbours: &'a BTreeMap<GroupId, Neighbour>, teller: GroupId, key: &Key) -> Option<&'a Row> {
    neighbours.get(&teller)?.heard.get(key)
}
