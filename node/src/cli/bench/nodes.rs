//! What a load costs the nodes, from their own counters.

use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::Value;
use tokio::time::timeout;

use crate::{
    cli::{Failure, admin_client::AdminClient, credentials::Credentials},
    footprint::Footprint,
};

/// The nodes that are asked, by name.
pub(super) struct Nodes {
    nodes: Vec<(String, AdminClient)>,
}

/// The counters of all nodes at one time, in their order, and this process's own; none for one that did not answer.
pub(super) struct Readings {
    nodes: Vec<(String, Option<Reading>)>,
    generator: Reading,
}

/// One process's counters.
#[derive(Debug, Clone)]
struct Reading {
    at: Instant,
    role: String,
    cpu_seconds: Option<f64>,
    journal_bytes_written: Option<u64>,
    syncs: Option<u64>,
    rss_bytes: Option<u64>,
}

/// What one process used between two readings.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Cost {
    pub(super) name: String,
    /// `master`, `slave`, …; `load` for this process.
    pub(super) role: String,
    /// Processors used: 1 is one of them all the time.
    pub(super) cpus: Option<f64>,
    pub(super) cpu_us_per_message: Option<f64>,
    /// By the journal.
    pub(super) bytes_written_per_message: Option<f64>,
    pub(super) syncs_per_second: Option<f64>,
    /// At the end.
    pub(super) rss_bytes: Option<u64>,
}

/// How long a node may take to answer under load.
const ANSWER_MAX: Duration = Duration::from_secs(2);

impl Nodes {
    /// # Errors
    /// Exit code 2 where one of the addresses is none.
    pub(super) fn new(admins: &[(String, String)], credentials: Option<&Credentials>) -> Result<Self, Failure> {
        let nodes = admins
            .iter()
            .map(|(name, url)| Ok((name.clone(), AdminClient::new(url)?.with(credentials.cloned()))))
            .collect::<Result<_, Failure>>()?;
        Ok(Self { nodes })
    }

    pub(super) async fn read(&self) -> Readings {
        let mut nodes = Vec::new();
        for (name, admin) in &self.nodes {
            let status = timeout(ANSWER_MAX, admin.get("/api/status")).await;
            let reading = status.ok().and_then(Result::ok).map(|status| Reading::of(&status));
            nodes.push((name.clone(), reading));
        }
        Readings {
            nodes,
            generator: Reading::of_this_process(),
        }
    }
}

impl Reading {
    fn of(status: &Value) -> Self {
        Self {
            at: Instant::now(),
            role: status["group"]["role"].as_str().unwrap_or("-").to_owned(),
            cpu_seconds: status["cpu_seconds"].as_f64(),
            journal_bytes_written: status["journal_bytes_written"].as_u64(),
            syncs: status["group"]["journal"]["syncs"].as_u64(),
            rss_bytes: status["rss_bytes"].as_u64(),
        }
    }

    fn of_this_process() -> Self {
        let footprint = Footprint::now();
        Self {
            at: Instant::now(),
            role: "load".to_owned(),
            cpu_seconds: footprint.cpu_seconds,
            journal_bytes_written: None,
            syncs: None,
            rss_bytes: footprint.rss_bytes,
        }
    }

    /// What was used from `self` to `end`. Each side has its own time, since a busy node answers late.
    fn cost_until(&self, end: &Self, name: &str, messages_per_second: f64) -> Cost {
        let seconds = (end.at - self.at).as_secs_f64().max(1e-9);
        let per_second = |from: Option<u64>, to: Option<u64>| Some(to?.checked_sub(from?)? as f64 / seconds);
        let per_message = |per_second: Option<f64>| {
            per_second
                .map(|used| used / messages_per_second)
                .filter(|used| used.is_finite())
        };
        let cpus = self
            .cpu_seconds
            .zip(end.cpu_seconds)
            .map(|(from, to)| (to - from) / seconds);
        // A node that was started anew in between counts from 0 again.
        let cpus = cpus.filter(|cpus| *cpus >= 0.0);
        Cost {
            name: name.to_owned(),
            role: end.role.clone(),
            cpus,
            cpu_us_per_message: per_message(cpus.map(|cpus| cpus * 1e6)),
            bytes_written_per_message: per_message(per_second(self.journal_bytes_written, end.journal_bytes_written)),
            syncs_per_second: per_second(self.syncs, end.syncs),
            rss_bytes: end.rss_bytes,
        }
    }
}

/// What each node used, and this process; nodes that did not answer both times are left out.
pub(super) fn costs([begin, end]: &[Readings; 2], messages_per_second: f64) -> Vec<Cost> {
    let mut costs = Vec::new();
    for ((name, begin), (_, end)) in begin.nodes.iter().zip(&end.nodes) {
        if let (Some(begin), Some(end)) = (begin, end) {
            costs.push(begin.cost_until(end, name, messages_per_second));
        }
    }
    let (begin, end) = (&begin.generator, &end.generator);
    costs.push(begin.cost_until(end, "ferrymq bench", messages_per_second));
    costs
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn reading(at: Instant, cpu: f64, bytes: u64, syncs: u64) -> Reading {
        let mut reading = Reading::of(&json!({
            "cpu_seconds": cpu, "journal_bytes_written": bytes, "rss_bytes": 5,
            "group": { "role": "master", "journal": { "syncs": syncs } },
        }));
        reading.at = at;
        reading
    }

    #[test]
    fn a_cost_is_what_lies_between_two_readings() {
        let begin = Instant::now();
        let later = begin + Duration::from_secs(2);
        let cost = reading(begin, 1.0, 1000, 10).cost_until(&reading(later, 2.0, 3_001_000, 110), "n", 1000.0);
        assert_eq!((cost.cpus, cost.cpu_us_per_message), (Some(0.5), Some(500.0)));
        assert_eq!(cost.bytes_written_per_message, Some(1500.0));
        assert_eq!((cost.syncs_per_second, cost.rss_bytes), (Some(50.0), Some(5)));
        assert_eq!((cost.name.as_str(), cost.role.as_str()), ("n", "master"));
    }

    #[test]
    fn what_cannot_be_said_is_not_said() {
        let begin = Instant::now();
        let later = begin + Duration::from_secs(1);
        // Started anew in between.
        let cost = reading(begin, 9.0, 1000, 10).cost_until(&reading(later, 0.5, 10, 1), "n", 1000.0);
        assert_eq!((cost.cpus, cost.bytes_written_per_message), (None, None));
        // No message at all.
        let cost = reading(begin, 1.0, 0, 0).cost_until(&reading(later, 2.0, 0, 0), "n", 0.0);
        assert_eq!((cost.cpus, cost.cpu_us_per_message), (Some(1.0), None));
        let old = Reading::of(&json!({ "group": {} }));
        assert_eq!(old.cpu_seconds, None);
    }
}
