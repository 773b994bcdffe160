//! What the loop goes by for messages' lives: the group's time, which it corrects by the members' clocks and notes in the
//! log.

use ferrymq_broker::{Broker, Command, NoteTime};
use ferrymq_forwarding::LinkStatus;
use ferrymq_replication::{Clocks, Group};
use serde_json::{Value, json};

use super::{
    Leader,
    group_time::{GroupTime, median},
    outcome::Pending,
    skew::{News, SkewWatch, Whose},
};
use crate::clock;

/// The group's time in this term.
#[derive(Debug)]
pub(super) struct TermClock {
    time: GroupTime,
    /// Until then there is no correction.
    next_boot_ms: i64,
    /// When and behind which token it was noted last.
    noted_boot_ms: i64,
    noted_token: u64,
    skew: SkewWatch,
}

/// Between two corrections, and between two notes in the log.
const EVERY_MS: i64 = 1_000;

impl TermClock {
    pub(super) fn new(group: &Group) -> Self {
        let noted_ms = group.with_broker(Broker::time_ms);
        let boot_ms = clock::boot_ms();
        Self {
            time: GroupTime::new(noted_ms, boot_ms),
            next_boot_ms: boot_ms,
            noted_boot_ms: boot_ms - EVERY_MS,
            noted_token: 0,
            skew: SkewWatch::default(),
        }
    }

    /// Milliseconds since 1970.
    pub(super) fn now_ms(&self) -> i64 {
        self.time.now_ms(clock::boot_ms())
    }

    /// None while a majority's clocks are not known: a life that began now might end when they are.
    pub(super) fn settled_ms(&self) -> Option<i64> {
        self.time.is_settled().then(|| self.now_ms())
    }

    fn is_due(&self) -> bool {
        !self.time.is_settled() || clock::boot_ms() >= self.next_boot_ms
    }

    /// Takes in what the members' clocks show.
    fn correct(&mut self, clocks: &Clocks) {
        let boot_ms = clock::boot_ms();
        self.next_boot_ms = boot_ms + EVERY_MS;
        let walls: Vec<i64> = clocks
            .members
            .iter()
            .map(|member| member.from_boot_ms + boot_ms)
            .collect();
        if let Some(stepped_ms) = self.time.correct(boot_ms, &walls, clocks.voters) {
            tracing::info!(
                stepped_ms,
                "the group's time steps forward to the median of its members' clocks"
            );
        }
        self.watch(clocks);
    }

    fn watch(&mut self, clocks: &Clocks) {
        for (node, skew_ms) in skews(clocks) {
            match self.skew.look(Whose::Member(node), skew_ms) {
                Some(News::Wrong) => tracing::warn!(
                    node,
                    skew_ms,
                    "a member's clock is ahead (behind, where negative) of the others; set it: messages live by the median of \
                     the members' clocks"
                ),
                Some(News::RightAgain) => {
                    tracing::info!(node, skew_ms, "a member's clock agrees with the others again")
                }
                None => {}
            }
        }
        if let Some(behind_ms) = self.time.behind_ms() {
            match self.skew.look(Whose::Group, -behind_ms) {
                Some(News::Wrong) => tracing::warn!(
                    skew_ms = -behind_ms,
                    "the group's time is ahead (behind, where negative) of its members' clocks, and follows them slowly"
                ),
                Some(News::RightAgain) => tracing::info!("the group's time agrees with its members' clocks again"),
                None => {}
            }
        }
    }

    /// What is known of other groups' time.
    pub(super) fn watch_links(&mut self, links: &[LinkStatus]) {
        for link in links {
            let (Some(group), Some(skew_ms)) = (link.group_id, link.skew_ms) else {
                continue;
            };
            let other = &link.peer;
            match self.skew.look(Whose::Other(group), skew_ms) {
                Some(News::Wrong) => tracing::warn!(
                    other,
                    skew_ms,
                    "another group's time is ahead (behind, where negative) of this one's; messages cross with what is left \
                     of their lives"
                ),
                Some(News::RightAgain) => {
                    tracing::info!(other, skew_ms, "another group's time agrees with this one's again")
                }
                None => {}
            }
        }
    }

    pub(super) fn status(&self, clocks: &Clocks) -> Value {
        let skews = skews(clocks);
        json!({
            "time_ms": self.now_ms(),
            "settled": self.time.is_settled(),
            "behind_ms": self.time.behind_ms(),
            "members": clocks.members.iter().zip(skews).map(|(member, (_, skew_ms))| json!({
                "node": member.node,
                "skew_ms": skew_ms,
                "error_ms": member.error_ms,
            })).collect::<Vec<_>>(),
        })
    }
}

/// How far each member's clock is ahead of their median.
fn skews(clocks: &Clocks) -> Vec<(u64, i64)> {
    let all: Vec<i64> = clocks.members.iter().map(|member| member.from_boot_ms).collect();
    let median = median(&all).unwrap_or(0);
    let members = clocks.members.iter();
    members
        .map(|member| (member.node, member.from_boot_ms - median))
        .collect()
}

impl Leader {
    /// As soon as the members' clocks are known.
    pub(super) fn settle_clock(&mut self) {
        if !self.clock.time.is_settled() {
            self.tick_clock();
        }
    }

    pub(super) fn tick_clock(&mut self) {
        if self.clock.is_due() {
            self.clock.correct(&self.group.clocks());
            if self.clock.time.is_settled() {
                self.tell_time();
            }
        }
        let clock = &self.clock;
        // An idle log stays idle: the next master finds out by itself how late it is.
        let is_due = clock.noted_token != self.next_token && clock::boot_ms() - clock.noted_boot_ms >= EVERY_MS;
        if clock.time.is_settled() && is_due {
            self.note_time();
        }
    }

    /// The mesh measures by it what is left of lives that cross.
    pub(super) fn tell_time(&self) {
        let settled_ms = self.clock.settled_ms();
        if let Some(now_ms) = settled_ms {
            self.config.load.set_group_time(now_ms);
        }
        self.bridges.tell_time(settled_ms.map(|now_ms| now_ms.max(0) as u64));
    }

    fn note_time(&mut self) {
        let time_ms = self.clock.now_ms().max(0) as u64;
        self.submit_along(Command::NoteTime(NoteTime { time_ms }).encode(), Pending::Nobody);
        self.clock.noted_boot_ms = clock::boot_ms();
        self.clock.noted_token = self.next_token;
    }
}
