//! Memberships that change under load.

use std::{fs, time::Duration};

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
    let begun = std::time::Instant::now();
    let mut agreed = false;
    wait_until("the master agrees", WELL_MAX + Duration::from_secs(60), || {
        field.supervise();
        let at = field.node(field.master(group)).ports.admin_address();
        agreed = request(at).is_ok_and(|(status, _)| status == 200);
        agreed || begun.elapsed() > WELL_MAX
    });
    agreed
}
