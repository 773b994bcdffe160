//! Resolves the host names of a fixed list, again and again, since names move.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::lookup_host;
use tokio::time::{sleep, timeout};

use crate::address::NodeAddress;
use crate::agent::Surroundings;
use crate::peers::Report;

/// Reports the list's addresses when they change, until told to stop. A host that cannot be resolved keeps the
/// addresses that it had.
pub(crate) async fn run(list: usize, nodes: Vec<NodeAddress>, mut around: Surroundings) {
    let mut known: Vec<Vec<SocketAddr>> = vec![Vec::new(); nodes.len()];
    let mut reported = None;
    loop {
        for (node, addresses) in nodes.iter().zip(&mut known) {
            match resolve(node).await {
                Ok(found) => *addresses = found,
                Err(why) => tracing::warn!(host = node.host, why, "cannot resolve a node of a static list"),
            }
        }
        let mut endpoints = Vec::new();
        for address in known.concat() {
            if !endpoints.contains(&address) {
                endpoints.push(address);
            }
        }
        if reported.as_ref() != Some(&endpoints) {
            reported = Some(endpoints.clone());
            around.report_surely(Report::Resolved { list, endpoints }).await;
        }
        if nodes.iter().all(|node| node.ip().is_some()) {
            return;
        }
        tokio::select! {
            () = around.stopped() => return,
            () = sleep(RESOLVE_PERIOD) => {}
        }
    }
}

async fn resolve(node: &NodeAddress) -> Result<Vec<SocketAddr>, String> {
    if let Some(ip) = node.ip() {
        return Ok(vec![SocketAddr::new(ip, node.port)]);
    }
    match timeout(RESOLVE_TIMEOUT, lookup_host((node.host.as_str(), node.port))).await {
        Ok(Ok(found)) => Ok(found.take(ADDRESSES_MAX).collect()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("no answer within {RESOLVE_TIMEOUT:?}")),
    }
}

const RESOLVE_PERIOD: Duration = Duration::from_secs(30);
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(5);
/// Most addresses taken for one host name.
const ADDRESSES_MAX: usize = 16;
