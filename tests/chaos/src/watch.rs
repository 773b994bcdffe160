//! What the nodes say of themselves while everything breaks, asked all the time: who is master of which term, by which
//! lease, and how much memory they take (P7, P8).

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use ferrymq_tests::{Mesh, http};
use serde_json::Value;

/// Pause between two questions to one node.
const ASK_EVERY: Duration = Duration::from_millis(100);

/// A thread for each node that asks it. Dropped, they end.
#[derive(Debug)]
pub struct Watch {
    seen: Arc<Mutex<Seen>>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

/// What was seen. Nodes are their positions among all.
#[derive(Debug, Default)]
pub struct Seen {
    /// (group, its life, term) → who said that it was master.
    masters: BTreeMap<(usize, usize, u64), BTreeSet<usize>>,
    /// How often a group has begun anew, and when it last did.
    lives: BTreeMap<usize, (usize, Instant)>,
    /// Group → its highest term with a valid lease, and when it was first told.
    reigning: BTreeMap<usize, (u64, usize, Instant)>,
    breaches: Vec<String>,
    rss_bytes_max: u64,
    /// Each node's last answer.
    latest: BTreeMap<usize, Value>,
    may_overlap: bool,
}

impl Watch {
    /// Asks all nodes of the mesh from now on.
    pub fn start(mesh: &Mesh) -> Self {
        let (seen, stop) = (Arc::new(Mutex::new(Seen::default())), Arc::new(AtomicBool::new(false)));
        let mut threads = Vec::new();
        let mut position = 0;
        for (group, its) in mesh.groups.iter().enumerate() {
            for node in &its.nodes {
                let (seen, stop, at) = (seen.clone(), stop.clone(), node.ports.admin_address());
                let who = position;
                threads.push(thread::spawn(move || ask(&seen, &stop, group, who, at)));
                position += 1;
            }
        }
        Self { seen, stop, threads }
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().expect("no thread panics while it notes something")
    }

    /// What was wrong since the last call.
    pub fn take_breaches(&self) -> Vec<String> {
        std::mem::take(&mut self.lock().breaches)
    }

    /// Most memory that a node said it took since the last call, in bytes.
    pub fn take_rss_bytes_max(&self) -> u64 {
        std::mem::take(&mut self.lock().rss_bytes_max)
    }

    /// Terms of a group that were seen so far.
    pub fn terms(&self, group: usize) -> usize {
        self.lock().masters.keys().filter(|(of, ..)| *of == group).count()
    }

    /// A node's last answer.
    pub fn latest(&self, node: usize) -> Option<Value> {
        self.lock().latest.get(&node).cloned()
    }

    /// The nodes of a group, all of them stopped, come back with less than they had: its terms begin again.
    pub fn begins_anew(&self, group: usize) {
        self.lock().begin_anew(group);
    }

    /// For a while two masters of different terms may both think that they hold the lease: a firewall that resets
    /// connections between the nodes of a group looks like a dead process (docs/adr/0006).
    pub fn allow_overlap(&self, allowed: bool) {
        self.lock().may_overlap = allowed;
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // It only asks and notes.
            let _ = thread.join();
        }
    }
}

fn ask(seen: &Mutex<Seen>, stop: &AtomicBool, group: usize, node: usize, at: SocketAddr) {
    while !stop.load(Ordering::Relaxed) {
        let asked = Instant::now();
        if let Ok((_, status)) = http::get_at(at, "/api/status") {
            seen.lock()
                .expect("no thread panics while it notes something")
                .note(group, node, asked, status);
        }
        thread::sleep(ASK_EVERY);
    }
}

impl Seen {
    fn begin_anew(&mut self, group: usize) {
        self.reigning.remove(&group);
        let life = self.lives.get(&group).map_or(0, |(life, _)| *life);
        self.lives.insert(group, (life + 1, Instant::now()));
    }

    fn note(&mut self, group: usize, node: usize, asked: Instant, status: Value) {
        let life = match self.lives.get(&group) {
            // It was on its way when the group began anew.
            Some((_, since)) if asked < *since => return,
            its => its.map_or(0, |(life, _)| *life),
        };
        self.rss_bytes_max = self.rss_bytes_max.max(status["rss_bytes"].as_u64().unwrap_or(0));
        let term = status["group"]["term"].as_u64().unwrap_or(0);
        let is_master = status["group"]["role"] == "master";
        let leases = is_master && status["group"]["lease_valid"] == true;
        self.latest.insert(node, status);
        if is_master {
            let masters = self.masters.entry((group, life, term)).or_default();
            if masters.insert(node) && masters.len() > 1 {
                self.breaches
                    .push(format!("P7: term {term} of group {group} has the masters {masters:?}"));
            }
        }
        if !leases {
            return;
        }
        match self.reigning.get(&group) {
            // The question was asked when another node had already said that it leads by a later term.
            Some((later, who, since)) if *later > term && *since < asked => {
                if !self.may_overlap {
                    self.breaches.push(format!(
                        "P7: node {node} of group {group} held the lease of term {term} when node {who} held that of {later}"
                    ));
                }
            }
            Some((later, ..)) if *later >= term => {}
            _ => {
                self.reigning.insert(group, (term, node, Instant::now()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn master(term: u64) -> Value {
        json!({ "rss_bytes": 7, "group": { "role": "master", "lease_valid": true, "term": term } })
    }

    #[test]
    fn one_master_after_the_other_is_no_breach() {
        let mut seen = Seen::default();
        let early = Instant::now();
        seen.note(0, 1, Instant::now(), master(1));
        seen.note(0, 2, Instant::now(), master(2));
        seen.note(1, 4, Instant::now(), master(1));
        // Its answer was on its way when the other one began.
        seen.note(0, 1, early, master(1));
        assert_eq!((seen.breaches.len(), seen.rss_bytes_max), (0, 7));
    }

    #[test]
    fn two_masters_of_one_term_are_a_breach() {
        let mut seen = Seen::default();
        seen.note(0, 1, Instant::now(), master(5));
        seen.note(0, 2, Instant::now(), master(5));
        assert!(seen.breaches[0].contains("term 5"), "{:?}", seen.breaches);
    }

    #[test]
    fn a_group_that_begins_anew_begins_its_terms_anew() {
        let mut seen = Seen::default();
        seen.note(2, 6, Instant::now(), master(2));
        let before = Instant::now();
        seen.begin_anew(2);
        seen.note(2, 6, before, master(2));
        seen.note(2, 6, Instant::now(), master(1));
        seen.note(2, 6, Instant::now(), master(2));
        assert_eq!((seen.breaches.len(), seen.masters.len()), (0, 3), "{:?}", seen.breaches);
    }

    #[test]
    fn a_lease_beside_a_later_one_is_a_breach() {
        let mut seen = Seen::default();
        seen.note(0, 1, Instant::now(), master(5));
        seen.note(0, 2, Instant::now(), master(6));
        seen.note(0, 1, Instant::now() + Duration::from_millis(1), master(5));
        assert!(seen.breaches[0].contains("lease of term 5"), "{:?}", seen.breaches);
    }
}
