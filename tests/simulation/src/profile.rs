//! What kind of world a seed makes: its groups, its load, and how often which fault strikes.

use crate::rng::Rng;

/// See the file's head. A weight of 0 means never.
#[derive(Debug, Clone)]
pub(crate) struct Profile {
    /// Nodes of each group.
    pub(crate) groups: Vec<u64>,
    /// How long faults strike, milliseconds.
    pub(crate) storm_ms: u64,
    /// Between two faults, milliseconds at most.
    pub(crate) pause_ms: u64,
    pub(crate) producers: u64,
    pub(crate) consumers: u64,
    pub(crate) messages: u64,
    pub(crate) weights: Vec<(Fault, u64)>,
    pub(crate) lost_one_in: u64,
    pub(crate) doubled_one_in: u64,
    pub(crate) late_one_in: u64,
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
    FlipBit,
    Pause,
    WallJump,
    StepDown,
    Isolate,
    BlockOneWay,
    BlockGroups,
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
        let weights = ALL
            .into_iter()
            .map(|(fault, weight)| (fault, weight * [0, 1, 1, 4][rng.below(4) as usize]))
            .collect();
        let rough = rng.below(3);
        Self {
            groups,
            storm_ms: rng.between(1_500, 6_000),
            pause_ms: rng.between(60, 600),
            producers: rng.between(1, 3),
            consumers: rng.between(1, 4),
            messages: rng.between(20, 120),
            weights,
            lost_one_in: [0, 100, 15][rough as usize],
            doubled_one_in: [0, 60, 20][rough as usize],
            late_one_in: [0, 50, 20][rough as usize],
        }
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
