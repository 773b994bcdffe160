//! The spoke at the end of the line, a group of one: away for long, put back to an older copy, lost for good (P2, P4).

use crate::{
    EAST,
    fault::Whom,
    faults::{
        away::Away,
        older::{Forget, Rebuild, Restore},
        processes::{Kill, RollingRestart},
    },
    scenario::Scenario,
};

const REBUILD: Rebuild = Rebuild { forget: Forget::Before };
const REBUILD_FIRST: Rebuild = Rebuild { forget: Forget::After };

/// See the file's head.
pub const SCENARIOS: &[Scenario] = &[
    Scenario::new("kill-east", &Kill, Whom::Group(EAST), 3_000).may_stop(),
    Scenario::new("restart-east", &RollingRestart, Whom::Group(EAST), 0).may_stop(),
    // With what the strike itself takes: away for more than 65 s.
    Scenario::new("away-east", &Away, Whom::EastAndHub, 60_000).may_stop(),
    Scenario::new("restore-east", &Restore, Whom::Group(EAST), 3_000)
        .may_stop()
        .alone(),
    Scenario::new("rebuild-east", &REBUILD, Whom::Group(EAST), 3_000)
        .may_stop()
        .alone(),
    Scenario::new("rebuild-east-then-forget", &REBUILD_FIRST, Whom::Group(EAST), 3_000)
        .may_stop()
        .alone(),
];
