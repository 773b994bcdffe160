//! One node: its files and, while it runs, its process.

use std::{
    fs::{self, File, OpenOptions},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::Duration,
};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};
use serde_json::Value;

use crate::{binary, config::NodePorts, http, wait_for, wait_until};

/// How long a node may take to start or to stop. It takes a fraction of a second; the rest is for a loaded machine.
pub const START_MAX: Duration = Duration::from_secs(30);

/// See the module. Dropped, it is killed.
#[derive(Debug)]
pub struct NodeProcess {
    /// `north1`.
    pub name: String,
    /// Where it listens.
    pub ports: NodePorts,
    config: PathBuf,
    data: PathBuf,
    log: PathBuf,
    environment: Vec<(String, String)>,
    /// Who asks its admin port.
    user: Option<(String, String)>,
    open_files_max: Option<u64>,
    /// The network namespace that it runs in, if any.
    pub(crate) namespace: Option<String>,
    child: Option<Child>,
}

impl NodeProcess {
    /// Writes the node's configuration below `dir`; starts nothing.
    ///
    /// # Panics
    /// Where the file cannot be written.
    pub fn new(name: &str, dir: &Path, data: &Path, ports: NodePorts, config_text: &str) -> Self {
        let config = dir.join(format!("{name}.toml"));
        fs::write(&config, config_text).expect("a configuration can be written");
        let log = dir.join(format!("{name}.log"));
        Self {
            name: name.to_owned(),
            ports,
            config,
            data: data.to_owned(),
            log,
            environment: Vec::new(),
            user: None,
            open_files_max: None,
            namespace: None,
            child: None,
        }
    }

    /// The data directory.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// The configuration file.
    pub fn config(&self) -> &Path {
        &self.config
    }

    /// Everything that the node has logged, in all its lives.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Sets an environment variable for the next starts.
    pub fn set_environment(&mut self, name: &str, value: &str) {
        self.environment.push((name.to_owned(), value.to_owned()));
    }

    /// From here on, its admin port is asked by this user.
    pub fn log_in(&mut self, name: &str, password: &str) {
        self.user = Some((name.to_owned(), password.to_owned()));
    }

    /// The next starts get no variables but those of the test itself.
    pub fn clear_environment(&mut self) {
        self.environment.clear();
    }

    /// The next starts have so many file descriptors.
    pub fn set_open_files_max(&mut self, files: u64) {
        self.open_files_max = Some(files);
    }

    /// The process's number while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Starts the process and waits until it answers at its admin port.
    ///
    /// # Panics
    /// Where it ends or does not answer.
    #[track_caller]
    pub fn start(&mut self) {
        self.spawn();
        let name = self.name.clone();
        wait_until(&format!("{name} answers at its admin port"), START_MAX, || {
            self.assert_alive();
            http::get_at(self.ports.admin_address(), "/api/health").is_ok()
        });
    }

    /// Starts the process and waits for nothing.
    ///
    /// # Panics
    /// Where it runs already or cannot be started.
    #[track_caller]
    pub fn spawn(&mut self) {
        assert!(self.child.is_none(), "{} runs already", self.name);
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.log)
            .expect("a log can be written");
        let also: File = log.try_clone().expect("a file handle can be doubled");
        let mut command = match &self.namespace {
            None => match self.open_files_max {
                None => Command::new(binary::ferrymq()),
                Some(files) => {
                    // The shell becomes the program, so the process is the same.
                    let mut command = Command::new("sh");
                    command
                        .arg("-c")
                        .arg(format!("ulimit -n {files} && exec \"$0\" \"$@\""))
                        .arg(binary::ferrymq());
                    command
                }
            },
            Some(namespace) => {
                // It becomes the program, so the process is the same. Unlike `ip netns exec` it takes no copy of all
                // mounts with it, which would hold a disk whose power was cut.
                let mut command = Command::new("nsenter");
                command
                    .arg(format!("--net=/run/netns/{namespace}"))
                    .arg(binary::ferrymq());
                command
            }
        };
        let child = command
            .args(["serve", "--config"])
            .arg(&self.config)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(also)
            .stderr(log)
            .spawn();
        self.child = Some(child.expect("the program can be started"));
    }

    /// True between start and end.
    pub fn is_running(&self) -> bool {
        self.child.is_some()
    }

    /// That it has not ended by itself.
    ///
    /// # Panics
    /// With its log, where it has.
    #[track_caller]
    pub fn assert_alive(&self) {
        let Some(child) = &self.child else { return };
        // It stays to be waited for.
        let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        let ended = waitid(WaitId::Pid(Pid::from_child(child)), look);
        assert!(
            matches!(ended, Ok(None)),
            "{} has ended by itself:\n{}",
            self.name,
            self.log()
        );
    }

    /// `kill -9`, and waits until it is gone.
    ///
    /// # Panics
    /// Where it does not run.
    #[track_caller]
    pub fn kill(&mut self) {
        let mut child = self
            .child
            .take()
            .unwrap_or_else(|| panic!("{} does not run", self.name));
        child.kill().expect("an own child can be killed");
        child.wait().expect("an own child can be waited for");
    }

    /// Asks it to stop (SIGTERM) and waits for its end.
    ///
    /// # Panics
    /// Where it does not run or does not stop.
    #[track_caller]
    pub fn stop(&mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.wait_for_end(START_MAX)
    }

    /// Freezes it (SIGSTOP): it holds its sockets and says nothing.
    ///
    /// # Panics
    /// Where it does not run.
    #[track_caller]
    pub fn pause(&self) {
        self.signal(Signal::STOP);
    }

    /// Lets it go on after [`NodeProcess::pause`].
    ///
    /// # Panics
    /// Where it does not run.
    #[track_caller]
    pub fn go_on(&self) {
        self.signal(Signal::CONT);
    }

    /// Tells it that its terminal is gone, or that it shall read its configuration anew (SIGHUP).
    ///
    /// # Panics
    /// Where it does not run.
    #[track_caller]
    pub fn hang_up(&self) {
        self.signal(Signal::HUP);
    }

    #[track_caller]
    fn signal(&self, signal: Signal) {
        let child = self
            .child
            .as_ref()
            .unwrap_or_else(|| panic!("{} does not run", self.name));
        kill_process(Pid::from_child(child), signal).expect("an own child can be signalled");
    }

    /// Waits until the process ends by itself.
    ///
    /// # Panics
    /// Where it does not run, or past the deadline.
    #[track_caller]
    pub fn wait_for_end(&mut self, deadline: Duration) -> ExitStatus {
        let mut child = self
            .child
            .take()
            .unwrap_or_else(|| panic!("{} does not run", self.name));
        let (status, _) = wait_for(&format!("{} ends", self.name), deadline, || {
            child.try_wait().expect("an own child can be waited for")
        });
        status
    }

    /// How the process has ended, if it has by itself; it can then be started again.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        let status = self
            .child
            .as_mut()?
            .try_wait()
            .expect("an own child can be waited for")?;
        self.child = None;
        Some(status)
    }

    /// Removes all that the node has stored, as if it got a new disk.
    ///
    /// # Panics
    /// Where it runs.
    #[track_caller]
    pub fn wipe(&self) {
        assert!(self.child.is_none(), "{} runs", self.name);
        // The directory itself may be a mount.
        for entry in fs::read_dir(&self.data).expect("the data directory is there").flatten() {
            let path = entry.path();
            let removed = if path.is_dir() {
                fs::remove_dir_all(&path)
            } else {
                fs::remove_file(&path)
            };
            removed.expect("own files can be removed");
        }
    }

    /// `GET /api/status`; none where the node does not answer.
    pub fn status(&self) -> Option<Value> {
        let user = self.user.as_ref().map(|(name, password)| (&**name, &**password));
        http::request_as(self.ports.admin_address(), "GET", "/api/status", "", user)
            .ok()
            .map(|(_, status)| status)
    }

    /// The code of `GET /api/health`; none where the node does not answer.
    pub fn health(&self) -> Option<u16> {
        http::get_at(self.ports.admin_address(), "/api/health")
            .ok()
            .map(|(code, _)| code)
    }

    /// Whether it is its group's master and may act as such.
    pub fn is_master(&self) -> bool {
        self.is_running()
            && self
                .status()
                .is_some_and(|s| s["group"]["role"] == "master" && s["group"]["lease_valid"] == true)
    }

    /// Address for STOMP clients.
    pub fn address(&self) -> String {
        format!("{}:{}", self.ports.host, self.ports.stomp)
    }
}

impl Drop for NodeProcess {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
        let log = self.log();
        if thread::panicking() {
            let lines: Vec<&str> = log.lines().collect();
            println!("---- {}, the last lines of its log", self.name);
            println!("{}", lines[lines.len().saturating_sub(LINES_SHOWN)..].join("\n"));
        } else {
            // A panic that no client noticed is a defect all the same.
            assert!(!log.contains("panicked at"), "{} has panicked:\n{log}", self.name);
        }
    }
}

/// Lines of each log shown for a test that failed.
const LINES_SHOWN: usize = 25;
