//! A network of machines on this one, whose cables can be cut: a network namespace for each node, on a bridge that the
//! test itself is connected to, too.
//!
//! A cut is one-way and silent, as a broken switch is: what is sent goes to a station that is not there. Needs root and
//! `ip` (iproute2).

use std::{
    fs::{self, File},
    net::Ipv4Addr,
    process::Command,
};

/// See the module. Dropped, it is taken down.
#[derive(Debug)]
pub struct Net {
    /// Begins every name that this network has in the kernel.
    tag: String,
    third: u8,
    machines: usize,
    /// Locked; the lock goes with the process, whatever becomes of it.
    _lock: File,
}

/// Machines that a killed test may have left over.
const MACHINES_MAX: usize = 7;
/// The hardware address of nobody.
const NOBODY: &str = "02:00:00:00:00:fe";

impl Net {
    /// Why this machine cannot have such networks, or `None`.
    pub fn missing() -> Option<String> {
        if !rustix::process::geteuid().is_root() {
            return Some("needs root, to make networks".into());
        }
        Self::try_new(1).err()
    }

    /// Machines 0 and up, each with an address.
    ///
    /// # Panics
    /// Where it cannot be made; ask [`Net::missing`] before.
    pub fn new(machines: usize) -> Self {
        Self::try_new(machines).unwrap_or_else(|why| panic!("no network: {why}"))
    }

    fn try_new(machines: usize) -> Result<Self, String> {
        let dir = std::env::temp_dir().join("ferrymq-test-nets");
        fs::create_dir_all(&dir).map_err(|error| error.to_string())?;
        let taken = ip("-o addr")?;
        let free = (1..=250).find_map(|third: u8| {
            let lock = File::create(dir.join(third.to_string())).ok()?;
            lock.try_lock().ok()?;
            // Names of interfaces have at most 15 bytes.
            let net = Self {
                tag: format!("fq{third}"),
                third,
                machines,
                _lock: lock,
            };
            // What a killed test has left over would be in the way.
            net.down();
            let ours = taken.lines().filter(|line| line.contains(&format!(" 10.77.{third}.")));
            ours.clone().all(|line| line.contains(&net.tag)).then_some(net)
        });
        let net = free.ok_or("all networks of 10.77.0.0/16 are taken")?;
        net.up()?;
        Ok(net)
    }

    fn up(&self) -> Result<(), String> {
        let (tag, third) = (&self.tag, self.third);
        ip(&format!("link add {tag}b type bridge"))?;
        ip(&format!("addr add 10.77.{third}.254/24 dev {tag}b"))?;
        ip(&format!("link set {tag}b up"))?;
        for at in 0..self.machines {
            let (space, address) = (self.namespace(at), self.address(at));
            ip(&format!("netns add {space}"))?;
            ip(&format!("link add {tag}v{at} type veth peer name eth0 netns {space}"))?;
            ip(&format!("link set {tag}v{at} master {tag}b up"))?;
            ip(&format!("-n {space} addr add {address}/24 dev eth0"))?;
            ip(&format!("-n {space} link set eth0 up"))?;
            ip(&format!("-n {space} link set lo up"))?;
            ip(&format!("-n {space} route add 224.0.0.0/4 dev eth0"))?;
        }
        Ok(())
    }

    fn down(&self) {
        // What is not there cannot be removed.
        for at in 0..self.machines.max(MACHINES_MAX) {
            // Nobody waits for the processes of a test that was killed.
            for pid in ip(&format!("netns pids {}", self.namespace(at)))
                .unwrap_or_default()
                .lines()
            {
                let pid = pid.trim().parse().ok().and_then(rustix::process::Pid::from_raw);
                let _ = pid.map(|pid| rustix::process::kill_process(pid, rustix::process::Signal::KILL));
            }
            // A namespace takes its interfaces along, but only some time later.
            let _ = ip(&format!("link del {}v{at}", self.tag));
            let _ = ip(&format!("netns del {}", self.namespace(at)));
        }
        let _ = ip(&format!("link del {}b", self.tag));
    }

    /// The namespace that a machine's processes run in.
    pub fn namespace(&self, machine: usize) -> String {
        format!("{}m{machine}", self.tag)
    }

    /// A machine's address.
    pub fn address(&self, machine: usize) -> Ipv4Addr {
        Ipv4Addr::new(10, 77, self.third, machine as u8 + 1)
    }

    /// Runs a program on a machine; what it has said.
    ///
    /// # Errors
    /// Where it cannot be run there, or fails.
    pub fn run(&self, machine: usize, program: &str, args: &[&str]) -> Result<String, String> {
        let output = Command::new("ip")
            .args(["netns", "exec", &self.namespace(machine), program])
            .args(args)
            .output()
            .map_err(|error| format!("ip: {error}"))?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        Err(format!("{program} {args:?}: {said}"))
    }

    /// How many machines there are.
    pub fn machines(&self) -> usize {
        self.machines
    }

    /// From here on, nothing that `from` sends reaches `to`.
    ///
    /// # Panics
    /// Where the kernel refuses.
    #[track_caller]
    pub fn cut(&self, from: usize, to: usize) {
        let (space, address) = (self.namespace(from), self.address(to));
        ip(&format!(
            "-n {space} neigh replace {address} lladdr {NOBODY} dev eth0 nud permanent"
        ))
        .expect("a cut");
    }

    /// Nothing gets from one side to the other, either way. Whoever is on no side is reached by all.
    #[track_caller]
    pub fn part(&self, one: &[usize], other: &[usize]) {
        for &a in one {
            for &b in other {
                self.cut(a, b);
                self.cut(b, a);
            }
        }
    }

    /// Mends all cuts.
    ///
    /// # Panics
    /// Where the kernel refuses.
    #[track_caller]
    pub fn heal(&self) {
        for at in 0..self.machines {
            ip(&format!("-n {} neigh flush dev eth0 nud permanent", self.namespace(at))).expect("mending");
        }
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        self.down();
    }
}

fn ip(args: &str) -> Result<String, String> {
    let output = Command::new("ip")
        .args(args.split(' '))
        .output()
        .map_err(|error| format!("ip: {error}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(format!("ip {args}: {}", String::from_utf8_lossy(&output.stderr).trim()))
}
