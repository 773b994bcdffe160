//! Wall clocks that jump: a library that is loaded before the system's adds what a file says (`skew.c`).

use std::{
    fs,
    path::{Path, PathBuf},
};

use ferrymq_tests::NodeProcess;

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
        });
        clocks.filter(|clock| clock.set(0).is_ok()).collect()
    }

    /// The node's next starts are by this clock.
    pub fn wind(&self, node: &mut NodeProcess) {
        node.set_environment("LD_PRELOAD", &self.library.display().to_string());
        node.set_environment("SKEW_FILE", &self.file.display().to_string());
    }

    fn set(&self, seconds: i64) -> std::io::Result<()> {
        // In place: the file is mapped.
        let file = fs::OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&self.file)?;
        std::os::unix::fs::FileExt::write_all_at(&file, &seconds.to_le_bytes(), 0)
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
        Box::new(move |field| set(field, &on, 0))
    }
}

fn set(field: &mut Field, on: &[usize], seconds: i64) {
    for &node in on {
        let set = field.clocks.get(node).map(|clock| clock.set(seconds));
        if !matches!(set, Some(Ok(()))) {
            field.breach(format!("the clock of node {node} cannot be set: {set:?}"));
        }
    }
}
