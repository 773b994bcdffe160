//! Rules that compare keys with each other: addresses, trust, timers, sizes. Each error names the cure.

use std::net::{IpAddr, SocketAddr};

use crate::{
    check_access,
    node::{Node, Sync, Timestamps},
    problem::Report,
    units::{show_bytes, show_duration},
    values::split_address,
};

/// Checks what concerns several keys, as far as each of them is good by itself.
pub(crate) fn check(node: &Node, report: &Report<'_>) {
    if report.is_sound(&["", "members"]) {
        members(node, report);
    }
    if report.is_sound(&["", "members", "listen", "mesh", "connector"]) {
        addresses(node, report);
        security(node, report);
        links(node, report);
    }
    if report.is_sound(&["", "members", "listen", "mesh", "access", "users", "permissions", "tls"]) {
        check_access::check(node, report);
    }
    if report.is_sound(&["timers"]) {
        timers(node, report);
    }
    if report.is_sound(&["store", "limits"]) {
        sizes(node, report);
    }
    if report.is_sound(&["clients"]) {
        clients(node, report);
    }
    if node.store.sync != Sync::QuorumDisk {
        let text = format!(
            "sync = {:?}: an acknowledged message may be lost when nodes fail; only \"quorum_disk\" keeps them all",
            node.store.sync.as_str()
        );
        report.warn_at("store.sync", text);
    }
}

fn members(node: &Node, report: &Report<'_>) {
    if !node.members.contains_key(&node.node) {
        let known: Vec<String> = node.members.keys().map(u64::to_string).collect();
        let text = format!(
            "this is node {}, but [members] lists only {}; add a line for it, or correct the number",
            node.node,
            known.join(", ")
        );
        report.error_at("node", text);
    }
    let count = node.members.len();
    if count == 2 {
        report.warn_at(
            "members",
            "two members survive no failure, since a majority of two is both; use 1, 3 or 5",
        );
    } else if count > 2 && count.is_multiple_of(2) {
        let text = format!("{count} members survive no more failures than {} would", count - 1);
        report.warn_at("members", text);
    } else if count > 7 {
        report.warn_at(
            "members",
            format!("{count} members make each send wait for {}", count / 2 + 1),
        );
    }
    let mut seen: Vec<(&str, u64)> = Vec::new();
    for (number, member) in &node.members {
        if let Some((_, other)) = seen.iter().find(|(peer, _)| *peer == member.peer) {
            let text = format!("nodes {other} and {number} have the same address {}", member.peer);
            report.error_at(&format!("members.{number}"), text);
        }
        seen.push((&member.peer, *number));
    }
}

fn addresses(node: &Node, report: &Report<'_>) {
    let listen = &node.listen;
    // The link is UDP, so its port may be that of another.
    let tcp = [
        ("peer", listen.peer),
        ("stomp", listen.stomp),
        ("stomp_tls", listen.stomp_tls),
        ("admin", listen.admin),
    ];
    for (position, (key, address)) in tcp.iter().enumerate() {
        for (other, taken) in &tcp[..position] {
            if let (Some(address), Some(taken)) = (address, taken)
                && collide(*address, *taken)
            {
                let text = format!("{key} and {other} both listen on {address}; give one of them another port");
                report.error_at(&format!("listen.{key}"), text);
            }
        }
    }
    if node.is_alone() {
        return;
    }
    let Some(peer) = listen.peer else {
        report.error_at(
            "listen.peer",
            "a group of several nodes needs \"peer\"; it cannot be \"off\"",
        );
        return;
    };
    let local = |address: &str| is_loopback(address);
    if node.members.values().any(|m| local(&m.peer)) && !node.members.values().all(|m| local(&m.peer)) {
        let text = "some members are on loopback and some are not; on another machine 127.0.0.1 is that machine itself";
        report.error_at("members", text);
    }
    if let Some(me) = node.members.get(&node.node) {
        if peer.ip().is_loopback() && !local(&me.peer) {
            let text = format!(
                "others reach this node at {}, but it listens on {peer}; listen on that address or on 0.0.0.0",
                me.peer
            );
            report.error_at("listen.peer", text);
        } else if split_address(&me.peer).is_ok_and(|(_, port)| port != peer.port()) {
            let text = format!(
                "others reach this node at {}, but it listens on {peer}; is the port mapped?",
                me.peer
            );
            report.warn_at("listen.peer", text);
        }
        clients_reach_it(node, report, peer);
    }
}

/// Clients on other machines are a matter of course as soon as the nodes are on several.
fn clients_reach_it(node: &Node, report: &Report<'_>, peer: SocketAddr) {
    if let Some(stomp) = node.listen.stomp
        && stomp.ip().is_loopback()
        && !peer.ip().is_loopback()
    {
        let text = format!("the group is on several machines, but clients reach this node only on its own ({stomp})");
        report.warn_at("listen.stomp", text);
    }
}

/// A port at which other nodes are served, and which other machines reach, needs something to know those nodes by. Ports
/// for people are check_access.rs's.
fn security(node: &Node, report: &Report<'_>) {
    if node.mesh.secret.is_some() || node.mesh.certificates.is_some() {
        return;
    }
    for (key, address) in [("peer", node.listen.peer), ("link", node.listen.link)] {
        if let Some(address) = address.filter(|address| !address.ip().is_loopback()) {
            let text = format!(
                "{key} listens on {address}, which other machines reach, without a mesh secret; \
                 set secret_file under [mesh] (make one with: openssl rand -base64 32), or listen on 127.0.0.1"
            );
            report.error_at(&format!("listen.{key}"), text);
        }
    }
    let others = node.members.iter().filter(|(number, _)| **number != node.node);
    for (number, member) in others {
        if !is_loopback(&member.peer) {
            let text = format!(
                "node {number} is on another machine, and without a mesh secret nobody can tell it from a stranger; \
                 set secret_file under [mesh], the same on every node"
            );
            report.error_at(&format!("members.{number}"), text);
        }
    }
}

fn links(node: &Node, report: &Report<'_>) {
    let trusted = node.mesh.secret.is_some() || node.mesh.certificates.is_some();
    if !trusted && node.listen.link.is_some() {
        report.error_at(
            "listen.link",
            "links are always encrypted and both sides prove who they are; set secret or secret_file under [mesh]",
        );
    }
    if node.mesh.connectors.is_empty() {
        return;
    }
    let path = if report.is_given("mesh.connectors") {
        "mesh.connectors"
    } else {
        "mesh"
    };
    if !trusted {
        report.error_at(
            path,
            "a connector needs a mesh secret, the same in every group; set secret or secret_file",
        );
    } else if node.listen.link.is_none() {
        report.error_at(
            "listen.link",
            "there are connectors, but link is \"off\"; other groups could not answer",
        );
    }
}

fn timers(node: &Node, report: &Report<'_>) {
    let timers = &node.timers;
    let (heartbeat, min, max) = (timers.heartbeat, timers.election_min, timers.election_max);
    if heartbeat * 2 >= min {
        let text = format!(
            "election_min ({}) must be more than twice heartbeat ({}), or one late heartbeat deposes a healthy master",
            show_duration(min),
            show_duration(heartbeat)
        );
        report.error_at("timers.election_min", text);
    }
    if max < min + heartbeat {
        let text = format!(
            "election_max ({}) must exceed election_min ({}) by at least heartbeat ({}), or slaves stand at once",
            show_duration(max),
            show_duration(min),
            show_duration(heartbeat)
        );
        report.error_at("timers.election_max", text);
    }
}

fn sizes(node: &Node, report: &Report<'_>) {
    let (store, limits) = (&node.store, &node.limits);
    if limits.frame_bytes_max > store.segment_bytes {
        let text = format!(
            "frame ({}) must not exceed segment ({}) under [store]: a message lies in one file",
            show_bytes(limits.frame_bytes_max),
            show_bytes(store.segment_bytes)
        );
        report.error_at("limits.frame", text);
    }
    if store.limit_bytes < 4 * store.segment_bytes {
        let text = format!(
            "limit ({}) must be at least four segments ({})",
            show_bytes(store.limit_bytes),
            show_bytes(4 * store.segment_bytes)
        );
        report.error_at("store.limit", text);
    }
    if limits.memory_bytes_max < limits.frame_bytes_max {
        let text = format!(
            "memory ({}) must hold at least one frame ({})",
            show_bytes(limits.memory_bytes_max),
            show_bytes(limits.frame_bytes_max)
        );
        report.error_at("limits.memory", text);
    }
    if limits.transaction_bytes_max > limits.memory_bytes_max / 4 {
        let text = format!(
            "transaction ({}) must not exceed a quarter of memory ({})",
            show_bytes(limits.transaction_bytes_max),
            show_bytes(limits.memory_bytes_max)
        );
        report.error_at("limits.transaction", text);
    }
    if limits.outbox_bytes_max > limits.memory_bytes_max {
        let text = format!(
            "outbox must not exceed memory ({})",
            show_bytes(limits.memory_bytes_max)
        );
        report.error_at("limits.outbox", text);
    }
}

/// What changes ends needs the group's clock to set them by.
fn clients(node: &Node, report: &Report<'_>) {
    if node.clients.timestamps == Timestamps::Broker {
        return;
    }
    let lives = [
        ("time_to_live", node.clients.time_to_live),
        ("time_to_live_max", node.clients.time_to_live_max),
    ];
    for (key, life) in lives {
        if life.is_some() {
            let text = format!("{key} has no effect without timestamps = \"broker\"; set that too, or leave it out");
            report.error_at(&format!("clients.{key}"), text);
        }
    }
}

fn collide(a: SocketAddr, b: SocketAddr) -> bool {
    a.port() == b.port() && (a.ip() == b.ip() || a.ip().is_unspecified() || b.ip().is_unspecified())
}

fn is_loopback(address: &str) -> bool {
    split_address(address).is_ok_and(|(host, _)| {
        host.eq_ignore_ascii_case("localhost")
            || host
                .trim_matches(['[', ']'])
                .parse::<IpAddr>()
                .is_ok_and(|ip| ip.is_loopback())
    })
}
