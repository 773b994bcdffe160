//! Under which conditions figures were measured; without them they mean nothing.

use std::{fs, process::Command};

use serde::Serialize;

use crate::{scenario::SIZE, turns::Plan};

/// See the module.
#[derive(Debug, Serialize)]
pub(crate) struct Conditions {
    date: String,
    processors: usize,
    processor: String,
    memory: String,
    kernel: String,
    file_system: String,
    /// Of the minute before the comparison.
    load_average: String,
    versions: Vec<String>,
    client: String,
    runs: String,
    command: String,
}

impl Conditions {
    pub(crate) fn before(plan: &Plan, activemq_version: Option<&str>) -> Self {
        let programs = &plan.programs;
        let mut versions = vec![said(Command::new(&programs.ferrymq).arg("--version"))];
        if let Some(sbin) = &programs.rabbitmq_sbin {
            let folder = sbin.parent().and_then(|dir| dir.file_name()).unwrap_or_default();
            let version = folder.to_string_lossy().replace("rabbitmq_server-", "RabbitMQ ");
            versions.push(version);
        }
        if let Some(nats) = &programs.nats_server {
            versions.push(said(Command::new(nats).arg("--version")).replace("nats-server: v", "NATS "));
        }
        if programs.activemq_classpath.is_some() {
            let java = said(Command::new("java").arg("--version"));
            versions.push(format!(
                "ActiveMQ {} ({java})",
                activemq_version.unwrap_or("of unknown version")
            ));
        }
        Self {
            date: said(Command::new("date").args(["-u", "+%Y-%m-%d %H:%M UTC"])),
            processors: std::thread::available_parallelism().map_or(0, usize::from),
            processor: field("/proc/cpuinfo", "model name"),
            memory: field("/proc/meminfo", "MemTotal"),
            kernel: said(Command::new("uname").arg("-sr")),
            file_system: said(
                Command::new("findmnt")
                    .args(["-n", "-o", "FSTYPE", "-T"])
                    .arg(&plan.data),
            ),
            load_average: fs::read_to_string("/proc/loadavg").map_or_else(
                |_| "unknown".to_owned(),
                |text| text.split(' ').next().unwrap_or("").to_owned(),
            ),
            versions,
            client: match programs.ferrymq_client {
                crate::brokers::ferrymq::Client::Library => "ferrymq-client (STOMP)".to_owned(),
                crate::brokers::ferrymq::Client::Stomp => "the STOMP driver that ActiveMQ is loaded with".to_owned(),
            },
            runs: format!(
                "pairs: {}, in the order A B A B …; each run {} s after {} s of warm-up; bodies of {SIZE} bytes",
                plan.pairs,
                plan.duration.as_secs_f64(),
                plan.warm_up.as_secs_f64(),
            ),
            command: std::env::var("COMPARE_COMMAND")
                .unwrap_or_else(|_| std::env::args().collect::<Vec<_>>().join(" ")),
        }
    }

    /// One line for each.
    pub(crate) fn lines(&self) -> Vec<String> {
        vec![
            format!("Command: `{}`", self.command),
            format!("Date: {}", self.date),
            format!(
                "Machine: {} processors ({}), {} memory, {}, {}, load average before {}; all servers and the load on it, \
                 over loopback, data on one file system",
                self.processors, self.processor, self.memory, self.kernel, self.file_system, self.load_average
            ),
            format!("Versions: {}", self.versions.join(", ")),
            format!("Runs: {}", self.runs),
            format!(
                "Protocols: FerryMQ by {}, RabbitMQ by AMQP 0.9.1, NATS by its text protocol with JetStream pull \
                 consumers, ActiveMQ by STOMP 1.2 (not OpenWire, which its Java clients speak and which costs it less for \
                 each message)",
                self.client
            ),
        ]
    }
}

/// The first line that a program says; empty where it cannot be asked.
fn said(command: &mut Command) -> String {
    let output = command.output().map(|output| output.stdout).unwrap_or_default();
    let text = String::from_utf8_lossy(&output).into_owned();
    text.lines().next().unwrap_or("").trim().to_owned()
}

/// What stands behind the first `name:` in a file of the kernel.
fn field(path: &str, name: &str) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with(name));
    let value = line.and_then(|line| line.split_once(':'));
    value.map_or_else(|| "unknown".to_owned(), |(_, value)| value.trim().to_owned())
}
