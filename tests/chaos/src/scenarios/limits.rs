//! Clocks that jump, and processes with too little memory or processor time (P7, P8).

use crate::{
    NORTH, SOUTH,
    fault::Whom,
    faults::{
        clock::ClockJump,
        limits::{Memory, Processor},
    },
    scenario::Scenario,
};

const HOUR: i64 = 3_600;
const FORWARD: ClockJump = ClockJump { seconds: HOUR };
const BACK: ClockJump = ClockJump { seconds: -HOUR };
const TO_1970: ClockJump = ClockJump {
    seconds: -1_700_000_000,
};

/// See the file's head.
pub const SCENARIOS: &[Scenario] = &[
    Scenario::new("clock-forward-north-master", &FORWARD, Whom::Master(NORTH), 1_000),
    Scenario::new("clock-back-north-slave", &BACK, Whom::Slave(NORTH), 1_000),
    Scenario::new("clock-back-everyone", &BACK, Whom::Everyone, 1_000),
    Scenario::new("clock-1970-south-master", &TO_1970, Whom::Master(SOUTH), 1_000),
    Scenario::new(
        "memory-north-master",
        &Memory { more_bytes: 4 << 20 },
        Whom::Master(NORTH),
        2_000,
    )
    .may_end(""),
    Scenario::new(
        "processor-5-percent-north-master",
        &Processor { percent: 5 },
        Whom::Master(NORTH),
        3_000,
    )
    .may_stop(),
];
