//! The receiver's side of handing over (P4): proposes each arriving transfer in the order of arrival, answers only after
//! the commit, and has the marks of settled transfers forgotten in batches.

use std::collections::BTreeMap;

use ferrymq_broker::{Accept, Carried, Command, Forget, GroupId, Refused, TransferId};
use ferrymq_message::{Destination, StoredMessage};

use crate::{config::Config, event::LinkId, frame::Transfer, group_time::GroupTime, input::Room, refusal::Refusal};

/// What arrives from all groups.
#[derive(Debug)]
pub(crate) struct Receivers {
    by_origin: BTreeMap<GroupId, Receiver>,
    hops_max: u8,
    forget_transfers_min: u64,
    forget_interval_ms: u64,
    pending_bytes_max: usize,
    /// There is no room, or little: then one transfer at a time is proposed.
    room: Room,
    /// The time is not known yet: what has arrived waits for it.
    is_held: bool,
}

/// What arrives from one group.
#[derive(Debug, Default)]
struct Receiver {
    pending: BTreeMap<TransferId, Incoming>,
    pending_bytes: usize,
    arrivals: u64,
    /// When what failed may be proposed again.
    retry_at_ms: u64,
    /// The highest floor heard.
    floor: TransferId,
    /// Above every number that has come.
    next: TransferId,
    /// The highest floor committed here in this term.
    forgotten: TransferId,
    forgetting: bool,
    forget_at_ms: u64,
    /// After a failed attempt: not before this time, however many there are.
    forget_not_before_ms: u64,
    received: u64,
}

#[derive(Debug)]
struct Incoming {
    accept: Accept,
    /// Where the answer goes; a transfer that comes again over a new link is answered there.
    link: LinkId,
    bytes: usize,
    arrival: u64,
    /// While the time was awaited: how late it was for the owner, and on the mesh's own clock, when it came.
    came_ms: Option<(u64, u64)>,
    stage: Stage,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Queued,
    Proposed,
    /// Had no outcome; proposed again later, and nothing that arrived after it overtakes it meanwhile.
    Failed,
}

/// What is to be done with an arriving transfer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// Propose what [`Receivers::proposable`] yields.
    Propose,
    /// It is being proposed already.
    Pending,
    /// Its owner has told a floor above it.
    Settled,
    /// The sender keeps to no limit: close the link.
    TooMany,
}

/// A transfer that is done here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Finished {
    pub(crate) link: LinkId,
    pub(crate) destination: Destination,
    pub(crate) target: Option<GroupId>,
    /// Messages stored by it, unless it was stored before.
    pub(crate) stored: u32,
}

/// Transfers of one sender that may be pending here; a sender of ours has half of it in flight.
const PENDING_TRANSFERS_MAX: usize = 1_024;

impl Receivers {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            by_origin: BTreeMap::new(),
            hops_max: config.message_hops_max,
            forget_transfers_min: config.forget_transfers_min,
            forget_interval_ms: config.forget_interval_ms,
            pending_bytes_max: 4 * config.transfers_in_flight_max * config.transfer_bytes_max,
            room: Room::Plenty,
            is_held: false,
        }
    }

    /// There is so much room here now; what has arrived without any may be [`Self::proposable`] then.
    pub(crate) fn room(&mut self, room: Room) {
        self.room = room;
    }

    /// The time has become known, or is awaited: what has arrived meanwhile gets its ends by it.
    pub(crate) fn time(&mut self, time: &GroupTime) {
        self.is_held = time.is_awaited();
        if self.is_held {
            return;
        }
        let pending = self
            .by_origin
            .values_mut()
            .flat_map(|receiver| receiver.pending.values_mut());
        for incoming in pending {
            if let Some((sent_ms, now_ms)) = incoming.came_ms.take() {
                time.take_over(now_ms, sent_ms, &mut incoming.accept.messages);
            }
        }
    }

    /// Everybody from whom something has arrived.
    pub(crate) fn origins(&self) -> Vec<GroupId> {
        self.by_origin.keys().copied().collect()
    }

    /// How far the transfers of other groups had come in earlier terms: floor, and above every number.
    pub(crate) fn settled(&mut self, arrived: Vec<(GroupId, TransferId, TransferId)>) {
        for (origin, floor, next) in arrived {
            self.floor_heard(origin, floor);
            let receiver = self.by_origin.entry(origin).or_default();
            receiver.next = receiver.next.max(next).max(receiver.floor);
            receiver.forgotten = receiver.forgotten.max(floor);
        }
    }

    /// The floor of a group's transfers, and what is above every number that has come.
    pub(crate) fn progress(&self, origin: GroupId) -> (TransferId, TransferId) {
        self.by_origin
            .get(&origin)
            .map_or((0, 0), |receiver| (receiver.floor, receiver.next.max(receiver.floor)))
    }

    /// Takes in a transfer from `origin` that came over `link`.
    pub(crate) fn arrived(&mut self, now_ms: u64, origin: GroupId, link: LinkId, transfer: Transfer) -> Arrival {
        self.floor_heard(origin, transfer.floor);
        let hops_max = self.hops_max;
        let came_ms = self.is_held.then_some((transfer.time_ms, now_ms));
        let receiver = self.by_origin.entry(origin).or_default();
        if transfer.transfer < receiver.floor {
            return Arrival::Settled;
        }
        receiver.next = receiver.next.max(transfer.transfer.saturating_add(1));
        if let Some(incoming) = receiver.pending.get_mut(&transfer.transfer) {
            incoming.link = link;
            return Arrival::Pending;
        }
        // Whatever its size, one is taken: the bound is passed by one transfer at most.
        if receiver.pending.len() >= PENDING_TRANSFERS_MAX || receiver.pending_bytes >= self.pending_bytes_max {
            return Arrival::TooMany;
        }
        let bytes = transfer.messages.iter().map(|carried| carried.message.len()).sum();
        receiver.pending_bytes += bytes;
        let Transfer {
            transfer,
            destination,
            target,
            messages,
            ..
        } = transfer;
        let (messages, refused) = sorted_out(messages, hops_max);
        let accept = Accept {
            origin,
            transfer,
            destination,
            target,
            messages,
            refused,
        };
        let arrival = receiver.arrivals;
        receiver.arrivals += 1;
        receiver.pending.insert(
            transfer,
            Incoming {
                accept,
                link,
                bytes,
                arrival,
                came_ms,
                stage: Stage::Queued,
            },
        );
        Arrival::Propose
    }

    /// What may be proposed now, in the order of arrival; marks it proposed.
    pub(crate) fn proposable(&mut self, origin: GroupId) -> Vec<TransferId> {
        let at_once_max = self.at_once_max();
        let Some(receiver) = self.by_origin.get_mut(&origin) else {
            return Vec::new();
        };
        if receiver.any(Stage::Failed) {
            return Vec::new();
        }
        receiver.propose(&[Stage::Queued], at_once_max)
    }

    /// What failed and may be proposed again, with all that waited behind it, in the order of arrival. First everything
    /// that is proposed must have an outcome or have failed: which of these are committed is not known, and what arrived
    /// later must not overtake them (P6).
    pub(crate) fn retriable(&mut self, now_ms: u64) -> Vec<(GroupId, TransferId)> {
        let mut again = Vec::new();
        let at_once_max = self.at_once_max();
        for (&origin, receiver) in &mut self.by_origin {
            if receiver.retry_at_ms().is_some_and(|at_ms| now_ms >= at_ms) {
                let transfers = receiver.propose(&[Stage::Failed, Stage::Queued], at_once_max);
                again.extend(transfers.into_iter().map(|transfer| (origin, transfer)));
            }
        }
        again
    }

    /// When [`Self::retriable`] next yields something.
    pub(crate) fn retry_at_ms(&self) -> Option<u64> {
        let retries = self.by_origin.values().filter_map(Receiver::retry_at_ms);
        retries.min().filter(|_| self.at_once_max() > 0)
    }

    /// The command for a pending transfer.
    pub(crate) fn accept(&self, origin: GroupId, transfer: TransferId) -> Option<Command> {
        let incoming = self.by_origin.get(&origin)?.pending.get(&transfer)?;
        Some(Command::Accept(incoming.accept.clone()))
    }

    /// The proposal had no outcome.
    pub(crate) fn failed(&mut self, origin: GroupId, transfer: TransferId, retry_at_ms: u64) {
        let Some(receiver) = self.by_origin.get_mut(&origin) else {
            return;
        };
        if let Some(incoming) = receiver.pending.get_mut(&transfer) {
            incoming.stage = Stage::Failed;
            receiver.retry_at_ms = retry_at_ms;
        }
    }

    /// The transfer's messages are stored.
    pub(crate) fn finished(&mut self, origin: GroupId, transfer: TransferId) -> Option<Finished> {
        let receiver = self.by_origin.get_mut(&origin)?;
        let incoming = receiver.pending.remove(&transfer)?;
        receiver.pending_bytes -= incoming.bytes;
        let stored = incoming.accept.messages.len();
        receiver.received += stored as u64;
        let Accept {
            destination, target, ..
        } = incoming.accept;
        Some(Finished {
            link: incoming.link,
            destination,
            target,
            stored: u32::try_from(stored).unwrap_or(u32::MAX),
        })
    }

    /// The owner says that every transfer below is settled.
    pub(crate) fn floor_heard(&mut self, origin: GroupId, floor: TransferId) {
        let receiver = self.by_origin.entry(origin).or_default();
        receiver.floor = receiver.floor.max(floor);
    }

    /// Groups whose marks are to be forgotten now; each is then being forgotten until [`Self::forgotten`] is called.
    pub(crate) fn forgettable(&mut self, now_ms: u64) -> Vec<GroupId> {
        let (transfers_min, interval_ms) = (self.forget_transfers_min, self.forget_interval_ms);
        let mut due = Vec::new();
        for (&origin, receiver) in &mut self.by_origin {
            if receiver
                .forget_at_ms(transfers_min)
                .is_some_and(|at_ms| now_ms >= at_ms)
            {
                receiver.forgetting = true;
                receiver.forget_at_ms = now_ms + interval_ms;
                due.push(origin);
            }
        }
        due
    }

    /// When [`Self::forgettable`] next yields something.
    pub(crate) fn forget_at_ms(&self) -> Option<u64> {
        self.by_origin
            .values()
            .filter_map(|receiver| receiver.forget_at_ms(self.forget_transfers_min))
            .min()
    }

    /// The command that forgets, up to the floor heard so far.
    pub(crate) fn forget(&self, origin: GroupId) -> Option<Forget> {
        self.by_origin.get(&origin).map(|receiver| Forget {
            origin,
            floor: receiver.floor,
        })
    }

    /// Marks below this floor are forgotten.
    pub(crate) fn forgotten(&mut self, origin: GroupId, floor: TransferId) {
        if let Some(receiver) = self.by_origin.get_mut(&origin) {
            receiver.forgetting = false;
            receiver.forgotten = receiver.forgotten.max(floor);
        }
    }

    /// Forgetting had no outcome.
    pub(crate) fn forget_failed(&mut self, origin: GroupId, retry_at_ms: u64) {
        if let Some(receiver) = self.by_origin.get_mut(&origin) {
            receiver.forgetting = false;
            receiver.forget_not_before_ms = retry_at_ms;
        }
    }

    /// Transfers of one group that may be proposed and have no outcome.
    fn at_once_max(&self) -> usize {
        match self.room {
            _ if self.is_held => 0,
            Room::Plenty => usize::MAX,
            Room::Little => 1,
            Room::None => 0,
        }
    }

    /// Messages stored from this group in this term.
    pub(crate) fn received(&self, origin: GroupId) -> u64 {
        self.by_origin.get(&origin).map_or(0, |receiver| receiver.received)
    }
}

impl Receiver {
    fn retry_at_ms(&self) -> Option<u64> {
        (self.any(Stage::Failed) && !self.any(Stage::Proposed)).then_some(self.retry_at_ms)
    }

    fn any(&self, stage: Stage) -> bool {
        self.pending.values().any(|incoming| incoming.stage == stage)
    }

    fn forget_at_ms(&self, transfers_min: u64) -> Option<u64> {
        let behind = self.floor.saturating_sub(self.forgotten);
        let at_ms = if behind >= transfers_min { 0 } else { self.forget_at_ms };
        (behind > 0 && !self.forgetting).then_some(at_ms.max(self.forget_not_before_ms))
    }

    /// In the order of arrival, and no more than may be without an outcome at a time.
    fn propose(&mut self, stages: &[Stage], at_once_max: usize) -> Vec<TransferId> {
        let mut ready: Vec<(u64, TransferId)> = Vec::new();
        let mut proposed = 0;
        for (&transfer, incoming) in &self.pending {
            if stages.contains(&incoming.stage) {
                ready.push((incoming.arrival, transfer));
            } else if incoming.stage == Stage::Proposed {
                proposed += 1;
            }
        }
        ready.sort_unstable();
        ready.truncate(at_once_max.saturating_sub(proposed));
        for (_, transfer) in &ready {
            if let Some(incoming) = self.pending.get_mut(transfer) {
                incoming.stage = Stage::Proposed;
            }
        }
        ready.into_iter().map(|(_, transfer)| transfer).collect()
    }
}

/// Parts what can be taken from what must be refused, so that one bad message stops neither its transfer nor the
/// bridge. The refusals become part of the log entry, and so of every later answer.
fn sorted_out(messages: Vec<Carried>, hops_max: u8) -> (Vec<Carried>, Vec<Refused>) {
    let mut refused = Vec::new();
    let mut taken = Vec::with_capacity(messages.len());
    for (position, carried) in messages.into_iter().enumerate() {
        let reason = if carried.hops > hops_max {
            Some(Refusal::TooManyHops)
        } else {
            let readable = StoredMessage::new(carried.message.clone()).and_then(|stored| stored.decode());
            readable.err().map(|_| Refusal::Unreadable)
        };
        match reason {
            None => taken.push(carried),
            Some(reason) => refused.push(Refused {
                position: position as u32,
                reason: reason as u8,
            }),
        }
    }
    (taken, refused)
}
