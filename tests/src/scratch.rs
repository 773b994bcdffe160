//! A directory for one test: removed when it passed, kept when it failed.

use std::{
    path::{Path, PathBuf},
    thread,
};

/// See the module.
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
}

impl Scratch {
    /// Makes a new directory below the system's one for temporary files.
    ///
    /// # Panics
    /// Where it cannot be made.
    pub fn new(name: &str) -> Self {
        let made = tempfile::Builder::new().prefix(&format!("ferrymq-{name}-")).tempdir();
        Self {
            path: made.expect("a temporary directory can be made").keep(),
        }
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if thread::panicking() {
            println!("kept for you: {}", self.path.display());
        } else {
            // What cannot be removed is only left over.
            let _ = std::fs::remove_dir_all(&self.path);
        }
    }
}
