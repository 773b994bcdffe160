//! Consumers that come, go, and have more or less room: which change comes next.

use crate::{
    knowledge::{Knowledge, Want},
    rng::Rng,
};

/// One change of one group's demand.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Change {
    pub(crate) group: usize,
    pub(crate) destination: usize,
    pub(crate) want: Want,
}

/// Messages that one consumer has room for.
const PREFETCH: u32 = 100;
const CONSUMERS_MAX: u64 = 4;

/// Every group wants some destinations at random, and all of them the first `shared` ones.
pub(crate) fn beginning(
    groups: usize,
    destinations: usize,
    shared: usize,
    wanted: usize,
    rng: &mut Rng,
) -> Vec<Change> {
    let mut changes = Vec::new();
    for group in 0..groups {
        let own = (0..wanted).map(|_| rng.between(shared as u64, destinations as u64 - 1) as usize);
        for destination in (0..shared).chain(own.collect::<Vec<_>>()) {
            let want = consumers(rng.between(1, CONSUMERS_MAX) as u32, rng);
            changes.push(Change {
                group,
                destination,
                want,
            });
        }
    }
    changes
}

/// A random group's consumers of a random destination come, go or change: half of the time of one that is wanted there.
pub(crate) fn next(groups: usize, knowledge: &Knowledge, rng: &mut Rng) -> Change {
    let group = rng.below(groups as u64) as usize;
    let destinations = knowledge.destinations();
    let start = rng.below(destinations as u64) as usize;
    let wanted = (0..destinations)
        .map(|step| (start + step) % destinations)
        .find(|destination| knowledge.want(group, *destination).consumers > 0);
    let destination = wanted.filter(|_| rng.one_in(2)).unwrap_or(start);
    let before = knowledge.want(group, destination);
    let count = match before.consumers {
        0 => rng.between(1, CONSUMERS_MAX) as u32,
        _ if rng.one_in(3) => 0,
        same if rng.one_in(2) => same,
        _ => rng.between(1, CONSUMERS_MAX) as u32,
    };
    let mut want = consumers(count, rng);
    while want == before {
        want = consumers(count.max(1), rng);
    }
    Change {
        group,
        destination,
        want,
    }
}

fn consumers(consumers: u32, rng: &mut Rng) -> Want {
    let credit = rng.between(u64::from(consumers.min(1)), u64::from(consumers * PREFETCH)) as u32;
    Want { consumers, credit }
}
