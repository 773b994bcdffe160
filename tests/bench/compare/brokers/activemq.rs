//! ActiveMQ Classic: one broker with KahaDB, or two with a network connector between them.

use std::{cell::Cell, fs, path::Path, process::Command};

use anyhow::{Context, Result};
use ferrymq_tests::ports::Ports;

use super::{Programs, probe::probe};
use crate::{drivers::stomp::StompDriver, server::Server};

/// See the module.
#[derive(Debug)]
pub(crate) struct ActiveMq {
    pub(super) servers: Vec<Server>,
    addresses: Vec<String>,
    _ports: Ports,
}

impl ActiveMq {
    pub(super) fn start(brokers: usize, programs: &Programs, dir: &Path) -> Result<Self> {
        let classpath = programs
            .activemq_classpath
            .as_ref()
            .context("ActiveMQ is not installed")?;
        let mut ports = Ports::take();
        let stomp: Vec<u16> = (0..brokers).map(|_| ports.free()).collect();
        let openwire: Vec<u16> = (0..brokers).map(|_| ports.free()).collect();
        let mut servers = Vec::new();
        for at in 0..brokers {
            let name = format!("activemq{}", at + 1);
            let config = dir.join(format!("{name}.xml"));
            // One of the two connects; the connector carries messages both ways.
            let other = (at == 0 && brokers == 2).then(|| openwire[1]);
            fs::write(
                &config,
                broker_xml(&name, &dir.join(&name), stomp[at], openwire[at], other),
            )?;
            let mut command = Command::new("java");
            command
                .args(["-Xms1g", "-Xmx1g", "-Djava.util.logging.config.file=/dev/null", "-cp"])
                .arg(classpath)
                .args(["org.apache.activemq.console.command.ShellCommand", "start"])
                .arg(format!("xbean:file:{}", config.display()))
                .current_dir(dir);
            servers.push(Server::start(&name, dir, &command)?);
        }
        Ok(Self {
            servers,
            addresses: stomp.iter().map(|port| format!("127.0.0.1:{port}")).collect(),
            _ports: ports,
        })
    }

    /// For senders and for receivers: with two brokers these are not at the same one.
    pub(super) fn drivers(&self) -> (StompDriver, StompDriver) {
        let driver = |address: &String| StompDriver {
            addresses: vec![address.clone()],
            senders: Cell::new(0),
            receivers: Cell::new(0),
        };
        let first = &self.addresses[0];
        (driver(first), driver(self.addresses.last().unwrap_or(first)))
    }

    pub(super) async fn check_ready(&self) -> Result<()> {
        let (senders, receivers) = self.drivers();
        probe(&senders, &receivers, "probe").await
    }
}

/// Defaults, but for what is told here: syncs (which are the default too, and stated), no JMX, and a network connector
/// that a pause does not end.
fn broker_xml(name: &str, data: &Path, stomp: u16, openwire: u16, other: Option<u16>) -> String {
    let data = data.display();
    let network = other.map_or(String::new(), |other| {
        format!(
            "<networkConnectors><networkConnector name=\"network\" duplex=\"true\" \
             uri=\"static:(tcp://127.0.0.1:{other}?wireFormat.maxInactivityDuration=0)\"/></networkConnectors>"
        )
    });
    format!(
        r#"<beans xmlns="http://www.springframework.org/schema/beans"
 xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"
 xsi:schemaLocation="http://www.springframework.org/schema/beans http://www.springframework.org/schema/beans/spring-beans.xsd
 http://activemq.apache.org/schema/core http://activemq.apache.org/schema/core/activemq-core.xsd">
<broker xmlns="http://activemq.apache.org/schema/core" brokerName="{name}" dataDirectory="{data}" useJmx="false">
{network}
<persistenceAdapter><kahaDB directory="{data}/kahadb" journalDiskSyncStrategy="always"/></persistenceAdapter>
<transportConnectors>
<transportConnector name="stomp" uri="stomp://127.0.0.1:{stomp}"/>
<transportConnector name="openwire" uri="tcp://127.0.0.1:{openwire}?wireFormat.maxInactivityDuration=0"/>
</transportConnectors>
</broker>
</beans>
"#
    )
}
