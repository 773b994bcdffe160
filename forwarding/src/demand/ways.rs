//! What the other groups want, seen from here: the best way to each, and how much may be sent along it.

use std::collections::BTreeMap;

use ferrymq_broker::GroupId;
use ferrymq_message::Destination;

use super::{DemandTable, news::Origins};
use crate::{
    bridge::Bridges,
    output::RemoteDemand,
    route::{rank, usable},
    row::{Key, Row},
};

/// The best way to one origin.
#[derive(Debug, Clone, Copy)]
pub(super) struct Way<'a> {
    pub(super) row: &'a Row,
    pub(super) next_hop: GroupId,
    pub(super) rtt_us: u32,
    pub(super) linked: bool,
    pub(super) available: u32,
}

impl Way<'_> {
    fn rank(&self) -> (bool, usize, u32, GroupId) {
        rank(self.row, self.rtt_us, self.next_hop)
    }
}

impl DemandTable {
    /// Brings up to date what is known of the other groups' wants of a destination, in order of origin; false where
    /// nothing has changed.
    pub(crate) fn refresh(
        &self,
        destination: &Destination,
        origins: &Origins,
        bridges: &Bridges,
        known: &mut Vec<RemoteDemand>,
    ) -> bool {
        let all = Origins::All;
        let origins = if self.is_charged(destination, bridges) {
            &all
        } else {
            origins
        };
        let ways = match self.filter.permits(destination) {
            true => self.ways(Some(destination), origins, bridges),
            false => Vec::new(),
        };
        let fresh: Vec<RemoteDemand> = ways.into_iter().map(|way| self.described(&way)).collect();
        let Origins::These(origins) = origins else {
            let changed = *known != fresh;
            *known = fresh;
            return changed;
        };
        let mut changed = false;
        let mut fresh = fresh.into_iter().peekable();
        for origin in origins {
            let at = known.binary_search_by_key(origin, |row| row.origin);
            match (at, fresh.next_if(|row| row.origin == *origin)) {
                (Ok(at), Some(row)) => changed |= std::mem::replace(&mut known[at], row.clone()) != row,
                (Ok(at), None) => {
                    known.remove(at);
                    changed = true;
                }
                (Err(at), Some(row)) => {
                    known.insert(at, row);
                    changed = true;
                }
                (Err(_), None) => {}
            }
        }
        changed
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

    pub(super) fn name_of(&self, origin: GroupId) -> String {
        if let Some(neighbour) = self.neighbours.get(&origin) {
            return neighbour.name.clone();
        }
        let key = Key::presence(origin);
        let mut tellers = self.tellers.of(&key).into_iter().flat_map(|told| &told.by);
        let told = tellers.find_map(|teller| self.neighbours.get(teller)?.heard.get(&key));
        let name = told
            .map(|row| &row.name)
            .or(self.memory.head(origin).map(|head| &head.name));
        let name = name.filter(|name| !name.is_empty());
        name.cloned().unwrap_or_else(|| unnamed(origin))
    }

    /// The best way to each of some origins that want the destination, in order of origin, with what may be sent along
    /// it. Where offers are under way all origins are to be asked for, since these share the charge.
    pub(super) fn ways(&self, destination: Option<&Destination>, origins: &Origins, bridges: &Bridges) -> Vec<Way<'_>> {
        let mut best: BTreeMap<GroupId, Way<'_>> = BTreeMap::new();
        for (key, told) in self.tellers.about(destination, origins) {
            if let Some(way) = told.best.and_then(|teller| self.way(key, teller)) {
                best.insert(key.origin, way);
            }
        }
        if let Some(destination) = destination {
            let remembered = self.memory.about(destination);
            for row in remembered.filter(|row| origins.contains(row.key.origin)) {
                let way = Way {
                    row,
                    next_hop: row.path.first().copied().unwrap_or(row.key.origin),
                    rtt_us: 0,
                    linked: false,
                    available: 0,
                };
                best.entry(row.key.origin).or_insert(way);
            }
            self.fill(destination, &mut best, bridges);
        }
        best.into_values().collect()
    }

    /// Whose word about a row leads along the best way.
    pub(super) fn best(&self, key: &Key) -> Option<GroupId> {
        self.tellers.of(key).and_then(|told| told.best)
    }

    /// What this teller says of a row is new, or the round trip to it: it may be the best now, or no longer.
    pub(super) fn weigh(&mut self, key: &Key, teller: GroupId) {
        let known = self
            .best(key)
            .filter(|best| *best != teller)
            .and_then(|best| self.way(key, best));
        let (Some(known), way) = (known, self.way(key, teller)) else {
            return self.choose(key);
        };
        if way.is_some_and(|way| way.rank() < known.rank()) {
            self.tellers.choose(key, Some(teller));
        }
    }

    /// Looks at all that told a row for the best of them.
    pub(super) fn choose(&mut self, key: &Key) {
        let Some(told) = self.tellers.of(key) else { return };
        let ways = told.by.iter().filter_map(|teller| self.way(key, *teller));
        let best = ways.min_by_key(Way::rank).map(|way| way.next_hop);
        self.tellers.choose(key, best);
    }

    /// The way to a row's origin that begins with this teller, where it may be used. What a teller has lost the way to is
    /// none: if it is news, it is remembered.
    fn way(&self, key: &Key, teller: GroupId) -> Option<Way<'_>> {
        let neighbour = self.neighbours.get(&teller).filter(|neighbour| neighbour.synced)?;
        let row = neighbour.heard.get(key)?;
        (row.linked && usable(row, teller, self.us, self.hops_max)).then_some(Way {
            row,
            next_hop: teller,
            rtt_us: neighbour.rtt_us,
            linked: row.linked,
            available: 0,
        })
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
}

fn unnamed(group: GroupId) -> String {
    format!("group {group:016x}")
}
