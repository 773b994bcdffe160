//! Memberships that change under load.

use std::{
    fs,
    time::{Duration, Instant},
};

use ferrymq_tests::{http, wait_until};
use serde_json::json;

use crate::{
    NODES,
    fault::{Fault, Mend},
    field::{Field, WELL_MAX},
};

/// A slave is taken out of its group for ever, and a new machine with an empty disk takes its place under a new number,
/// as docs/OPERATING.md has it for a node that is lost for good.
pub struct Replace;

impl Fault for Replace {
    fn strike(&self, field: &mut Field, on: &[usize]) -> Mend {
        for &node in on {
            if let Err(error) = replace(field, node) {
                field.breach(format!("{} cannot be replaced: {error:#}", field.node(node).name));
            }
        }
        Box::new(|_| {})
    }
}

/// An operator adds a member and mistypes its address: nobody listens there, or no machine has it. The group stays as it was,
/// and can do without one of its nodes as before: the struck one is killed then.
pub struct Mistyped;

/// A port at which nobody listens.
const NOBODY: u16 = 9;
/// An address in the field's network that no machine has.
const NO_MACHINE: u8 = 253;

impl Fault for Mistyped {
    fn strike(&self, field: &mut Field, on: &[usize]) -> Mend {
        let (node, group) = (on[0], on[0] / NODES);
        let master = field.wait_master(group);
        let before = members(field, master);
        let new = before.iter().map(|(member, _)| member).max().unwrap_or(&0) + 1;
        let mut host = field.node(node).ports.host.octets();
        if field.dice.below(2) == 0 {
            host[3] = NO_MACHINE;
        }
        let address = format!("{}:{NOBODY}", std::net::Ipv4Addr::from(host));
        let member = json!({ "node": new, "peer": address, "stomp": address, "link": address, "admin": address });
        let at = field.node(master).ports.admin_address();
        let answer = http::post_at(at, "/api/members", &member.to_string()).map_err(|error| error.to_string());
        if let Ok((200, told)) = &answer {
            field.breach(format!("{address}, where nobody is, was taken into the group: {told}"));
        }
        let begun = Instant::now();
        let mut now = Vec::new();
        wait_until("the members are as before", 2 * UNDONE_MAX, || {
            field.supervise();
            let master = field.master(group);
            now = members(field, master);
            now == before || begun.elapsed() > UNDONE_MAX
        });
        if now != before {
            field.breach(format!(
                "after {answer:?} for {address} the members (and who votes) are {now:?} and not {before:?}"
            ));
        }
        field.keep_down(node);
        Box::new(move |field| field.release(node))
    }
}

/// How long a change of members that does not succeed may take to be undone.
const UNDONE_MAX: Duration = Duration::from_secs(20);

/// Numbers, and who votes.
fn members(field: &Field, master: usize) -> Vec<(u64, bool)> {
    let status = field.node(master).status().unwrap_or_default();
    let members = status["group"]["members"].as_array().cloned().unwrap_or_default();
    let one = |member: &serde_json::Value| Some((member["node"].as_u64()?, member["is_voter"] == true));
    members.iter().filter_map(one).collect()
}

fn replace(field: &mut Field, node: usize) -> anyhow::Result<()> {
    let group = node / NODES;
    let status = field.node(node).status().unwrap_or_default();
    let old = status["group"]["node"].as_u64().unwrap_or(0);
    let members = status["group"]["members"].as_array().cloned().unwrap_or_default();
    let highest = members
        .iter()
        .filter_map(|member| member["node"].as_u64())
        .max()
        .unwrap_or(old);
    let new = highest.max(old) + 1;
    field.node_mut(node).kill();
    let path = format!("/api/members/{old}");
    let removed = ask(field, group, |at| http::delete_at(at, &path));
    anyhow::ensure!(removed, "the master does not remove node {old}");

    let config = field.node(node).config().to_owned();
    let text = fs::read_to_string(&config)?;
    let text = text.replace(&format!("node = {old}\n"), &format!("node = {new}\n"));
    fs::write(
        &config,
        text.replace(&format!("\n{old} = {{"), &format!("\n{new} = {{")),
    )?;
    field.node(node).wipe();
    field.node_mut(node).spawn();
    let ports = field.node(node).ports;
    let address = |port: u16| format!("{}:{port}", ports.host);
    let member = json!({
        "node": new, "peer": address(ports.peer), "stomp": address(ports.stomp), "link": address(ports.link),
        "admin": address(ports.admin),
    });
    let added = ask(field, group, |at| {
        let (status, answer) = http::post_at(at, "/api/members", &member.to_string())?;
        Ok((if status == 202 { 200 } else { status }, answer))
    });
    anyhow::ensure!(added, "the master does not add node {new}");
    // Where the master changes meanwhile it is taken out again, and asked for anew.
    let path = format!("/api/members/{new}");
    let votes = ask(field, group, |at| {
        let (status, progress) = http::get_at(at, &path)?;
        if status == 404 || progress["state"] == "failed" {
            http::post_at(at, "/api/members", &member.to_string())?;
        }
        Ok((if progress["state"] == "voter" { 200 } else { 202 }, progress))
    });
    anyhow::ensure!(votes, "node {new} gets no vote");
    Ok(())
}

/// Asks the master until it agrees, or for too long.
fn ask(
    field: &mut Field,
    group: usize,
    request: impl Fn(std::net::SocketAddr) -> anyhow::Result<(u16, serde_json::Value)>,
) -> bool {
    let begun = Instant::now();
    let mut agreed = false;
    wait_until("the master agrees", WELL_MAX + Duration::from_secs(60), || {
        field.supervise();
        let at = field.node(field.master(group)).ports.admin_address();
        agreed = request(at).is_ok_and(|(status, _)| status == 200);
        agreed || begun.elapsed() > WELL_MAX
    });
    agreed
}
