//! Memberships that change under load.

use crate::{
    NORTH, SOUTH,
    fault::Whom,
    faults::members::Replace,
    scenario::{GONE_MS, Scenario},
};

/// See the file's head.
pub const SCENARIOS: &[Scenario] = &[
    Scenario::new("replace-north-slave", &Replace, Whom::Slave(NORTH), 0).within(GONE_MS),
    Scenario::new("replace-south-master", &Replace, Whom::Master(SOUTH), 0).within(GONE_MS),
];
