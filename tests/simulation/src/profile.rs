//! What kind of world a seed makes: its groups, its load, and how often which fault strikes.

use crate::rng::Rng;

/// See the file's head. A weight of 0 means never.
#[derive(Debug, Clone)]
pub(crate) struct Profile {
    /// Nodes of each group.
    pub(crate) groups: Vec<u64>,
    /// Each group is linked with its neighbours in the list only; otherwise all are with all.
    pub(crate) is_line: bool,
    /// How long faults strike, milliseconds.
    pub(crate) storm_ms: u64,
    /// Between two faults, milliseconds at most.
    pub(crate) pause_ms: u64,
    pub(crate) producers: u64,
    pub(crate) consumers: u64,
    pub(crate) messages: u64,
    /// There is a program that is started again under the same producer id.
    pub(crate) restarts: bool,
    pub(crate) weights: Vec<(Fault, u64)>,
    pub(crate) lost_one_in: u64,
    pub(crate) doubled_one_in: u64,
    pub(crate) late_one_in: u64,
    /// How far the wall clocks of each group, and of its clients, are ahead, milliseconds.
    pub(crate) clocks_ahead_ms: Vec<i64>,
}

/// What may strike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    CutClient,
    StallClient,
    MoveConsumer,
    CutLink,
    Kill,
    PowerCut,
    /// In the middle of something that it does on the disk.
    CrashAtDisk,
    PowerCutGroup,
    PowerCutAll,
    SyncFails,
    SlowDisk,
    /// For the next few batches only: room comes and goes while sends are under way.
    FullDisk,
    /// So little room that messages wait, for a while.
    ShortDisk,
    FlipBit,
    Pause,
    /// The wall clocks of a majority stay right.
    WallJump,
    StepDown,
    Isolate,
    BlockOneWay,
    BlockGroups,
    /// A whole group is away for longer than the others remember by themselves.
    GroupAway,
    /// The data of a group of one are copied, or put back to that copy.
    PutBack,
}

const ALL: [(Fault, u64); 19] = [
    (Fault::CutClient, 8),
    (Fault::StallClient, 3),
    (Fault::MoveConsumer, 6),
    (Fault::CutLink, 6),
    (Fault::Kill, 5),
    (Fault::PowerCut, 5),
    (Fault::CrashAtDisk, 6),
    (Fault::PowerCutGroup, 2),
    (Fault::PowerCutAll, 1),
    (Fault::SyncFails, 2),
    (Fault::SlowDisk, 3),
    (Fault::FullDisk, 3),
    (Fault::FlipBit, 3),
    (Fault::Pause, 5),
    (Fault::WallJump, 2),
    (Fault::StepDown, 4),
    (Fault::Isolate, 4),
    (Fault::BlockOneWay, 4),
    (Fault::BlockGroups, 3),
];

const HOUR_MS: i64 = 3_600_000;

impl Profile {
    /// Chosen by the seed. A quarter of the worlds is one group, one in eight a single node.
    pub(crate) fn of(seed: u64) -> Self {
        let mut rng = Rng(seed ^ 0x005e_ed0f_c0de);
        let groups = match rng.below(8) {
            0 => vec![1],
            1 => vec![3],
            2 => vec![1, 1],
            3 | 4 => vec![3, 1],
            5 | 6 => vec![3, 3],
            _ => vec![1, 3, 1],
        };
        // Each world has some faults and not others: what is rare in all of them together is then common in a few.
        let mut weights: Vec<(Fault, u64)> = ALL
            .into_iter()
            .map(|(fault, weight)| (fault, weight * [0, 1, 1, 4][rng.below(4) as usize]))
            .collect();
        let rough = rng.below(3);
        let (storm_ms, pause_ms) = (rng.between(1_500, 6_000), rng.between(60, 600));
        let (producers, consumers, messages) = (rng.between(1, 3), rng.between(1, 4), rng.between(20, 120));
        // Of the worlds with three groups more than half are a line, where a hub stands between those who publish and those
        // who are away; the storm lasts long enough for that.
        let is_line = groups.len() == 3 && rng.below(3) > 0;
        if is_line {
            weights.push((
                Fault::GroupAway,
                weights.iter().map(|(_, weight)| weight).sum::<u64>() / 12 + 1,
            ));
        }
        // Without a throw of the dice, so that the other worlds are as they were.
        if seed % 4 == 3 {
            let all: u64 = weights.iter().map(|(_, weight)| weight).sum();
            weights.push((Fault::ShortDisk, all / 12 + 1));
        }
        let is_put_back = seed % 4 == 2 && groups.len() > 1 && groups.contains(&1);
        if is_put_back {
            let all: u64 = weights.iter().map(|(_, weight)| weight).sum();
            weights.push((Fault::PutBack, all / 4 + 1));
        }
        if seed % 4 == 1 {
            let all: u64 = weights.iter().map(|(_, weight)| weight).sum();
            weights.push((Fault::FullDisk, all / 4 + 1));
        }
        // Without a throw of the dice, too.
        let ahead_ms = |group: usize| [0, HOUR_MS, -HOUR_MS][(seed as usize / 5 + group) % 3];
        Self {
            clocks_ahead_ms: (0..groups.len()).map(ahead_ms).collect(),
            groups,
            is_line,
            storm_ms: if is_line { 2 * storm_ms } else { storm_ms },
            pause_ms,
            producers,
            consumers,
            messages,
            weights,
            lost_one_in: [0, 100, 15][rough as usize],
            doubled_one_in: [0, 60, 20][rough as usize],
            late_one_in: [0, 50, 20][rough as usize],
            // A program that is started again could not know what its group has forgotten.
            restarts: rng.one_in(2) && !is_put_back,
        }
    }

    /// The groups that a group is linked with.
    pub(crate) fn neighbours(&self, group: usize) -> impl Iterator<Item = usize> {
        let others = (0..self.groups.len()).filter(move |other| *other != group);
        others.filter(move |other| !self.is_line || other.abs_diff(group) == 1)
    }

    /// The next fault.
    pub(crate) fn fault(&self, rng: &mut Rng) -> Option<Fault> {
        let total: u64 = self.weights.iter().map(|(_, weight)| weight).sum();
        if total == 0 {
            return None;
        }
        let mut at = rng.below(total);
        for (fault, weight) in &self.weights {
            if at < *weight {
                return Some(*fault);
            }
            at -= weight;
        }
        None
    }
}
