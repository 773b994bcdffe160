//! Clocks that jump, and processes with too little memory or processor time (P7, P8).

use crate::{
    EAST, NORTH, SOUTH,
    ending::Ending::MayBeKilled,
    fault::Whom,
    faults::{
        clock::ClockJump,
        limits::{Memory, Processor},
        skewed::{SkewedGroup, SkewedMaster},
    },
    scenario::{GONE_MS, Scenario},
};

const HOUR: i64 = 3_600;
const FORWARD: ClockJump = ClockJump { seconds: HOUR };
const BACK: ClockJump = ClockJump { seconds: -HOUR };
const TO_1970: ClockJump = ClockJump {
    seconds: -1_700_000_000,
};

const AHEAD: SkewedMaster = SkewedMaster { seconds: 2 * HOUR };
const BEHIND: SkewedMaster = SkewedMaster { seconds: -2 * HOUR };
const EAST_AHEAD: SkewedGroup = SkewedGroup { seconds: 2 * HOUR };

/// Leases and elections go by another clock: nobody notices.
const fn clock(name: &'static str, jump: &'static ClockJump, whom: Whom) -> Scenario {
    Scenario::new(name, jump, whom, 3_000).terms(0)
}

/// See the file's head.
pub const SCENARIOS: &[Scenario] = &[
    clock("clock-forward-north-master", &FORWARD, Whom::Master(NORTH)),
    clock("clock-forward-everyone", &FORWARD, Whom::Everyone),
    clock("clock-back-north-slave", &BACK, Whom::Slave(NORTH)),
    clock("clock-back-everyone", &BACK, Whom::Everyone),
    clock("clock-1970-south-master", &TO_1970, Whom::Master(SOUTH)),
    Scenario::new("skewed-north-master", &AHEAD, Whom::Slave(NORTH), 3_000),
    Scenario::new("skewed-back-north-master", &BEHIND, Whom::Slave(NORTH), 3_000),
    Scenario::new("skewed-east", &EAST_AHEAD, Whom::Group(EAST), 3_000).terms(0),
    Scenario::new(
        "memory-north-master",
        &Memory { more_bytes: 4 << 20 },
        Whom::Master(NORTH),
        5_000,
    )
    .within(GONE_MS)
    .ends(MayBeKilled),
    Scenario::new(
        "processor-5-percent-north-master",
        &Processor { percent: 5 },
        Whom::Master(NORTH),
        5_000,
    )
    .may_stop()
    .terms(1),
];
