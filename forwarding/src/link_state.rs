//! Who is linked with us and who is to be: targets being dialled, connections saying hello, and at most one link per
//! group. Every state has a deadline.
//!
//! ```text
//! target:   BackOff ──due──► Dialling ──connected──► session
//! session:  Hello ──hello agreed──► Syncing ──held agreed, first snapshot──► Up ──closed, silent, replaced──► gone
//! ```

use std::collections::BTreeMap;

use ferrymq_broker::{GroupId, incarnation_of, term_of};

use crate::{
    action::Action,
    config::Config,
    event::{DialId, LinkId},
    frame::{Frame, Held, Hello, LINK_VERSION},
    input::PeerCandidate,
    jitter::Jitter,
    output::LinkState,
    target::{Target, TargetState},
};

/// See the file's head.
#[derive(Debug)]
pub(crate) struct Links {
    targets: BTreeMap<String, Target>,
    sessions: BTreeMap<LinkId, Session>,
    /// The one session per group whose hello was agreed to.
    by_group: BTreeMap<GroupId, LinkId>,
    /// The highest epoch seen of each group: a master deposed since then is not listened to any more.
    epochs: BTreeMap<GroupId, u64>,
    next_dial: DialId,
    jitter: Jitter,
}

/// What is said to whoever seems to be the copy of a group that is linked.
const TWO_COPIES: &str = "two copies of one group are running";

/// One connection.
#[derive(Debug)]
pub(crate) struct Session {
    /// By its certificate.
    pub(crate) group: String,
    pub(crate) node: u64,
    pub(crate) hello: Option<Hello>,
    pub(crate) state: LinkState,
    pub(crate) since_ms: u64,
    pub(crate) rtt_us: u32,
    pub(crate) resyncs: u64,
    /// What the peer holds of us, as it has told.
    pub(crate) held: Option<Held>,
    /// That is not beyond what we know of ourselves: from here on demand is told and messages are handed over.
    pub(crate) is_cleared: bool,
    /// Before that demand was heard, and not taken in.
    pub(crate) has_missed: bool,
    /// By how much the other group's time is ahead of this one's.
    pub(crate) skew_ms: Option<i64>,
    heard_ms: u64,
    /// Nothing is heard of it, so that it covers its group no longer: another node may be the master there.
    is_suspect: bool,
    /// The target that we dialled; `None` where the peer dialled.
    dialled: Option<String>,
}

/// How many may be dialled now; and of them, those that have failed and that only an announcement speaks for.
struct Room {
    dials: usize,
    doubtful: usize,
}

/// A link that was in use with another group, and is gone.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Lost {
    pub(crate) group: GroupId,
    pub(crate) name: String,
    pub(crate) was_up: bool,
}

/// What a hello led to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The link is in use now, instead of that one, if any.
    Agreed { group: GroupId, replaced: Option<LinkId> },
    /// The peer's epoch is over, by what was seen of its group. It may be a master that does not know that it is deposed,
    /// or its group's log went back: it is told what is held of it, and has a while to find out.
    Behind { group: GroupId },
    /// The link is to be closed.
    Refused(String),
}

impl Lost {
    fn is_of(&self, target: &Target) -> bool {
        let id = target.candidate.group_id.or(target.learned);
        id == Some(self.group) || target.answered.as_ref() == Some(&self.name)
    }
}

impl Session {
    /// What its end means, if it is the one in use; none where no hello was agreed to.
    fn if_lost(&self) -> Option<Lost> {
        let hello = self.hello.as_ref()?;
        Some(Lost {
            group: hello.group_id,
            name: hello.group.clone(),
            was_up: self.state == LinkState::Up,
        })
    }

    /// Nothing was heard for longer than two pulses.
    fn is_silent(&self, now_ms: u64, config: &Config) -> bool {
        self.is_suspect || now_ms.saturating_sub(self.heard_ms) > 2 * config.hash_interval_ms
    }
}

impl Room {
    fn is_for(&self, target: &Target) -> bool {
        self.dials > 0 && (self.doubtful > 0 || !target.is_doubtful())
    }

    fn take(&mut self, target: &Target) {
        self.dials -= 1;
        self.doubtful -= usize::from(target.is_doubtful());
    }
}

impl Links {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            targets: BTreeMap::new(),
            sessions: BTreeMap::new(),
            by_group: BTreeMap::new(),
            epochs: BTreeMap::new(),
            next_dial: 1,
            jitter: Jitter::new(seed),
        }
    }

    /// Everyone whom discovery knows now.
    pub(crate) fn peers(&mut self, now_ms: u64, candidates: Vec<PeerCandidate>, config: &Config) {
        let mut known = std::mem::take(&mut self.targets);
        for candidate in candidates {
            let name = Target::name_of(&candidate);
            if candidate.group_id == Some(config.group_id) || candidate.endpoints.is_empty() {
                continue;
            }
            let target = match known.remove(&name) {
                Some(mut target) => {
                    target.candidate = candidate;
                    target
                }
                None => Target::new(candidate, now_ms),
            };
            self.targets.insert(name, target);
        }
    }

    /// Dials whom to dial is due and gives up what has taken too long; tells the sessions to be closed.
    pub(crate) fn tick(&mut self, now_ms: u64, config: &Config, actions: &mut Vec<Action>) -> Vec<(LinkId, String)> {
        for target in self.targets.values_mut() {
            if matches!(target.state, TargetState::Dialling { until_ms, .. } if now_ms >= until_ms) {
                let error = "no answer to the dialling in time".to_owned();
                target.failed(now_ms, error, config, &mut self.jitter);
            }
        }
        self.dial_due(now_ms, config, actions);
        let overdue = self.sessions.iter().filter_map(|(link, session)| {
            let silent_ms = now_ms.saturating_sub(session.heard_ms);
            let waiting_ms = now_ms.saturating_sub(session.since_ms);
            match session.state {
                LinkState::Up if silent_ms >= config.silence_deadline_ms => Some((*link, "nothing was heard in time")),
                LinkState::Hello if waiting_ms >= config.hello_deadline_ms && session.hello.is_some() => {
                    Some((*link, "its epoch is over, and it has not begun a later one"))
                }
                LinkState::Hello if waiting_ms >= config.hello_deadline_ms => Some((*link, "no hello in time")),
                LinkState::Syncing if waiting_ms >= config.hello_deadline_ms => Some((*link, "no demand in time")),
                _ => None,
            }
        });
        overdue.map(|(link, reason)| (link, reason.to_owned())).collect()
    }

    /// Dials as many as there is room for: first those that more speaks for than an announcement, then whoever has waited
    /// longest. However many are announced, that takes no more descriptors and starves nobody.
    fn dial_due(&mut self, now_ms: u64, config: &Config, actions: &mut Vec<Action>) {
        let mut room = self.room(config);
        if room.dials == 0 {
            return;
        }
        let due = self.targets.iter().filter_map(|(name, target)| match target.state {
            TargetState::BackOff { until_ms } if now_ms >= until_ms && !self.is_covered(target) => {
                Some((!target.is_trusted(), until_ms, name, target))
            }
            _ => None,
        });
        let mut due: Vec<(bool, u64, &String, &Target)> = due.collect();
        due.sort_unstable_by_key(|(doubt, until_ms, name, _)| (*doubt, *until_ms, *name));
        let is_crowded = due.len() > room.dials;
        let chosen = due.into_iter().filter(|(_, _, _, target)| {
            let fits = room.is_for(target);
            if fits {
                room.take(target);
            }
            fits
        });
        let chosen: Vec<String> = chosen.map(|(_, _, name, _)| name.clone()).collect();
        for name in chosen {
            let Some(target) = self.targets.get_mut(&name) else {
                continue;
            };
            let Some(endpoint) = target.next_endpoint() else {
                continue;
            };
            let dial = self.next_dial;
            self.next_dial += 1;
            let deadline_ms = target.dialling(dial, now_ms, is_crowded, config);
            actions.push(Action::Dial {
                dial,
                endpoint,
                group: target.candidate.group.clone(),
                deadline_ms,
            });
        }
    }

    /// What may be dialled beside what is being dialled.
    fn room(&self, config: &Config) -> Room {
        let dialling = |target: &&Target| matches!(target.state, TargetState::Dialling { .. });
        let dials = self.targets.values().filter(dialling).count();
        let doubtful = self.targets.values().filter(dialling).filter(|t| t.is_doubtful());
        let links = config.links_max.saturating_sub(self.sessions.len() + dials);
        Room {
            dials: config.dials_max.saturating_sub(dials).min(links),
            doubtful: config.dials_max.div_ceil(2).saturating_sub(doubtful.count()),
        }
    }

    /// When [`Self::tick`] may next have something to do.
    pub(crate) fn wake_at_ms(&self, config: &Config) -> Option<u64> {
        let room = self.room(config);
        let targets = self.targets.values().filter_map(|target| match target.state {
            // Without room it is the end of a session or of an attempt that makes it due.
            TargetState::BackOff { until_ms } if room.is_for(target) && !self.is_covered(target) => Some(until_ms),
            TargetState::Dialling { until_ms, .. } => Some(until_ms),
            TargetState::BackOff { .. } | TargetState::Connected | TargetState::LeftOut => None,
        });
        let sessions = self.sessions.values().map(|session| match session.state {
            LinkState::Up => session.heard_ms + config.silence_deadline_ms,
            _ => session.since_ms + config.hello_deadline_ms,
        });
        targets.chain(sessions).min()
    }

    /// A group that is linked, or is about to be, is not dialled; nor are other addresses of it.
    fn is_covered(&self, target: &Target) -> bool {
        let id = target.candidate.group_id.or(target.learned);
        let name = target.candidate.group.as_ref().or(target.answered.as_ref());
        let link = id.and_then(|id| self.by_group.get(&id));
        let is_alive = |session: &Session| !session.is_suspect;
        link.and_then(|link| self.sessions.get(link)).is_some_and(is_alive)
            || name.is_some_and(|name| self.linked(name).is_some())
    }

    /// The link in use with the group of this name, where it is not suspected of having none.
    fn linked(&self, name: &str) -> Option<&Session> {
        let mut links = self.by_group.values().filter_map(|link| self.sessions.get(link));
        links.find(|session| session.group == name && !session.is_suspect)
    }

    /// A link in use is silent, or heard again. While it is silent the group's other nodes are tried: where one of them
    /// is the master now, its link takes the place of the silent one, else this one goes on or ends in its time.
    pub(crate) fn silence(&mut self, now_ms: u64, link: LinkId, is_silent: bool) {
        let Some(session) = self.sessions.get_mut(&link) else {
            return;
        };
        session.is_suspect = is_silent;
        let Some(lost) = session
            .if_lost()
            .filter(|lost| is_silent && lost.was_up && self.by_group.get(&lost.group) == Some(&link))
        else {
            return;
        };
        let dialled = session.dialled.clone();
        let of_it = |target: &Target| lost.is_of(target) && target.is_trusted();
        for (name, target) in self.targets.iter_mut().filter(|(_, target)| of_it(target)) {
            let is_its_own = target.state == TargetState::Connected && dialled.as_ref() == Some(name);
            if is_its_own || matches!(target.state, TargetState::BackOff { .. }) {
                target.rest(now_ms);
            }
        }
    }

    /// A connection is there.
    pub(crate) fn connected(
        &mut self,
        now_ms: u64,
        link: LinkId,
        dial: Option<DialId>,
        group: String,
        node: u64,
        config: &Config,
    ) -> Result<Frame, &'static str> {
        let mut dialled = None;
        // Beside a link that is alive a second one is only asked for by those who do not know of it yet.
        let linked = self.linked(&group).filter(|session| !session.is_silent(now_ms, config));
        let is_linked = linked.is_some();
        if let Some(dial) = dial {
            let dialling = |target: &Target| matches!(target.state, TargetState::Dialling { dial: d, .. } if d == dial);
            let found = self.targets.iter_mut().find(|(_, target)| dialling(target));
            let Some((name, target)) = found else {
                return Err("the dialling was given up");
            };
            target.answered = Some(group.clone());
            if is_linked {
                target.rest(now_ms);
                return Err("the groups are linked already");
            }
            target.connected(now_ms);
            dialled = Some(name.clone());
        } else if self.sessions.len() >= config.links_max {
            return Err("too many links");
        }
        let session = Session {
            group,
            node,
            hello: None,
            state: LinkState::Hello,
            since_ms: now_ms,
            rtt_us: 0,
            resyncs: 0,
            held: None,
            is_cleared: false,
            has_missed: false,
            skew_ms: None,
            heard_ms: now_ms,
            is_suspect: false,
            dialled,
        };
        self.sessions.insert(link, session);
        Ok(Frame::Hello(Hello {
            version: LINK_VERSION,
            group: config.group.clone(),
            group_id: config.group_id,
            epoch: config.epoch(),
            lineage: config.life.lineage,
            node: config.node,
        }))
    }

    /// An attempt led to nothing.
    pub(crate) fn dial_failed(&mut self, now_ms: u64, dial: DialId, error: String, config: &Config) {
        let dialling =
            |target: &&mut Target| matches!(target.state, TargetState::Dialling { dial: d, .. } if d == dial);
        if let Some(target) = self.targets.values_mut().find(dialling) {
            target.failed(now_ms, error, config, &mut self.jitter);
        }
    }

    /// Something was heard over a link; false where there is no such link.
    pub(crate) fn heard(&mut self, now_ms: u64, link: LinkId) -> bool {
        self.sessions
            .get_mut(&link)
            .map(|session| session.heard_ms = now_ms)
            .is_some()
    }

    /// The peer said who it is: one link per pair of groups stays, the same one on both sides.
    pub(crate) fn hello(&mut self, now_ms: u64, link: LinkId, hello: Hello, config: &Config) -> Verdict {
        let Some(session) = self.sessions.get(&link) else {
            return Verdict::Refused("no such link".to_owned());
        };
        if let Err(reason) = self.check(session, &hello, config) {
            if let Some(target) = session.dialled.clone().and_then(|name| self.targets.get_mut(&name)) {
                target.learned = Some(hello.group_id);
            }
            if hello.group_id == config.group_id {
                self.learn_ourselves(config);
            }
            return Verdict::Refused(reason);
        }
        let group = hello.group_id;
        let replaced = self.by_group.get(&group).copied();
        let in_use = replaced.and_then(|old| self.sessions.get(&old));
        if let Some(reason) = in_use.and_then(|old| other_life(now_ms, old, &hello, config)) {
            tracing::warn!(group = hello.group, node = hello.node, %reason, "a group is turned away");
            return Verdict::Refused(reason);
        }
        if self.epoch_seen(group) > hello.epoch {
            let session = self.sessions.get_mut(&link).expect("it was found above");
            session.hello = Some(hello);
            if let Some(target) = session.dialled.clone().and_then(|name| self.targets.get_mut(&name)) {
                target.learned = Some(group);
            }
            return Verdict::Behind { group };
        }
        if let Some(Err(reason)) = in_use.map(|old| stays(now_ms, old, session, &hello, config)) {
            if let Some(target) = session.dialled.clone().and_then(|name| self.targets.get_mut(&name)) {
                target.learned = Some(group);
            }
            return Verdict::Refused(reason.to_owned());
        }
        self.epochs.insert(group, hello.epoch);
        self.by_group.insert(group, link);
        let name = hello.group.clone();
        let session = self.sessions.get_mut(&link).expect("it was found above");
        session.state = LinkState::Syncing;
        session.since_ms = now_ms;
        session.hello = Some(hello);
        for target in self.targets.values_mut() {
            let same = session.dialled.as_deref() == Some(Target::name_of(&target.candidate).as_str());
            if same {
                target.learned = Some(group);
            }
            if same || target.learned == Some(group) || target.candidate.group_id == Some(group) {
                let is_named =
                    target.candidate.group.as_ref() == Some(&name) && target.candidate.group_id == Some(group);
                target.succeeded(same || is_named);
            }
        }
        Verdict::Agreed { group, replaced }
    }

    /// Both ends of a link with ourselves are here, and it may be the one that was dialled that hears of it first.
    fn learn_ourselves(&mut self, config: &Config) {
        let ours = |session: &&Session| session.group == config.group && session.node == config.node;
        for name in self
            .sessions
            .values()
            .filter(ours)
            .filter_map(|session| session.dialled.as_ref())
        {
            if let Some(target) = self.targets.get_mut(name) {
                target.learned = Some(config.group_id);
            }
        }
    }

    fn check(&self, session: &Session, hello: &Hello, config: &Config) -> Result<(), String> {
        if hello.version != LINK_VERSION {
            return Err(format!(
                "link version {} is spoken there, {LINK_VERSION} here",
                hello.version
            ));
        }
        if hello.group_id == config.group_id {
            return Err("that is ourselves".to_owned());
        }
        if hello.group == config.group {
            return Err(format!("another group carries our name '{}'", config.group));
        }
        if session.hello.is_some() {
            return Err("a second hello".to_owned());
        }
        if hello.group != session.group || hello.node != session.node {
            let (group, node) = (&session.group, session.node);
            return Err(format!(
                "the certificate is of {group}/{node}, the hello of {}/{}",
                hello.group, hello.node
            ));
        }
        Ok(())
    }

    /// The highest epoch with which a group was linked here in this term; 0 where it was not.
    pub(crate) fn epoch_seen(&self, group: GroupId) -> u64 {
        self.epochs.get(&group).copied().unwrap_or(0)
    }

    /// The first snapshot is here.
    pub(crate) fn synced(&mut self, now_ms: u64, link: LinkId) {
        if let Some(session) = self
            .sessions
            .get_mut(&link)
            .filter(|session| session.state == LinkState::Syncing)
        {
            let (group, node) = (&session.group, session.node);
            tracing::info!(%group, node, dialled_here = session.dialled.is_some(), "linked with another group");
            session.state = LinkState::Up;
            session.since_ms = now_ms;
        }
    }

    /// Tells the operator that a neighbour takes this group for the copy of another one.
    pub(crate) fn told_turned_away(&self, link: LinkId, reason: &str) {
        if let Some(session) = self.sessions.get(&link).filter(|_| reason.contains(TWO_COPIES)) {
            tracing::warn!(by = session.group, reason, "this group is turned away");
        }
    }

    /// Tells the operator of the end of a link that was up.
    pub(crate) fn told_lost(&self, link: LinkId, reason: &str) {
        let lost = self.sessions.get(&link).and_then(Session::if_lost);
        if let Some(lost) = lost.filter(|lost| lost.was_up) {
            tracing::warn!(group = lost.name, reason, "the link with another group is lost");
        }
    }

    /// A link is gone; what it was, if it was the one in use with its group.
    pub(crate) fn closed(&mut self, now_ms: u64, link: LinkId, reason: &str, config: &Config) -> Option<Lost> {
        let session = self.sessions.remove(&link)?;
        let lost = session.if_lost();
        let lost = lost.filter(|lost| self.by_group.get(&lost.group) == Some(&link));
        if let Some(lost) = &lost {
            self.by_group.remove(&lost.group);
        }
        // It may have been dialled anew while it was silent.
        let name = session.dialled.unwrap_or_default();
        let is_redialled = self
            .sessions
            .values()
            .any(|other| other.dialled.as_ref() == Some(&name));
        let is_covered = self.targets.get(&name).is_some_and(|target| self.is_covered(target));
        // Whoever dialled, other addresses of a group that was linked are due at once: its next master may be there. What
        // is only announced waits, or a flood of it would be in the way.
        if let Some(lost) = &lost {
            for target in self.targets.values_mut().filter(|target| lost.is_of(target)) {
                match target.state {
                    TargetState::BackOff { .. } if lost.was_up && target.is_trusted() => target.rest(now_ms),
                    TargetState::BackOff { until_ms } if until_ms < now_ms => {
                        target.failed(now_ms, reason.to_owned(), config, &mut self.jitter);
                    }
                    _ => {}
                }
            }
        }
        match self.targets.get_mut(&name) {
            Some(target) if target.state != TargetState::Connected || is_redialled => {}
            Some(target) if target.learned == Some(config.group_id) => target.leave_out(now_ms),
            Some(target) if is_covered => target.rest(now_ms),
            Some(target) => target.failed(now_ms, reason.to_owned(), config, &mut self.jitter),
            None => {}
        }
        lost
    }

    /// A slave answered in place of its master. Its connection is to be closed.
    pub(crate) fn redirected(&mut self, now_ms: u64, link: LinkId, endpoints: Vec<String>, config: &Config) {
        let Some(session) = self.sessions.remove(&link) else {
            return;
        };
        let is_linked = self.linked(&session.group).is_some();
        match session.dialled.and_then(|name| self.targets.get_mut(&name)) {
            Some(target) if session.group == config.group => target.leave_out(now_ms),
            Some(target) if is_linked => target.rest(now_ms),
            Some(target) => target.redirected(now_ms, endpoints, config, &mut self.jitter),
            None => {}
        }
    }

    /// The link in use with a group.
    pub(crate) fn link_of(&self, group: GroupId) -> Option<LinkId> {
        self.by_group.get(&group).copied()
    }

    /// As [`Self::link_of`], once messages may be handed over.
    pub(crate) fn cleared_link_of(&self, group: GroupId) -> Option<LinkId> {
        let link = self.link_of(group)?;
        self.sessions.get(&link)?.is_cleared.then_some(link)
    }

    pub(crate) fn session(&self, link: LinkId) -> Option<&Session> {
        self.sessions.get(&link)
    }

    /// The group that a link in use leads to.
    pub(crate) fn group_of(&self, link: LinkId) -> Option<GroupId> {
        let group = self.sessions.get(&link)?.hello.as_ref()?.group_id;
        (self.by_group.get(&group) == Some(&link)).then_some(group)
    }

    pub(crate) fn session_mut(&mut self, link: LinkId) -> Option<&mut Session> {
        self.sessions.get_mut(&link)
    }

    pub(crate) fn sessions(&self) -> impl Iterator<Item = (LinkId, &Session)> {
        self.sessions.iter().map(|(link, session)| (*link, session))
    }

    /// Targets without a connection of their own whose group is not linked.
    pub(crate) fn idle_targets(&self) -> impl Iterator<Item = &Target> {
        self.targets
            .values()
            .filter(|target| !matches!(target.state, TargetState::Connected | TargetState::LeftOut))
            .filter(|target| !self.is_covered(target))
    }
}

/// Why a group is turned away that has the id of one with which a link is up and alive, and is in another life than that:
/// of two copies of one group one only may run. A group that has just been renewed is turned away too, until its old
/// link has ended or fallen silent.
fn other_life(now_ms: u64, old: &Session, hello: &Hello, config: &Config) -> Option<String> {
    let old_hello = old.hello.as_ref()?;
    let life = |hello: &Hello| (incarnation_of(hello.epoch), hello.lineage);
    let is_alive = old.state == LinkState::Up && !old.is_silent(now_ms, config);
    (is_alive && life(old_hello) != life(hello)).then(|| {
        format!(
            "node {} of that group is still linked, in incarnation {} and term {}, while this one is in incarnation {} and \
             term {}: unless that one has just ended, {TWO_COPIES}, and one must be stopped",
            old.node,
            incarnation_of(old_hello.epoch),
            term_of(old_hello.epoch),
            incarnation_of(hello.epoch),
            term_of(hello.epoch),
        )
    })
}

/// Which of two links with one group stays. Both sides decide alike: a higher epoch wins; of two links between the
/// same masters the one dialled by the group with the smaller id, and of two dialled by the same side the newer one,
/// because that side has lost the older one.
fn stays(now_ms: u64, old: &Session, new: &Session, hello: &Hello, config: &Config) -> Result<(), &'static str> {
    let Some(old_hello) = &old.hello else { return Ok(()) };
    if hello.epoch != old_hello.epoch {
        return if hello.epoch > old_hello.epoch {
            Ok(())
        } else {
            Err("a later master is linked already")
        };
    }
    let smaller_is_us = config.group_id < hello.group_id;
    let by_smaller = |session: &Session| session.dialled.is_some() == smaller_is_us;
    if by_smaller(old) && !by_smaller(new) && !old.is_silent(now_ms, config) {
        return Err("the groups are linked already");
    }
    Ok(())
}
