//! The table of demand: what consumers here want, what each neighbour told, what each was told, and from these what the
//! node is to know about every other group.
//!
//! A change marks its destination; nothing is computed until somebody asks: [`DemandTable::remote`] for the node,
//! [`DemandTable::changes`] and [`DemandTable::snapshot`] for a neighbour.

mod telling;
mod ways;

use std::collections::{BTreeMap, BTreeSet};

use ferrymq_broker::GroupId;
use ferrymq_message::Destination;

use crate::{
    arrivals::Arrivals,
    config::Config,
    frame::Demand,
    pattern::Filter,
    route::{settled_rtt, usable},
    row::{Key, Row, SELECTOR_BYTES_MAX, SELECTORS_MAX},
    row_set::RowSet,
};

/// See the file's head.
#[derive(Debug)]
pub(crate) struct DemandTable {
    us: GroupId,
    name: String,
    hops_max: usize,
    available_max: u32,
    rows_max: usize,
    filter: Filter,
    local: BTreeMap<Destination, Row>,
    neighbours: BTreeMap<GroupId, Neighbour>,
    /// Durable demand heard over links that are gone, and from whom.
    remembered: BTreeMap<Key, (Row, GroupId)>,
    pub(crate) arrivals: Arrivals,
    /// Destinations about which the node is to be told.
    for_node: BTreeSet<Destination>,
    /// Destinations (`None`: who is there) about which neighbours are to be told.
    for_neighbours: BTreeSet<Option<Destination>>,
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
            neighbours: BTreeMap::new(),
            remembered: BTreeMap::new(),
            arrivals: Arrivals::default(),
            for_node: BTreeSet::new(),
            for_neighbours: BTreeSet::new(),
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
    ) {
        if !self.filter.permits(&destination) {
            return;
        }
        self.arrivals.counted(&destination, self.us);
        let key = Key::of(&destination, self.us);
        if consumers == 0 && !durable {
            self.local.remove(&destination);
        } else {
            let row = Row {
                key,
                consumers,
                credit,
                durable,
                selectors: bounded(selectors),
                ..Row::presence(self.us, "")
            };
            self.local.insert(destination.clone(), row);
        }
        self.for_neighbours.insert(Some(destination));
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

    /// A link is gone, and what was heard over it; durable demand is remembered.
    pub(crate) fn link_down(&mut self, group: GroupId) {
        let Some(neighbour) = self.neighbours.remove(&group) else {
            return;
        };
        for row in neighbour.heard.iter() {
            self.touch(row.key.destination.as_ref());
            if row.durable && self.remembered.len() < self.rows_max && usable(row, group, self.us, self.hops_max) {
                self.remembered.insert(row.key.clone(), (row.clone(), group));
            }
        }
    }

    /// Rows told by a neighbour.
    pub(crate) fn heard(&mut self, group: GroupId, demand: Demand) -> Result<(), TooManyRows> {
        let Some(neighbour) = self.neighbours.get_mut(&group) else {
            return Ok(());
        };
        let mut touched = BTreeSet::new();
        if demand.snapshot {
            let arriving = neighbour.arriving.get_or_insert_default();
            demand.rows.into_iter().for_each(|row| _ = arriving.insert(row));
            if arriving.len() > self.rows_max {
                return Err(TooManyRows);
            }
            if !demand.last {
                return Ok(());
            }
            let now = neighbour.arriving.take().unwrap_or_default();
            let before = std::mem::replace(&mut neighbour.heard, now);
            let changed = |from: &RowSet, to: &RowSet| {
                let differs = |row: &&Row| to.get(&row.key) != Some(*row);
                from.iter()
                    .filter(differs)
                    .map(|row| row.key.clone())
                    .collect::<Vec<_>>()
            };
            touched.extend(changed(&before, &neighbour.heard));
            touched.extend(changed(&neighbour.heard, &before));
            neighbour.synced = true;
        } else {
            for row in demand.rows {
                let key = row.key.clone();
                if neighbour.heard.insert(row) {
                    touched.insert(key);
                }
            }
            touched.extend(demand.gone.into_iter().filter(|key| neighbour.heard.remove(key)));
            if neighbour.heard.len() > self.rows_max {
                return Err(TooManyRows);
            }
        }
        let snapshot_of = (demand.snapshot && demand.last).then_some(group);
        self.outdate(
            snapshot_of,
            touched
                .iter()
                .filter(|key| key.destination.is_none())
                .map(|key| key.origin),
        );
        touched.iter().for_each(|key| self.touch(key.destination.as_ref()));
        Ok(())
    }

    /// Memory of durable demand ends where fresher word is at hand: a snapshot of him who told it, or a live way to the
    /// origin, along which it would be told if it still were there.
    fn outdate(&mut self, snapshot_of: Option<GroupId>, present: impl Iterator<Item = GroupId>) {
        let present: BTreeSet<GroupId> = present.filter(|origin| self.is_present(*origin)).collect();
        let outdated = |(key, (_, from)): (&Key, &(Row, GroupId))| {
            (snapshot_of == Some(*from) || present.contains(&key.origin)).then(|| key.clone())
        };
        let keys: Vec<Key> = self.remembered.iter().filter_map(outdated).collect();
        for key in keys {
            self.remembered.remove(&key);
            self.touch(key.destination.as_ref());
        }
    }

    fn is_present(&self, origin: GroupId) -> bool {
        let key = Key::presence(origin);
        self.neighbours.iter().any(|(&teller, neighbour)| {
            let row = neighbour.heard.get(&key);
            neighbour.synced && row.is_some_and(|row| row.linked && usable(row, teller, self.us, self.hops_max))
        })
    }

    /// The operator gives this group up.
    pub(crate) fn given_up(&mut self, group: GroupId) {
        let keys: Vec<Key> = self
            .remembered
            .keys()
            .filter(|key| key.origin == group)
            .cloned()
            .collect();
        for key in keys {
            self.remembered.remove(&key);
            self.touch(key.destination.as_ref());
        }
    }

    /// The measured round trip to a neighbour.
    pub(crate) fn round_trip(&mut self, group: GroupId, rtt_us: u32) {
        let Some(neighbour) = self.neighbours.get_mut(&group) else {
            return;
        };
        let settled = settled_rtt(neighbour.rtt_us, rtt_us);
        if settled != neighbour.rtt_us {
            neighbour.rtt_us = settled;
            self.touch_heard(group);
        }
    }

    /// What a bridge holds has changed for this destination.
    pub(crate) fn touch(&mut self, destination: Option<&Destination>) {
        if let Some(destination) = destination {
            self.for_node.insert(destination.clone());
        }
        self.for_neighbours.insert(destination.cloned());
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

    /// Destinations about which the node is to be told.
    pub(crate) fn take_for_node(&mut self) -> BTreeSet<Destination> {
        std::mem::take(&mut self.for_node)
    }

    /// Destinations about which the neighbours are to be told.
    pub(crate) fn take_for_neighbours(&mut self) -> BTreeSet<Option<Destination>> {
        std::mem::take(&mut self.for_neighbours)
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
