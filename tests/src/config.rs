//! Writes a node's configuration file, as a user would.

use std::{
    fmt::Write,
    net::{Ipv4Addr, SocketAddr},
    path::Path,
};

/// Where one node listens.
#[derive(Debug, Clone, Copy)]
pub struct NodePorts {
    /// Loopback, or a machine's address in a [`crate::net::Net`].
    pub host: Ipv4Addr,
    /// STOMP clients.
    pub stomp: u16,
    /// The other nodes of the group.
    pub peer: u16,
    /// Other groups (UDP).
    pub link: u16,
    /// Administration.
    pub admin: u16,
}

impl NodePorts {
    /// The admin port with its host.
    pub fn admin_address(&self) -> SocketAddr {
        (self.host, self.admin).into()
    }
}

/// What stands in the files of all nodes of a group.
#[derive(Debug, Clone, Default)]
pub struct GroupConfig {
    /// The group's name.
    pub name: String,
    /// Its nodes, number 1 first. A single one is configured without `[members]`.
    pub nodes: Vec<NodePorts>,
    /// Whom to look for.
    pub connectors: Vec<String>,
    /// The secret of the mesh; none for a group by itself.
    pub secret: Option<String>,
    /// More lines, whole sections, at the end.
    pub more: String,
}

impl GroupConfig {
    /// The file of node `number`.
    pub fn text(&self, number: usize, data: &Path) -> String {
        let ports = self.nodes[number - 1];
        let mut text = String::new();
        let out = &mut text;
        // Writing to a String does not fail.
        let _ = writeln!(out, "node = {number}\ngroup = {:?}\ndata = {data:?}", self.name);
        if self.nodes.len() > 1 {
            let _ = writeln!(out, "\n[members]");
            for (at, node) in self.nodes.iter().enumerate() {
                let NodePorts {
                    host,
                    stomp,
                    peer,
                    link,
                    admin,
                } = node;
                let _ = writeln!(
                    out,
                    "{} = {{ peer = \"{host}:{peer}\", stomp = \"{host}:{stomp}\", link = \"{host}:{link}\", \
                     admin = \"{host}:{admin}\" }}",
                    at + 1
                );
            }
        }
        let NodePorts {
            host,
            stomp,
            peer,
            link,
            admin,
        } = ports;
        let _ = writeln!(
            out,
            "\n[listen]\nstomp = \"{host}:{stomp}\"\npeer = \"{host}:{peer}\"\nadmin = \"{host}:{admin}\""
        );
        if let Some(secret) = &self.secret {
            let _ = writeln!(out, "link = \"{host}:{link}\"\n\n[mesh]\nsecret = {secret:?}");
            let _ = writeln!(out, "connectors = {:?}", self.connectors);
        }
        if !self.more.contains("[store]") {
            // Small, so that tests also see segments end and begin.
            let _ = writeln!(out, "\n[store]\nsegment = \"4MiB\"\nreserve = \"16MiB\"");
        }
        if !self.more.contains("[limits]") {
            let _ = writeln!(out, "\n[limits]\nframe = \"1MiB\"");
        }
        if !host.is_loopback() && !self.more.contains("[access]") {
            // The machines of a test's network are nobody else's.
            let _ = writeln!(out, "\n[access]\nanonymous = true");
        }
        if !self.more.contains("[log]") {
            let _ = writeln!(out, "\n[log]\nlevel = \"info,ferrymq=debug\"");
        }
        out.push_str(&self.more);
        text
    }
}
