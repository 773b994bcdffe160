//! A spoke that is away for long while its hub changes (P2).

use std::time::Duration;

use crate::{
    SOUTH,
    fault::{Fault, Mend},
    faults::processes::step_down,
    field::Field,
};

/// The node of a group of one is stopped, and the hub's master is killed meanwhile, comes back, and its successor hands over.
/// What the spoke's durable subscribers and consumers are owed waits for them. It lasts longer than anything is remembered
/// that is not noted in a group's log.
pub struct Away;

/// Between what happens.
const PAUSE: Duration = Duration::from_secs(4);

impl Fault for Away {
    fn strike(&self, field: &mut Field, on: &[usize]) -> Mend {
        let spoke = on[0];
        field.keep_down(spoke);
        field.hold(PAUSE);
        let master = field.wait_master(SOUTH);
        field.keep_down(master);
        field.hold(PAUSE);
        field.wait_master(SOUTH);
        field.release(master);
        field.wait_group_well(SOUTH);
        // Refused while somebody is behind; it was changed once already.
        step_down(field, SOUTH, None);
        Box::new(move |field| field.release(spoke))
    }
}
