//! Processes that die, hang, or are told to leave (P2, P3, P5, P6, P7).

use crate::{
    NORTH, SOUTH,
    fault::Whom,
    faults::{
        processes::{DieAtSync, Freeze, Kill, RollingRestart, StepDown},
        sleeper::Sleeper,
    },
    scenario::Scenario,
};

/// See the file's head.
pub const SCENARIOS: &[Scenario] = &[
    Scenario::new("kill-north-master", &Kill, Whom::Master(NORTH), 1_500),
    Scenario::new("kill-south-master", &Kill, Whom::Master(SOUTH), 1_500),
    Scenario::new("kill-north-slave", &Kill, Whom::Slave(NORTH), 1_000),
    Scenario::new("kill-both-masters", &Kill, Whom::Masters, 1_500),
    Scenario::new("kill-north-majority", &Kill, Whom::MasterAndSlave(NORTH), 1_000).may_stop(),
    Scenario::new("kill-north", &Kill, Whom::Group(NORTH), 1_000).may_stop(),
    Scenario::new("kill-south", &Kill, Whom::Group(SOUTH), 1_000).may_stop(),
    Scenario::new("kill-everyone", &Kill, Whom::Everyone, 500).may_stop(),
    Scenario::new("freeze-north-master", &Freeze, Whom::Master(NORTH), 2_500),
    Scenario::new("freeze-south-master", &Freeze, Whom::Master(SOUTH), 2_500),
    Scenario::new("freeze-north-slave", &Freeze, Whom::Slave(NORTH), 2_000),
    Scenario::new("sleeper-north", &Sleeper, Whom::Master(NORTH), 0),
    Scenario::new("sleeper-south", &Sleeper, Whom::Master(SOUTH), 0),
    Scenario::new(
        "north-master-dies-at-sync-1",
        &DieAtSync { call: 1 },
        Whom::Master(NORTH),
        1_500,
    )
    .may_end(""),
    Scenario::new(
        "north-master-dies-at-sync-7",
        &DieAtSync { call: 7 },
        Whom::Master(NORTH),
        1_500,
    )
    .may_end(""),
    Scenario::new(
        "north-slave-dies-at-sync-3",
        &DieAtSync { call: 3 },
        Whom::Slave(NORTH),
        1_500,
    )
    .may_end(""),
    Scenario::new(
        "south-dies-at-sync-5",
        &DieAtSync { call: 5 },
        Whom::Group(SOUTH),
        1_500,
    )
    .may_end("")
    .may_stop(),
    Scenario::new("step-down", &StepDown, Whom::Masters, 500),
    Scenario::new("rolling-restart-north", &RollingRestart, Whom::Group(NORTH), 0),
    Scenario::new("rolling-restart-south", &RollingRestart, Whom::Group(SOUTH), 0),
];
