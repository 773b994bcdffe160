//! Power that goes (P2). `kill -9` cannot show this: what was written survives it in the page cache.

use crate::{
    NORTH, SOUTH,
    fault::Whom,
    faults::power::{PowerCut, PowerCutBesidesAFrozenOne},
    scenario::Scenario,
};

/// See the file's head.
pub const SCENARIOS: &[Scenario] = &[
    Scenario::new("power-north-master", &PowerCut, Whom::Master(NORTH), 1_500),
    Scenario::new("power-south-master", &PowerCut, Whom::Master(SOUTH), 1_500),
    Scenario::new("power-north-slave", &PowerCut, Whom::Slave(NORTH), 1_000),
    Scenario::new("power-north-majority", &PowerCut, Whom::MasterAndSlave(NORTH), 1_000).may_stop(),
    Scenario::new("power-both-masters", &PowerCut, Whom::Masters, 1_500),
    Scenario::new("power-south", &PowerCut, Whom::Group(SOUTH), 500).may_stop(),
    Scenario::new("power-everyone", &PowerCut, Whom::Everyone, 500).may_stop(),
    Scenario::new(
        "power-beside-a-frozen-one",
        &PowerCutBesidesAFrozenOne,
        Whom::MasterAndSlave(NORTH),
        1_500,
    )
    .may_stop(),
];
