//! A file system whose power can be cut: what was not synced is gone, as `kill -9` alone can never show, because the
//! page cache survives it.
//!
//! ext4 on a loop device over a file; `EXT4_IOC_SHUTDOWN` without a flush of its log stops the file system as it stands.
//! Needs root, losetup, mkfs.ext4 and python3 (for the ioctl).

use std::{
    path::{Path, PathBuf},
    process::Command,
    thread,
};

/// See the module. Dropped, it is unmounted.
#[derive(Debug)]
pub struct PowerDisk {
    mount: PathBuf,
    device: String,
}

impl PowerDisk {
    /// Why this machine has no such disks, or `None`.
    pub fn missing() -> Option<String> {
        if !rustix::process::geteuid().is_root() {
            return Some("needs root, to mount file systems".into());
        }
        for program in ["losetup", "mkfs.ext4", "mount", "python3"] {
            if Command::new(program).arg("--version").output().is_err()
                && Command::new(program).arg("-V").output().is_err()
            {
                return Some(format!("needs {program}"));
            }
        }
        let dir = tempfile::tempdir().expect("a temporary directory can be made");
        match Self::try_new(dir.path(), "probe", 16) {
            Ok(_) => None,
            Err(why) => Some(format!("cannot mount a loop device here: {why}")),
        }
    }

    /// A new, empty disk of `size_mb`, mounted at `DIR/NAME`.
    ///
    /// # Panics
    /// Where it cannot be made; ask [`PowerDisk::missing`] before.
    pub fn new(dir: &Path, name: &str, size_mb: u64) -> Self {
        Self::try_new(dir, name, size_mb).unwrap_or_else(|why| panic!("no disk: {why}"))
    }

    fn try_new(dir: &Path, name: &str, size_mb: u64) -> Result<Self, String> {
        let image = dir.join(format!("{name}.img"));
        let mount = dir.join(name);
        std::fs::create_dir_all(&mount).map_err(|error| error.to_string())?;
        let file = std::fs::File::create(&image).map_err(|error| error.to_string())?;
        file.set_len(size_mb << 20).map_err(|error| error.to_string())?;
        let image_text = image.display().to_string();
        run(
            "mkfs.ext4",
            &["-q", "-m", "0", "-E", "lazy_itable_init=0,nodiscard", &image_text],
        )?;
        let device = run("losetup", &["-f", "--show", &image_text])?.trim().to_owned();
        let disk = Self { mount, device };
        disk.try_mount()?;
        Ok(disk)
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.mount
    }

    /// Bytes that were written to the device since it was made, those of the file system itself included
    /// (`/sys/block/loopN/stat`, "write sectors" of 512 bytes each).
    ///
    /// # Panics
    /// Where the kernel does not tell.
    pub fn bytes_written(&self) -> u64 {
        let name = self.device.trim_start_matches("/dev/");
        let stat = std::fs::read_to_string(format!("/sys/block/{name}/stat")).expect("a loop device has a stat file");
        let sectors: Option<u64> = stat.split_whitespace().nth(6).and_then(|field| field.parse().ok());
        sectors.expect("the seventh field is a number") * 512
    }

    /// Cuts the power: from here on nothing reaches the disk, and what was not synced never will.
    ///
    /// Processes that write there have to be stopped before (`NodeProcess::pause`), and killed after: a sync that is under way
    /// at this moment may return as if all were well. (Where the end of a write has still to mark blocks as written, ext4
    /// finds its journal aborted, drops that without an error, and the sync has nothing to wait for.) With real power nobody
    /// would be left to be told.
    ///
    /// # Panics
    /// Where the kernel refuses.
    #[track_caller]
    pub fn cut_power(&self) {
        // EXT4_IOC_SHUTDOWN = _IOR('X', 125, __u32); 2 = EXT4_GOING_FLAGS_NOLOGFLUSH.
        let script = "import fcntl,os,struct,sys; \
                      fcntl.ioctl(os.open(sys.argv[1], os.O_RDONLY), 0x8004587d, struct.pack('I', 2))";
        run("python3", &["-c", script, &self.mount.display().to_string()]).expect("power can be cut");
    }

    /// Gives the power back: the file system is mounted anew and recovers by its journal. No process may have a file
    /// open there.
    ///
    /// # Panics
    /// Where it cannot be mounted.
    #[track_caller]
    pub fn restore_power(&self) {
        run("umount", &[&self.mount.display().to_string()]).expect("nobody uses the disk");
        self.try_mount().expect("ext4 recovers");
    }

    /// From here on, whoever writes or syncs waits; reads go on.
    ///
    /// # Panics
    /// Where it cannot be frozen.
    #[track_caller]
    pub fn stall(&self) {
        run("fsfreeze", &["-f", &self.mount.display().to_string()]).expect("a file system can be frozen");
    }

    /// Writes go on after [`PowerDisk::stall`].
    pub fn unstall(&self) {
        // Where it is not frozen, nothing is to be done.
        let _ = run("fsfreeze", &["-u", &self.mount.display().to_string()]);
    }

    /// The block device, `/dev/loopN`.
    pub fn device(&self) -> &str {
        &self.device
    }

    fn try_mount(&self) -> Result<(), String> {
        run(
            "mount",
            &[
                "-t",
                "ext4",
                "-o",
                "errors=continue",
                &self.device,
                &self.mount.display().to_string(),
            ],
        )?;
        Ok(())
    }
}

impl Drop for PowerDisk {
    fn drop(&mut self) {
        self.unstall();
        for result in [
            run("umount", &[&self.mount.display().to_string()]),
            run("losetup", &["-d", &self.device]),
        ] {
            if let (Err(why), false) = (result, thread::panicking()) {
                println!("left over: {} on {}: {why}", self.mount.display(), self.device);
            }
        }
    }
}

fn run(program: &str, args: &[&str]) -> Result<String, String> {
    let output = Command::new(program)
        .args(args)
        .output()
        .map_err(|error| format!("{program}: {error}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(format!(
        "{program} {args:?}: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    ))
}
