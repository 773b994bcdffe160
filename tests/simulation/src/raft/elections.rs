//! Who is master: votes in advance, votes, and what follows from them.

use super::{After, ELECTION_MAX_US, ELECTION_MIN_US, Follower, Leading, Peer, Replica, State};
use crate::{clock::Instant, config::NodeId, sabotage::Sabotage};

use std::{collections::BTreeSet, sync::atomic::Ordering};

use bytes::Bytes;

impl Replica {
    pub(super) fn rest_until_election(&mut self, now: u64) {
        self.election_at_us = now + self.rng.between(ELECTION_MIN_US, ELECTION_MAX_US);
    }

    pub(super) fn begin_election(&mut self, transfer: bool) {
        let now = Instant::now().0;
        self.rest_until_election(now);
        if transfer {
            return self.stand(true);
        }
        self.state = State::Candidate {
            pre: true,
            votes: BTreeSet::from([self.id]),
        };
        let (term, last) = (self.term + 1, self.last());
        self.say_all(&Peer::Vote {
            term,
            last,
            pre: true,
            transfer: false,
        });
        self.count_votes();
    }

    /// Votes for itself in the next term.
    fn stand(&mut self, transfer: bool) {
        self.term += 1;
        self.voted_for = Some(self.id);
        self.master = None;
        self.state = State::Candidate {
            pre: false,
            votes: BTreeSet::new(),
        };
        self.write_vote();
        let term = self.term;
        self.then(After::Stand { term, transfer });
    }

    pub(super) fn ask_for_votes(&mut self, term: u64, transfer: bool) {
        if term != self.term {
            return;
        }
        let State::Candidate { pre: false, votes } = &mut self.state else {
            return;
        };
        votes.insert(self.id);
        let last = self.last();
        self.say_all(&Peer::Vote {
            term,
            last,
            pre: false,
            transfer,
        });
        self.count_votes();
    }

    pub(super) fn asked_for_vote(&mut self, from: NodeId, term: u64, last: (u64, u64), pre: bool, transfer: bool) {
        let now = Instant::now().0;
        let hears_master = self.heard_us.is_some_and(|heard| now < heard + ELECTION_MAX_US);
        let leads = matches!(self.state, State::Leader(_)) && self.shared.lease.holds();
        let loyal = (hears_master || leads) && !transfer;
        if now < self.votes_from_us || loyal {
            return self.say(
                from,
                Peer::Voted {
                    term: self.term,
                    granted: false,
                    pre,
                },
            );
        }
        let up_to_date = last >= self.last();
        if pre {
            let granted = term > self.term && up_to_date;
            return self.say(from, Peer::Voted { term, granted, pre });
        }
        self.see_term(term);
        let free = self.voted_for.is_none() || self.voted_for == Some(from);
        let granted = term == self.term && up_to_date && free && !matches!(self.state, State::Leader(_));
        if granted {
            if self.voted_for.is_none() {
                self.voted_for = Some(from);
                self.write_vote();
            }
            self.rest_until_election(now);
        }
        let term = self.term;
        self.then(After::Send(from, Peer::Voted { term, granted, pre }));
    }

    pub(super) fn voted(&mut self, from: NodeId, term: u64, granted: bool, pre: bool) {
        if !granted {
            return self.see_term(term);
        }
        let awaited = if pre { self.term + 1 } else { self.term };
        if let State::Candidate { pre: asked, votes } = &mut self.state
            && *asked == pre
            && term == awaited
        {
            votes.insert(from);
            self.count_votes();
        }
    }

    fn count_votes(&mut self) {
        let State::Candidate { pre, votes } = &self.state else {
            return;
        };
        if votes.len() < self.majority() {
            return;
        }
        if *pre { self.stand(false) } else { self.lead() }
    }

    fn lead(&mut self) {
        let now = Instant::now().0;
        let next = self.last().1 + 1;
        let follower = Follower {
            next,
            matched: 0,
            progress_us: now,
        };
        self.state = State::Leader(Leading {
            followers: self.others().into_iter().map(|id| (id, follower)).collect(),
            synced: 0,
            pulse_at_us: now,
        });
        self.master = Some(self.id);
        self.doubt_since_us = None;
        self.shared.lease.begin(self.term, vec![self.voters.clone()]);
        self.shared.leads.store(true, Ordering::Relaxed);
        self.append_own(Bytes::new());
    }

    /// A later term makes this node a follower in it.
    pub(super) fn see_term(&mut self, term: u64) {
        if term <= self.term {
            return;
        }
        self.term = term;
        self.voted_for = None;
        self.write_vote();
        self.follow(None);
    }

    pub(super) fn follow(&mut self, master: Option<NodeId>) {
        if matches!(self.state, State::Leader(_)) {
            self.shared.lease.end();
            self.shared.leads.store(false, Ordering::Relaxed);
        }
        self.state = State::Follower;
        self.master = master;
    }

    pub(super) fn write_vote(&mut self) {
        if self.shared.sabotage == Some(Sabotage::ForgetVote) {
            return;
        }
        let mut bytes = self.term.to_le_bytes().to_vec();
        bytes.extend(self.voted_for.unwrap_or(0).to_le_bytes());
        let done = self.operation();
        self.journal.put_cell(super::log::VOTE, bytes.into(), true, done);
    }
}
