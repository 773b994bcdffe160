//! Processes that get too little memory or processor time.

use std::fs;

use crate::{
    fault::{Fault, Mend},
    field::Field,
    toolbox::ControlGroup,
};

/// No more memory than the process has now, and so many bytes; the kernel kills it where that does not do.
pub struct Memory {
    /// Beyond what it has.
    pub more_bytes: u64,
}

impl Fault for Memory {
    fn missing(&self) -> Option<String> {
        ControlGroup::missing("memory")
    }

    fn strike(&self, field: &mut Field, on: &[usize]) -> Mend {
        let pids = on.iter().filter_map(|node| field.node(*node).pid());
        let groups: Vec<ControlGroup> = pids
            .map(|pid| {
                // Pages that it has already stay charged to the root, so this is what it may still get.
                let limit = self.more_bytes.to_string();
                ControlGroup::of("memory", pid, &[("memory.limit_in_bytes", limit)])
            })
            .collect();
        Box::new(move |field| {
            drop(groups);
            field.supervise();
            field.revive();
        })
    }
}

/// So much of one processor.
pub struct Processor {
    /// Of one processor.
    pub percent: u32,
}

const PERIOD_MICROS: u32 = 100_000;

impl Fault for Processor {
    fn missing(&self) -> Option<String> {
        let missing = ControlGroup::missing("cpu");
        let has_quota = fs::exists("/sys/fs/cgroup/cpu/cpu.cfs_quota_us").unwrap_or(false);
        missing.or_else(|| (!has_quota).then(|| "the control group of processors has no quota".into()))
    }

    fn strike(&self, field: &mut Field, on: &[usize]) -> Mend {
        let pids = on.iter().filter_map(|node| field.node(*node).pid());
        let groups: Vec<ControlGroup> = pids
            .map(|pid| {
                let quota = self.percent * PERIOD_MICROS / 100;
                let settings = [
                    ("cpu.cfs_period_us", PERIOD_MICROS.to_string()),
                    ("cpu.cfs_quota_us", quota.to_string()),
                ];
                ControlGroup::of("cpu", pid, &settings)
            })
            .collect();
        Box::new(move |_| drop(groups))
    }
}
