//! Power that goes (P2). `kill -9` cannot show this: what was written survives it in the page cache.

use crate::{
    NORTH, SOUTH,
    fault::Whom,
    faults::power::{PowerCut, PowerCutBesidesAFrozenOne},
    scenario::{GONE_MS, Scenario},
};

/// A majority is left of each group.
const fn one(name: &'static str, whom: Whom) -> Scenario {
    Scenario::new(name, &PowerCut, whom, 5_000).within(GONE_MS).replacing()
}

/// See the file's head.
pub const SCENARIOS: &[Scenario] = &[
    one("power-north-master", Whom::Master(NORTH)),
    one("power-south-master", Whom::Master(SOUTH)),
    one("power-north-slave", Whom::Slave(NORTH)),
    Scenario::new("power-north-majority", &PowerCut, Whom::MasterAndSlave(NORTH), 1_000).may_stop(),
    one("power-both-masters", Whom::Masters),
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
