//! One trial: groups of one shape find each other, then their consumers churn; what that costs and how soon all know.

use std::time::Instant;

use ferrymq_forwarding::{Input, Pace};

use crate::{
    ALLOCATOR,
    churn::{self, Change},
    figures::{Burst, Figures, Memory, Single},
    knowledge::Knowledge,
    network::{Cost, Network},
    rng::Rng,
    shape::Shape,
};

/// What trials have in common.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    pub(crate) seed: u64,
    /// Changes one by one, and as many in a burst.
    pub(crate) changes: usize,
    /// Destinations that a group wants at the beginning, of as many as there are groups; and how many more all want.
    pub(crate) wanted: usize,
    pub(crate) shared: usize,
    pub(crate) latency_ms: (u64, u64),
    pub(crate) hops_max: usize,
}

/// P12: after so long every group knows exactly what the others want.
pub(crate) const CONVERGED_WITHIN_US: u64 = 2_000_000;
/// The burst's changes are spread over so long.
const BURST_US: u64 = 2_000_000;
/// Links come up, and everything is told once; not what is measured here, but it has to end.
const FORMED_WITHIN_US: u64 = 60_000_000;
/// Hashes are counted over so long.
const QUIET_US: u64 = 3_000_000;
/// Processor time is taken as the median of so many batches: what else runs on the machine disturbs some of them.
const BATCHES: usize = 5;

/// Runs a trial. Everything but the times measured follows from the seed.
pub(crate) fn run(shape: Shape, groups: usize, load: Load) -> Figures {
    let began = Instant::now();
    let mut figures = Figures::new(shape, groups);
    let mut rng = Rng::new(load.seed);
    let destinations = groups + load.shared;
    let knowledge = Knowledge::new(shape, groups, load.hops_max, destinations);
    let beginning = churn::beginning(groups, destinations, load.shared, load.wanted, &mut rng);
    let network_rng = Rng::new(rng.next());
    let mut network = Network::new(shape, knowledge, groups, load.hops_max, load.latency_ms, network_rng);
    beginning.into_iter().for_each(|change| apply(&mut network, change));
    let began_us = network.now_us;
    if !network.run_until(began_us + FORMED_WITHIN_US, |n| n.knowledge.wrong() == 0) {
        figures.violations.push("the mesh never formed".to_owned());
    }
    figures.formed_ms = (network.now_us - began_us) as f64 / 1e3;
    network.settle();
    let idle_ns_per_s = quiet(&mut network, &mut figures);
    one_by_one(&mut network, &mut rng, load, &idle_ns_per_s, &mut figures);
    burst(&mut network, &mut rng, load, &mut figures);
    network.settle();
    figures.memory = memory(network, shape);
    figures.wall_s = began.elapsed().as_secs_f64();
    figures
}

fn apply(network: &mut Network, change: Change) {
    let Change {
        group,
        destination,
        want,
    } = change;
    network.knowledge.change(group, destination, want);
    let input = Input::LocalDemand {
        destination: network.knowledge.destination(destination).clone(),
        consumers: want.consumers,
        credit: want.credit,
        selectors: vec![None],
        durable: false,
        pace: Pace::default(),
    };
    network.input(group, input);
}

/// Nothing changes: only hashes are exchanged. What that takes each group, in nanoseconds a second.
fn quiet(network: &mut Network, figures: &mut Figures) -> Vec<f64> {
    let before = network.costs();
    let formed: Cost = before.iter().copied().sum();
    figures.formed_bytes = formed.bytes / 2 + formed.snapshot_bytes_out;
    network.run(QUIET_US);
    let costs = network.costs().into_iter().zip(before);
    let costs: Vec<Cost> = costs.map(|(after, before)| after - before).collect();
    let cost: Cost = costs.iter().copied().sum();
    let seconds = QUIET_US as f64 / 1e6;
    figures.hashes_per_group_s = cost.pulses_out as f64 / seconds / figures.groups as f64;
    figures.hash_bytes_per_group_s = cost.pulse_bytes_out as f64 / seconds / figures.groups as f64;
    if cost.deltas_out + cost.snapshots_out > 0 {
        figures.violations.push(format!(
            "{} deltas were told while nothing changed",
            cost.deltas_out + cost.snapshots_out
        ));
    }
    costs.iter().map(|cost| cost.cpu_ns as f64 / seconds).collect()
}

/// Each change alone, until everyone knows of it and nothing is under way.
fn one_by_one(network: &mut Network, rng: &mut Rng, load: Load, idle_ns_per_s: &[f64], figures: &mut Figures) {
    let per_batch = load.changes.div_ceil(BATCHES);
    let mut took_us = Vec::new();
    let mut batches: Vec<Vec<Cost>> = Vec::new();
    for _ in 0..BATCHES {
        let (before, before_us) = (network.costs(), network.now_us);
        for _ in 0..per_batch {
            let change = churn::next(figures.groups, &network.knowledge, rng);
            apply(network, change);
            let began_us = network.now_us;
            if !network.run_until(began_us + CONVERGED_WITHIN_US, |n| n.knowledge.wrong() == 0) {
                figures
                    .violations
                    .push(format!("not known everywhere in time: {change:?}"));
            }
            took_us.push(network.now_us - began_us);
            network.settle();
        }
        let costs = network.costs().into_iter().zip(before);
        let seconds = (network.now_us - before_us) as f64 / 1e6;
        let without_idling = |((after, before), idle): ((Cost, Cost), &f64)| {
            let mut cost = after - before;
            cost.cpu_ns = cost.cpu_ns.saturating_sub((idle * seconds) as u64);
            cost
        };
        batches.push(costs.zip(idle_ns_per_s).map(without_idling).collect());
    }
    took_us.sort_unstable();
    figures.single = Single::new(figures.shape, &batches, per_batch, &took_us);
}

/// Many changes at once, and how long after the last one everybody knows.
fn burst(network: &mut Network, rng: &mut Rng, load: Load, figures: &mut Figures) {
    let before = network.costs();
    for _ in 0..load.changes {
        network.run(rng.below(2 * BURST_US / load.changes as u64));
        let change = churn::next(figures.groups, &network.knowledge, rng);
        apply(network, change);
    }
    let last_us = network.now_us;
    let converged = network.run_until(last_us + CONVERGED_WITHIN_US, |n| n.knowledge.wrong() == 0);
    if !converged {
        let wrong = network.knowledge.wrong();
        figures.violations.push(format!(
            "P12: {wrong} rows are wrong somewhere {} s after the last change",
            CONVERGED_WITHIN_US / 1_000_000
        ));
    }
    let converged_ms = (network.now_us - last_us) as f64 / 1e3;
    network.settle();
    let cost = network.costs().into_iter().sum::<Cost>() - before.into_iter().sum::<Cost>();
    if cost.resyncs_out > 0 {
        figures.violations.push(format!(
            "{} times demand was asked for anew without loss",
            cost.resyncs_out
        ));
    }
    figures.burst = Burst::new(&cost, load.changes, converged_ms);
}

/// What each mesh holds: the memory that is free once it is dropped.
fn memory(network: Network, shape: Shape) -> Memory {
    let Network { groups, knowledge, .. } = network;
    let count = groups.len();
    let mut held = Vec::with_capacity(count);
    for (index, group) in groups.into_iter().enumerate() {
        let before = ALLOCATOR.allocated();
        drop(group);
        let bytes = before.saturating_sub(ALLOCATOR.allocated()) as f64;
        held.push((bytes, knowledge.rows_known(index), shape.neighbours(index, count)));
    }
    Memory::new(&held)
}
