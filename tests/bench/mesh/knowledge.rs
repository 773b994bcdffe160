//! What consumers want (the truth) and what each group was told of it, with the count of differences kept up to date: the
//! mesh has converged when it is 0 (P12).

use std::collections::{BTreeMap, HashMap};

use ferrymq_forwarding::RemoteDemand;
use ferrymq_message::Destination;

use crate::shape::Shape;

/// What one group's consumers want of one destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Want {
    /// 0 means nothing is wanted.
    pub(crate) consumers: u32,
    /// Messages they have room for.
    pub(crate) credit: u32,
}

/// See the file's head. Groups and destinations are numbers.
pub(crate) struct Knowledge {
    shape: Shape,
    groups: usize,
    hops_max: usize,
    destinations: Vec<Destination>,
    numbers: HashMap<Destination, usize>,
    /// By destination and origin; nobody is there with 0 consumers.
    truth: Vec<BTreeMap<usize, Want>>,
    /// By group and destination: what it was told of each origin, in order of origin.
    told: Vec<HashMap<usize, Vec<(usize, Want)>>>,
    wrong: usize,
}

impl Knowledge {
    pub(crate) fn new(shape: Shape, groups: usize, hops_max: usize, destinations: usize) -> Self {
        let destinations: Vec<Destination> = (0..destinations)
            .map(|number| Destination::queue(&format!("ORDERS.REGION.{number:04}")))
            .collect();
        Self {
            shape,
            groups,
            hops_max,
            numbers: destinations.iter().cloned().zip(0..).collect(),
            truth: vec![BTreeMap::new(); destinations.len()],
            told: vec![HashMap::new(); groups],
            destinations,
            wrong: 0,
        }
    }

    pub(crate) fn destinations(&self) -> usize {
        self.destinations.len()
    }

    pub(crate) fn destination(&self, number: usize) -> &Destination {
        &self.destinations[number]
    }

    /// What a group's consumers want now.
    pub(crate) fn want(&self, group: usize, destination: usize) -> Want {
        self.truth[destination].get(&group).copied().unwrap_or_default()
    }

    /// Consumers come, go, or have another room.
    pub(crate) fn change(&mut self, group: usize, destination: usize, want: Want) {
        let before = self.want(group, destination);
        for hearer in 0..self.groups {
            if self.reaches(group, hearer) {
                let told = self.told_of(hearer, destination, group);
                self.wrong = self.wrong + usize::from(told != want) - usize::from(told != before);
            }
        }
        if want.consumers == 0 {
            self.truth[destination].remove(&group);
        } else {
            self.truth[destination].insert(group, want);
        }
    }

    /// A group was told, absolutely, what all others want of a destination.
    pub(crate) fn told(&mut self, group: usize, destination: &Destination, rows: &[RemoteDemand]) {
        let Some(&number) = self.numbers.get(destination) else {
            return;
        };
        self.wrong -= self.wrong_of(group, number);
        let mut told: Vec<(usize, Want)> = rows
            .iter()
            .map(|row| {
                let want = Want {
                    consumers: row.consumers,
                    credit: row.available,
                };
                (group_of(row.origin), want)
            })
            .collect();
        told.sort_unstable_by_key(|(origin, _)| *origin);
        if told.is_empty() {
            self.told[group].remove(&number);
        } else {
            self.told[group].insert(number, told);
        }
        self.wrong += self.wrong_of(group, number);
    }

    /// Differences between what groups were told and the truth: (hearer, destination, origin)s.
    pub(crate) fn wrong(&self) -> usize {
        self.wrong
    }

    /// Rows that a group has to know, which is what it was told once the mesh has converged.
    pub(crate) fn rows_known(&self, group: usize) -> usize {
        self.told[group].values().map(Vec::len).sum()
    }

    /// A group learns of another one's demand where no more than `hops_max` links lie between them.
    fn reaches(&self, origin: usize, hearer: usize) -> bool {
        (1..=self.hops_max).contains(&self.shape.distance(origin, hearer))
    }

    fn told_of(&self, hearer: usize, destination: usize, origin: usize) -> Want {
        let rows = self.told[hearer].get(&destination).map_or(&[][..], Vec::as_slice);
        let found = rows.binary_search_by_key(&origin, |(origin, _)| *origin);
        found.map_or(Want::default(), |at| rows[at].1)
    }

    fn wrong_of(&self, group: usize, destination: usize) -> usize {
        let truth = &self.truth[destination];
        let expected = truth.iter().filter(|(origin, _)| self.reaches(**origin, group));
        let differs = expected.filter(|(origin, want)| self.told_of(group, destination, **origin) != **want);
        let told = self.told[group].get(&destination).map_or(&[][..], Vec::as_slice);
        let surplus = |(origin, want): &&(usize, Want)| {
            *want != Want::default() && !(truth.contains_key(origin) && self.reaches(*origin, group))
        };
        differs.count() + told.iter().filter(surplus).count()
    }
}

/// Ids of groups in the simulation; not in the order of the numbers, so that neither end of a link is always the smaller.
pub(crate) fn id_of(group: usize) -> u64 {
    (group as u64 + 1).wrapping_mul(ODD)
}

fn group_of(id: u64) -> usize {
    (id.wrapping_mul(INVERSE) - 1) as usize
}

const ODD: u64 = 0x9e37_79b9_7f4a_7c15;
/// `ODD * INVERSE == 1` modulo 2⁶⁴.
const INVERSE: u64 = inverse(ODD);

/// Newton's iteration doubles the number of right bits each time, and an odd number is its own inverse in the last three.
const fn inverse(odd: u64) -> u64 {
    let mut x = odd;
    let mut round = 0;
    while round < 5 {
        x = x.wrapping_mul(2u64.wrapping_sub(odd.wrapping_mul(x)));
        round += 1;
    }
    x
}
