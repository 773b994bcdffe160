//! The mesh's part for a group whose log went back: at the beginning of each link both sides tell what they hold of the
//! other, before anything is handed over. Where that is beyond what a group knows of itself, its state is of an earlier
//! time than what it has said, and it begins a new life (P4).
//!
//! A master that was deposed and does not know it hears of a later epoch, too. It proposes a new life like the other one,
//! but what is proposed in a term that is over is never committed.

use ferrymq_broker::{GroupId, INCARNATION_MAX, Life, Renew, first_transfer, incarnation_of, term_of};

use super::Mesh;
use crate::{
    event::LinkId,
    frame::{Frame, Held},
    proposals::Purpose,
};

impl Mesh {
    /// Tells a peer what is held of it; later, where it is not known here yet how far earlier terms had come.
    pub(super) fn tell_held(&mut self, link: LinkId, group: GroupId) {
        if !self.bridges.is_settled() {
            return;
        }
        let (floor, next) = self.receivers.progress(group);
        let epoch = self.links.epoch_seen(group).max(self.demand.epoch_remembered(group));
        self.send(link, Frame::Held(Held { epoch, floor, next }));
    }

    /// It is known now how far earlier terms had come.
    pub(super) fn tell_and_judge_all(&mut self, now_ms: u64) {
        let sessions = self.links.sessions();
        let known = sessions.filter_map(|(link, session)| Some((link, session.hello.as_ref()?.group_id)));
        for (link, group) in known.collect::<Vec<_>>() {
            self.tell_held(link, group);
            self.judge(now_ms, link);
        }
    }

    /// A peer tells what it holds of us.
    pub(super) fn held(&mut self, now_ms: u64, link: LinkId, held: Held) {
        let session = self.links.session_mut(link);
        let Some(session) = session.filter(|session| session.hello.is_some() && session.held.is_none()) else {
            return self.close(now_ms, link, "not the time for what is held");
        };
        session.held = Some(held);
        self.judge(now_ms, link);
    }

    /// Sees whether what the peer holds of us is beyond what we know; if it is not, the link may be used.
    fn judge(&mut self, now_ms: u64, link: LinkId) {
        let Some(session) = self.links.session(link) else {
            return;
        };
        let (Some(hello), Some(held), false) = (&session.hello, session.held, session.is_cleared) else {
            return;
        };
        let (group, name) = (hello.group_id, hello.group.clone());
        let is_first_time = held.floor == 0 && held.next == 0 && held.epoch <= self.config.epoch();
        if !is_first_time && !self.bridges.is_settled() {
            return;
        }
        if let Some(beyond) = self.beyond(group, held) {
            let seen = incarnation_of(held.epoch).max(incarnation_of(held.next));
            if seen >= INCARNATION_MAX {
                return self.close(now_ms, link, "what is held is of an incarnation that cannot be");
            }
            return self.renew(now_ms, seen, format!("group {name} {beyond}"));
        }
        if self.links.group_of(link) == Some(group) {
            self.clear(now_ms, link, group, &name);
        }
    }

    /// What a neighbour holds of us that we do not know of ourselves.
    fn beyond(&self, group: GroupId, held: Held) -> Option<String> {
        let epoch = self.config.epoch();
        let first = first_transfer(self.config.life.incarnation);
        let (floor, next) = self.bridges.progress(group);
        let next = next.max(first);
        if held.epoch > epoch {
            let of = |epoch| format!("term {} of incarnation {}", term_of(epoch), incarnation_of(epoch));
            Some(format!("has seen {}, while this is {}", of(held.epoch), of(epoch)))
        } else if held.next > next {
            Some(format!(
                "has got transfers up to number {}, while the next one here would be {next}",
                held.next - 1
            ))
        } else if held.floor >= first && held.floor > floor {
            Some(format!(
                "was told that transfers below {} are settled, while {floor} is not here",
                held.floor
            ))
        } else {
            None
        }
    }

    fn clear(&mut self, now_ms: u64, link: LinkId, group: GroupId, name: &str) {
        let Some(session) = self.links.session_mut(link) else {
            return;
        };
        session.is_cleared = true;
        let has_missed = session.has_missed;
        self.demand.link_up(group, name);
        self.tell_all(now_ms, link, group);
        if has_missed {
            self.send(link, Frame::Resync);
        }
        self.pump(now_ms, group);
    }

    pub(super) fn is_cleared(&self, link: LinkId) -> bool {
        self.links.session(link).is_some_and(|session| session.is_cleared)
    }

    /// Demand is told before it may be heard: the peer will be asked for it.
    pub(super) fn missed(&mut self, link: LinkId) {
        if let Some(session) = self.links.session_mut(link) {
            session.has_missed = true;
        }
    }

    /// Begins a new life of this group, later than what was seen of it and than the one that it is in.
    pub(super) fn renew(&mut self, now_ms: u64, seen: u64, why: String) {
        if self.renewing.is_some() {
            return;
        }
        tracing::info!(%why, "less is known here of this group than elsewhere");
        self.renewing = Some(why);
        let renew = Renew {
            incarnation: seen.max(self.config.life.incarnation) + 1,
            lineage: self.jitter.any(),
        };
        self.propose(now_ms, Purpose::Renew(renew));
    }

    /// A new life has begun: all links begin anew, with its epoch.
    pub(super) fn renewed(&mut self, now_ms: u64, life: Life) {
        let why = self.renewing.take().unwrap_or_default();
        if life == self.config.life {
            return;
        }
        tracing::warn!(
            incarnation = life.incarnation,
            before = self.config.life.incarnation,
            %why,
            "the log of this group went back: what it stored after the state that it has now is lost here, and what it held \
             then may be delivered again; it goes on in a new incarnation, and the neighbours take it up as such (see \
             OPERATING, Restoring)"
        );
        self.config.life = life;
        self.demand.renewed(self.config.epoch());
        let links: Vec<LinkId> = self.links.sessions().map(|(link, _)| link).collect();
        for link in links {
            self.close(now_ms, link, "a new incarnation of this group begins");
        }
    }
}
