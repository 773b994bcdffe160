//! The table of demand: what consumers here want, what each neighbour told, what each was told, and from these what the
//! node is to know about every other group.
//!
//! A change marks its destination; nothing is computed until somebody asks: [`DemandTable::remote`] for the node,
//! [`DemandTable::changes`] and [`DemandTable::snapshot`] for a neighbour.

mod ahead;
mod memory;
mod news;
mod recall;
mod tellers;
mod telling;
mod ways;

use std::collections::{BTreeMap, BTreeSet};

use ferrymq_broker::{DemandVersion, GroupId};
use ferrymq_message::Destination;

use crate::{
    arrivals::Arrivals,
    config::Config,
    frame::Demand,
    input::{Pace, Room},
    pattern::Filter,
    route::{settled_rtt, usable},
    row::{Key, Row, SELECTOR_BYTES_MAX, SELECTORS_MAX},
    row_set::RowSet,
};
pub(crate) use news::Origins;

use memory::Memory;
use news::News;
use tellers::Tellers;

/// See the file's head.
#[derive(Debug)]
pub(crate) struct DemandTable {
    us: GroupId,
    name: String,
    hops_max: usize,
    available_max: u32,
    rows_max: usize,
    filter: Filter,
    local: BTreeMap<Destination, (Row, Pace)>,
    /// Room here for what others have.
    room: Room,
    neighbours: BTreeMap<GroupId, Neighbour>,
    tellers: Tellers,
    /// By origin: the neighbours that say that they have a link with it.
    linked_with: BTreeMap<GroupId, BTreeSet<GroupId>>,
    /// What absent groups wanted.
    memory: Memory,
    /// This group's own word; told once it is whole.
    version: DemandVersion,
    is_settled: bool,
    pub(crate) arrivals: Arrivals,
    /// What the node is to be told of.
    for_node: News,
    /// What neighbours are to be told of.
    for_neighbours: News,
}

/// A group with a link that is up.
#[derive(Debug)]
struct Neighbour {
    name: String,
    heard: RowSet,
    /// The parts of a snapshot that is not complete yet.
    arriving: Option<RowSet>,
    synced: bool,
    told: RowSet,
    rtt_us: u32,
}

/// A neighbour told more rows than are taken from one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TooManyRows;

impl DemandTable {
    pub(crate) fn new(config: &Config) -> Self {
        let in_flight = config.transfers_in_flight_max.max(1) * config.transfer_messages_max.max(1);
        Self {
            us: config.group_id,
            name: config.group.clone(),
            hops_max: config.hops_max,
            available_max: u32::try_from(in_flight).unwrap_or(u32::MAX),
            rows_max: config.rows_per_link_max,
            filter: Filter::new(&config.excluded, &config.dynamically_included),
            local: BTreeMap::new(),
            room: Room::Plenty,
            neighbours: BTreeMap::new(),
            tellers: Tellers::default(),
            linked_with: BTreeMap::new(),
            memory: Memory::new(config.rows_per_link_max),
            version: DemandVersion {
                term: config.epoch(),
                change: 0,
            },
            is_settled: false,
            arrivals: Arrivals::default(),
            for_node: News::default(),
            for_neighbours: News::default(),
        }
    }

    /// What consumers here want now.
    pub(crate) fn local(
        &mut self,
        destination: Destination,
        consumers: u32,
        credit: u32,
        selectors: Vec<Option<String>>,
        durable: bool,
        pace: Pace,
    ) {
        if !self.filter.permits(&destination) {
            return;
        }
        let others_too = self.arrivals.counted(&destination, self.us);
        let key = Key::of(&destination, self.us);
        if self.local.get(&destination).is_some_and(|(row, _)| row.durable) != durable {
            self.version.change += 1;
            self.for_neighbours.row(&Key::presence(self.us));
        }
        if consumers == 0 && !durable {
            self.local.remove(&destination);
        } else {
            let row = Row {
                key: key.clone(),
                consumers,
                credit,
                durable,
                selectors: bounded(selectors),
                ..Row::presence(self.us, "")
            };
            self.local.insert(destination.clone(), (row, pace));
        }
        if others_too {
            self.for_neighbours.all(Some(destination));
        } else {
            self.for_neighbours.row(&key);
        }
    }

    /// Everything durable is told: from now on this group's word is whole.
    pub(crate) fn settled(&mut self) {
        self.is_settled = true;
        self.for_neighbours.row(&Key::presence(self.us));
    }

    /// A new life of this group has begun: its words are later than all before.
    pub(crate) fn renewed(&mut self, epoch: u64) {
        self.version = DemandVersion { term: epoch, change: 0 };
        self.for_neighbours.row(&Key::presence(self.us));
    }

    /// The epoch of the freshest word of a group that is remembered.
    pub(crate) fn epoch_remembered(&self, group: GroupId) -> u64 {
        self.memory.head(group).map_or(0, |head| head.version.term)
    }

    /// The row that says that we are there.
    fn own_presence(&self) -> Row {
        Row {
            version: if self.is_settled {
                self.version
            } else {
                DemandVersion::default()
            },
            ..Row::presence(self.us, &self.name)
        }
    }

    /// There is so much room here for what others have.
    pub(crate) fn room(&mut self, room: Room) {
        if std::mem::replace(&mut self.room, room) == room {
            return;
        }
        let told = self.tellers.keys().filter_map(|key| key.destination.as_ref());
        let destinations: BTreeSet<Destination> = self.local.keys().chain(told).cloned().collect();
        for destination in destinations {
            self.for_neighbours.all(Some(destination));
        }
    }

    /// A link is up; nothing was heard over it yet.
    pub(crate) fn link_up(&mut self, group: GroupId, name: &str) {
        let neighbour = Neighbour {
            name: name.to_owned(),
            heard: RowSet::default(),
            arriving: None,
            synced: false,
            told: RowSet::default(),
            rtt_us: 0,
        };
        self.neighbours.insert(group, neighbour);
    }

    /// A link is gone, and what was heard over it; durable demand is in the memory.
    pub(crate) fn link_down(&mut self, group: GroupId) {
        let Some(neighbour) = self.neighbours.remove(&group) else {
            return;
        };
        for row in neighbour.heard.iter() {
            if self.tellers.remove(&row.key, group) {
                self.choose(&row.key);
            }
            self.touch_row(&row.key);
            if is_link(row, group) {
                self.unlinked(row.key.origin, group);
            }
        }
    }

    /// Rows told by a neighbour.
    pub(crate) fn heard(&mut self, group: GroupId, demand: Demand) -> Result<(), TooManyRows> {
        let Some(neighbour) = self.neighbours.get_mut(&group) else {
            return Ok(());
        };
        let touched = if demand.snapshot {
            let arriving = neighbour.arriving.get_or_insert_default();
            demand.rows.into_iter().for_each(|row| _ = arriving.insert(row));
            if arriving.len() > self.rows_max {
                return Err(TooManyRows);
            }
            if !demand.last {
                return Ok(());
            }
            let first = !std::mem::replace(&mut neighbour.synced, true);
            let now = neighbour.arriving.take().unwrap_or_default();
            let before = std::mem::replace(&mut neighbour.heard, now);
            let after = &neighbour.heard;
            let gone = before.iter().filter(|row| after.get(&row.key).is_none());
            let told = after.iter().filter(|row| first || before.get(&row.key) != Some(*row));
            let changed = |row: &Row| {
                (
                    row.key.clone(),
                    before.get(&row.key).is_some_and(|row| is_link(row, group)),
                )
            };
            gone.chain(told).map(changed).collect()
        } else {
            let mut touched = BTreeMap::new();
            let was_link = |heard: &RowSet, key: &Key| heard.get(key).is_some_and(|row| is_link(row, group));
            for row in demand.rows {
                let (key, was_link) = (row.key.clone(), was_link(&neighbour.heard, &row.key));
                if neighbour.heard.insert(row) {
                    touched.entry(key).or_insert(was_link);
                }
            }
            for key in demand.gone {
                let was_link = was_link(&neighbour.heard, &key);
                if neighbour.heard.remove(&key) {
                    touched.entry(key).or_insert(was_link);
                }
            }
            touched
        };
        let too_many = neighbour.heard.len() > self.rows_max;
        self.changed(group, touched);
        if too_many { Err(TooManyRows) } else { Ok(()) }
    }

    /// Rows of a neighbour have changed; with each, whether it told of a link to its origin.
    fn changed(&mut self, group: GroupId, touched: BTreeMap<Key, bool>) {
        for (key, was_link) in &touched {
            let heard = self.neighbours.get(&group).map(|neighbour| &neighbour.heard);
            let row = heard.and_then(|heard| heard.get(key));
            let is_link = row.is_some_and(|row| is_link(row, group));
            if row.is_some() {
                self.tellers.add(key, group);
                self.weigh(key, group);
            } else if self.tellers.remove(key, group) {
                self.choose(key);
            }
            if is_link && !was_link {
                self.linked_with.entry(key.origin).or_default().insert(group);
                self.for_neighbours.relinked.insert(key.origin);
            } else if *was_link && !is_link {
                self.unlinked(key.origin, group);
                self.for_neighbours.relinked.insert(key.origin);
            }
            self.touch_row(key);
        }
        self.learn(group, touched.keys());
        self.remember_live(touched.keys());
        self.give_up(group, touched.keys());
    }

    fn unlinked(&mut self, origin: GroupId, neighbour: GroupId) {
        if let Some(neighbours) = self.linked_with.get_mut(&origin) {
            neighbours.remove(&neighbour);
            if neighbours.is_empty() {
                self.linked_with.remove(&origin);
            }
        }
    }

    fn is_present(&self, origin: GroupId) -> bool {
        let key = Key::presence(origin);
        let told = self.tellers.of(&key);
        told.into_iter().flat_map(|told| &told.by).any(|teller| {
            let neighbour = self.neighbours.get(teller).filter(|neighbour| neighbour.synced);
            let row = neighbour.and_then(|neighbour| neighbour.heard.get(&key));
            row.is_some_and(|row| row.linked && usable(row, *teller, self.us, self.hops_max))
        })
    }

    /// The measured round trip to a neighbour.
    pub(crate) fn round_trip(&mut self, group: GroupId, rtt_us: u32) {
        let Some(neighbour) = self.neighbours.get_mut(&group) else {
            return;
        };
        let settled = settled_rtt(neighbour.rtt_us, rtt_us);
        if settled != neighbour.rtt_us {
            neighbour.rtt_us = settled;
            let keys: Vec<Key> = neighbour.heard.iter().map(|row| row.key.clone()).collect();
            for key in keys {
                let before = self.best(&key);
                self.weigh(&key, group);
                let after = self.best(&key);
                if before != after {
                    self.touch_row(&key);
                } else if after == Some(group) {
                    self.for_node.row(&key);
                }
            }
        }
    }

    /// What a bridge holds has changed for this destination.
    pub(crate) fn touch(&mut self, destination: Option<&Destination>) {
        self.for_node.all(destination.cloned());
        self.for_neighbours.all(destination.cloned());
    }

    /// One row has changed.
    fn touch_row(&mut self, key: &Key) {
        self.for_node.row(key);
        self.for_neighbours.row(key);
    }

    /// Something about all of a neighbour's rows has changed.
    pub(crate) fn touch_heard(&mut self, group: GroupId) {
        let Some(neighbour) = self.neighbours.get(&group) else {
            return;
        };
        let destinations: BTreeSet<_> = neighbour.heard.iter().map(|row| row.key.destination.clone()).collect();
        destinations
            .iter()
            .for_each(|destination| self.touch(destination.as_ref()));
    }

    /// Destinations, and rows of them, about which the node is to be told.
    pub(crate) fn take_for_node(&mut self) -> impl Iterator<Item = (Destination, Origins)> + use<> {
        let about = std::mem::take(&mut self.for_node.about).into_iter();
        about.filter_map(|(destination, origins)| Some((destination?, origins)))
    }

    /// Groups about which the node is to be told. To be asked for before [`Self::take_for_node`].
    pub(crate) fn take_groups_for_node(&mut self) -> Vec<GroupId> {
        match self.for_node.about.remove(&None) {
            None => Vec::new(),
            Some(Origins::These(groups)) => groups.into_iter().collect(),
            Some(Origins::All) => {
                let told = self.tellers.about(None, &Origins::All);
                let told = told.into_iter().map(|(key, _)| key.origin);
                let all: BTreeSet<GroupId> = told.chain(self.memory.groups()).collect();
                all.into_iter().collect()
            }
        }
    }

    /// True where neighbours are to be told something.
    pub(crate) fn has_news(&self) -> bool {
        !self.for_neighbours.is_empty()
    }

    /// True where the rows heard from a neighbour are those that it has told.
    pub(crate) fn agrees(&self, group: GroupId, rows: u64, hash: u64) -> bool {
        self.neighbours
            .get(&group)
            .is_none_or(|n| n.heard.len() as u64 == rows && n.heard.hash() == hash)
    }

    /// Rows heard from and told to a neighbour.
    pub(crate) fn counts(&self, group: GroupId) -> (u64, u64) {
        self.neighbours
            .get(&group)
            .map_or((0, 0), |n| (n.heard.len() as u64, n.told.len() as u64))
    }

    /// True once the first snapshot of a neighbour is here.
    pub(crate) fn is_synced(&self, group: GroupId) -> bool {
        self.neighbours.get(&group).is_some_and(|neighbour| neighbour.synced)
    }

    /// The groups whose links are up.
    pub(crate) fn neighbours(&self) -> Vec<GroupId> {
        self.neighbours.keys().copied().collect()
    }
}

/// True for a row by which `teller` says that it is linked with the row's origin.
fn is_link(row: &Row, teller: GroupId) -> bool {
    row.key.destination.is_none() && row.linked && row.path == [teller, row.key.origin]
}

/// Sorted, distinct and bounded; where there are too many, all is wanted, so that nothing is kept from anyone.
fn bounded(mut selectors: Vec<Option<String>>) -> Vec<Option<String>> {
    selectors.sort_unstable();
    selectors.dedup();
    let bytes: usize = selectors.iter().flatten().map(String::len).sum();
    if selectors.is_empty() || selectors.len() > SELECTORS_MAX || bytes > SELECTOR_BYTES_MAX {
        return vec![None];
    }
    selectors
}
