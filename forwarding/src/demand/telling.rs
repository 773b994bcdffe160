//! What each neighbour is to know of the demand here and beyond, and what of it was not told yet.

use std::collections::BTreeSet;

use ferrymq_broker::GroupId;
use ferrymq_message::Destination;

use super::DemandTable;
use crate::{
    bridge::Bridges,
    frame::Demand,
    route::passed_on,
    row::{Key, Row},
    row_set::RowSet,
};

/// Rows and bytes in one frame; a frame is far below the transport's limit.
const FRAME_ROWS_MAX: usize = 1_024;
const FRAME_BYTES_TARGET: usize = 512 * 1024;

impl DemandTable {
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
