//! Disks that fail, are full, hang, crawl or are lost (P1, P8, P9).

use crate::{
    NORTH, SOUTH,
    ending::Ending::MustSay,
    fault::Whom,
    faults::disks::{CallsFail, Full, Lost, Slow, Stalled},
    scenario::{GONE_MS, Scenario},
};

/// One sync fails and the next ones succeed, though what was written is gone.
const SYNC_FAILS: CallsFail = CallsFail {
    what: "fdatasync,fsync:error=EIO:when=4",
};
/// The journal syncs its records otherwise: this one is a snapshot's, or that of a new segment.
const STATE_SYNC_FAILS: CallsFail = CallsFail {
    what: "fsync:error=EIO:when=1",
};
const WRITES_FAIL: CallsFail = CallsFail {
    what: "pwritev,pwrite64,pwritev2:error=EIO:when=4",
};
const SLOW_SYNC: CallsFail = CallsFail {
    what: "fdatasync,fsync:delay_enter=200000",
};

/// Going on after a failed call would be to promise what is not on disk: the node has to end, and say why.
const fn fails(name: &'static str, calls: &'static CallsFail, whom: Whom) -> Scenario {
    Scenario::new(name, calls, whom, 5_000)
        .within(GONE_MS)
        .replacing()
        .ends(MustSay("Cure: check the disk"))
}

/// See the file's head.
pub const SCENARIOS: &[Scenario] = &[
    fails("sync-fails-north-master", &SYNC_FAILS, Whom::Master(NORTH)),
    fails("sync-fails-south-slave", &SYNC_FAILS, Whom::Slave(SOUTH)),
    fails("state-sync-fails-south-slave", &STATE_SYNC_FAILS, Whom::Slave(SOUTH)),
    fails("write-fails-north-master", &WRITES_FAIL, Whom::Master(NORTH)),
    Scenario::new("full-north-master", &Full, Whom::Master(NORTH), 2_000).may_stop(),
    Scenario::new("full-north", &Full, Whom::Group(NORTH), 2_000).may_stop(),
    // Long enough to see that the others' disks suffice for as long as it takes: nobody waits for the master's.
    Scenario::new("stalled-north-master", &Stalled, Whom::Master(NORTH), 16_000),
    Scenario::new("stalled-south-slave", &Stalled, Whom::Slave(SOUTH), 3_000),
    Scenario::new("slow-sync-north-master", &SLOW_SYNC, Whom::Master(NORTH), 3_000),
    Scenario::new(
        "slow-disk-south-master",
        &Slow {
            bytes_per_second: 500_000,
        },
        Whom::Master(SOUTH),
        2_000,
    )
    .may_stop(),
    Scenario::new("lost-disk-north-slave", &Lost, Whom::Slave(NORTH), 5_000).within(GONE_MS),
    Scenario::new("lost-disk-north-master", &Lost, Whom::Master(NORTH), 5_000)
        .within(GONE_MS)
        .replacing(),
];
