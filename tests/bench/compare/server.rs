//! One server process of a broker: started in a process group of its own, stopped and continued as a whole, and never
//! left behind, whatever ends the comparison.

use std::{
    fs::{self, File},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process_group};

/// See the module. Dropped, it is killed.
#[derive(Debug)]
pub(crate) struct Server {
    name: String,
    log: PathBuf,
    child: Child,
}

/// Lines of its log that are shown for a server that has ended.
const LINES_SHOWN: usize = 15;

impl Server {
    /// Starts `command`; what it says goes to `DIR/NAME.log`. The kernel kills it when this process ends, even by
    /// `kill -9`.
    ///
    /// # Errors
    /// Where it cannot be started.
    pub(crate) fn start(name: &str, dir: &Path, command: &Command) -> Result<Self> {
        let log = dir.join(format!("{name}.log"));
        let out = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        // It becomes the program, so the process is the same.
        let mut wrapped = Command::new("setpriv");
        wrapped.args(["--pdeathsig", "KILL", "--"]);
        wrapped.arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => wrapped.env(name, value),
                None => wrapped.env_remove(name),
            };
        }
        if let Some(dir) = command.get_current_dir() {
            wrapped.current_dir(dir);
        }
        wrapped.stdin(Stdio::null()).stdout(out.try_clone()?).stderr(out);
        wrapped.process_group(0);
        let child = wrapped
            .spawn()
            .with_context(|| format!("cannot start {name} (setpriv of util-linux is needed)"))?;
        Ok(Self {
            name: name.to_owned(),
            log,
            child,
        })
    }

    /// # Errors
    /// With the end of its log, where it has ended by itself.
    pub(crate) fn check_alive(&mut self) -> Result<()> {
        let Some(status) = self.child.try_wait()? else {
            return Ok(());
        };
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let last = lines[lines.len().saturating_sub(LINES_SHOWN)..].join("\n");
        bail!("{} has ended by itself ({status}):\n{last}", self.name)
    }

    /// Freezes it with all its processes, so that it costs no time while another broker is measured.
    pub(crate) fn pause(&self) -> Result<()> {
        self.signal(Signal::STOP)
    }

    /// Lets it go on.
    pub(crate) fn resume(&self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    /// Its process, for [`cpu_seconds_of`].
    pub(crate) fn pid(&self) -> String {
        self.child.id().to_string()
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        kill_process_group(Pid::from_child(&self.child), signal).with_context(|| format!("cannot signal {}", self.name))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Its group may have ended by itself.
        let _ = self.signal(Signal::KILL);
        let _ = self.child.wait();
    }
}

/// Processor time that a process, or this one by `self`, has used so far in user and in kernel mode, in seconds.
pub(crate) fn cpu_seconds_of(process: &str) -> Result<f64> {
    let path = format!("/proc/{process}/stat");
    let stat = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    // The second field, the name in brackets, may hold anything; utime and stime are the 14th and 15th.
    let ticks = stat.rsplit_once(')').and_then(|(_, fields)| {
        let mut fields = fields.split_whitespace().skip(11);
        let (user, system): (u64, u64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        Some(user + system)
    });
    let ticks = ticks.with_context(|| format!("{path} is not as expected"))?;
    Ok(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
}

/// Time of all processors together since the machine began, in seconds.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct MachineTime {
    pub(crate) busy: f64,
    pub(crate) total: f64,
}

impl MachineTime {
    pub(crate) fn now() -> Result<Self> {
        let stat = fs::read_to_string("/proc/stat")?;
        let fields = stat.lines().next().unwrap_or("").split_whitespace().skip(1);
        // user, nice, system, idle, waiting for disks, interrupts, soft interrupts, stolen by other machines; what
        // follows is in the first two already.
        let ticks: Vec<u64> = fields.take(8).map_while(|field| field.parse().ok()).collect();
        let &[_, _, _, idle, waiting, ..] = &ticks[..] else {
            bail!("/proc/stat is not as expected");
        };
        let total: u64 = ticks.iter().sum();
        let seconds = |ticks: u64| ticks as f64 / rustix::param::clock_ticks_per_second() as f64;
        Ok(Self {
            busy: seconds(total - idle - waiting),
            total: seconds(total),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_ends_is_told_with_its_log() {
        let dir = tempfile::tempdir().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "echo what went wrong; exit 3"]);
        let mut server = Server::start("s", dir.path(), &command).unwrap();
        server.child.wait().unwrap();
        let told = server.check_alive().unwrap_err().to_string();
        assert!(told.contains("what went wrong") && told.contains('3'), "{told}");
    }

    #[test]
    fn time_is_read_of_others_and_of_oneself() {
        assert!(cpu_seconds_of("self").unwrap() >= 0.0);
        assert!(cpu_seconds_of("1").unwrap() >= 0.0);
        let machine = MachineTime::now().unwrap();
        assert!(0.0 < machine.busy && machine.busy < machine.total);
    }
}
