//! The mesh's part for links: dialling, hellos, and what their coming and going means for demand and bridges.

use ferrymq_broker::GroupId;

use super::Mesh;
use crate::{
    action::Action,
    event::{DialId, LinkId},
    frame::Hello,
    link_state::Verdict,
};

impl Mesh {
    pub(super) fn tick_links(&mut self, now_ms: u64) {
        for (link, reason) in self.links.tick(now_ms, &self.config, &mut self.actions) {
            self.close(now_ms, link, &reason);
        }
        // A link's deadline only moves back while it is heard, so this time may be too early but never too late.
        self.links_at_ms = self.links.wake_at_ms(&self.config).unwrap_or(u64::MAX).max(now_ms + 1);
    }

    pub(super) fn connected(&mut self, now_ms: u64, link: LinkId, dial: Option<DialId>, group: String, node: u64) {
        match self.links.connected(now_ms, link, dial, group, node, &self.config) {
            Ok(hello) => self.send(link, hello),
            Err(reason) => self.actions.push(Action::Close {
                link,
                reason: reason.to_owned(),
            }),
        }
        // The attempt is over, which makes room for another one.
        self.links_at_ms = now_ms;
    }

    pub(super) fn hello(&mut self, now_ms: u64, link: LinkId, hello: Hello) {
        let (name, is_ours) = (hello.group.clone(), hello.group_id == self.config.group_id);
        match self.links.hello(now_ms, link, hello, &self.config) {
            Verdict::Refused(reason) => {
                if !is_ours {
                    tracing::info!(group = name, %reason, "a link is refused");
                }
                self.close(now_ms, link, &reason);
            }
            Verdict::Agreed { group, replaced } => {
                if let Some(old) = replaced {
                    self.group_lost(group);
                    let reason = "another link takes its place";
                    self.actions.push(Action::Close {
                        link: old,
                        reason: reason.to_owned(),
                    });
                    self.links.told_lost(old, reason);
                    self.links.closed(now_ms, old, reason, &self.config);
                }
                self.troubles.remove(&group);
                self.tell_held(link, group);
                self.links_at_ms = now_ms;
            }
            Verdict::Behind { group } => self.tell_held(link, group),
        }
    }

    pub(super) fn redirected(&mut self, now_ms: u64, link: LinkId, endpoints: Vec<String>) {
        self.links.redirected(now_ms, link, endpoints, &self.config);
        self.actions.push(Action::Close {
            link,
            reason: "redirected".to_owned(),
        });
        self.links_at_ms = now_ms;
    }

    /// Ends a link from this side.
    pub(super) fn close(&mut self, now_ms: u64, link: LinkId, reason: &str) {
        self.actions.push(Action::Close {
            link,
            reason: reason.to_owned(),
        });
        self.lost(now_ms, link, reason);
    }

    /// A link has ended.
    pub(super) fn lost(&mut self, now_ms: u64, link: LinkId, reason: &str) {
        self.links.told_lost(link, reason);
        if let Some(lost) = self.links.closed(now_ms, link, reason, &self.config) {
            self.troubles.insert(lost.group, reason.to_owned());
            self.group_lost(lost.group);
        }
        self.links_at_ms = now_ms;
    }

    fn group_lost(&mut self, group: GroupId) {
        self.demand.link_down(group);
        self.bridges.link_down(group);
    }

    /// This node is the master no longer: it says nothing more, and whoever listens is told to look elsewhere (P7).
    pub(super) fn depose(&mut self) {
        self.deposed = true;
        self.actions.clear();
        for (link, _) in self.links.sessions() {
            self.actions.push(Action::Close {
                link,
                reason: "this node is no longer the master".to_owned(),
            });
        }
    }
}
