//! Somebody to be dialled: a candidate of discovery, with its back-off and the masters that its slaves name.

use std::collections::VecDeque;

use ferrymq_broker::GroupId;

use crate::{config::Config, event::DialId, input::PeerCandidate, jitter::Jitter, output::LinkState};

/// See the file's head.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) candidate: PeerCandidate,
    /// The group that answered there.
    pub(crate) learned: Option<GroupId>,
    /// The name in the certificate that was shown there last, by any of that group's nodes.
    pub(crate) answered: Option<String>,
    pub(crate) state: TargetState,
    pub(crate) since_ms: u64,
    pub(crate) last_error: Option<String>,
    /// Endpoints that a slave named; tried before the candidate's own.
    redirects: VecDeque<String>,
    redirects_followed: u32,
    /// What is dialled is what a slave named.
    is_redirected: bool,
    cursor: usize,
    failures: u32,
    /// A link to its group was up.
    proven: bool,
}

/// What is going on with a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TargetState {
    /// Dialled at this time, unless the group is linked by then.
    BackOff { until_ms: u64 },
    /// Being dialled; given up at this time.
    Dialling { dial: DialId, until_ms: u64 },
    /// Its connection is one of the sessions.
    Connected,
    /// It is our own group, which needs no link.
    LeftOut,
}

/// Redirects followed without a link coming up, before a pause; two slaves may each take the other for the master.
const REDIRECTS_MAX: u32 = 4;
const DEADLINE_DOUBLINGS_MAX: u32 = 2;

impl Target {
    pub(crate) fn new(candidate: PeerCandidate, now_ms: u64) -> Self {
        Self {
            candidate,
            learned: None,
            answered: None,
            state: TargetState::BackOff { until_ms: now_ms },
            since_ms: now_ms,
            last_error: None,
            redirects: VecDeque::new(),
            redirects_followed: 0,
            is_redirected: false,
            cursor: 0,
            failures: 0,
            proven: false,
        }
    }

    /// The name under which a candidate is the same one although its endpoints change. Whoever announces a group's name
    /// with another id is somebody else.
    pub(crate) fn name_of(candidate: &PeerCandidate) -> String {
        match (&candidate.group, candidate.group_id) {
            (Some(group), Some(id)) => format!("{group}/{id:016x}"),
            (Some(group), None) => group.clone(),
            (None, Some(id)) => format!("{id:016x}"),
            (None, None) => candidate.endpoints.join(","),
        }
    }

    /// What an operator knows it by.
    pub(crate) fn title(&self) -> String {
        let group = self.candidate.group.clone();
        group.unwrap_or_else(|| Self::name_of(&self.candidate))
    }

    /// More speaks for it than an announcement, which anyone may send where the mesh has no secret: it was linked before,
    /// or an operator has written it down.
    pub(crate) fn is_trusted(&self) -> bool {
        self.proven || (self.candidate.group.is_none() && self.candidate.group_id.is_none())
    }

    /// It is only announced, and has failed before.
    pub(crate) fn is_doubtful(&self) -> bool {
        self.failures > 0 && !self.is_trusted()
    }

    /// The endpoint to dial next; `None` where there is none.
    pub(crate) fn next_endpoint(&mut self) -> Option<String> {
        self.is_redirected = !self.redirects.is_empty();
        if let Some(endpoint) = self.redirects.pop_front() {
            return Some(endpoint);
        }
        let endpoints = &self.candidate.endpoints;
        let endpoint = endpoints.get(self.cursor % endpoints.len().max(1)).cloned();
        self.cursor = self.cursor.wrapping_add(1);
        endpoint
    }

    /// Returns how long it may take.
    pub(crate) fn dialling(&mut self, dial: DialId, now_ms: u64, is_crowded: bool, config: &Config) -> u64 {
        let deadline_ms = if is_crowded && !self.is_trusted() {
            let doubled = config.dial_deadline_crowded_ms << self.failures.min(DEADLINE_DOUBLINGS_MAX);
            doubled.min(config.dial_deadline_ms)
        } else if self.is_redirected || self.candidate.endpoints.len() > 1 {
            let doubled = config
                .dial_deadline_others_ms
                .saturating_mul(1 << self.rounds().min(16));
            doubled.min(config.dial_deadline_ms)
        } else {
            config.dial_deadline_ms
        };
        let until_ms = now_ms + deadline_ms;
        self.state = TargetState::Dialling { dial, until_ms };
        self.since_ms = now_ms;
        deadline_ms
    }

    pub(crate) fn connected(&mut self, now_ms: u64) {
        self.state = TargetState::Connected;
        self.since_ms = now_ms;
    }

    /// A link to the target's group is up: the next failure is the first one. `is_proven` where it led there, or is
    /// announced by that group's name and id.
    pub(crate) fn succeeded(&mut self, is_proven: bool) {
        self.proven |= is_proven;
        self.failures = 0;
        self.redirects.clear();
        self.redirects_followed = 0;
        self.last_error = None;
    }

    /// The attempt or the connection ended. The other endpoints are tried at once, then there is a pause.
    pub(crate) fn failed(&mut self, now_ms: u64, error: String, config: &Config, jitter: &mut Jitter) {
        let rounds = self.rounds();
        self.failures = self.failures.saturating_add(1);
        let doubled = config.backoff_min_ms.saturating_mul(1 << rounds.min(16));
        let pause_ms = if !self.redirects.is_empty() || self.rounds() == rounds {
            0
        } else {
            jitter.around(doubled.min(config.backoff_max_ms))
        };
        self.back_off(now_ms, pause_ms);
        self.last_error = Some(error);
    }

    /// How often all of its endpoints have failed since it was linked.
    fn rounds(&self) -> u32 {
        self.failures / (self.candidate.endpoints.len().max(1) as u32)
    }

    /// Its group is linked by another one: it rests, and is due as soon as that link ends.
    pub(crate) fn rest(&mut self, now_ms: u64) {
        self.redirects.clear();
        self.redirects_followed = 0;
        self.failures = 0;
        self.last_error = None;
        self.back_off(now_ms, 0);
    }

    /// A slave answered and named its master.
    pub(crate) fn redirected(&mut self, now_ms: u64, endpoints: Vec<String>, config: &Config, jitter: &mut Jitter) {
        self.redirects_followed += 1;
        if endpoints.is_empty() || self.redirects_followed > REDIRECTS_MAX {
            self.redirects_followed = 0;
            self.redirects.clear();
            let error = if endpoints.is_empty() {
                "its group has no master"
            } else {
                "redirected in circles"
            };
            return self.failed(now_ms, error.to_owned(), config, jitter);
        }
        self.redirects = endpoints.into();
        self.back_off(now_ms, 0);
    }

    /// The target is our own group: it is told once, and dialled no more in this term.
    pub(crate) fn leave_out(&mut self, now_ms: u64) {
        tracing::info!(address = self.title(), "this address is of our own group, and left out");
        self.state = TargetState::LeftOut;
        self.since_ms = now_ms;
    }

    fn back_off(&mut self, now_ms: u64, pause_ms: u64) {
        self.state = TargetState::BackOff {
            until_ms: now_ms + pause_ms,
        };
        self.since_ms = now_ms;
    }

    /// As told in the status.
    pub(crate) fn link_state(&self) -> LinkState {
        match self.state {
            TargetState::BackOff { .. } | TargetState::LeftOut => LinkState::BackOff,
            TargetState::Dialling { .. } => LinkState::Dialling,
            TargetState::Connected => LinkState::Hello,
        }
    }
}
