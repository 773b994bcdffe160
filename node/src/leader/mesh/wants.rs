//! What absent groups want is kept in the replicated state (P2): the mesh begins with it, and its changes are noted in the
//! log, with since when a group is away.

use std::collections::BTreeSet;

use ferrymq_broker::{Broker, Command, DemandVersion, GroupId, NoteWants, Wanted};
use ferrymq_forwarding::{Input, KnownGroup};

use super::{Bridges, topics::group_backlogs};
use crate::{
    clock,
    leader::{Leader, TICK, outcome::Pending},
};

/// Another group, as the mesh of this term knows it.
#[derive(Debug)]
pub(in super::super) struct Seen {
    pub(in super::super) known: KnownGroup,
    /// Since when it cannot be reached, in milliseconds since 1970; `None` while it can.
    pub(in super::super) away_since_ms: Option<i64>,
    /// The tick at which that was noticed.
    away_at: u64,
}

/// Ticks between two looks at what is to be noted.
const NOTE_TICKS: u64 = 3;
/// How long a group must be away before that is noted: a change of master is no news.
const AWAY_MS_MIN: u64 = 5_000;

impl Bridges {
    /// Whether a way leads to a group, and its demand is known in full.
    pub(in super::super) fn is_present(&self, group: GroupId) -> bool {
        self.groups.get(&group).is_some_and(|seen| seen.known.is_present)
    }
}

impl Leader {
    /// Tells the mesh what earlier terms have kept of the other groups.
    pub(super) fn recall_groups(&mut self) {
        let group = self.group.clone();
        let kept = group.with_broker(kept_of_groups);
        let now_ms = clock::now_ms();
        for (known, away_since_ms) in &kept {
            let seen = Seen {
                known: known.clone(),
                away_since_ms: Some(away_since_ms.unwrap_or(now_ms)),
                away_at: self.ticks,
            };
            self.bridges.groups.insert(known.group, seen);
        }
        let known = kept.into_iter().map(|(known, _)| known).collect();
        self.bridges.tell(Input::Remembered(known));
    }

    /// The mesh knows something new of a group.
    pub(super) fn on_group(&mut self, known: KnownGroup) {
        let (group, is_present) = (known.group, known.is_present);
        let before = self.bridges.groups.get(&group);
        if is_present {
            self.bridges.forgotten.remove(&group);
        }
        let wants_more = known.topics.iter().any(|topic| {
            let topics_before = before.map(|seen| &seen.known.topics);
            topics_before.is_none_or(|topics| !topics.contains(topic))
        });
        let was_away = before.and_then(|seen| Some((seen.away_since_ms?, seen.away_at)));
        let (away_since_ms, away_at) = match (is_present, was_away) {
            (true, _) => (None, 0),
            (false, Some((since_ms, at))) => (Some(since_ms), at),
            (false, None) => (Some(clock::now_ms()), self.ticks),
        };
        let seen = Seen {
            known,
            away_since_ms,
            away_at,
        };
        self.bridges.groups.insert(group, seen);
        self.bridges.unnoted.insert(group);
        // What is promised from now on outlives this master; other news can wait for more of them.
        if wants_more && !self.store_full {
            self.note_group(group);
        }
    }

    /// Notes in the log what has changed of the groups for which something is kept, or is to be.
    pub(super) fn note_wants(&mut self) {
        if !self.ticks.is_multiple_of(NOTE_TICKS) || self.store_full {
            return;
        }
        for group in self.bridges.unnoted.clone() {
            self.note_group(group);
        }
    }

    fn note_group(&mut self, group: GroupId) {
        if self.bridges.noting.contains(&group) || self.bridges.forgotten.contains(&group) {
            return;
        }
        let Some(seen) = self.bridges.groups.get(&group) else {
            self.bridges.unnoted.remove(&group);
            return;
        };
        let away_ms = (self.ticks - seen.away_at) * TICK.as_millis() as u64;
        let is_settled = seen.away_since_ms.is_none() || away_ms >= AWAY_MS_MIN;
        let note = self.group.with_broker(|broker| news(broker, seen, is_settled));
        if is_settled {
            self.bridges.unnoted.remove(&group);
        }
        if let Some(note) = note {
            self.bridges.noting.insert(group);
            self.submit(Command::NoteWants(note).encode(), Pending::Noted { group });
        }
    }

    /// A command about a group has its outcome.
    pub(in super::super) fn on_noted(&mut self, group: GroupId) {
        self.bridges.noting.remove(&group);
        self.bridges.unnoted.insert(group);
    }

    /// What people call a group.
    pub(in super::super) fn group_name(&self, group: GroupId) -> String {
        if let Some(seen) = self.bridges.groups.get(&group) {
            return seen.known.name.clone();
        }
        self.group.with_broker(|broker| name_of(broker, group))
    }
}

/// As the state knows it.
pub(super) fn name_of(broker: &Broker, group: GroupId) -> String {
    let wanted = broker.wants().get(group).map(|wanted| wanted.name.clone());
    let offered = broker.transfers().outgoing.get(&group).map(|o| o.group_name.clone());
    let name = wanted.into_iter().chain(offered).find(|name| !name.is_empty());
    name.unwrap_or_else(|| format!("{group:016x}"))
}

/// What the state keeps of the other groups, and since when each of them is away.
fn kept_of_groups(broker: &Broker) -> Vec<(KnownGroup, Option<i64>)> {
    let noted = broker.wants().iter().map(|(group, wanted)| {
        let known = KnownGroup {
            group,
            name: wanted.name.clone(),
            is_present: false,
            version: wanted.version,
            path: wanted.path.clone(),
            topics: wanted.topics.iter().cloned().collect(),
        };
        (known, wanted.away_since_ms)
    });
    let mut all: Vec<(KnownGroup, Option<i64>)> = noted.collect();
    // A state of a program that noted nothing: what has a backlog was wanted, and may have been so by durable subscriptions.
    let groups: BTreeSet<GroupId> = group_backlogs(broker).map(|(_, _, group)| group).collect();
    for group in groups.into_iter().filter(|group| broker.wants().get(*group).is_none()) {
        let topics = group_backlogs(broker).filter(|(_, _, other)| *other == group);
        let topics: BTreeSet<String> = topics.map(|(_, topic, _)| topic.to_owned()).collect();
        let known = KnownGroup {
            group,
            name: name_of(broker, group),
            is_present: false,
            version: DemandVersion::default(),
            path: vec![group],
            topics: topics.into_iter().collect(),
        };
        all.push((known, None));
    }
    all
}

/// What the state does not know yet of a group; nothing where nothing is kept for it nor has ever been.
fn news(broker: &Broker, seen: &Seen, away_is_settled: bool) -> Option<NoteWants> {
    let known = &seen.known;
    let noted = broker.wants().get(known.group);
    let concerns_us =
        noted.is_some() || !known.topics.is_empty() || broker.subscriptions().of_group(known.group).next().is_some();
    if !concerns_us {
        return None;
    }
    let nothing = Wanted::default();
    let before = noted.unwrap_or(&nothing);
    let away_since_ms = match away_is_settled {
        true => seen.away_since_ms,
        false => before.away_since_ms,
    };
    let topics: BTreeSet<&String> = known.topics.iter().collect();
    let added: Vec<String> = known
        .topics
        .iter()
        .filter(|topic| !before.topics.contains(*topic))
        .cloned()
        .collect();
    let removed: Vec<String> = before
        .topics
        .iter()
        .filter(|topic| !topics.contains(topic))
        .cloned()
        .collect();
    let same_head = noted.is_some()
        && (&before.name, before.version, &before.path) == (&known.name, known.version, &known.path)
        && before.away_since_ms == away_since_ms;
    if same_head && added.is_empty() && removed.is_empty() {
        return None;
    }
    Some(NoteWants {
        group: known.group,
        name: known.name.clone(),
        version: known.version,
        path: known.path.clone(),
        away_since_ms,
        added,
        removed,
    })
}
