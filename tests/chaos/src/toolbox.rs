//! Programs of the system that faults are made with, and processes that end with whoever holds them.

use std::{
    env,
    path::Path,
    process::{Child, Command, Stdio},
};

/// Why one of these programs cannot be had, or `None`.
pub fn missing(programs: &[&str]) -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("needs root".into());
    }
    let path = env::var_os("PATH").unwrap_or_default();
    let has = |program: &&&str| !env::split_paths(&path).any(|dir| dir.join(program).is_file());
    programs.iter().find(has).map(|program| format!("needs {program}"))
}

/// Runs a program; what it has said.
///
/// # Panics
/// Where it fails.
#[track_caller]
pub fn run(program: &str, args: &[&str]) -> String {
    try_run(program, args).unwrap_or_else(|why| panic!("{why}"))
}

/// As [`run`].
///
/// # Errors
/// Where it fails.
pub fn try_run(program: &str, args: &[&str]) -> Result<String, String> {
    let output = Command::new(program)
        .args(args)
        .output()
        .map_err(|error| format!("{program}: {error}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(format!("{program} {args:?}: {said}"))
}

/// A process that is ended when this is dropped.
#[derive(Debug)]
pub struct Tool(Child);

impl Tool {
    /// Starts it.
    ///
    /// # Panics
    /// Where it cannot be started.
    #[track_caller]
    pub fn start(program: &Path, args: &[&str]) -> Self {
        let child = Command::new(program).args(args).stdin(Stdio::null()).spawn();
        Self(child.unwrap_or_else(|error| panic!("{}: {error}", program.display())))
    }

    /// Its number.
    pub fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Tool {
    fn drop(&mut self) {
        // strace, told to end, lets go of what it traces; killed, it does so too.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A control group of version 1 that is removed when this is dropped; its processes go back to the root.
#[derive(Debug)]
pub struct ControlGroup {
    path: std::path::PathBuf,
}

impl ControlGroup {
    /// Why this machine has no such controller, or `None`.
    pub fn missing(controller: &str) -> Option<String> {
        let root = Path::new("/sys/fs/cgroup").join(controller);
        let probe = root.join(format!("ferrymq-probe-{}", std::process::id()));
        let made = std::fs::create_dir(&probe).and_then(|()| std::fs::remove_dir(&probe));
        made.err()
            .map(|error| format!("no control group of {controller}: {error}"))
    }

    /// A new one for this process, with settings `(file, value)`.
    ///
    /// # Panics
    /// Where it is refused; ask [`ControlGroup::missing`] before.
    #[track_caller]
    pub fn of(controller: &str, pid: u32, settings: &[(&str, String)]) -> Self {
        let name = format!("ferrymq-chaos-{}-{pid}", std::process::id());
        let path = Path::new("/sys/fs/cgroup").join(controller).join(name);
        std::fs::create_dir_all(&path).expect("a control group can be made");
        let group = Self { path };
        for (file, value) in settings {
            let written = std::fs::write(group.path.join(file), value);
            written.unwrap_or_else(|error| panic!("{file} = {value}: {error}"));
        }
        std::fs::write(group.path.join("cgroup.procs"), pid.to_string()).expect("a process can be moved");
        group
    }
}

impl Drop for ControlGroup {
    fn drop(&mut self) {
        let root = self.path.parent().unwrap_or(&self.path).join("cgroup.procs");
        for pid in std::fs::read_to_string(self.path.join("cgroup.procs"))
            .unwrap_or_default()
            .lines()
        {
            // It may have ended.
            let _ = std::fs::write(&root, pid);
        }
        let _ = std::fs::remove_dir(&self.path);
    }
}
