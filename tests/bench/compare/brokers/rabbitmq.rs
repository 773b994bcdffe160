//! RabbitMQ: three nodes on this machine as a cluster, with quorum queues of three members.

use std::{
    cell::Cell,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use ferrymq_bench::Load;
use ferrymq_tests::ports::Ports;

use super::{Programs, destinations, probe::probe};
use crate::{
    drivers::{AmqpConnection, rabbitmq::RabbitDriver},
    server::Server,
};

const NODES: u32 = 3;

/// See the module.
#[derive(Debug)]
pub(crate) struct RabbitMq {
    pub(super) servers: Vec<Server>,
    addresses: Vec<String>,
    control: Control,
    is_checked: bool,
    _ports: Ports,
}

impl RabbitMq {
    pub(super) fn start(programs: &Programs, dir: &Path) -> Result<Self> {
        let control = Control {
            sbin: programs.rabbitmq_sbin.clone().context("RabbitMQ is not installed")?,
            erlang: programs.erlang_bin.clone().context("Erlang is not installed")?,
            home: dir.join("home"),
            epmd_port: 0,
        };
        let mut ports = Ports::take();
        let control = Control {
            epmd_port: ports.free(),
            ..control
        };
        fs::create_dir_all(&control.home)?;
        let cookie = control.home.join(".erlang.cookie");
        fs::write(&cookie, "COMPARE")?;
        fs::set_permissions(&cookie, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;

        // Nodes would start a daemon of their own, which would stay behind.
        let mut epmd = control.command("epmd");
        epmd.args(["-port", &control.epmd_port.to_string(), "-address", "127.0.0.1"]);
        let mut servers = vec![Server::start("epmd", dir, &epmd)?];
        let mut addresses = Vec::new();
        for node in 1..=NODES {
            let (port, distribution) = (ports.free(), ports.free());
            servers.push(start_node(&control, node, port, distribution, dir)?);
            addresses.push(format!("127.0.0.1:{port}"));
        }
        Ok(Self {
            servers,
            addresses,
            control,
            is_checked: false,
            _ports: ports,
        })
    }

    pub(super) fn driver(&self) -> RabbitDriver {
        RabbitDriver {
            addresses: self.addresses.clone(),
            senders: Cell::new(0),
            receivers: Cell::new(0),
        }
    }

    pub(super) async fn check_ready(&mut self) -> Result<()> {
        for address in &self.addresses {
            AmqpConnection::open(address).await?;
        }
        if !self.is_checked {
            self.control.check_cluster()?;
        }
        let mut connection = AmqpConnection::open(&self.addresses[0]).await?;
        connection.declare_quorum_queue("probe", NODES).await?;
        let driver = self.driver();
        probe(&driver, &driver, "probe").await?;
        if !self.is_checked {
            self.control.check_members("probe")?;
            self.is_checked = true;
        }
        connection.delete_queue("probe").await
    }

    /// Declares the queues at the first node, which so becomes their leader.
    pub(super) async fn prepare(&self, load: &Load) -> Result<()> {
        let mut connection = AmqpConnection::open(&self.addresses[0]).await?;
        for destination in destinations(load) {
            connection.declare_quorum_queue(&destination, NODES).await?;
        }
        Ok(())
    }

    pub(super) async fn clean(&self, load: &Load) -> Result<()> {
        let mut connection = AmqpConnection::open(&self.addresses[0]).await?;
        for destination in destinations(load) {
            connection.delete_queue(&destination).await?;
        }
        Ok(())
    }
}

fn start_node(control: &Control, node: u32, port: u16, distribution: u16, dir: &Path) -> Result<Server> {
    let own = dir.join(format!("node{node}"));
    fs::create_dir_all(&own)?;
    let mut config = format!(
        "listeners.tcp.1 = 127.0.0.1:{port}\ncluster_formation.peer_discovery_backend = classic_config\n\
         log.console = true\nlog.console.level = warning\nlog.file = false\n"
    );
    for other in 1..=NODES {
        config += &format!("cluster_formation.classic_config.nodes.{other} = r{other}@localhost\n");
    }
    let config_file = own.join("rabbitmq.conf");
    let plugins_file = own.join("enabled_plugins");
    fs::write(&config_file, config)?;
    fs::write(&plugins_file, "[].")?;
    let mut command = control.command_of(&control.sbin.join("rabbitmq-server"));
    command
        .env("RABBITMQ_NODENAME", format!("r{node}@localhost"))
        .env("RABBITMQ_DIST_PORT", distribution.to_string())
        .env("RABBITMQ_CONFIG_FILE", config_file)
        .env("RABBITMQ_ENABLED_PLUGINS_FILE", plugins_file)
        .env("RABBITMQ_MNESIA_BASE", own.join("mnesia"))
        .env("RABBITMQ_LOG_BASE", own.join("log"))
        // The script becomes the server instead of waiting for it.
        .env("RABBITMQ_ALLOW_INPUT", "1")
        .env("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", erlang_arguments());
    Server::start(&format!("rabbitmq{node}"), dir, &command)
}

/// As many schedulers as processors, as is Erlang's own choice. They do not wait busily, since three nodes and the load
/// share the processors; and a pause is no loss of a node.
fn erlang_arguments() -> String {
    let processors = std::thread::available_parallelism().map_or(2, usize::from);
    format!(
        "-noinput +S {processors}:{processors} +sbwt none +sbwtdcpu none +sbwtdio none -kernel net_ticktime 3600 \
         -kernel inet_dist_use_interface {{127,0,0,1}}"
    )
}

/// The environment in which Erlang's and RabbitMQ's programs find each other and nothing of the machine's own.
#[derive(Debug)]
struct Control {
    sbin: PathBuf,
    erlang: PathBuf,
    home: PathBuf,
    epmd_port: u16,
}

impl Control {
    fn command(&self, erlang_program: &str) -> Command {
        self.command_of(&self.erlang.join(erlang_program))
    }

    fn command_of(&self, program: &Path) -> Command {
        let path = std::env::var("PATH").unwrap_or_default();
        let mut command = Command::new(program);
        command
            .env("PATH", format!("{}:{path}", self.erlang.display()))
            .env("HOME", &self.home)
            .env("ERL_EPMD_PORT", self.epmd_port.to_string())
            .env("RABBITMQ_CONF_ENV_FILE", "/dev/null");
        command
    }

    /// That all nodes are one cluster.
    fn check_cluster(&self) -> Result<()> {
        self.control(&["await_online_nodes", &NODES.to_string(), "--timeout", "5"])?;
        Ok(())
    }

    /// That a queue has as many members as there are nodes.
    fn check_members(&self, queue: &str) -> Result<()> {
        let rows = self.control(&["--quiet", "list_queues", "name", "type", "members"])?;
        let row = rows.lines().find(|row| row.starts_with(queue)).unwrap_or("");
        let all = (1..=NODES).all(|node| row.contains(&format!("r{node}@")));
        ensure!(
            row.contains("quorum") && all,
            "{queue} is no quorum queue of {NODES} nodes: {rows}"
        );
        Ok(())
    }

    fn control(&self, arguments: &[&str]) -> Result<String> {
        let mut command = self.command_of(&self.sbin.join("rabbitmqctl"));
        let output = command.args(["-n", "r1@localhost"]).args(arguments).output()?;
        let told = String::from_utf8_lossy(&output.stdout).into_owned();
        ensure!(
            output.status.success(),
            "rabbitmqctl {arguments:?}: {told}{}",
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(told)
    }
}
