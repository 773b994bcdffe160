//! Processes that die, hang, or are told to leave (P2, P3, P5, P6, P7).

use crate::{
    NORTH, SOUTH,
    ending::Ending::MustBeKilled,
    fault::{Fault, Whom},
    faults::{
        processes::{DieAtSync, Freeze, Kill, RollingRestart, StepDown},
        sleeper::Sleeper,
    },
    scenario::{GONE_MS, SILENT_MS, Scenario},
};

const SLEEPER: Sleeper = Sleeper { suspended: false };
const SUSPENDED: Sleeper = Sleeper { suspended: true };

const fn gone(name: &'static str, fault: &'static dyn Fault, whom: Whom) -> Scenario {
    Scenario::new(name, fault, whom, 5_000).within(GONE_MS).replacing()
}

const fn silent(name: &'static str, fault: &'static dyn Fault, whom: Whom) -> Scenario {
    Scenario::new(name, fault, whom, 7_000).within(SILENT_MS).replacing()
}

/// See the file's head.
pub const SCENARIOS: &[Scenario] = &[
    gone("kill-north-master", &Kill, Whom::Master(NORTH)),
    gone("kill-south-master", &Kill, Whom::Master(SOUTH)),
    gone("kill-north-slave", &Kill, Whom::Slave(NORTH)),
    gone("kill-both-masters", &Kill, Whom::Masters),
    Scenario::new("kill-north-majority", &Kill, Whom::MasterAndSlave(NORTH), 1_000).may_stop(),
    Scenario::new("kill-north", &Kill, Whom::Group(NORTH), 1_000).may_stop(),
    Scenario::new("kill-south", &Kill, Whom::Group(SOUTH), 1_000).may_stop(),
    Scenario::new("kill-everyone", &Kill, Whom::Everyone, 500).may_stop(),
    silent("freeze-north-master", &Freeze, Whom::Master(NORTH)),
    silent("freeze-south-master", &Freeze, Whom::Master(SOUTH)),
    silent("freeze-north-slave", &Freeze, Whom::Slave(NORTH)),
    Scenario::new("sleeper-north", &SLEEPER, Whom::Master(NORTH), 0).within(SILENT_MS),
    Scenario::new("sleeper-south", &SLEEPER, Whom::Master(SOUTH), 0).within(SILENT_MS),
    Scenario::new("suspended-north-master", &SUSPENDED, Whom::Master(NORTH), 0).within(SILENT_MS),
    Scenario::new("suspended-south-master", &SUSPENDED, Whom::Master(SOUTH), 0).within(SILENT_MS),
    gone(
        "north-master-dies-at-sync-1",
        &DieAtSync { call: 1 },
        Whom::Master(NORTH),
    )
    .ends(MustBeKilled),
    gone(
        "north-master-dies-at-sync-7",
        &DieAtSync { call: 7 },
        Whom::Master(NORTH),
    )
    .ends(MustBeKilled),
    gone("north-slave-dies-at-sync-3", &DieAtSync { call: 3 }, Whom::Slave(NORTH)).ends(MustBeKilled),
    Scenario::new(
        "south-dies-at-sync-5",
        &DieAtSync { call: 5 },
        Whom::Group(SOUTH),
        1_500,
    )
    .ends(MustBeKilled)
    .may_stop(),
    Scenario::new("step-down", &StepDown, Whom::Masters, 3_000),
    Scenario::new("rolling-restart-north", &RollingRestart, Whom::Group(NORTH), 0).within(GONE_MS),
    Scenario::new("rolling-restart-south", &RollingRestart, Whom::Group(SOUTH), 0).within(GONE_MS),
];
