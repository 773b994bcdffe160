//! A process's memory as the kernel counts it: now, and the most since it was asked to begin anew.

use std::fs;

/// Resident memory now, in bytes.
pub(crate) fn resident(pid: u32) -> u64 {
    kib(pid, "VmRSS:")
}

/// The most resident memory since [`begin_peak`], in bytes.
pub(crate) fn peak(pid: u32) -> u64 {
    kib(pid, "VmHWM:")
}

/// Forgets the peak so far (proc_pid_clear_refs(5)).
pub(crate) fn begin_peak(pid: u32) {
    fs::write(format!("/proc/{pid}/clear_refs"), "5").expect("an own child's peak can be forgotten");
}

fn kib(pid: u32, name: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the process runs");
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix(name))
        .expect("Linux counts it");
    line.trim().strip_suffix("kB").unwrap().trim().parse::<u64>().unwrap() * 1024
}
