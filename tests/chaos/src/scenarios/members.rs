//! Memberships that change under load.

use crate::{
    NORTH, SOUTH,
    fault::Whom,
    faults::{
        members::{Mistyped, Replace},
        older::{PutBack, PutBackBesideABehindOne},
    },
    scenario::{GONE_MS, Scenario},
};

/// See the file's head.
pub const SCENARIOS: &[Scenario] = &[
    Scenario::new("replace-north-slave", &Replace, Whom::Slave(NORTH), 0).within(GONE_MS),
    Scenario::new("replace-south-master", &Replace, Whom::Master(SOUTH), 0).within(GONE_MS),
    Scenario::new("mistyped-member-of-north", &Mistyped, Whom::Slave(NORTH), 5_000).within(GONE_MS),
    Scenario::new("put-back-north-slave", &PutBack, Whom::Slave(NORTH), 5_000).within(GONE_MS),
    Scenario::new("put-back-north-master", &PutBack, Whom::Master(NORTH), 5_000).within(GONE_MS),
    Scenario::new(
        "put-back-beside-a-behind-one",
        &PutBackBesideABehindOne,
        Whom::MasterAndSlave(NORTH),
        4_000,
    )
    .may_stop(),
];
