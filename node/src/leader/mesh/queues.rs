//! What other groups want of a queue becomes bridges of the dispatcher.

use ferrymq_dispatch::Bridge;
use ferrymq_forwarding::RemoteDemand;
use ferrymq_message::{Destination, Selector};

use crate::leader::Leader;

impl Leader {
    /// Makes bridges of what other groups want of a destination.
    pub(super) fn set_bridges(&mut self, destination: &Destination) {
        if destination.kind().is_topic() {
            return self.set_topic_bridges(destination);
        }
        let found = self
            .group
            .with_broker(|broker| broker.queues().find(destination.kind(), destination.name()));
        // A queue that is not there yet gets its bridges when it is made.
        let Some(queue) = found else { return };
        let rows = self.bridges.rows.get(destination).map_or(&[][..], Vec::as_slice);
        let mut bridges: Vec<Bridge> = Vec::new();
        for row in rows.iter().filter(|row| row.linked) {
            let bridge = to_bridge(row);
            // One next hop is one bridge, whoever stands behind it.
            match bridges.iter_mut().find(|other| other.next_hop == bridge.next_hop) {
                Some(other) => merge(other, bridge),
                None => bridges.push(bridge),
            }
        }
        self.dispatcher.set_bridges(queue, bridges);
    }
}

pub(super) fn to_bridge(row: &RemoteDemand) -> Bridge {
    let mut bridge = Bridge::new(row.next_hop, row.next_hop_name.clone(), row.available, row.distance);
    if !row.selectors.contains(&None) {
        // A selector that does not parse here (a later version's, say) is taken for one that wants everything.
        bridge.selectors = row
            .selectors
            .iter()
            .flatten()
            .map_while(|text| Selector::parse(text).ok())
            .collect();
        if bridge.selectors.len() < row.selectors.len() {
            bridge.selectors.clear();
        }
    }
    bridge
}

fn merge(bridge: &mut Bridge, other: Bridge) {
    bridge.available = bridge.available.saturating_add(other.available);
    bridge.distance = bridge.distance.min(other.distance);
    if bridge.selectors.is_empty() || other.selectors.is_empty() {
        bridge.selectors.clear();
    } else {
        bridge.selectors.extend(other.selectors);
    }
}
