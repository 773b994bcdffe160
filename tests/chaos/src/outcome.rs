//! How one scenario, or several that were struck together, ended.

use std::time::Duration;

use crate::breach::Breach;

/// See the file's head.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// Scenarios, joined by `+`.
    pub name: String,
    /// Longest time without a receipt for a producer of a struck group, from the strike to the mending.
    pub pause: Duration,
    /// The same from the mending until all were well.
    pub pause_after: Duration,
    /// From the mending until all nodes were well again.
    pub recovery: Duration,
    /// Terms that began, of all groups.
    pub terms: usize,
    /// Most memory of a node, in bytes.
    pub rss_bytes_max: u64,
    /// Nodes that ended by themselves, as they may.
    pub ended: usize,
    /// Messages with a receipt, those of each durable subscription counted; all of them were delivered.
    pub receipted: usize,
    /// What was wrong.
    pub breaches: Vec<Breach>,
    /// What was too late when it was first played.
    pub late_before: Vec<Breach>,
    /// Why it was not run.
    pub skipped: Option<String>,
}

impl Outcome {
    /// One that was not run.
    pub fn skipped(name: &str, why: String) -> Self {
        Self {
            name: name.into(),
            skipped: Some(why),
            ..Self::default()
        }
    }

    /// One that was broken off, or broke a promise.
    pub fn failed(name: &str, breaches: Vec<Breach>) -> Self {
        Self {
            name: name.into(),
            breaches,
            ..Self::default()
        }
    }

    /// No promise was broken, but something took too long.
    pub fn is_only_late(&self) -> bool {
        !self.is_good() && self.breaches.iter().all(|breach| breach.is_late)
    }

    /// All promises were kept, or nothing was tried.
    pub fn is_good(&self) -> bool {
        self.breaches.is_empty()
    }
}
