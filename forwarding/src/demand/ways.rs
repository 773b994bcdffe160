//! What the other groups want, seen from here: the best way to each, and how much may be sent along it.

use std::collections::BTreeMap;

use ferrymq_broker::GroupId;
use ferrymq_message::Destination;

use super::DemandTable;
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

impl DemandTable {
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
    pub(super) fn ways(&self, destination: Option<&Destination>, bridges: &Bridges) -> Vec<Way<'_>> {
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
}

fn unnamed(group: GroupId) -> String {
    format!("group {group:016x}")
}
