//! A small model of Raft that stands where openraft stands: elections with a vote before the vote, log, commit, lease,
//! snapshots, handing over. Its log and vote lie in the real journal, its lease is the real one, and it keeps the same
//! contract towards the master's loop.
//!
//! Not modelled: changes of membership, fail-over by evidence, admission of nodes without data.

mod elections;
mod log;
mod snapshot;
mod state_file;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use ferrymq_broker::{BatchBuilder, Broker, Effect, Outcome};
use ferrymq_simulated_journal::{Config, Journal, Place, Record};

use crate::{
    clock::Instant,
    config::NodeId,
    group::{Completion, Failure, Group, GroupEvent, Role, Shared, Submitted, Told, locked},
    replication::lease::Lease,
    rng::Rng,
    sabotage::Sabotage,
};

/// The product's defaults, in microseconds.
pub(crate) const HEARTBEAT_US: u64 = 60_000;
pub(crate) const ELECTION_MIN_US: u64 = 250_000;
pub(crate) const ELECTION_MAX_US: u64 = 400_000;
/// Progress that a slave does not make for so long is sent again.
const RESEND_US: u64 = 120_000;
/// Batches under way at a time.
const BATCHES_MAX: usize = 2;
/// How long what nobody waits for may wait for company.
const RIDE_US: u64 = 5_000;
/// Entries in one request.
const ENTRIES_MAX: u64 = 16;
/// Entries that are applied before the next snapshot, and that stay behind one.
const SNAPSHOT_ENTRIES: u64 = 60;
const KEEP_ENTRIES: u64 = 20;
/// Small segments, so that many are begun, sealed and used again in a short life.
const SEGMENT_BYTES: u64 = 16 << 10;
const CACHE_BYTES_MAX: usize = 32 << 10;

/// What nodes of a group say to each other.
#[derive(Debug, Clone)]
pub(crate) enum Peer {
    /// Asks for a vote; `pre`: only whether there would be one; `transfer`: the master wants it.
    Vote {
        term: u64,
        last: (u64, u64),
        pre: bool,
        transfer: bool,
    },
    /// Grants or refuses it.
    Voted { term: u64, granted: bool, pre: bool },
    /// The master's entries, and its pulse.
    Append {
        term: u64,
        prev: (u64, u64),
        entries: Vec<Record>,
        commit: u64,
        sent_us: u64,
    },
    /// A slave's answer: it is synced up to `index`, or lacks what comes before and has `index` entries.
    Appended {
        term: u64,
        ok: bool,
        index: u64,
        sent_us: u64,
    },
    /// The state and its bodies, for a slave that has fallen behind.
    Snapshot {
        term: u64,
        last: (u64, u64),
        state: Bytes,
        bodies: Vec<(Place, Bytes)>,
        sent_us: u64,
    },
    /// Stand for election now: the master hands over.
    Stand { term: u64 },
}

/// A committed entry that this replica has just applied.
#[derive(Debug)]
pub(crate) struct Committed {
    pub(crate) term: u64,
    pub(crate) index: u64,
    pub(crate) payload: Bytes,
}

#[derive(Debug)]
enum State {
    Follower,
    /// Asking for votes in advance, or for votes.
    Candidate {
        pre: bool,
        votes: BTreeSet<NodeId>,
    },
    Leader(Leading),
}

#[derive(Debug)]
struct Leading {
    followers: BTreeMap<NodeId, Follower>,
    /// Own entries are on disk up to here.
    synced: u64,
    pulse_at_us: u64,
}

#[derive(Debug, Clone, Copy)]
struct Follower {
    next: u64,
    matched: u64,
    progress_us: u64,
}

/// What is done once the journal has answered.
#[derive(Debug)]
enum After {
    Send(NodeId, Peer),
    /// Entries of this term are on disk up to this index.
    Synced {
        term: u64,
        index: u64,
    },
    /// The vote for oneself is on disk.
    Stand {
        term: u64,
        transfer: bool,
    },
    /// The journal is ahead of this state.
    WriteState {
        index: u64,
        term: u64,
        state: Bytes,
    },
}

/// A batch on its way.
#[derive(Debug)]
struct Proposal {
    term: u64,
    tokens: Vec<u64>,
}

type Answers = Arc<Mutex<Vec<(u64, Result<(), String>)>>>;

/// One replica, alive.
pub(crate) struct Replica {
    pub(crate) id: NodeId,
    dir: String,
    voters: BTreeSet<NodeId>,
    pub(crate) shared: Arc<Shared>,
    journal: Journal,
    rng: Rng,
    pub(crate) term: u64,
    voted_for: Option<NodeId>,
    state: State,
    pub(crate) master: Option<NodeId>,
    pub(crate) commit: u64,
    pub(crate) applied: u64,
    applied_term: u64,
    heard_us: Option<u64>,
    election_at_us: u64,
    votes_from_us: u64,
    handing_over: u64,
    handing_over_until_us: u64,
    doubt_since_us: Option<u64>,
    /// Number of the newest journal operation, and of the newest answered one.
    operations: u64,
    answered: u64,
    answers: Answers,
    after: VecDeque<(u64, After)>,
    proposals: BTreeMap<u64, Proposal>,
    gathered: Vec<Submitted>,
    ride_until_us: Option<u64>,
    /// Nothing is taken behind what was not, as in `node/replication/src/pipeline.rs`.
    shut: Option<Failure>,
    /// So many batches find the disk full (a fault).
    pub(crate) full_for: u64,
    snapshot_index: u64,
    snapshot_under_way: bool,
    stragglers_at_us: u64,
    copying: Arc<AtomicBool>,
    /// What it says; taken by the node.
    pub(crate) out: Vec<(NodeId, Peer)>,
    pub(crate) events: Vec<GroupEvent>,
    pub(crate) committed: Vec<Committed>,
    pub(crate) fatal: Option<String>,
}

/// What a replica is made of.
pub(crate) struct Birth {
    pub(crate) id: NodeId,
    /// `/machine`
    pub(crate) dir: String,
    pub(crate) voters: BTreeSet<NodeId>,
    pub(crate) founds_as: u64,
    pub(crate) sabotage: Option<Sabotage>,
    pub(crate) seed: u64,
}

impl Replica {
    /// Recovers what the disk holds.
    pub(crate) fn open(birth: Birth) -> Result<Self, String> {
        let config = Config {
            segment_bytes: SEGMENT_BYTES,
            cache_bytes_max: CACHE_BYTES_MAX,
            sync: birth.sabotage != Some(Sabotage::AnswerUnsynced),
            ..Config::new(format!("{}/journal", birth.dir))
        };
        let journal = Journal::open(config).map_err(|error| error.to_string())?;
        let (broker, applied, applied_term) = state_file::newest(&birth.dir, journal.log_state())?;
        let (term, voted_for) = log::read_vote(&journal);
        let lease = Arc::new(Lease::new(birth.id, Duration::from_micros(ELECTION_MIN_US)));
        let shared = Shared::new(broker, applied, journal.clone(), lease, birth.founds_as, birth.sabotage);
        let now = Instant::now().0;
        let silence = if term > 0 { ELECTION_MAX_US } else { 0 };
        let mut replica = Self {
            id: birth.id,
            dir: birth.dir,
            voters: birth.voters,
            shared,
            journal,
            rng: Rng(birth.seed),
            term,
            voted_for,
            state: State::Follower,
            master: None,
            commit: applied,
            applied,
            applied_term,
            heard_us: None,
            election_at_us: 0,
            votes_from_us: now + silence,
            handing_over: 0,
            handing_over_until_us: 0,
            doubt_since_us: None,
            operations: 0,
            answered: 0,
            answers: Answers::default(),
            after: VecDeque::new(),
            proposals: BTreeMap::new(),
            gathered: Vec::new(),
            ride_until_us: None,
            shut: None,
            full_for: 0,
            snapshot_index: applied,
            snapshot_under_way: false,
            stragglers_at_us: now,
            copying: Arc::default(),
            out: Vec::new(),
            events: Vec::new(),
            committed: Vec::new(),
            fatal: None,
        };
        replica.reset_live();
        replica.rest_until_election(now);
        replica.apply_known();
        Ok(replica)
    }

    /// The handle for the master's loop.
    pub(crate) fn group(&self) -> Group {
        Group {
            shared: self.shared.clone(),
        }
    }

    /// As `node/replication/src/master.rs` derives it.
    pub(crate) fn role(&self) -> Role {
        let leads = matches!(self.state, State::Leader(_));
        let is_ready = leads && self.applied_term == self.term && self.handing_over != self.term && !self.doubts();
        match is_ready {
            true => Role::Master { term: self.term },
            false => Role::Slave {
                term: self.term,
                master: self.master.filter(|master| *master != self.id),
            },
        }
    }

    fn doubts(&self) -> bool {
        self.doubt_since_us
            .is_some_and(|since| Instant::now().0 >= since + ELECTION_MAX_US)
    }

    fn majority(&self) -> usize {
        self.voters.len() / 2 + 1
    }

    fn others(&self) -> Vec<NodeId> {
        self.voters.iter().copied().filter(|id| *id != self.id).collect()
    }

    fn say(&mut self, to: NodeId, peer: Peer) {
        self.out.push((to, peer));
    }

    fn say_all(&mut self, peer: &Peer) {
        for to in self.others() {
            self.say(to, peer.clone());
        }
    }

    /// Does `after` once everything that was given to the journal until now is answered.
    fn then(&mut self, after: After) {
        if self.answered == self.operations {
            return self.carry_out(after);
        }
        self.after.push_back((self.operations, after));
    }

    /// A callback for the journal's next operation.
    fn operation(&mut self) -> ferrymq_simulated_journal::Done {
        self.operations += 1;
        let (number, answers) = (self.operations, self.answers.clone());
        Box::new(move |result| locked(&answers).push((number, result.map_err(|error| error.to_string()))))
    }

    /// Whether the journal has something to do.
    pub(crate) fn wants_disk(&self) -> bool {
        self.operations > self.answered || self.journal.queued_bytes() > 0
    }

    /// The disk has had its time: the journal writes, syncs and answers.
    pub(crate) fn disk(&mut self, rested: bool) {
        self.journal.step(rested);
        self.take_answers();
    }

    fn take_answers(&mut self) {
        let answers = std::mem::take(&mut *locked(&self.answers));
        for (number, result) in answers {
            if let Err(error) = result {
                return self.stop(format!("the journal: {error}"));
            }
            self.answered = self.answered.max(number);
        }
        while let Some((number, _)) = self.after.front() {
            if *number > self.answered || self.fatal.is_some() {
                break;
            }
            if let Some((_, after)) = self.after.pop_front() {
                self.carry_out(after);
            }
        }
        if let Some(error) = self.journal.failed() {
            self.stop(format!("the journal: {error}"));
        }
    }

    fn carry_out(&mut self, after: After) {
        match after {
            After::Send(to, peer) => self.say(to, peer),
            After::Synced { term, index } => {
                if let State::Leader(leading) = &mut self.state
                    && term == self.term
                {
                    leading.synced = leading.synced.max(index);
                    self.advance();
                }
            }
            After::Stand { term, transfer } => self.ask_for_votes(term, transfer),
            After::WriteState { index, term, state } => self.write_state(index, term, &state),
        }
    }

    fn stop(&mut self, why: String) {
        self.shared.lease.end();
        self.fatal.get_or_insert(why);
    }

    /// Time has passed.
    pub(crate) fn tick(&mut self) {
        let now = Instant::now().0;
        let damage = locked(&self.shared.damage).take();
        if let Some(damage) = damage {
            return self.stop(damage);
        }
        self.take_answers();
        match &self.state {
            State::Leader(leading) => {
                let pulse_due = now >= leading.pulse_at_us;
                if self.handing_over == self.term && now >= self.handing_over_until_us {
                    // Nobody took over.
                    self.handing_over = 0;
                    self.shared.lease.begin(self.term, vec![self.voters.clone()]);
                }
                if pulse_due {
                    self.pulse(now);
                }
                if self.shared.may_act() {
                    self.doubt_since_us = None;
                } else {
                    self.doubt_since_us.get_or_insert(now);
                }
            }
            _ if now >= self.election_at_us && now >= self.votes_from_us => self.begin_election(false),
            _ => {}
        }
        self.move_stragglers(now);
        self.pump();
    }

    fn pulse(&mut self, now: u64) {
        let last = self.last().1;
        if let State::Leader(leading) = &mut self.state {
            leading.pulse_at_us = now + HEARTBEAT_US;
            for follower in leading.followers.values_mut() {
                if follower.next > follower.matched + 1 && now >= follower.progress_us + RESEND_US {
                    follower.next = follower.matched + 1;
                    follower.progress_us = now;
                }
                follower.next = follower.next.min(last + 1);
            }
        }
        for to in self.others() {
            self.send_entries(to, true);
        }
    }

    /// Takes in what another node says.
    pub(crate) fn hear(&mut self, from: NodeId, peer: Peer) {
        if self.fatal.is_some() {
            return;
        }
        match peer {
            Peer::Vote {
                term,
                last,
                pre,
                transfer,
            } => self.asked_for_vote(from, term, last, pre, transfer),
            Peer::Voted { term, granted, pre } => self.voted(from, term, granted, pre),
            Peer::Append {
                term,
                prev,
                entries,
                commit,
                sent_us,
            } => self.hear_entries(from, term, prev, entries, commit, sent_us),
            Peer::Appended {
                term,
                ok,
                index,
                sent_us,
            } => self.appended(from, term, ok, index, sent_us),
            Peer::Snapshot {
                term,
                last,
                state,
                bodies,
                sent_us,
            } => self.hear_snapshot(from, term, last, &state, bodies, sent_us),
            Peer::Stand { term } => {
                if term == self.term && matches!(self.state, State::Follower) {
                    self.begin_election(true);
                }
            }
        }
        self.take_answers();
        self.pump();
    }

    /// Proposes what the master's loop has submitted.
    pub(crate) fn pump(&mut self) {
        let now = Instant::now().0;
        for told in self.shared.take_told() {
            match told {
                Told::Command(submitted) => {
                    if self.gathered.is_empty() {
                        self.ride_until_us = Some(now + RIDE_US);
                    }
                    self.gathered.push(submitted);
                }
                Told::Begin if self.shared.sabotage == Some(Sabotage::StayOpen) => {}
                Told::Begin => self.take_again(self.shut.unwrap_or(Failure::NotMaster)),
                Told::GoOnAfterFull if self.shut == Some(Failure::Full) => self.take_again(Failure::Full),
                Told::GoOnAfterFull => {}
            }
        }
        if self.gathered.is_empty() {
            return;
        }
        let is_master = matches!(self.role(), Role::Master { .. });
        if let Some(failure) = self.shut.or((!is_master).then_some(Failure::NotMaster)) {
            return self.refuse(failure);
        }
        let awaited = self.gathered.iter().any(|submitted| submitted.awaited);
        let rides = !awaited && self.ride_until_us.is_some_and(|until| now < until);
        if rides || self.proposals.len() >= BATCHES_MAX {
            return;
        }
        if self.full_for > 0 {
            self.full_for -= 1;
            return self.refuse(Failure::Full);
        }
        let gathered = std::mem::take(&mut self.gathered);
        let mut batch = BatchBuilder::default();
        gathered.iter().for_each(|submitted| batch.push(&submitted.command));
        let tokens = gathered.iter().map(|submitted| submitted.token).collect();
        let index = self.append_own(batch.finish());
        self.proposals.insert(
            index,
            Proposal {
                term: self.term,
                tokens,
            },
        );
    }

    /// Nothing of what has gathered is taken, nor anything behind it.
    fn refuse(&mut self, failure: Failure) {
        self.shut(failure);
        let refused = std::mem::take(&mut self.gathered);
        if !refused.is_empty() {
            let results = refused.iter().map(|s| (s.token, Err(failure))).collect();
            self.events.push(GroupEvent::Done { results });
        }
    }

    fn shut(&mut self, failure: Failure) {
        if self.shared.sabotage != Some(Sabotage::StayOpen) {
            self.shut = match (self.shut, failure) {
                (None | Some(Failure::Full), Failure::Full) => Some(Failure::Full),
                _ => Some(Failure::NotMaster),
            };
        }
    }

    /// What has come until now is not taken, and then the log takes commands again.
    fn take_again(&mut self, failure: Failure) {
        self.refuse(failure);
        self.shut = None;
    }

    /// What a new entry's outcome means for whoever proposed it here.
    fn completions(&mut self, index: u64, term: u64, outcomes: Vec<Outcome>) -> Vec<Completion> {
        match self.proposals.remove(&index) {
            Some(proposal) if proposal.term == term => {
                let outcomes = outcomes
                    .into_iter()
                    .map(Ok)
                    .chain(std::iter::repeat_with(|| Err(Failure::Unknown)));
                proposal.tokens.into_iter().zip(outcomes).collect()
            }
            Some(proposal) => {
                self.shut(Failure::Unknown);
                unknown(proposal)
            }
            None => Vec::new(),
        }
    }

    fn tell(&mut self, index: u64, effects: Vec<Effect>, results: Vec<Completion>) {
        if !effects.is_empty() || !results.is_empty() {
            self.events.push(GroupEvent::Applied {
                index,
                effects,
                results,
            });
        }
    }

    /// Hands mastership to the slave that has caught up best.
    pub(crate) fn step_down(&mut self) {
        if !matches!(self.role(), Role::Master { .. }) {
            return;
        }
        let State::Leader(leading) = &self.state else { return };
        let best = leading.followers.iter().max_by_key(|(id, f)| (f.matched, **id));
        let Some((to, _)) = best.map(|(id, f)| (*id, f.matched)) else {
            return;
        };
        self.handing_over = self.term;
        self.handing_over_until_us = Instant::now().0 + 2 * ELECTION_MAX_US;
        self.shared.lease.end();
        let term = self.term;
        self.send_entries(to, true);
        self.say(to, Peer::Stand { term });
        self.pump();
    }

    /// What is committed as this replica knows it.
    pub(crate) fn with_broker<R>(&self, look: impl FnOnce(&Broker) -> R) -> R {
        look(&self.shared.broker())
    }

    pub(crate) fn attached(&self) -> bool {
        self.shared.attached.load(Ordering::Relaxed)
    }
}

fn unknown(proposal: Proposal) -> Vec<Completion> {
    proposal
        .tokens
        .into_iter()
        .map(|token| (token, Err(Failure::Unknown)))
        .collect()
}
