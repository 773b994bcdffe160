//! Replaces a master that is dead for certain without waiting for the election timeout (docs/adr/0006).
//!
//! *From* the connections over which the master is heard (server.rs); *to* openraft, as an election. A slave whose
//! connections from the master have all ended dials the master's port until it is refused. Then it asks the other voters
//! whether they have seen the same, and if a majority has, the one with the greatest log stands for election. A voter
//! that promised the master not to vote for anybody else for a while is released from that by evidence of its own, and
//! for the next term only. Logs and terms are compared as in every election, so what is acknowledged is safe even when
//! the evidence is wrong.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use openraft::async_runtime::watch::WatchReceiver;
use openraft::raft::TransferLeaderRequest;
use serde::Serialize;
use tokio::sync::Notify;

use crate::config::{Config, NodeAddress, NodeId};
use crate::dial::Probe;
use crate::evidence::{Evidence, Line, LineId, Mastership};
use crate::group::Inner;
use crate::rpc::Rpc;
use crate::types::Vote;
use crate::verdict::{Opinion, Verdict, judge};
use crate::wire::kind;

/// What this node knows and does towards replacing a dead master.
pub(crate) struct Failover {
    is_enabled: bool,
    started: Instant,
    evidence: Mutex<Evidence>,
    suspected: Notify,
    /// The term for which this node last stood on evidence; 0 for none.
    stands_for: AtomicU64,
    /// The term that an earlier master handed to this node; 0 for none.
    handed_over: AtomicU64,
}

/// How this node came to be master.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ElectedBy {
    /// The master before was dead by the evidence of a majority.
    Evidence,
    /// The master before had been silent for the election timeout, or there was none.
    Timer,
    /// The master before handed over.
    HandOver,
}

/// One accepted connection, as far as a master is heard over it. Its end is noted when this is dropped.
pub(crate) struct Hearing {
    failover: Arc<Failover>,
    line: Mutex<Option<(LineId, Arc<Line>)>>,
}

impl Failover {
    pub(crate) fn new(config: &Config) -> Arc<Failover> {
        let fresh_micros = 1_000 * config.election_timeout_max_ms;
        Arc::new(Failover {
            is_enabled: config.fast_failover,
            started: Instant::now(),
            evidence: Mutex::new(Evidence::new(fresh_micros, 2 * fresh_micros)),
            suspected: Notify::new(),
            stands_for: AtomicU64::new(0),
            handed_over: AtomicU64::new(0),
        })
    }

    /// For a connection that was accepted just now.
    pub(crate) fn hearing(self: &Arc<Self>) -> Hearing {
        Hearing {
            failover: self.clone(),
            line: Mutex::new(None),
        }
    }

    /// Whether this node's candidature for that term rests on evidence.
    pub(crate) fn stands_for(&self, term: u64) -> bool {
        self.stands_for.load(Ordering::Acquire) == term
    }

    /// The master of `term` hands over to this node.
    pub(crate) fn handed_over(&self, term: u64) {
        self.handed_over.store(term + 1, Ordering::Release);
    }

    /// Why this node is master of `term`.
    pub(crate) fn elected_by(&self, term: u64) -> ElectedBy {
        if self.stands_for(term) {
            ElectedBy::Evidence
        } else if self.handed_over.load(Ordering::Acquire) == term {
            ElectedBy::HandOver
        } else {
            ElectedBy::Timer
        }
    }

    fn suspect(&self) -> Option<Mastership> {
        self.evidence().suspect()
    }

    fn against(&self) -> Option<Mastership> {
        self.evidence().against(self.now_micros())
    }

    fn now_micros(&self) -> u64 {
        self.started.elapsed().as_micros() as u64
    }

    fn evidence(&self) -> MutexGuard<'_, Evidence> {
        self.evidence.lock().expect("no code panics under this lock")
    }
}

impl Hearing {
    /// An append with that vote has come over the connection.
    pub(crate) fn heard(&self, vote: &Vote) {
        if !vote.committed {
            return;
        }
        let master = mastership(vote);
        let now = self.failover.now_micros();
        let mut line = self.line.lock().expect("no code panics under this lock");
        match &*line {
            Some((_, line)) if line.master == master => line.heard(now),
            _ => {
                let mut evidence = self.failover.evidence();
                if let Some((earlier, _)) = line.take() {
                    // Over the same connection a later term is heard, so this one has not ended.
                    evidence.forget(earlier);
                }
                *line = Some(evidence.begin(master, now));
            }
        }
    }
}

impl Drop for Hearing {
    fn drop(&mut self) {
        let line = self.line.lock().expect("no code panics under this lock").take();
        if let Some((line, _)) = line {
            let now = self.failover.now_micros();
            if self.failover.evidence().end(line, now) {
                self.failover.suspected.notify_one();
            }
        }
    }
}

/// Runs until the replica ends.
pub(crate) async fn run(inner: Arc<Inner>) {
    let failover = &inner.failover;
    loop {
        failover.suspected.notified().await;
        while let Some(master) = failover.suspect() {
            let took = tokio::time::timeout(patience(&inner), replace(&inner, master)).await;
            if took.is_err() || failover.suspect() == Some(master) {
                // The election timeout decides.
                break;
            }
        }
    }
}

/// This node's answer to another voter, or to itself.
pub(crate) fn opinion(inner: &Inner, accused: Mastership) -> Opinion {
    let metrics = inner.raft.metrics();
    let vote = metrics.borrow_watched().vote;
    let has_successor = vote.committed && vote.leader_id.term > accused.term;
    Opinion {
        node: inner.config.node,
        is_dead: inner.failover.is_enabled
            && inner.admission.is_given()
            && !has_successor
            && inner.failover.against() == Some(accused),
        last: inner.replica.journal.log_state().last,
    }
}

/// Whether this node may grant that vote although it promised its master to grant none yet, or was restarted and has
/// forgotten what it promised: the master of the very term before is dead by this node's own evidence, and a promise to
/// an earlier one ended with that term. For a vote of any later term the promise might be to another master.
pub(crate) fn is_warranted(inner: &Inner, requested: &Vote) -> bool {
    inner.failover.is_enabled
        && inner.failover.against().is_some_and(|accused| {
            accused.term + 1 == requested.leader_id.term
                && inner.raft.metrics().borrow_watched().vote == vote_of(accused)
        })
}

/// Goes on until there is another master, or the suspicion was wrong.
async fn replace(inner: &Arc<Inner>, master: Mastership) {
    let Some(address) = is_worth_it(inner, master) else {
        return;
    };
    let begun = Instant::now();
    if !is_refused(inner, master, &address).await {
        tracing::debug!(
            ?master,
            "the master's connections have ended, but it is not shown to be dead"
        );
        return;
    }
    tracing::info!(
        master = master.node,
        term = master.term,
        took = ?begun.elapsed(),
        "the master is dead: its connections have ended and its port refuses new ones"
    );
    let mut others = voters_to_ask(inner, master);
    let mut pause = ASK_AGAIN_MIN;
    let mut stand_at = Instant::now();
    let mut is_contested = false;
    while inner.failover.against() == Some(master) && !inner.is_closing() {
        let vote = inner.raft.metrics().borrow_watched().vote;
        if vote.committed && vote != vote_of(master) {
            return;
        }
        if vote != vote_of(master) && !is_contested {
            // An election is under way; it gets its time.
            is_contested = true;
            stand_at = stand_at.max(Instant::now() + STAND_AGAIN);
        }
        if Instant::now() >= stand_at && verdict(inner, master, &mut others).await == Verdict::Stand {
            stand_at = Instant::now() + STAND_AGAIN;
            stand(inner, vote).await;
        }
        tokio::time::sleep(pause).await;
        pause = (2 * pause).min(ASK_AGAIN_MAX);
    }
}

/// The address of the suspect, if it is this node's master and could be replaced by others.
fn is_worth_it(inner: &Inner, master: Mastership) -> Option<String> {
    let metrics = inner.raft.metrics();
    let metrics = metrics.borrow_watched();
    let membership = metrics.membership_config.membership();
    let me = inner.config.node;
    let is_mine = metrics.vote == vote_of(master) && master.node != me && membership.voter_ids().any(|id| id == me);
    if !inner.failover.is_enabled || inner.is_closing() || !is_mine {
        return None;
    }
    membership
        .get_node(&master.node)
        .map(|node: &NodeAddress| node.peer.clone())
}

/// Dials until refused. A process that is being ended still accepts for some milliseconds.
async fn is_refused(inner: &Inner, master: Mastership, address: &str) -> bool {
    let failover = &inner.failover;
    let mut pause = DIAL_AGAIN_MIN;
    while failover.suspect() == Some(master) && !inner.is_closing() {
        match inner.dial.probe(master.node, address).await {
            Probe::Refused => {
                let now = failover.now_micros();
                failover.evidence().refused(master, now);
                return failover.against() == Some(master);
            }
            Probe::Alive => return false,
            Probe::Unclear => {
                tokio::time::sleep(pause).await;
                pause = (2 * pause).min(DIAL_AGAIN_MAX);
            }
        }
    }
    false
}

fn voters_to_ask(inner: &Inner, master: Mastership) -> Vec<Rpc> {
    let membership = inner.membership();
    let others: BTreeSet<NodeId> = membership
        .voter_ids()
        .filter(|id| *id != inner.config.node && *id != master.node)
        .collect();
    let address = |id: &NodeId| membership.get_node(id).map(|node: &NodeAddress| node.peer.clone());
    others
        .iter()
        .filter_map(|id| Some(Rpc::new(inner.dial.clone(), *id, address(id)?)))
        .collect()
}

/// Asks all at once; who does not answer in time has no opinion.
async fn verdict(inner: &Inner, master: Mastership, others: &mut [Rpc]) -> Verdict {
    let questions = others.iter_mut().map(|rpc| async {
        let answer = rpc.ask_json::<Opinion>(kind::IS_DEAD, &master);
        tokio::time::timeout(ANSWER_WITHIN, answer).await.ok()?.ok()
    });
    let answers = futures_util::future::join_all(questions).await;
    let opinions: Vec<Opinion> = answers.into_iter().flatten().collect();
    let me = opinion(inner, master);
    let verdict = judge(&me, &opinions, inner.membership().get_joint_config());
    tracing::debug!(?me, ?opinions, ?verdict, "asked whether the master is dead");
    verdict
}

/// Stands for election, unless this node's vote has changed meanwhile: then another is, or may be, master.
async fn stand(inner: &Inner, vote: Vote) {
    let me = inner.config.node;
    let term = vote.leader_id.term + 1;
    inner.failover.stands_for.store(term, Ordering::Release);
    tracing::info!(term, "standing for election");
    // openraft's own path for it: compares the vote and starts the election in one step. That the master agreed, as the
    // request then says to the voters, is taken back in network.rs.
    let request = TransferLeaderRequest::new(vote, me, None);
    match inner.raft.handle_transfer_leader(request).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "no election"),
        Err(error) => tracing::debug!(%error, "no election: the replica has stopped"),
    }
}

fn patience(inner: &Inner) -> Duration {
    Duration::from_millis(2 * inner.config.election_timeout_max_ms)
}

fn mastership(vote: &Vote) -> Mastership {
    Mastership {
        term: vote.leader_id.term,
        node: vote.leader_id.voted_for,
    }
}

fn vote_of(master: Mastership) -> Vote {
    Vote::new_committed(master.term, master.node)
}

/// Between two looks at a port that neither refuses nor answers; doubled each time.
const DIAL_AGAIN_MIN: Duration = Duration::from_millis(1);
const DIAL_AGAIN_MAX: Duration = Duration::from_millis(20);
/// Between two rounds of questions; doubled each time. The others find out within a few milliseconds of each other.
const ASK_AGAIN_MIN: Duration = Duration::from_millis(1);
const ASK_AGAIN_MAX: Duration = Duration::from_millis(20);
/// For one question.
const ANSWER_WITHIN: Duration = Duration::from_millis(100);
/// Between two candidatures: an election takes two syncs and two round trips.
const STAND_AGAIN: Duration = Duration::from_millis(150);
