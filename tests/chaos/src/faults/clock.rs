//! Clocks that jump or stand still: a library that is loaded before the system's adds what a file says (`skew.c`).

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use ferrymq_tests::{NodeProcess, Stomp, wait_until};

use crate::{
    fault::{Fault, Mend},
    field::Field,
    toolbox,
};

/// The clock of one node.
#[derive(Debug)]
pub struct SkewedClock {
    library: PathBuf,
    file: PathBuf,
    stood: Duration,
}

impl SkewedClock {
    /// Clocks for so many nodes, with their files in `dir`; none where there is no C compiler.
    pub fn for_all(dir: &Path, nodes: usize) -> Vec<Self> {
        let (source, library) = (dir.join("skew.c"), dir.join("skew.so"));
        if fs::write(&source, include_str!("skew.c")).is_err() {
            return Vec::new();
        }
        let (from, to) = (source.display().to_string(), library.display().to_string());
        if toolbox::try_run("cc", &["-shared", "-fPIC", "-O2", "-o", &to, &from, "-ldl"]).is_err() {
            return Vec::new();
        }
        let clocks = (0..nodes).map(|at| Self {
            library: library.clone(),
            file: dir.join(format!("skew-{at}")),
            stood: Duration::ZERO,
        });
        clocks
            .filter_map(|mut clock| {
                (clock.set(0).is_ok() && clock.stand_still(Duration::ZERO).is_ok()).then_some(clock)
            })
            .collect()
    }

    /// The node's next starts are by this clock.
    pub fn wind(&self, node: &mut NodeProcess) {
        node.set_environment("LD_PRELOAD", &self.library.display().to_string());
        node.set_environment("SKEW_FILE", &self.file.display().to_string());
    }

    fn set(&self, seconds: i64) -> std::io::Result<()> {
        self.write(0, seconds)
    }

    /// The clock that knows nothing of a suspended machine (`CLOCK_MONOTONIC`) has stood still for so long, unlike the one that
    /// does (`CLOCK_BOOTTIME`). To be told while the process is stopped, so that it never sees time go back.
    ///
    /// # Errors
    /// Where the file cannot be written.
    pub fn stand_still(&mut self, time: Duration) -> std::io::Result<()> {
        self.stood += time;
        self.write(8, i64::try_from(self.stood.as_nanos()).unwrap_or(i64::MAX))
    }

    fn write(&self, at: u64, number: i64) -> std::io::Result<()> {
        // In place: the file is mapped.
        let file = fs::OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&self.file)?;
        std::os::unix::fs::FileExt::write_all_at(&file, &number.to_le_bytes(), at)
    }
}

/// The wall clocks of the struck nodes jump, and jump back when it is mended.
pub struct ClockJump {
    /// Forwards, or backwards.
    pub seconds: i64,
}

impl Fault for ClockJump {
    fn missing(&self) -> Option<String> {
        toolbox::missing(&["cc"])
    }

    fn strike(&self, field: &mut Field, on: &[usize]) -> Mend {
        let on = on.to_vec();
        set(field, &on, self.seconds);
        for &node in &on {
            wait_shown(field, node, self.seconds);
        }
        Box::new(move |field| {
            set(field, &on, 0);
            for &node in &on {
                wait_shown(field, node, 0);
            }
        })
    }
}

/// How long a node may take to show its clock.
const SHOWN_MAX: Duration = Duration::from_secs(20);
/// How long a client is waited for that makes a node log something.
const CLIENT_MAX: Duration = Duration::from_millis(500);
/// How far from what it is to be a clock may be.
const WRONG_SECONDS_MAX: i64 = 120;

/// The node itself must show that its clock has moved: each line of its log begins with the time.
pub(super) fn wait_shown(field: &mut Field, node: usize, seconds: i64) {
    let begun = Instant::now();
    let mut wrong = None;
    wait_until("a node shows its clock", 2 * SHOWN_MAX, || {
        field.supervise();
        // A client that comes and goes makes it log.
        drop(Stomp::connect_within(&field.node(node).address(), &[], CLIENT_MAX));
        let log = field.node(node).log();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let shown = log.lines().rev().find_map(seconds_since_1970);
        wrong = shown.map(|shown| shown - (now.as_secs() as i64 + seconds));
        wrong.is_some_and(|wrong| wrong.abs() <= WRONG_SECONDS_MAX) || begun.elapsed() > SHOWN_MAX
    });
    if wrong.is_none_or(|wrong| wrong.abs() > WRONG_SECONDS_MAX) {
        let name = &field.node(node).name;
        field.breach(format!(
            "the clock of {name} was to jump by {seconds} s and is wrong by {wrong:?}"
        ));
    }
}

/// Of a line of a log: `2026-11-21T18:15:01.127552Z  INFO …`, in UTC.
fn seconds_since_1970(line: &str) -> Option<i64> {
    let (date, time) = line.split(' ').next()?.strip_suffix('Z')?.split_once('T')?;
    let numbers = |text: &str, between: char| -> Option<Vec<i64>> {
        text.split(between).map(|number| number.parse().ok()).collect()
    };
    let (date, time) = (numbers(date, '-')?, numbers(time.split('.').next()?, ':')?);
    let (&[year, month, day], &[hours, minutes, seconds]) = (&date[..], &time[..]) else {
        return None;
    };
    // Years begin with March here, so that a leap day is the last one.
    let (year, month) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1 - DAYS_BEFORE_1970;
    Some(((days * 24 + hours) * 60 + minutes) * 60 + seconds)
}

/// From the first of March of the year 0 to the first of January 1970.
const DAYS_BEFORE_1970: i64 = 719_468;

pub(super) fn set(field: &mut Field, on: &[usize], seconds: i64) {
    for &node in on {
        let set = field.clocks.get(node).map(|clock| clock.set(seconds));
        if !matches!(set, Some(Ok(()))) {
            field.breach(format!("the clock of node {node} cannot be set: {set:?}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_a_log_tells_the_time() {
        let at = seconds_since_1970;
        assert_eq!(at("1970-01-01T00:00:00.5Z  INFO ready"), Some(0));
        assert_eq!(at("2000-02-29T12:00:01Z x"), Some(951_825_601));
        assert_eq!(at("2026-11-21T18:15:01.127552Z  INFO a: b"), Some(1_795_284_901));
        assert_eq!(at("    of a message with several lines"), None);
        assert_eq!(at(""), None);
    }
}
