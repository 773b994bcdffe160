//! What each neighbour is to know of the demand here and beyond, and what of it was not told yet.

use std::collections::{BTreeMap, BTreeSet};

use bytes::BytesMut;

use ferrymq_broker::GroupId;
use ferrymq_message::Destination;

use super::{
    DemandTable,
    ahead::ahead,
    news::{News, Origins},
    ways::Way,
};
use crate::{
    bridge::Bridges,
    frame::Demand,
    input::{Pace, Room},
    route::passed_on,
    row::{Key, Row},
    row_set::{RowSet, SharedRow},
};

/// Rows and bytes in one frame; a frame is far below the transport's limit.
const FRAME_ROWS_MAX: usize = 1_024;
const FRAME_BYTES_TARGET: usize = 512 * 1024;
/// Messages of one destination for which a full group has room after all, in its consumers' hands.
const LITTLE: u32 = 4;

/// What is to be told of one destination (`None`: of who is there), made once for all hearers: the nearest rows first.
struct Tellable<'a> {
    destination: Option<Destination>,
    origins: Origins,
    rows: Vec<TellableRow<'a>>,
    /// Messages that arrived here and may be meant for any of the rows: these take up credit, the nearest one's first.
    arrived: u32,
}

struct TellableRow<'a> {
    shared: SharedRow,
    /// Neighbours that hear of it from its origin.
    told_by_origin: Option<&'a BTreeSet<GroupId>>,
    /// Of a topic: messages that arrived here for this origin.
    arrived: u32,
    /// Of our own consumers.
    pace: Pace,
}

/// What one hearer does not know yet.
#[derive(Default)]
struct Difference {
    rows: Vec<SharedRow>,
    gone: Vec<Key>,
}

impl DemandTable {
    fn tellable(
        &self,
        destination: Option<&Destination>,
        origins: &Origins,
        bridges: &Bridges,
        scratch: &mut BytesMut,
    ) -> Tellable<'_> {
        let all = destination.is_some_and(|destination| self.is_charged(destination, bridges));
        let origins = if all { Origins::All } else { origins.clone() };
        let mut rows = Vec::new();
        if destination.is_none_or(|destination| self.filter.permits(destination)) {
            let own = match destination {
                None => Some((self.own_presence(), Pace::default())),
                Some(destination) => self.local.get(destination).cloned(),
            };
            rows.extend(own.filter(|(own, _)| origins.contains(own.key.origin)));
            let mut ways = self.ways(destination, &origins, bridges);
            ways.sort_by_key(|way| (way.row.path.len(), way.row.key.origin));
            let passed_on = ways.iter().filter_map(|way| self.passed_on(way));
            rows.extend(passed_on.map(|row| (row, Pace::default())));
            if destination.is_none() {
                rows.extend(
                    self.absent(&ways, &origins)
                        .into_iter()
                        .map(|row| (row, Pace::default())),
                );
            }
        }
        let topic = destination.filter(|destination| destination.kind().is_topic());
        let mut tellable = |(row, pace): (Row, Pace)| TellableRow {
            pace,
            told_by_origin: self.linked_with(&row),
            arrived: topic.map_or(0, |topic| self.arrivals.waiting(topic, Some(row.key.origin))),
            shared: SharedRow::new(row, scratch),
        };
        Tellable {
            rows: rows.into_iter().map(&mut tellable).collect(),
            arrived: destination.map_or(0, |destination| self.arrivals.waiting(destination, None)),
            destination: destination.cloned(),
            origins,
        }
    }

    /// True where messages under way take up credit of several rows, so that a change of one may change another.
    pub(super) fn is_charged(&self, destination: &Destination, bridges: &Bridges) -> bool {
        let offered = |group: &GroupId| bridges.unanswered(&(*group, destination.clone(), None)) > 0;
        self.arrivals.waiting(destination, None) > 0
            || (bridges.has_unanswered() && self.neighbours.keys().any(offered))
    }

    /// Who is not there and wanted something, as we pass it on: otherwise a neighbour would take what it hears of the others
    /// for all that there is.
    fn absent(&self, ways: &[Way<'_>], origins: &Origins) -> Vec<Row> {
        let live: BTreeSet<GroupId> = ways.iter().map(|way| way.row.key.origin).collect();
        let groups = self.memory.groups();
        let absent = groups.filter(|group| origins.contains(*group) && !live.contains(group));
        let rows = absent.filter_map(|group| {
            let row = self.memory.head(group)?.presence(group);
            let path = passed_on(&row, self.us, self.hops_max)?;
            Some(Row { path, ..row })
        });
        rows.collect()
    }

    /// A row as we pass it on.
    fn passed_on(&self, way: &Way<'_>) -> Option<Row> {
        let path = passed_on(way.row, self.us, self.hops_max)?;
        Some(Row {
            path,
            credit: way.available,
            linked: way.linked,
            ..way.row.clone()
        })
    }

    /// What a hearer does not know yet of a destination.
    fn difference(
        &self,
        hearer: GroupId,
        tellable: &Tellable<'_>,
        told: &RowSet,
        scratch: &mut BytesMut,
    ) -> Difference {
        let mut difference = Difference::default();
        let mut kept = BTreeSet::new();
        let mut arrived = tellable.arrived;
        let rtt_us = self.neighbours.get(&hearer).map_or(0, |neighbour| neighbour.rtt_us);
        for TellableRow {
            shared,
            told_by_origin,
            arrived: arrived_for_it,
            pace,
        } in &tellable.rows
        {
            let row = shared.row();
            // Split horizon; `path` begins with us, who are not the hearer.
            if row.path.contains(&hearer) {
                continue;
            }
            let from_origin = told_by_origin.is_some_and(|linked| linked.contains(&hearer));
            if from_origin && !row.durable {
                continue;
            }
            kept.insert(row.key.origin);
            let offered = match self.room {
                Room::Plenty => row.credit.saturating_add(ahead(*pace, rtt_us)),
                Room::Little if row.durable => 0,
                Room::Little => row.credit.min(LITTLE.saturating_sub(pace.in_hand)),
                Room::None => 0,
            };
            let taken = offered.min(arrived);
            arrived -= taken;
            let second_choice = from_origin || (row.key.origin != self.us && self.has_own_way(hearer, &row.key));
            let credit = match second_choice {
                true => 0,
                false => (offered - taken).saturating_sub(*arrived_for_it),
            };
            let consumers = if from_origin { 0 } else { row.consumers };
            if told.get(&row.key).is_some_and(|old| old.is(row, consumers, credit)) {
                continue;
            }
            difference
                .rows
                .push(if (row.consumers, row.credit) == (consumers, credit) {
                    shared.clone()
                } else {
                    let row = Row {
                        consumers,
                        credit,
                        ..row.clone()
                    };
                    SharedRow::new(row, scratch)
                });
        }
        let destination = tellable.destination.as_ref();
        let gone = |origin: &GroupId| !kept.contains(origin);
        match &tellable.origins {
            Origins::All => {
                let before = told.about(destination).filter(|row| gone(&row.key.origin));
                difference.gone.extend(before.map(|row| row.key.clone()));
            }
            Origins::These(origins) => {
                let keys = origins.iter().filter(|origin| gone(origin)).map(|origin| Key {
                    destination: destination.cloned(),
                    origin: *origin,
                });
                difference.gone.extend(keys.filter(|key| told.get(key).is_some()));
            }
        }
        difference
    }

    /// Neighbours that have a link with the origin hear its demand from itself. They get our row, as one of many ways
    /// round, only once they have lost that link: with n groups each linked with each other, a change would cost n² rows,
    /// and many more while the latest word overtakes older ones on longer ways. Durable demand is told nevertheless, so
    /// that it is known without a gap, but not who is there for it.
    fn linked_with(&self, row: &Row) -> Option<&BTreeSet<GroupId>> {
        let ours = row.key.origin == self.us || row.key.destination.is_none();
        self.linked_with.get(&row.key.origin).filter(|_| !ours)
    }

    /// A neighbour that tells us of an origin has a way there that is not through us, and uses that one. Then our row is
    /// only its second choice, and telling each change of credit would be noise.
    fn has_own_way(&self, hearer: GroupId, key: &Key) -> bool {
        let told = self
            .neighbours
            .get(&hearer)
            .and_then(|neighbour| neighbour.heard.get(key));
        told.is_some_and(|row| row.linked)
    }

    /// What one neighbour does not know yet about a destination. It counts as told from now on.
    pub(crate) fn changes(&mut self, hearer: GroupId, destination: &Destination, bridges: &Bridges) -> Vec<Demand> {
        let mut scratch = BytesMut::new();
        let tellable = self.tellable(Some(destination), &Origins::All, bridges, &mut scratch);
        let Some(neighbour) = self.neighbours.get(&hearer) else {
            return Vec::new();
        };
        let difference = self.difference(hearer, &tellable, &neighbour.told, &mut scratch);
        self.told_now(hearer, difference)
    }

    /// What each neighbour does not know yet of what has changed. It counts as told from now on.
    pub(crate) fn all_changes(&mut self, bridges: &Bridges) -> Vec<(GroupId, Vec<Demand>)> {
        let mut scratch = BytesMut::new();
        let mut differences: BTreeMap<GroupId, Difference> = BTreeMap::new();
        // Who is there comes last: it says which word the rows before it are.
        let mut about = self.take_news().about;
        let groups = about.remove(&None).map(|origins| (None, origins));
        for (destination, origins) in about.into_iter().chain(groups) {
            let tellable = self.tellable(destination.as_ref(), &origins, bridges, &mut scratch);
            for (&hearer, neighbour) in &self.neighbours {
                let difference = self.difference(hearer, &tellable, &neighbour.told, &mut scratch);
                if !difference.is_empty() {
                    let all = differences.entry(hearer).or_default();
                    all.rows.extend(difference.rows);
                    all.gone.extend(difference.gone);
                }
            }
        }
        let told = differences
            .into_iter()
            .map(|(hearer, difference)| (hearer, self.told_now(hearer, difference)));
        told.collect()
    }

    fn take_news(&mut self) -> News {
        let mut news = std::mem::take(&mut self.for_neighbours);
        if !news.relinked.is_empty() {
            let relinked = std::mem::take(&mut news.relinked);
            let keys = self.tellers.keys().chain(self.memory.keys());
            keys.filter(|key| relinked.contains(&key.origin))
                .for_each(|key| news.row(key));
        }
        news
    }

    fn told_now(&mut self, hearer: GroupId, difference: Difference) -> Vec<Demand> {
        let Some(neighbour) = self.neighbours.get_mut(&hearer) else {
            return Vec::new();
        };
        if difference.is_empty() {
            return Vec::new();
        }
        difference.gone.iter().for_each(|key| _ = neighbour.told.remove(key));
        let rows = difference.rows.iter().map(|shared| shared.row().clone()).collect();
        difference
            .rows
            .into_iter()
            .for_each(|shared| neighbour.told.put(shared));
        in_frames(Demand {
            rows,
            gone: difference.gone,
            ..Demand::default()
        })
    }

    /// Everything that a neighbour should know, as if it knew nothing.
    pub(crate) fn snapshot(&mut self, hearer: GroupId, bridges: &Bridges) -> Vec<Demand> {
        let mut destinations: BTreeSet<Option<Destination>> = BTreeSet::from([None]);
        destinations.extend(self.local.keys().cloned().map(Some));
        destinations.extend(self.memory.keys().map(|key| key.destination.clone()));
        destinations.extend(self.tellers.keys().map(|key| key.destination.clone()));
        let (mut told, nothing) = (RowSet::default(), RowSet::default());
        let mut scratch = BytesMut::new();
        let mut all = Demand {
            snapshot: true,
            ..Demand::default()
        };
        for destination in &destinations {
            let tellable = self.tellable(destination.as_ref(), &Origins::All, bridges, &mut scratch);
            for shared in self.difference(hearer, &tellable, &nothing, &mut scratch).rows {
                all.rows.push(shared.row().clone());
                told.put(shared);
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
}

impl Difference {
    fn is_empty(&self) -> bool {
        self.rows.is_empty() && self.gone.is_empty()
    }
}

/// Cuts rows into frames, those that are no more first; of a snapshot there is at least one, and the last is marked.
fn in_frames(demand: Demand) -> Vec<Demand> {
    let Demand {
        snapshot, rows, gone, ..
    } = demand;
    let mut frames = vec![Demand {
        snapshot,
        ..Demand::default()
    }];
    for gone in gone.chunks(FRAME_ROWS_MAX / 4) {
        frames.push(Demand {
            snapshot,
            gone: gone.to_vec(),
            ..Demand::default()
        });
    }
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
    frames.retain(|frame| snapshot || !frame.is_empty());
    if let Some(last) = frames.last_mut() {
        last.last = snapshot;
    }
    frames
}
