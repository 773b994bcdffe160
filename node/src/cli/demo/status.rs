//! What the demo wants to know of a running node.

use std::time::Duration;

use serde_json::Value;

use crate::cli::admin_client::AdminClient;

/// A node on this machine answers at once or is not there.
const ANSWER_MAX: Duration = Duration::from_secs(1);

/// A node's status; none where it does not answer.
pub(super) async fn of(admin_port: u16) -> Option<Value> {
    let node = AdminClient::new(&format!("127.0.0.1:{admin_port}")).ok()?;
    tokio::time::timeout(ANSWER_MAX, node.get("/api/status"))
        .await
        .ok()?
        .ok()
}

/// Whether it is its group's master and may act as such.
pub(super) fn is_master(status: &Value) -> bool {
    status["group"]["role"] == "master" && status["group"]["lease_valid"] == true && status["master"].is_object()
}

/// Whether the master has a link with that group.
pub(super) fn is_linked(status: &Value, group: &str) -> bool {
    let links = status["master"]["mesh"]["links"].as_array();
    links.is_some_and(|links| links.iter().any(|link| link["peer"] == group && link["state"] == "up"))
}

/// Messages that lie in the queue, or are on their way to another group.
pub(super) fn unfinished(status: &Value, queue: &str) -> u64 {
    let sum = |list: &Value, of: &dyn Fn(&Value) -> bool| -> u64 {
        let list = list.as_array().map(Vec::as_slice).unwrap_or_default();
        list.iter()
            .filter(|entry| of(entry))
            .filter_map(|entry| entry["messages"].as_u64())
            .sum()
    };
    let master = &status["master"];
    sum(&master["queues"], &|entry| entry["name"] == queue) + sum(&master["mesh"]["in_doubt"], &|_| true)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn reads_a_masters_status() {
        let status = json!({
            "group": { "role": "master", "lease_valid": true },
            "master": {
                "queues": [{ "name": "queue://A", "messages": 3 }, { "name": "queue://B", "messages": 5 }],
                "mesh": {
                    "links": [{ "peer": "south", "state": "up" }, { "peer": "east", "state": "dialling" }],
                    "in_doubt": [{ "group": "south", "transfers": 1, "messages": 2 }],
                },
            },
        });
        assert!(is_master(&status));
        assert!(is_linked(&status, "south") && !is_linked(&status, "east") && !is_linked(&status, "west"));
        assert_eq!(unfinished(&status, "queue://A"), 5);
        let slave = json!({ "group": { "role": "slave", "lease_valid": false }, "master": null });
        assert!(!is_master(&slave) && !is_linked(&slave, "south"));
        assert_eq!(unfinished(&slave, "queue://A"), 0);
    }
}
