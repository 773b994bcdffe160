//! Wall clocks that are wrong: a library that is loaded before the system's adds what a file says, at any time.

use std::{
    fs::{self, OpenOptions},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{NodeProcess, skip};

/// The wall clock of one node.
#[derive(Debug)]
pub struct SkewedClock {
    library: PathBuf,
    file: PathBuf,
}

impl SkewedClock {
    /// A clock that is right at first, with its files in `dir`; none where there is no C compiler, which is told as a
    /// skipped test.
    ///
    /// # Panics
    /// Where the files cannot be written.
    #[track_caller]
    pub fn new(test: &str, dir: &Path, name: &str) -> Option<Self> {
        let (source, library) = (dir.join(format!("{name}-skew.c")), dir.join(format!("{name}-skew.so")));
        fs::write(&source, include_str!("../chaos/src/faults/skew.c")).expect("a source can be written");
        let built = Command::new("cc")
            .args(["-shared", "-fPIC", "-O2", "-o"])
            .args([&library, &source])
            .arg("-ldl")
            .status();
        if !built.is_ok_and(|status| status.success()) {
            skip::skipped(test, "there is no C compiler");
            return None;
        }
        let clock = Self {
            library,
            file: dir.join(format!("{name}-skew")),
        };
        clock.set(0);
        Some(clock)
    }

    /// The node's next starts are by this clock.
    pub fn wind(&self, node: &mut NodeProcess) {
        node.set_environment("LD_PRELOAD", &self.library.display().to_string());
        node.set_environment("SKEW_FILE", &self.file.display().to_string());
    }

    /// From now on it is so many seconds ahead; behind, where that is negative.
    ///
    /// # Panics
    /// Where the file cannot be written.
    #[track_caller]
    pub fn set(&self, seconds: i64) {
        // In place: the file is mapped.
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&self.file);
        file.and_then(|file| file.write_all_at(&seconds.to_le_bytes(), 0))
            .expect("a clock can be set");
    }
}
