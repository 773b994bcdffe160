//! What this process costs its machine, as the kernel counts it.

use std::fs;

/// Processor time and memory; none where the system does not tell (only Linux does).
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Footprint {
    /// Time on processors since the start, of all threads, in user and kernel mode. To 0.01 s.
    pub(crate) cpu_seconds: Option<f64>,
    /// Memory that is held right now, in bytes.
    pub(crate) rss_bytes: Option<u64>,
    /// The most that was held at one time, in bytes.
    pub(crate) rss_peak_bytes: Option<u64>,
    /// File descriptors in use, and how many there may be.
    pub(crate) open_files: Option<u64>,
    pub(crate) open_files_max: Option<u64>,
}

/// `USER_HZ`: the unit of times in /proc/PID/stat, the same on every machine that Linux runs our builds on.
const TICKS_PER_SECOND: f64 = 100.0;

/// Has the system give memory in pages of the ordinary size. With huge ones an idle node takes half as much again, and a
/// message costs the same processor time (docs/PERFORMANCE.md). Where this is refused, things stay as they are.
pub(crate) fn prefer_small_pages() {
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::thread::disable_transparent_huge_pages(true) {
        tracing::debug!(%error, "huge pages stay as the system has them");
    }
}

impl Footprint {
    /// This process, now.
    pub(crate) fn now() -> Self {
        let status = fs::read_to_string("/proc/self/status").ok();
        Self {
            cpu_seconds: fs::read_to_string("/proc/self/stat")
                .ok()
                .as_deref()
                .and_then(cpu_seconds),
            rss_bytes: status.as_deref().and_then(|status| kib(status, "VmRSS:")),
            rss_peak_bytes: status.as_deref().and_then(|status| kib(status, "VmHWM:")),
            open_files: fs::read_dir("/proc/self/fd").ok().map(|files| files.count() as u64),
            open_files_max: crate::files::open_files_max(),
        }
    }
}

/// Fields 14 and 15, `utime` and `stime` (proc_pid_stat(5)). The second field, the program's name, may hold anything;
/// it ends with the last parenthesis.
fn cpu_seconds(stat: &str) -> Option<f64> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut times = rest.split_ascii_whitespace().skip(11);
    let (user, kernel): (u64, u64) = (times.next()?.parse().ok()?, times.next()?.parse().ok()?);
    Some((user + kernel) as f64 / TICKS_PER_SECOND)
}

fn kib(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_text_is_read_whatever_the_program_is_called() {
        let stat = "7 (a) b 1 (x) R 1 7 7 0 -1 4194304 100 0 0 0 250 50 0 0 20 0 9 0 5 1000 200 18446744073709551615";
        assert_eq!(cpu_seconds(stat), Some(3.0));
        assert_eq!(cpu_seconds("7 (a) R 1"), None);
        assert_eq!(
            kib("VmPeak:\t  20 kB\nVmRSS:\t    1234 kB\n", "VmRSS:"),
            Some(1234 * 1024)
        );
        assert_eq!(kib("Name: x", "VmRSS:"), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_very_process_has_a_footprint() {
        let footprint = Footprint::now();
        assert!(
            footprint.cpu_seconds.is_some() && footprint.rss_bytes > Some(100_000),
            "{footprint:?}"
        );
    }
}
