//! Groups that the operator gives up: what is kept for one, taking back what it was offered, forgetting it.

use std::collections::{BTreeMap, BTreeSet};

use ferrymq_broker::{Broker, Command, ForgetGroup, Forgotten, GroupId, Outcome, Reclaim, TransferId};
use ferrymq_forwarding::{Input, LinkState};
use ferrymq_replication::Failure;
use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::{topics::group_backlogs, wants::name_of};
use crate::leader::{Denied, Leader, outcome::Pending};

/// An operator who waits for the outcome of what was asked about a group.
#[derive(Debug)]
pub(in super::super) struct Lost {
    group: GroupId,
    name: String,
    /// Transfers to it below this number are not pending any more.
    below: TransferId,
    answer: oneshot::Sender<Result<Value, Denied>>,
}

impl Leader {
    /// Takes back what is under offer to a group.
    pub(in super::super) fn reclaim(&mut self, named: &str, answer: oneshot::Sender<Result<Value, Denied>>) {
        match self.find_lost(named) {
            Ok(group) => {
                let lost = self.lost(group, answer);
                self.submit(
                    Command::Reclaim(Reclaim { group }).encode(),
                    Pending::Lost(Box::new(lost)),
                );
            }
            Err(denied) => _ = answer.send(Err(denied)),
        }
    }

    /// Forgets a group; with `dry_run` counts only what would go.
    pub(in super::super) fn forget_group(
        &mut self,
        named: &str,
        dry_run: bool,
        answer: oneshot::Sender<Result<Value, Denied>>,
    ) {
        match self.find_lost(named) {
            Ok(group) if dry_run => {
                let counts = self.group.with_broker(|broker| kept_for(broker, group));
                let _ = answer.send(Ok(told(group, &self.group_name(group), counts, true)));
            }
            Ok(group) => {
                let lost = self.lost(group, answer);
                // Until it is done nothing of it is noted anew.
                self.bridges.noting.insert(group);
                self.bridges.forgotten.insert(group);
                self.submit(
                    Command::ForgetGroup(ForgetGroup { group }).encode(),
                    Pending::Lost(Box::new(lost)),
                );
            }
            Err(denied) => _ = answer.send(Err(denied)),
        }
    }

    fn lost(&self, group: GroupId, answer: oneshot::Sender<Result<Value, Denied>>) -> Lost {
        let outgoing = |broker: &Broker| broker.transfers().outgoing.get(&group).map_or(0, |o| o.next);
        Lost {
            group,
            name: self.group_name(group),
            below: self.group.with_broker(outgoing),
            answer,
        }
    }

    /// What was asked about a lost group has its outcome.
    pub(in super::super) fn on_lost(&mut self, lost: Lost, result: Result<Outcome, Failure>) {
        let Lost {
            group,
            name,
            below,
            answer,
        } = lost;
        let told = match result {
            Ok(Outcome::Forgotten(counts)) => {
                self.on_reclaimed(group, below);
                self.bridges.tell(Input::Forgotten { group });
                if let Some(seen) = self.bridges.groups.get_mut(&group) {
                    seen.known.topics.clear();
                }
                self.on_noted(group);
                told(group, &name, counts, false)
            }
            Ok(Outcome::Reclaimed { transfers, messages }) => {
                self.on_reclaimed(group, below);
                let kept = self.group.with_broker(|broker| kept_for(broker, group));
                json!({
                    "reclaimed": name, "id": format!("{group:016x}"), "transfers": transfers, "messages": messages,
                    "kept_messages": kept.messages, "kept_bytes": kept.bytes,
                })
            }
            // Nothing was ever offered to it.
            Ok(_) => {
                let kept = self.group.with_broker(|broker| kept_for(broker, group));
                json!({
                    "reclaimed": name, "id": format!("{group:016x}"), "transfers": 0, "messages": 0,
                    "kept_messages": kept.messages, "kept_bytes": kept.bytes,
                })
            }
            // The answer's end tells that there is none.
            Err(_) => return,
        };
        let _ = answer.send(Ok(told));
    }

    /// The group that an operator means, by name or id; refused where it is linked, and where several fit.
    fn find_lost(&self, named: &str) -> Result<GroupId, Denied> {
        let known = self.group.with_broker(|broker| self.known_names(broker));
        let named_id = u64::from_str_radix(named.trim(), 16)
            .ok()
            .filter(|_| named.trim().len() == 16);
        let fit: Vec<GroupId> = match named_id.filter(|id| known.contains_key(id)) {
            Some(id) => vec![id],
            None => known
                .iter()
                .filter(|(_, name)| *name == named)
                .map(|(&id, _)| id)
                .collect(),
        };
        let list = |ids: &[GroupId]| -> String {
            let texts: Vec<String> = ids
                .iter()
                .map(|&id| {
                    let state = if self.is_linked(id) { "linked" } else { "away" };
                    format!("{} {id:016x} ({state})", known.get(&id).map_or("", String::as_str))
                })
                .collect();
            texts.join(", ")
        };
        let lost: Vec<GroupId> = fit.iter().copied().filter(|&id| !self.is_linked(id)).collect();
        match (fit.as_slice(), lost.as_slice()) {
            ([], _) => {
                let all: Vec<GroupId> = known.keys().copied().collect();
                let text = match all.is_empty() {
                    true => format!("no group named {named:?} is known, nor any other"),
                    false => format!("no group named {named:?} is known; there are: {}", list(&all)),
                };
                Err(Denied::NotFound(text))
            }
            (_, &[group]) => Ok(group),
            (all, []) => Err(Denied::Refused(format!(
                "{} is linked, so it is not lost; what is kept for it goes there by itself",
                list(all)
            ))),
            (all, _) => Err(Denied::Refused(format!(
                "several groups have this name; say which one by its id: {}",
                list(all)
            ))),
        }
    }

    fn is_linked(&self, group: GroupId) -> bool {
        let up = |link: &ferrymq_forwarding::LinkStatus| link.group_id == Some(group) && link.state == LinkState::Up;
        self.bridges.is_present(group) || self.bridges.links.iter().any(up)
    }

    /// Every other group of which something is kept or known.
    fn known_names(&self, broker: &Broker) -> BTreeMap<GroupId, String> {
        let transfers = broker.transfers();
        let mut ids: BTreeSet<GroupId> = broker.wants().iter().map(|(group, _)| group).collect();
        ids.extend(transfers.outgoing.keys().chain(transfers.incoming.keys()));
        ids.extend(group_backlogs(broker).map(|(_, _, group)| group));
        ids.extend(self.bridges.groups.keys());
        let name = |&group: &GroupId| match self.bridges.groups.get(&group) {
            Some(seen) => seen.known.name.clone(),
            None => name_of(broker, group),
        };
        ids.iter().map(|group| (*group, name(group))).collect()
    }

    /// What is kept for which group, for status.
    pub(in super::super) fn kept(&self, broker: &Broker) -> Vec<Value> {
        let mut backlogs: BTreeMap<GroupId, Vec<Value>> = BTreeMap::new();
        for (queue, topic, group) in group_backlogs(broker) {
            let Some(queue) = broker.queues().get(queue) else {
                continue;
            };
            let durable = broker
                .wants()
                .get(group)
                .is_some_and(|wanted| wanted.topics.contains(topic));
            backlogs.entry(group).or_default().push(json!({
                "topic": topic,
                "messages": queue.len(),
                "bytes": queue.bytes,
                "durable": durable,
            }));
        }
        let outgoing = broker.transfers().outgoing.iter();
        for (&group, _) in outgoing.filter(|(_, outgoing)| !outgoing.pending.is_empty()) {
            backlogs.entry(group).or_default();
        }
        let kept = backlogs.into_iter().map(|(group, topics)| {
            let counts = kept_for(broker, group);
            let seen = self.bridges.groups.get(&group);
            json!({
                "group": seen.map_or_else(|| name_of(broker, group), |seen| seen.known.name.clone()),
                "id": format!("{group:016x}"),
                "linked": self.is_linked(group),
                "away_since_ms": seen.and_then(|seen| seen.away_since_ms),
                "messages": counts.messages,
                "bytes": counts.bytes,
                "transfers": counts.transfers,
                "offered": counts.returned,
                "topics": topics,
            })
        });
        kept.collect()
    }
}

fn told(group: GroupId, name: &str, counts: Forgotten, dry_run: bool) -> Value {
    json!({
        "forgotten": name,
        "id": format!("{group:016x}"),
        "dry_run": dry_run,
        "backlogs": counts.backlogs,
        "messages": counts.messages,
        "bytes": counts.bytes,
        "transfers": counts.transfers,
        "returned": counts.returned,
    })
}

/// What is kept for a group: just what goes when it is forgotten.
fn kept_for(broker: &Broker, group: GroupId) -> Forgotten {
    let mut counts = Forgotten::default();
    let mut own = BTreeSet::new();
    for owner in broker.subscriptions().of_group(group) {
        let Some(queue) = broker
            .subscriptions()
            .find(owner)
            .and_then(|id| broker.queues().get(id))
        else {
            continue;
        };
        own.insert(queue.id);
        counts.backlogs += 1;
        counts.messages += queue.len();
        counts.bytes += queue.bytes;
    }
    for (&next_hop, outgoing) in &broker.transfers().outgoing {
        for offer in outgoing.pending.values() {
            let is_own = own.contains(&offer.queue);
            counts.transfers += u64::from(is_own || next_hop == group);
            if next_hop == group && !is_own {
                counts.returned += offer.seqs.len() as u64;
            }
        }
    }
    counts
}
