//! The master's lease (P7): it may act while a majority has answered it so lately that none of them can have voted for
//! another yet.
//!
//! A slave that hears the master votes for nobody else for `election_timeout_max`. The lease counts from the moment a
//! request was *sent*, and lasts only `election_timeout_min`, so it ends before the earliest possible other master, and
//! a paused process finds it run out when it wakes up, as does one whose whole machine was suspended (clock.rs). Where
//! members have different timers, the shortest `election_timeout_min` of any voter counts (timers.rs).
//!
//! A slave whose connections to the master were reset may be made to believe that the master is dead, and vote early
//! (failover.rs). So what a slave has answered counts no more once a connection to it is broken.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::clock::Instant;
use crate::config::NodeId;

/// The lease of this node's mastership.
pub(crate) struct Lease {
    me: NodeId,
    started: Instant,
    lasts_micros: u64,
    /// Microseconds since `started` up to which the lease holds; 0 for none.
    until_micros: AtomicU64,
    /// When this node last heard a master, in microseconds since `started`; 0 for never.
    master_micros: AtomicU64,
    answers: Mutex<Answers>,
}

struct Answers {
    /// The term in which this node is master.
    term: Option<u64>,
    /// A majority of each set must have answered; two sets while the membership changes.
    voters: Vec<BTreeSet<NodeId>>,
    /// When the last answered request was sent, in microseconds since `started`.
    sent_micros: BTreeMap<NodeId, u64>,
    /// When a connection last broke; requests sent before it count no more.
    lost_micros: BTreeMap<NodeId, u64>,
    /// What `sent_micros` was when the connection broke.
    before_micros: BTreeMap<NodeId, u64>,
    /// After what silence other members may stand for election, as far as they have told.
    stand_after_micros: BTreeMap<NodeId, u64>,
}

impl Lease {
    pub(crate) fn new(me: NodeId, lasts: Duration) -> Lease {
        Lease {
            me,
            started: Instant::now(),
            lasts_micros: lasts.as_micros() as u64,
            until_micros: AtomicU64::new(0),
            master_micros: AtomicU64::new(0),
            answers: Mutex::new(Answers {
                term: None,
                voters: Vec::new(),
                sent_micros: BTreeMap::new(),
                lost_micros: BTreeMap::new(),
                before_micros: BTreeMap::new(),
                stand_after_micros: BTreeMap::new(),
            }),
        }
    }

    /// Whether the master may act now.
    pub(crate) fn holds(&self) -> bool {
        self.now_micros() < self.until_micros.load(Ordering::Acquire)
    }

    /// This node is master of `term` with these voters. Answers of the same term stay.
    pub(crate) fn begin(&self, term: u64, voters: Vec<BTreeSet<NodeId>>) {
        let mut answers = self.lock();
        if answers.term != Some(term) {
            answers.term = Some(term);
            answers.sent_micros.clear();
        }
        answers.voters = voters;
        self.renew(&answers);
    }

    /// This node is not master, or is about to hand over.
    pub(crate) fn end(&self) {
        let mut answers = self.lock();
        answers.term = None;
        answers.sent_micros.clear();
        self.until_micros.store(0, Ordering::Release);
    }

    /// `node` has answered, as a follower of `term`, a request that was sent at `sent`.
    pub(crate) fn answered(&self, node: NodeId, term: u64, sent: Instant) {
        let sent_micros = sent.saturating_duration_since(self.started).as_micros() as u64;
        let mut answers = self.lock();
        let is_void = |lost: &u64| sent_micros <= *lost;
        if answers.term != Some(term) || answers.lost_micros.get(&node).is_some_and(is_void) {
            return;
        }
        let last = answers.sent_micros.entry(node).or_default();
        *last = sent_micros.max(*last);
        self.renew(&answers);
    }

    /// A connection to `node` is broken or cannot be made.
    pub(crate) fn lost(&self, node: NodeId) {
        let now = self.now_micros();
        let mut answers = self.lock();
        answers.lost_micros.insert(node, now);
        if let Some(sent) = answers.sent_micros.remove(&node) {
            answers.before_micros.insert(node, sent);
            self.renew(&answers);
        }
    }

    /// `node` may stand for election after that silence.
    pub(crate) fn stands_after(&self, node: NodeId, silence: Duration) {
        let mut answers = self.lock();
        answers.stand_after_micros.insert(node, silence.as_micros() as u64);
        self.renew(&answers);
    }

    /// How long it lasts from the sending of a request that a majority answers.
    pub(crate) fn lasts(&self) -> Duration {
        Duration::from_micros(self.shortest_micros(&self.lock()))
    }

    /// How many voters there are, this node included.
    pub(crate) fn voters(&self) -> usize {
        self.lock().voters.iter().map(BTreeSet::len).max().unwrap_or(1)
    }

    /// A master's request has come to this node.
    pub(crate) fn heard_master(&self) {
        self.master_micros.store(self.now_micros().max(1), Ordering::Relaxed);
    }

    /// How long ago the last request of a master came to this node.
    pub(crate) fn master_heard_ms_ago(&self) -> Option<u64> {
        match self.master_micros.load(Ordering::Relaxed) {
            0 => None,
            at => Some(self.now_micros().saturating_sub(at) / 1000),
        }
    }

    /// How long ago the last answered request to each node was sent.
    pub(crate) fn heard_ms_ago(&self) -> BTreeMap<NodeId, u64> {
        let now = self.now_micros();
        let answers = self.lock();
        answers
            .sent_micros
            .iter()
            .map(|(node, sent)| (*node, now.saturating_sub(*sent) / 1000))
            .collect()
    }

    /// How long ago the last request was sent that this node has answered, even if its connection has broken since.
    pub(crate) fn last_heard_ms_ago(&self, node: NodeId) -> Option<u64> {
        let now = self.now_micros();
        let answers = self.lock();
        let sent = answers.sent_micros.get(&node).max(answers.before_micros.get(&node))?;
        Some(now.saturating_sub(*sent) / 1000)
    }

    fn renew(&self, answers: &Answers) {
        let oldest = answers
            .voters
            .iter()
            .map(|voters| self.majority_since(voters, &answers.sent_micros))
            .min();
        let until = match oldest.flatten() {
            None => 0,
            Some(u64::MAX) => u64::MAX,
            Some(sent) => sent.saturating_add(self.shortest_micros(answers)),
        };
        self.until_micros.store(until, Ordering::Release);
    }

    fn shortest_micros(&self, answers: &Answers) -> u64 {
        let is_voter = |node: &NodeId| answers.voters.iter().any(|voters| voters.contains(node));
        let others = answers.stand_after_micros.iter().filter(|(node, _)| is_voter(node));
        others.map(|(_, micros)| *micros).fold(self.lasts_micros, u64::min)
    }

    /// The youngest instant that a majority, this node included, has answered since; `None` if there is none.
    fn majority_since(&self, voters: &BTreeSet<NodeId>, sent_micros: &BTreeMap<NodeId, u64>) -> Option<u64> {
        let mut since: Vec<u64> = voters
            .iter()
            .filter_map(|node| {
                if *node == self.me {
                    Some(u64::MAX)
                } else {
                    sent_micros.get(node).copied()
                }
            })
            .collect();
        since.sort_unstable_by(|a, b| b.cmp(a));
        since.get(voters.len() / 2).copied()
    }

    fn now_micros(&self) -> u64 {
        self.started.elapsed().as_micros() as u64
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Answers> {
        self.answers.lock().expect("no code panics under this lock")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(nodes: &[NodeId]) -> BTreeSet<NodeId> {
        nodes.iter().copied().collect()
    }

    #[test]
    fn a_group_of_one_always_holds_it() {
        let lease = Lease::new(1, Duration::from_millis(250));
        assert!(!lease.holds(), "not master yet");
        lease.begin(1, vec![set(&[1])]);
        assert!(lease.holds());
        lease.end();
        assert!(!lease.holds());
    }

    #[test]
    fn it_needs_a_majority_and_counts_from_the_sending() {
        let lease = Lease::new(1, Duration::from_secs(3600));
        let now = Instant::now();
        lease.begin(4, vec![set(&[1, 2, 3, 4, 5])]);
        lease.answered(2, 4, now);
        assert!(!lease.holds(), "two of five");
        lease.answered(3, 3, now);
        assert!(!lease.holds(), "an answer of another term");
        lease.answered(3, 4, now);
        assert!(lease.holds());
        lease.begin(5, vec![set(&[1, 2, 3, 4, 5])]);
        assert!(!lease.holds(), "answers of an earlier term");

        let short = Lease {
            started: now - Duration::from_secs(60),
            ..Lease::new(1, Duration::from_millis(250))
        };
        short.begin(1, vec![set(&[1, 2, 3])]);
        short.answered(2, 1, now - Duration::from_secs(1));
        assert!(!short.holds(), "sent longer ago than the lease lasts");
    }

    #[test]
    fn a_broken_connection_ends_what_its_slave_gave() {
        let lease = Lease::new(1, Duration::from_secs(3600));
        lease.begin(4, vec![set(&[1, 2, 3])]);
        let before = Instant::now();
        lease.answered(2, 4, before);
        assert!(lease.holds());
        lease.lost(2);
        assert!(!lease.holds());
        assert!(lease.last_heard_ms_ago(2).is_some(), "though it was heard");
        lease.answered(2, 4, before);
        assert!(
            !lease.holds(),
            "an answer that was on its way when the connection broke"
        );
        lease.answered(3, 4, before);
        assert!(lease.holds(), "another slave's connection did not break");
        lease.lost(3);
        lease.answered(2, 4, Instant::now() + Duration::from_millis(1));
        assert!(lease.holds(), "it has been heard again");
    }

    #[test]
    fn a_joint_membership_needs_both_majorities() {
        let lease = Lease::new(1, Duration::from_secs(3600));
        lease.begin(1, vec![set(&[1, 2, 3]), set(&[3, 4, 5])]);
        lease.answered(2, 1, Instant::now());
        lease.answered(4, 1, Instant::now());
        assert!(!lease.holds());
        lease.answered(5, 1, Instant::now());
        assert!(lease.holds());
    }

    #[test]
    fn the_time_of_a_suspended_machine_counts_p7() {
        let lease = Lease::new(1, Duration::from_secs(60));
        lease.begin(1, vec![set(&[1, 2, 3])]);
        lease.answered(2, 1, Instant::now());
        let stands_still = std::time::Instant::now();
        assert!(lease.holds());
        crate::clock::tests::suspend(Duration::from_secs(61));
        assert!(
            stands_still.elapsed() < Duration::from_secs(30),
            "what the lease once went by"
        );
        assert!(!lease.holds(), "the others may have another master by now");
        lease.answered(2, 1, Instant::now());
        assert!(lease.holds(), "heard again");
    }

    #[test]
    fn the_shortest_timer_of_any_voter_counts_p7() {
        let lease = Lease::new(1, Duration::from_secs(60));
        lease.begin(1, vec![set(&[1, 2, 3])]);
        lease.stands_after(4, Duration::from_secs(1));
        lease.stands_after(3, Duration::from_secs(20));
        lease.stands_after(2, Duration::from_secs(600));
        assert_eq!(
            lease.lasts(),
            Duration::from_secs(20),
            "node 4 has no vote, node 2 more patience"
        );
        lease.answered(2, 1, Instant::now());
        assert!(lease.holds());
        crate::clock::tests::suspend(Duration::from_secs(30));
        assert!(!lease.holds(), "node 3 may have stood and been elected by node 2");
        lease.answered(2, 1, Instant::now());
        lease.begin(1, vec![set(&[1, 2, 3, 4])]);
        assert_eq!(lease.lasts(), Duration::from_secs(1), "node 4 votes");
        lease.begin(1, vec![set(&[1, 2])]);
        assert_eq!(
            lease.lasts(),
            Duration::from_secs(60),
            "both with short timers are gone"
        );
    }
}
