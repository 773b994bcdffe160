//! Disks that fail to sync or read, are full, hang, crawl or are lost.

use std::{
    fs::{self, File},
    path::Path,
    time::{Duration, Instant},
};

use ferrymq_tests::wait_until;

use crate::{
    fault::{Fault, Mend},
    faults::processes::{Injected, inject},
    field::Field,
    toolbox::{self, ControlGroup},
};

/// Calls of the struck nodes' processes fail, as those of a broken disk do. With `when=3` the third one fails and the
/// next ones succeed, as a sync after a failed sync does on Linux although the data is gone.
pub struct CallsFail {
    /// As `strace -e inject=` has it: `fdatasync,fsync:error=EIO:when=3`.
    pub what: &'static str,
}

impl Fault for CallsFail {
    fn missing(&self) -> Option<String> {
        toolbox::missing(&["strace"])
    }

    fn strike(&self, field: &mut Field, on: &[usize]) -> Mend {
        let tools = inject(field, on, self.what);
        // Nothing holds under a fault that never strikes.
        let begun = Instant::now();
        let mut struck = false;
        wait_until("a call goes wrong", 2 * STRIKE_MAX, || {
            field.supervise();
            struck = tools.iter().all(Injected::has_struck);
            struck || begun.elapsed() > STRIKE_MAX
        });
        if !struck {
            field.breach(format!("no call has gone wrong in {STRIKE_MAX:?}: {}", self.what));
        }
        Box::new(move |field| {
            drop(tools);
            field.supervise();
            field.revive();
        })
    }
}

/// How long it may take until a call that is to go wrong is made.
const STRIKE_MAX: Duration = Duration::from_secs(30);

/// Nothing more fits on the disk.
pub struct Full;

impl Fault for Full {
    fn missing(&self) -> Option<String> {
        toolbox::missing(&["fallocate", "df"])
    }

    fn strike(&self, field: &mut Field, on: &[usize]) -> Mend {
        let fillers: Vec<String> = on
            .iter()
            .map(|node| format!("{}/.fill", field.disks[*node].path().display()))
            .collect();
        for (&node, filler) in on.iter().zip(&fillers) {
            let disk = field.disks[node].path().display().to_string();
            let told = toolbox::run("df", &["--output=avail", "-B1", &disk]);
            let free: u64 = told
                .lines()
                .last()
                .and_then(|line| line.trim().parse().ok())
                .unwrap_or(0);
            // The node may take some of it meanwhile.
            let _ = toolbox::try_run(
                "fallocate",
                &["-l", &free.saturating_sub(64 * 1024).to_string(), filler],
            );
        }
        Box::new(move |_| {
            for filler in &fillers {
                // It is not there where not even that fitted.
                let _ = fs::remove_file(filler);
                // The next power cut would bring it back, and the disk would be full for good.
                let disk = Path::new(filler).parent().and_then(|disk| File::open(disk).ok());
                let _ = disk.map(|disk| disk.sync_all());
            }
        })
    }
}

/// Whoever writes or syncs waits, without an error.
pub struct Stalled;

/// Thaws even where a scenario fails: a process that waits for its disk cannot even be killed.
struct Thaw(Vec<String>);

impl Drop for Thaw {
    fn drop(&mut self) {
        for mount in &self.0 {
            // Not frozen, if its power was cut.
            let _ = toolbox::try_run("fsfreeze", &["-u", mount]);
        }
    }
}

impl Fault for Stalled {
    fn missing(&self) -> Option<String> {
        toolbox::missing(&["fsfreeze"])
    }

    fn strike(&self, field: &mut Field, on: &[usize]) -> Mend {
        let thaw = Thaw(
            on.iter()
                .map(|node| field.disks[*node].path().display().to_string())
                .collect(),
        );
        on.iter().for_each(|node| field.disks[*node].stall());
        Box::new(move |_| drop(thaw))
    }
}

/// The disk writes so many bytes a second.
pub struct Slow {
    /// Bytes a second.
    pub bytes_per_second: u64,
}

impl Fault for Slow {
    fn missing(&self) -> Option<String> {
        ControlGroup::missing("blkio")
    }

    fn strike(&self, field: &mut Field, on: &[usize]) -> Mend {
        let mut groups = Vec::new();
        for &node in on {
            let device = field.disks[node].device().trim_start_matches("/dev/");
            let number = fs::read_to_string(format!("/sys/block/{device}/dev")).unwrap_or_default();
            let Some(pid) = field.node(node).pid() else { continue };
            let limit = format!("{} {}", number.trim(), self.bytes_per_second);
            groups.push(ControlGroup::of(
                "blkio",
                pid,
                &[("blkio.throttle.write_bps_device", limit)],
            ));
        }
        Box::new(move |_| drop(groups))
    }
}

/// Everything that the node has stored is gone; it comes back with an empty disk.
pub struct Lost;

impl Fault for Lost {
    fn strike(&self, field: &mut Field, on: &[usize]) -> Mend {
        for &node in on {
            field.node_mut(node).kill();
            field.node(node).wipe();
            field.node_mut(node).spawn();
        }
        Box::new(|_| {})
    }
}
