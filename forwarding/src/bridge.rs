//! The owner's side of handing over (P4): what is under offer to each group, sent, answered and released.
//!
//! ```text
//! offered ──► Waiting ──send──► Sent ──Accepted──► Answered ──Release committed──► gone, the floor may rise
//!                ▲───link lost────┘  ▲──no answer for long: sent again
//! ```
//!
//! Invariant: a transfer leaves this table only when its release is committed (or the operator took it back), so the
//! floor never passes one that is in doubt. `unanswered` counts the messages of transfers in Waiting and Sent.

use std::collections::{BTreeMap, BTreeSet};

use ferrymq_broker::{Carried, Command, GroupId, Refused, Release, TakeBack, TransferId};
use ferrymq_message::Destination;

use crate::{
    config::Config,
    frame::{TRANSFER_BYTES_MAX, Transfer},
    refusal::Refusal,
};

/// All bridges of this group.
#[derive(Debug)]
pub(crate) struct Bridges {
    by_group: BTreeMap<GroupId, Bridge>,
    unanswered: BTreeMap<Road, u32>,
    in_flight_max: Load,
    held_max: Load,
    answer_deadline_ms: u64,
    /// The node has told how far earlier terms have come.
    settled: bool,
}

/// How much something holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Load {
    transfers: usize,
    messages: usize,
    bytes: usize,
}

/// Transfers in flight to one group however small they are; a receiver takes twice as many.
const TRANSFERS_IN_FLIGHT_MAX: usize = 512;

/// What credit is counted by: the next hop, the destination, and for topics the group a copy is for.
pub(crate) type Road = (GroupId, Destination, Option<GroupId>);

/// The transfers to one group.
#[derive(Debug, Default)]
pub(crate) struct Bridge {
    /// In order of their numbers.
    transfers: BTreeMap<TransferId, Outgoing>,
    /// Pending from an earlier term, and not yet offered in this one.
    untold: BTreeSet<TransferId>,
    /// What the floor is when nothing is pending.
    next: TransferId,
    in_flight: Load,
    held: Load,
    /// More is held than may be; nothing is available that way until half of it is gone.
    pub(crate) full: bool,
    /// Messages sent, repeats included.
    pub(crate) sent: u64,
    /// Messages refused there.
    pub(crate) refused: u64,
}

#[derive(Debug)]
struct Outgoing {
    destination: Destination,
    target: Option<GroupId>,
    messages: Vec<Carried>,
    stage: Stage,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Stage {
    Waiting,
    Sent {
        at_ms: u64,
    },
    Answered {
        refused: Vec<Refused>,
    },
    /// The receiver calls it settled although it is not released here: kept for the operator, never sent again.
    Doubtful,
    /// As that, but of an earlier life of this group: it is being taken back.
    Returning,
}

/// An offer as the node tells it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Offer {
    pub(crate) group: GroupId,
    pub(crate) transfer: TransferId,
    pub(crate) destination: Destination,
    pub(crate) target: Option<GroupId>,
    pub(crate) messages: Vec<Carried>,
}

/// What became of an offer.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Taken {
    /// It will be sent.
    New,
    /// It is known already, or settled.
    Known,
    /// No link can carry it; to be answered with these refusals.
    TooLarge(Vec<Refused>),
}

/// What an answer from the receiver means here.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Answer {
    /// Release it now.
    Release(Destination),
    /// Take it back now.
    TakeBack(Destination),
    /// Nothing to do: it was answered before, or is not ours any more.
    Known,
    /// The answer contradicts what is known here.
    Contradiction(&'static str),
}

impl Bridges {
    pub(crate) fn new(config: &Config) -> Self {
        let full_transfers = config.transfers_in_flight_max.max(1);
        let in_flight_max = Load {
            transfers: TRANSFERS_IN_FLIGHT_MAX,
            messages: full_transfers * config.transfer_messages_max.max(1),
            bytes: full_transfers * config.transfer_bytes_max.max(1),
        };
        Self {
            by_group: BTreeMap::new(),
            unanswered: BTreeMap::new(),
            in_flight_max,
            held_max: in_flight_max.times_two(),
            answer_deadline_ms: config.answer_deadline_ms,
            settled: false,
        }
    }

    /// How far earlier terms have come: the next transfers' numbers, and what below them is not settled.
    pub(crate) fn settled(&mut self, next: Vec<(GroupId, TransferId)>, pending: Vec<(GroupId, TransferId)>) {
        self.settled = true;
        for (group, transfer) in pending {
            let bridge = self.by_group.entry(group).or_default();
            bridge.next = bridge.next.max(transfer + 1);
            if !bridge.transfers.contains_key(&transfer) {
                bridge.untold.insert(transfer);
            }
        }
        for (group, next) in next {
            let bridge = self.by_group.entry(group).or_default();
            bridge.next = bridge.next.max(next);
        }
    }

    /// Takes an offer in.
    pub(crate) fn offered(&mut self, offer: Offer) -> Taken {
        let bridge = self.by_group.entry(offer.group).or_default();
        let untold = bridge.untold.remove(&offer.transfer);
        let released = self.settled && offer.transfer < bridge.next && !untold;
        if released || bridge.transfers.contains_key(&offer.transfer) {
            return Taken::Known;
        }
        bridge.next = bridge.next.max(offer.transfer + 1);
        let Offer {
            group,
            transfer,
            destination,
            target,
            messages,
        } = offer;
        let outgoing = Outgoing {
            destination,
            target,
            messages,
            stage: Stage::Waiting,
        };
        *self.unanswered.entry(outgoing.road(group)).or_default() += outgoing.count();
        bridge.held.add(outgoing.load());
        bridge.full |= bridge.held.reaches(self.held_max);
        let too_large = outgoing.load().bytes > TRANSFER_BYTES_MAX;
        let count = outgoing.count();
        bridge.transfers.insert(transfer, outgoing);
        if !too_large {
            return Taken::New;
        }
        // No link will ever carry it, and trying would end each one: refuse it here, before it was ever sent.
        let reason = Refusal::TooLarge as u8;
        Taken::TooLarge((0..count).map(|position| Refused { position, reason }).collect())
    }

    /// What is to be sent now to a group whose link is up, in order.
    pub(crate) fn pump(&mut self, group: GroupId, now_ms: u64) -> Vec<Transfer> {
        let Some(bridge) = self.by_group.get_mut(&group) else {
            return Vec::new();
        };
        let floor = if self.settled { bridge.floor() } else { 0 };
        let mut out = Vec::new();
        if bridge.in_flight.reaches(self.in_flight_max) {
            return out;
        }
        for (&transfer, outgoing) in &mut bridge.transfers {
            if outgoing.stage != Stage::Waiting {
                continue;
            }
            outgoing.stage = Stage::Sent { at_ms: now_ms };
            bridge.in_flight.add(outgoing.load());
            bridge.sent += outgoing.messages.len() as u64;
            out.push(outgoing.frame(transfer, floor));
            if bridge.in_flight.reaches(self.in_flight_max) {
                break;
            }
        }
        out
    }

    /// Transfers to this group that were sent long ago and not answered, to be sent again in order. All that were sent
    /// after the first of them go again too, so that the order of a destination holds.
    pub(crate) fn overdue(&mut self, group: GroupId, now_ms: u64) -> Vec<Transfer> {
        let deadline_ms = self.answer_deadline_ms;
        let Some(bridge) = self.by_group.get_mut(&group) else {
            return Vec::new();
        };
        let late = |stage: &Stage| matches!(stage, Stage::Sent { at_ms } if now_ms >= at_ms + deadline_ms);
        if !bridge.transfers.values().any(|outgoing| late(&outgoing.stage)) {
            return Vec::new();
        }
        bridge.unsend();
        self.pump(group, now_ms)
    }

    /// The receiver has stored the transfer, but for the refused messages.
    pub(crate) fn accepted(&mut self, group: GroupId, transfer: TransferId, refused: Vec<Refused>) -> Answer {
        let Some(bridge) = self.by_group.get_mut(&group) else {
            return Answer::Known;
        };
        let Some(outgoing) = bridge.transfers.get_mut(&transfer) else {
            return Answer::Known;
        };
        match outgoing.stage {
            Stage::Answered { .. } => return Answer::Known,
            Stage::Sent { .. } => bridge.in_flight.remove(outgoing.load()),
            Stage::Waiting => {}
            Stage::Doubtful => return Answer::Contradiction("accepted after it was called settled"),
            Stage::Returning => return Answer::Known,
        }
        let known = refused.iter().all(|r| (r.position as usize) < outgoing.messages.len());
        if !known {
            // Releasing would forget messages of which it is not known whether they were taken.
            outgoing.stage = Stage::Doubtful;
            return Answer::Contradiction("a message was refused that is not in the transfer");
        }
        bridge.refused += refused.len() as u64;
        outgoing.stage = Stage::Answered { refused };
        let (destination, road, count) = (outgoing.destination.clone(), outgoing.road(group), outgoing.count());
        self.account(&road, count);
        Answer::Release(destination)
    }

    /// The receiver calls the transfer settled. Only a release makes a transfer settled, so on a master that still is
    /// the master this cannot be. It is kept in doubt, visibly: releasing it could lose what nobody has. Unless it is of
    /// an earlier life, below `first`: then it was settled in one that was lost, and whether the receiver has it nobody
    /// can tell.
    pub(crate) fn called_settled(&mut self, group: GroupId, transfer: TransferId, first: TransferId) -> Answer {
        let Some(bridge) = self.by_group.get_mut(&group) else {
            return Answer::Known;
        };
        let Some(outgoing) = bridge.transfers.get_mut(&transfer) else {
            return Answer::Known;
        };
        match outgoing.stage {
            Stage::Answered { .. } | Stage::Doubtful | Stage::Returning => return Answer::Known,
            Stage::Sent { .. } => bridge.in_flight.remove(outgoing.load()),
            Stage::Waiting => {}
        }
        let is_of_earlier_life = transfer < first;
        outgoing.stage = match is_of_earlier_life {
            true => Stage::Returning,
            false => Stage::Doubtful,
        };
        let (destination, road, count) = (outgoing.destination.clone(), outgoing.road(group), outgoing.count());
        self.account(&road, count);
        match is_of_earlier_life {
            true => Answer::TakeBack(destination),
            false => Answer::Contradiction("the receiver calls settled what was not released"),
        }
    }

    /// The command that takes back what was called settled in an earlier life.
    pub(crate) fn take_back(&self, group: GroupId, transfer: TransferId) -> Option<Command> {
        let outgoing = self.by_group.get(&group)?.transfers.get(&transfer)?;
        (outgoing.stage == Stage::Returning).then_some(Command::TakeBack(TakeBack { group, transfer }))
    }

    /// The command that forgets an answered transfer.
    pub(crate) fn release(&self, group: GroupId, transfer: TransferId) -> Option<Command> {
        let outgoing = self.by_group.get(&group)?.transfers.get(&transfer)?;
        let Stage::Answered { refused } = &outgoing.stage else {
            return None;
        };
        Some(Command::Release(Release {
            group,
            transfer,
            refused: refused.clone(),
        }))
    }

    /// The release, or the taking back, is committed. True where there is room again that there was not.
    pub(crate) fn released(&mut self, group: GroupId, transfer: TransferId) -> bool {
        let Some(bridge) = self.by_group.get_mut(&group) else {
            return false;
        };
        let Some(outgoing) = bridge.transfers.remove(&transfer) else {
            return false;
        };
        bridge.held.remove(outgoing.load());
        let was_full = bridge.full;
        // Half of what may be held is what may be in flight, so the way opens again before the link runs dry.
        bridge.full &= bridge.held.reaches(self.in_flight_max);
        was_full && !bridge.full
    }

    /// The link is gone: everything unanswered is to be sent again on the next one.
    pub(crate) fn link_down(&mut self, group: GroupId) {
        if let Some(bridge) = self.by_group.get_mut(&group) {
            bridge.unsend();
        }
    }

    /// The operator took back every transfer below this number. Tells the destinations concerned.
    pub(crate) fn reclaimed(&mut self, group: GroupId, below: TransferId) -> Vec<Destination> {
        let Some(bridge) = self.by_group.get_mut(&group) else {
            return Vec::new();
        };
        bridge.next = bridge.next.max(below);
        bridge.untold = bridge.untold.split_off(&below);
        let kept = bridge.transfers.split_off(&below);
        let dropped = std::mem::replace(&mut bridge.transfers, kept);
        let mut destinations = Vec::new();
        for outgoing in dropped.into_values() {
            bridge.held.remove(outgoing.load());
            if matches!(outgoing.stage, Stage::Sent { .. }) {
                bridge.in_flight.remove(outgoing.load());
            }
            if matches!(outgoing.stage, Stage::Sent { .. } | Stage::Waiting) {
                account(&mut self.unanswered, &outgoing.road(group), outgoing.count());
            }
            destinations.push(outgoing.destination);
        }
        bridge.full &= bridge.held.reaches(self.in_flight_max);
        destinations
    }

    /// Messages on this road that are offered and not answered: they fill credit there that was told before.
    pub(crate) fn unanswered(&self, road: &Road) -> u32 {
        self.unanswered.get(road).copied().unwrap_or(0)
    }

    /// True where anything is offered and not answered.
    pub(crate) fn has_unanswered(&self) -> bool {
        !self.unanswered.is_empty()
    }

    /// The lowest transfer not settled, as far as is known: below it nothing is in doubt.
    pub(crate) fn floor(&self, group: GroupId) -> TransferId {
        self.by_group
            .get(&group)
            .filter(|_| self.settled)
            .map_or(0, Bridge::floor)
    }

    /// The node has told how far earlier terms have come.
    pub(crate) fn is_settled(&self) -> bool {
        self.settled
    }

    /// The floor, and what is above the highest number of a transfer to this group.
    pub(crate) fn progress(&self, group: GroupId) -> (TransferId, TransferId) {
        self.by_group
            .get(&group)
            .map_or((0, 0), |bridge| (bridge.floor(), bridge.next))
    }

    pub(crate) fn get(&self, group: GroupId) -> Option<&Bridge> {
        self.by_group.get(&group)
    }

    pub(crate) fn groups(&self) -> impl Iterator<Item = GroupId> {
        self.by_group.keys().copied()
    }

    fn account(&mut self, road: &Road, count: u32) {
        account(&mut self.unanswered, road, count);
    }
}

fn account(unanswered: &mut BTreeMap<Road, u32>, road: &Road, count: u32) {
    if let Some(left) = unanswered.get_mut(road) {
        *left = left.saturating_sub(count);
        if *left == 0 {
            unanswered.remove(road);
        }
    }
}

impl Load {
    fn add(&mut self, other: Self) {
        self.transfers += other.transfers;
        self.messages += other.messages;
        self.bytes += other.bytes;
    }

    fn remove(&mut self, other: Self) {
        self.transfers -= other.transfers;
        self.messages -= other.messages;
        self.bytes -= other.bytes;
    }

    /// True where any of the limits is reached.
    fn reaches(self, limit: Self) -> bool {
        self.transfers >= limit.transfers || self.messages >= limit.messages || self.bytes >= limit.bytes
    }

    fn times_two(self) -> Self {
        Self {
            transfers: 2 * self.transfers,
            messages: 2 * self.messages,
            bytes: 2 * self.bytes,
        }
    }
}

impl Bridge {
    fn floor(&self) -> TransferId {
        let pending = self.transfers.keys().next().into_iter().chain(self.untold.first());
        pending.min().copied().unwrap_or(self.next)
    }

    fn unsend(&mut self) {
        self.in_flight = Load::default();
        for outgoing in self.transfers.values_mut() {
            if matches!(outgoing.stage, Stage::Sent { .. }) {
                outgoing.stage = Stage::Waiting;
            }
        }
    }

    /// Transfers not released yet.
    pub(crate) fn in_doubt(&self) -> u64 {
        (self.transfers.len() + self.untold.len()) as u64
    }
}

impl Outgoing {
    fn road(&self, group: GroupId) -> Road {
        (group, self.destination.clone(), self.target)
    }

    fn count(&self) -> u32 {
        u32::try_from(self.messages.len()).unwrap_or(u32::MAX)
    }

    fn load(&self) -> Load {
        let bytes = self.messages.iter().map(|carried| carried.message.len()).sum();
        Load {
            transfers: 1,
            messages: self.messages.len(),
            bytes,
        }
    }

    fn frame(&self, transfer: TransferId, floor: TransferId) -> Transfer {
        let (destination, messages) = (self.destination.clone(), self.messages.clone());
        Transfer {
            transfer,
            floor,
            destination,
            target: self.target,
            // As it is when it is sent.
            time_ms: 0,
            messages,
        }
    }
}
