//! The table of demand: what consumers here want, what each neighbour told, what each was told, and from these what the
//! node is to know about every other group.
//!
//! A change marks its destination; nothing is computed until somebody asks: [`DemandTable::remote`] for the node,
//! [`DemandTable::changes`] and [`DemandTable::snapshot`] for a neighbour.

use std::collections::{BTreeMap, BTreeSet};

use ferrymq_broker::GroupId;
use ferrymq_message::Destination;

use crate::{
    arrivals::Arrivals,
    bridge::Bridges,
    config::Config,
    frame::Demand,
    output::RemoteDemand,
    pattern::Filter,
    route::{passed_on, rank, settled_rtt, usable},
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

/// The best way to one origin.
#[derive(Debug, Clone, Copy)]
struct Way<'a> {
    row: &'a Row,
    next_hop: GroupId,
    rtt_us: u32,
    linked: bool,
    available: u32,
}

/// Rows and bytes in one frame; a frame is far below the transport's limit.
const FRAME_ROWS_MAX: usize = 1_024;
const FRAME_BYTES_TARGET: usize = 512 * 1024;

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

    /// What the other groups want of a destination, in order of origin.
    pub(crate) fn remote(&self, destination: &Destination, bridges: &Bridges) -> Vec<RemoteDemand> {
        if !self.filter.permits(destination) {
            return Vec::new();
        }
        let ways = self.ways(Some(destination), bridges);
        ways.into_iter().map(|way| self.described(&way)).collect()
    }

    fn described(&self, way: &Way<'_>) -> RemoteDemand {
        let origin = way.row.key.origin;
        let next_hop_name = self.neighbours.get(&way.next_hop).map(|n| n.name.clone());
        RemoteDemand {
            next_hop: way.next_hop,
            next_hop_name: next_hop_name.unwrap_or_else(|| unnamed(way.next_hop)),
            origin,
            origin_name: self.name_of(origin),
            consumers: way.row.consumers,
            available: way.available,
            selectors: way.row.selectors.clone(),
            durable: way.row.durable,
            distance: way.row.path.len() as u32,
            rtt_us: way.rtt_us,
            linked: way.linked,
        }
    }

    fn name_of(&self, origin: GroupId) -> String {
        if let Some(neighbour) = self.neighbours.get(&origin) {
            return neighbour.name.clone();
        }
        let key = Key::presence(origin);
        let told = self.neighbours.values().find_map(|neighbour| neighbour.heard.get(&key));
        told.map_or_else(|| unnamed(origin), |row| row.name.clone())
    }

    /// The best way to each origin that wants the destination, with what may be sent along it.
    fn ways(&self, destination: Option<&Destination>, bridges: &Bridges) -> Vec<Way<'_>> {
        let mut best: BTreeMap<GroupId, Way<'_>> = BTreeMap::new();
        for (&teller, neighbour) in self.neighbours.iter().filter(|(_, neighbour)| neighbour.synced) {
            for row in neighbour.heard.about(destination) {
                if !usable(row, teller, self.us, self.hops_max) {
                    continue;
                }
                let rtt_us = neighbour.rtt_us;
                let way = Way {
                    row,
                    next_hop: teller,
                    rtt_us,
                    linked: row.linked,
                    available: 0,
                };
                let better = |old: &Way<'_>| rank(row, rtt_us, teller) < rank(old.row, old.rtt_us, old.next_hop);
                if best.get(&row.key.origin).is_none_or(better) {
                    best.insert(row.key.origin, way);
                }
            }
        }
        if let Some(destination) = destination {
            let range = Key::of(destination, GroupId::MIN)..=Key::of(destination, GroupId::MAX);
            for (key, (row, from)) in self.remembered.range(range) {
                let way = Way {
                    row,
                    next_hop: *from,
                    rtt_us: 0,
                    linked: false,
                    available: 0,
                };
                best.entry(key.origin).or_insert(way);
            }
            self.fill(destination, &mut best, bridges);
        }
        best.into_values().collect()
    }

    /// What was offered along a road and not answered yet takes up its credit; a queue's message may be meant for any of
    /// the origins behind a hop, so the nearest are charged first.
    fn fill(&self, destination: &Destination, ways: &mut BTreeMap<GroupId, Way<'_>>, bridges: &Bridges) {
        let topic = destination.kind().is_topic();
        let mut charges: BTreeMap<GroupId, u32> = BTreeMap::new();
        let mut by_distance: Vec<&mut Way<'_>> = ways.values_mut().filter(|way| way.linked).collect();
        by_distance.sort_by_key(|way| (way.row.path.len(), way.row.key.origin));
        for way in by_distance {
            let target = topic.then_some(way.row.key.origin);
            let charge_key = target.unwrap_or(way.next_hop);
            let charge = charges
                .entry(charge_key)
                .or_insert_with(|| bridges.unanswered(&(way.next_hop, destination.clone(), target)));
            let taken = way.row.credit.min(*charge);
            *charge -= taken;
            let full = bridges.get(way.next_hop).is_some_and(|bridge| bridge.full);
            way.available = if full {
                0
            } else {
                (way.row.credit - taken).min(self.available_max)
            };
        }
    }

    /// The rows that a neighbour should know about a destination (`None`: about who is there).
    fn tellable(&self, hearer: GroupId, destination: Option<&Destination>, bridges: &Bridges) -> Vec<Row> {
        if destination.is_some_and(|destination| !self.filter.permits(destination)) {
            return Vec::new();
        }
        let mut rows = Vec::new();
        let mut charge = destination.map_or(0, |d| self.arrivals.waiting(d, None));
        let charged = |row: &mut Row, charge: &mut u32| {
            let topic_charge = destination
                .filter(|destination| destination.kind().is_topic())
                .map_or(0, |destination| {
                    self.arrivals.waiting(destination, Some(row.key.origin))
                });
            let taken = row.credit.min(*charge);
            *charge -= taken;
            row.credit = (row.credit - taken).saturating_sub(topic_charge);
        };
        match destination {
            None => rows.push(Row::presence(self.us, &self.name)),
            Some(destination) => {
                if let Some(own) = self.local.get(destination) {
                    let mut own = own.clone();
                    charged(&mut own, &mut charge);
                    rows.push(own);
                }
            }
        }
        let mut ways = self.ways(destination, bridges);
        ways.sort_by_key(|way| (way.row.path.len(), way.row.key.origin));
        for way in ways {
            let Some(path) = passed_on(way.row, self.us, hearer, self.hops_max) else {
                continue;
            };
            let mut row = Row {
                path,
                credit: way.available,
                linked: way.linked,
                ..way.row.clone()
            };
            charged(&mut row, &mut charge);
            if self.has_own_way(hearer, &row.key) {
                row.credit = 0;
            }
            rows.push(row);
        }
        rows
    }

    /// A neighbour that tells us of an origin has a way there that is not through us, and uses that one. Then our row is
    /// only its second choice, and telling each change of credit would be noise: with n groups each knowing each other,
    /// n² rows a change.
    fn has_own_way(&self, hearer: GroupId, key: &Key) -> bool {
        let told = self
            .neighbours
            .get(&hearer)
            .and_then(|neighbour| neighbour.heard.get(key));
        told.is_some_and(|row| row.linked)
    }

    /// What a neighbour does not know yet about these destinations. It counts as told from now on.
    pub(crate) fn changes<'a>(
        &mut self,
        hearer: GroupId,
        about: impl IntoIterator<Item = &'a Option<Destination>>,
        bridges: &Bridges,
    ) -> Vec<Demand> {
        let mut changed = Demand::default();
        for destination in about {
            let rows = self.tellable(hearer, destination.as_ref(), bridges);
            let Some(neighbour) = self.neighbours.get_mut(&hearer) else {
                return Vec::new();
            };
            let kept: BTreeSet<GroupId> = rows.iter().map(|row| row.key.origin).collect();
            let told = neighbour.told.about(destination.as_ref());
            let gone: Vec<Key> = told
                .map(|row| row.key.clone())
                .filter(|key| !kept.contains(&key.origin))
                .collect();
            gone.iter().for_each(|key| _ = neighbour.told.remove(key));
            changed.gone.extend(gone);
            changed
                .rows
                .extend(rows.into_iter().filter(|row| neighbour.told.insert(row.clone())));
        }
        if changed.is_empty() {
            Vec::new()
        } else {
            in_frames(changed)
        }
    }

    /// Everything that a neighbour should know, as if it knew nothing.
    pub(crate) fn snapshot(&mut self, hearer: GroupId, bridges: &Bridges) -> Vec<Demand> {
        let mut destinations: BTreeSet<Option<Destination>> = BTreeSet::from([None]);
        destinations.extend(self.local.keys().cloned().map(Some));
        destinations.extend(self.remembered.keys().map(|key| key.destination.clone()));
        let heard = self.neighbours.values().flat_map(|neighbour| neighbour.heard.iter());
        destinations.extend(heard.map(|row| row.key.destination.clone()));
        let mut told = RowSet::default();
        let mut all = Demand {
            snapshot: true,
            ..Demand::default()
        };
        for destination in &destinations {
            for row in self.tellable(hearer, destination.as_ref(), bridges) {
                told.insert(row.clone());
                all.rows.push(row);
            }
        }
        let Some(neighbour) = self.neighbours.get_mut(&hearer) else {
            return Vec::new();
        };
        neighbour.told = told;
        in_frames(all)
    }

    /// Count and hash of the rows that a neighbour was told.
    pub(crate) fn told(&self, group: GroupId) -> (u64, u64) {
        self.neighbours
            .get(&group)
            .map_or((0, 0), |n| (n.told.len() as u64, n.told.hash()))
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

fn unnamed(group: GroupId) -> String {
    format!("group {group:016x}")
}

/// Cuts rows into frames; of a snapshot there is at least one, and the last is marked.
fn in_frames(demand: Demand) -> Vec<Demand> {
    let Demand {
        snapshot, rows, gone, ..
    } = demand;
    let mut frames = vec![Demand {
        snapshot,
        ..Demand::default()
    }];
    let mut bytes = 0;
    for row in rows {
        let last = frames.last_mut().expect("there is always one frame");
        bytes += row.bytes();
        if last.rows.len() >= FRAME_ROWS_MAX || (bytes > FRAME_BYTES_TARGET && !last.rows.is_empty()) {
            bytes = row.bytes();
            frames.push(Demand {
                snapshot,
                rows: vec![row],
                ..Demand::default()
            });
        } else {
            last.rows.push(row);
        }
    }
    for gone in gone.chunks(FRAME_ROWS_MAX / 4) {
        frames.push(Demand {
            snapshot,
            gone: gone.to_vec(),
            ..Demand::default()
        });
    }
    frames.retain(|frame| snapshot || !frame.is_empty());
    if let Some(last) = frames.last_mut() {
        last.last = snapshot;
    }
    frames
}
