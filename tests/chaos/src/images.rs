//! The directory of the disks' images and mounts, and what killed runs have left of theirs.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
};

use tempfile::TempDir;

use crate::toolbox;

/// See the file's head. Dropped, it is removed.
#[derive(Debug)]
pub struct Images {
    dir: TempDir,
    /// Locked; the lock goes with the process, whatever becomes of it.
    _lock: File,
}

const PREFIX: &str = "ferrymq-chaos-disks-";
const LOCK: &str = "lock";

impl Images {
    /// A new one; in memory where there is room: a disk's power is cut above its image, so that nothing is lost by that,
    /// and others on this machine are not slowed down.
    ///
    /// # Panics
    /// Where it cannot be made.
    pub fn new() -> Self {
        let places = [PathBuf::from("/dev/shm"), std::env::temp_dir()];
        places.iter().for_each(|place| remove_left_over(place));
        let make = |place: &PathBuf| tempfile::Builder::new().prefix(PREFIX).tempdir_in(place).ok();
        let dir = places.iter().find_map(make).expect("a directory can be made");
        let lock = File::create(dir.path().join(LOCK)).expect("a lock file can be made");
        lock.lock().expect("nobody else has a new lock");
        Self { dir, _lock: lock }
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }
}

impl Default for Images {
    fn default() -> Self {
        Self::new()
    }
}

/// What `kill -9` has left: its lock is nobody's any more.
fn remove_left_over(place: &Path) {
    for entry in fs::read_dir(place).into_iter().flatten().flatten() {
        let dir = entry.path();
        let is_ours = entry.file_name().to_string_lossy().starts_with(PREFIX);
        let Ok(lock) = File::open(dir.join(LOCK)) else { continue };
        if !is_ours || lock.try_lock().is_err() {
            continue;
        }
        for image in fs::read_dir(&dir).into_iter().flatten().flatten() {
            let image = image.path();
            if image.extension().is_none_or(|ending| ending != "img") {
                continue;
            }
            // What is not mounted, or not frozen, needs nothing.
            let mount = image.with_extension("").display().to_string();
            let _ = toolbox::try_run("fsfreeze", &["-u", &mount]);
            let _ = toolbox::try_run("umount", &[&mount]);
            let devices = toolbox::try_run("losetup", &["-n", "-O", "NAME", "-j", &image.display().to_string()]);
            for device in devices.unwrap_or_default().lines() {
                let _ = toolbox::try_run("losetup", &["-d", device.trim()]);
            }
        }
        let _ = fs::remove_dir_all(&dir);
    }
}
