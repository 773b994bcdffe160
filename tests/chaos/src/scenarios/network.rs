//! Networks that are cut, lose, double, delay, reset and crawl (P2–P7, P12).

use std::time::Duration;

use crate::{
    NORTH, SOUTH,
    fault::{Fault, Whom},
    faults::network::{
        Cut,
        Direction::{Both, Deaf, Mute},
        Flap, Narrow, Packets,
        Peers::{self, All, Each, Group, OtherGroup, Struck},
        Wrong::{self, Doubled, Late, Lost, Reset},
    },
    scenario::{GONE_MS, SILENT_MS, Scenario},
};

const fn cut(peers: Peers, direction: crate::faults::network::Direction) -> Cut {
    Cut { peers, direction }
}

const fn packets(peers: Peers, wrong: Wrong) -> Packets {
    Packets { peers, wrong }
}

const GROUP_BOTH: Cut = cut(Group, Both);
const GROUP_MUTE: Cut = cut(Group, Mute);
const GROUP_DEAF: Cut = cut(Group, Deaf);
const ALL_BOTH: Cut = cut(All, Both);
const OTHER_BOTH: Cut = cut(OtherGroup, Both);
const OTHER_MUTE: Cut = cut(OtherGroup, Mute);
const OTHER_DEAF: Cut = cut(OtherGroup, Deaf);
const PIECES: Cut = cut(Each, Both);
const BRIDGE: Cut = cut(Struck, Both);
const FLAP: Flap = Flap {
    every: Duration::from_secs(2),
    times: 2,
};
const LOSS_5: Packets = packets(All, Lost(0.05));
const LOSS_30: Packets = packets(OtherGroup, Lost(0.3));
const DOUBLED: Packets = packets(All, Doubled(0.3));
const RESET_GROUP: Packets = packets(Group, Reset);
const RESET_OTHER: Packets = packets(OtherGroup, Reset);
const LATE: Packets = packets(
    OtherGroup,
    Late {
        delay_ms: 100,
        jitter_ms: 20,
    },
);
/// A round trip of 100 ms between any two nodes of the group.
const FAR: Packets = packets(
    Each,
    Late {
        delay_ms: 50,
        jitter_ms: 5,
    },
);
const DISORDERED: Packets = packets(
    All,
    Late {
        delay_ms: 10,
        jitter_ms: 9,
    },
);

/// A node does not hear others, or is not heard, and says nothing of it.
const fn silent(name: &'static str, cut: &'static dyn Fault, whom: Whom) -> Scenario {
    Scenario::new(name, cut, whom, 7_000).within(SILENT_MS).replacing()
}

/// See the file's head.
pub const SCENARIOS: &[Scenario] = &[
    silent("cut-off-north-master", &GROUP_BOTH, Whom::Master(NORTH)),
    silent("cut-off-south-master", &GROUP_BOTH, Whom::Master(SOUTH)),
    // Longer than clients may be kept waiting by a master that hears nobody.
    Scenario::new(
        "cut-off-north-master-for-long",
        &GROUP_BOTH,
        Whom::Master(NORTH),
        22_000,
    )
    .within(SILENT_MS)
    .replacing(),
    silent("cut-off-north-slave", &GROUP_BOTH, Whom::Slave(NORTH)),
    silent("mute-north-master", &GROUP_MUTE, Whom::Master(NORTH)),
    silent("deaf-north-master", &GROUP_DEAF, Whom::Master(NORTH)),
    silent("mute-north-slave", &GROUP_MUTE, Whom::Slave(NORTH)),
    silent("deaf-north-slave", &GROUP_DEAF, Whom::Slave(NORTH)),
    silent("cut-off-both-masters", &ALL_BOTH, Whom::Masters),
    // The other slave hears both of them.
    silent("cut-north-master-from-one-slave", &BRIDGE, Whom::MasterAndSlave(NORTH)).terms(1),
    Scenario::new("cut-north-to-pieces", &PIECES, Whom::Group(NORTH), 2_000).may_stop(),
    Scenario::new("cut-between-groups", &OTHER_BOTH, Whom::Group(NORTH), 3_000),
    Scenario::new("north-unheard-by-south", &OTHER_MUTE, Whom::Group(NORTH), 3_000),
    Scenario::new("north-deaf-for-south", &OTHER_DEAF, Whom::Group(NORTH), 3_000),
    Scenario::new("flapping-between-groups", &FLAP, Whom::Group(NORTH), 0),
    Scenario::new("loss-5-percent", &LOSS_5, Whom::Everyone, 3_000).may_stop(),
    Scenario::new("loss-30-percent-between-groups", &LOSS_30, Whom::Group(SOUTH), 3_000),
    Scenario::new("doubled-packets", &DOUBLED, Whom::Everyone, 3_000),
    Scenario::new("reset-north-master", &RESET_GROUP, Whom::Master(NORTH), 5_000).within(GONE_MS),
    Scenario::new("reset-between-groups", &RESET_OTHER, Whom::Group(NORTH), 3_000),
    Scenario::new("late-between-groups", &LATE, Whom::Group(SOUTH), 3_000),
    Scenario::new("far-nodes-of-north", &FAR, Whom::Group(NORTH), 8_000).terms(1),
    Scenario::new("disordered-packets", &DISORDERED, Whom::Group(NORTH), 3_000),
    Scenario::new(
        "narrow-north-master",
        &Narrow { kbit: 2_000 },
        Whom::Master(NORTH),
        3_000,
    )
    .may_stop(),
];
