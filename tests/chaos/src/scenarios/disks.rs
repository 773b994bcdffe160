//! Disks that fail, are full, hang, crawl or are lost (P1, P8, P9).

use crate::{
    NORTH, SOUTH,
    fault::Whom,
    faults::disks::{CallsFail, Full, Lost, Slow, Stalled},
    scenario::Scenario,
};

/// One sync fails and the next ones succeed, though what was written is gone.
const SYNC_FAILS: CallsFail = CallsFail {
    what: "fdatasync,fsync:error=EIO:when=4",
};
const WRITES_FAIL: CallsFail = CallsFail {
    what: "pwritev,pwrite64,pwritev2:error=EIO:when=4",
};
const SLOW_SYNC: CallsFail = CallsFail {
    what: "fdatasync,fsync:delay_enter=200000",
};

/// See the file's head.
pub const SCENARIOS: &[Scenario] = &[
    Scenario::new("sync-fails-north-master", &SYNC_FAILS, Whom::Master(NORTH), 1_500).may_end("Cure: check the disk"),
    Scenario::new("sync-fails-south-slave", &SYNC_FAILS, Whom::Slave(SOUTH), 1_500).may_end("Cure: check the disk"),
    Scenario::new("write-fails-north-master", &WRITES_FAIL, Whom::Master(NORTH), 1_500).may_end("Cure: check the disk"),
    Scenario::new("full-north-master", &Full, Whom::Master(NORTH), 2_000).may_stop(),
    Scenario::new("full-north", &Full, Whom::Group(NORTH), 2_000).may_stop(),
    Scenario::new("stalled-north-master", &Stalled, Whom::Master(NORTH), 3_000).may_stop(),
    Scenario::new("stalled-south-slave", &Stalled, Whom::Slave(SOUTH), 2_000),
    Scenario::new("slow-sync-north-master", &SLOW_SYNC, Whom::Master(NORTH), 2_000),
    Scenario::new(
        "slow-disk-south-master",
        &Slow {
            bytes_per_second: 500_000,
        },
        Whom::Master(SOUTH),
        2_000,
    )
    .may_stop(),
    Scenario::new("lost-disk-north-slave", &Lost, Whom::Slave(NORTH), 500),
    Scenario::new("lost-disk-north-master", &Lost, Whom::Master(NORTH), 500),
];
