//! The mesh's part for transfers: both sides' steps of handing over (P4), each driven by a committed outcome.

use ferrymq_broker::{Command, GroupId, Life, Outcome, Refused, TransferId, first_transfer};

use super::Mesh;
use crate::{
    action::Action,
    bridge::{Answer, Offer, Taken},
    event::LinkId,
    frame::{Demand, Frame, Transfer},
    input::{Failed, Room},
    output::Output,
    proposals::Purpose,
    receiver::{Arrival, Finished},
};

/// Pause before a command is proposed again that the broker answered with what it never should.
const UNEXPECTED_RETRY_MS: u64 = 1_000;

// The owner's side.
impl Mesh {
    pub(super) fn offered(&mut self, now_ms: u64, offer: Offer) {
        let group = offer.group;
        let destination = offer.destination.clone();
        let count = u32::try_from(offer.messages.len()).unwrap_or(u32::MAX);
        self.demand.arrivals.offered_on(&destination, offer.target, count);
        let was_full = self.bridges.get(group).is_some_and(|bridge| bridge.full);
        let transfer = offer.transfer;
        match self.bridges.offered(offer) {
            Taken::Known => return,
            Taken::New => self.node_has_charged(&destination, group),
            Taken::TooLarge(refused) => self.accepted(now_ms, group, transfer, refused),
        }
        self.demand.touch(Some(&destination));
        if !was_full && self.bridges.get(group).is_some_and(|bridge| bridge.full) {
            self.demand.touch_heard(group);
        }
        self.pump(now_ms, group);
    }

    /// Sends what may be sent to a group.
    pub(super) fn pump(&mut self, now_ms: u64, group: GroupId) {
        if self.time.is_awaited() {
            return;
        }
        let Some(link) = self.links.cleared_link_of(group) else {
            return;
        };
        for transfer in self.bridges.pump(group, now_ms) {
            self.send_transfer(now_ms, link, transfer);
        }
    }

    pub(super) fn accepted(&mut self, now_ms: u64, group: GroupId, transfer: TransferId, refused: Vec<Refused>) {
        match self.bridges.accepted(group, transfer, refused) {
            Answer::Release(destination) => {
                self.demand.touch(Some(&destination));
                self.propose(now_ms, Purpose::Release { group, transfer });
            }
            Answer::Known | Answer::TakeBack(_) => {}
            Answer::Contradiction(what) => self.contradiction(group, transfer, what),
        }
        self.pump(now_ms, group);
    }

    pub(super) fn called_settled(&mut self, now_ms: u64, group: GroupId, transfer: TransferId) {
        let first = first_transfer(self.config.life.incarnation);
        match self.bridges.called_settled(group, transfer, first) {
            Answer::TakeBack(destination) => {
                self.demand.touch(Some(&destination));
                self.propose(now_ms, Purpose::TakeBack { group, transfer });
            }
            Answer::Contradiction(what) => self.contradiction(group, transfer, what),
            Answer::Known | Answer::Release(_) => {}
        }
        self.pump(now_ms, group);
    }

    fn contradiction(&mut self, group: GroupId, transfer: TransferId, what: &str) {
        tracing::error!(group = %format_args!("{group:016x}"), transfer, "transfer stays in doubt: {what}");
        self.troubles
            .insert(group, format!("transfer {transfer} stays in doubt: {what}"));
        self.demand.touch_heard(group);
    }

    fn released(&mut self, now_ms: u64, group: GroupId, transfer: TransferId) {
        if self.bridges.released(group, transfer) {
            self.demand.touch_heard(group);
        }
        self.pump(now_ms, group);
    }

    pub(super) fn reclaimed(&mut self, group: GroupId, below: TransferId) {
        for destination in self.bridges.reclaimed(group, below) {
            self.demand.touch(Some(&destination));
        }
        self.demand.touch_heard(group);
    }
}

// The receiver's side.
impl Mesh {
    pub(super) fn transfer_arrived(&mut self, now_ms: u64, link: LinkId, origin: GroupId, mut transfer: Transfer) {
        let number = transfer.transfer;
        self.time.take_over(now_ms, transfer.time_ms, &mut transfer.messages);
        match self.receivers.arrived(now_ms, origin, link, transfer) {
            Arrival::Propose => self.propose_arrived(now_ms, origin),
            Arrival::Pending => {}
            Arrival::Settled => self.send(link, Frame::Settled { transfer: number }),
            Arrival::TooMany => self.close(now_ms, link, "more transfers at a time than are taken"),
        }
    }

    /// The node says how late it is, or that it does not know yet.
    pub(super) fn time_told(&mut self, now_ms: u64, time_ms: Option<u64>) {
        let was_awaited = self.time.is_awaited();
        self.time.told(now_ms, time_ms);
        self.receivers.time(&self.time);
        if was_awaited && !self.time.is_awaited() {
            for origin in self.receivers.origins() {
                self.propose_arrived(now_ms, origin);
            }
            for group in self.demand.neighbours() {
                self.pump(now_ms, group);
            }
        }
    }

    fn propose_arrived(&mut self, now_ms: u64, origin: GroupId) {
        for transfer in self.receivers.proposable(origin) {
            self.propose(now_ms, Purpose::Accept { origin, transfer });
        }
    }

    /// There is so much room here for what others have.
    pub(super) fn room(&mut self, now_ms: u64, room: Room) {
        self.demand.room(room);
        self.receivers.room(room);
        for origin in self.receivers.origins() {
            self.propose_arrived(now_ms, origin);
        }
    }

    fn stored(&mut self, now_ms: u64, origin: GroupId, transfer: TransferId, refused: Vec<Refused>) {
        let Some(finished) = self.receivers.finished(origin, transfer) else {
            return;
        };
        let Finished {
            destination,
            target,
            stored,
            ..
        } = &finished;
        self.demand.arrivals.arrived(now_ms, destination, *target, *stored);
        self.demand.touch(Some(destination));
        let Some(link) = self.links.link_of(origin) else { return };
        // The answer carries what room is left, so that the sender need not wait for the next gathering.
        let mut changes = self.demand.changes(origin, destination, &self.bridges);
        let last = changes.pop().unwrap_or_default();
        for demand in changes {
            self.send(link, Frame::Demand(demand));
        }
        self.send(
            link,
            Frame::Accepted {
                transfer,
                refused,
                demand: Demand { last: false, ..last },
            },
        );
    }

    fn settled_long_ago(&mut self, origin: GroupId, transfer: TransferId) {
        let finished = self.receivers.finished(origin, transfer);
        if let (Some(_), Some(link)) = (finished, self.links.link_of(origin)) {
            self.send(link, Frame::Settled { transfer });
        }
    }

    pub(super) fn forget_due(&mut self, now_ms: u64) {
        for origin in self.receivers.forgettable(now_ms) {
            if let Some(forget) = self.receivers.forget(origin) {
                self.propose(
                    now_ms,
                    Purpose::Forget {
                        origin,
                        floor: forget.floor,
                    },
                );
            }
        }
    }
}

// Proposals of both sides.
impl Mesh {
    pub(super) fn propose(&mut self, now_ms: u64, purpose: Purpose) {
        let command = match &purpose {
            Purpose::Accept { origin, transfer } => self.receivers.accept(*origin, *transfer),
            Purpose::Release { group, transfer } => self.bridges.release(*group, *transfer),
            Purpose::TakeBack { group, transfer } => self.bridges.take_back(*group, *transfer),
            Purpose::Forget { origin, .. } => self.receivers.forget(*origin).map(Command::Forget),
            Purpose::Renew(renew) => Some(Command::Renew(*renew)),
        };
        if let Some(command) = command {
            let purpose = match &command {
                Command::Forget(forget) => Purpose::Forget {
                    origin: forget.origin,
                    floor: forget.floor,
                },
                _ => purpose,
            };
            let token = self.proposals.open(purpose, now_ms);
            self.actions.push(Action::Output(Output::Propose { token, command }));
        }
    }

    pub(super) fn proposed(&mut self, now_ms: u64, token: u64, result: Result<Outcome, Failed>) {
        let Some(purpose) = self.proposals.close(token) else {
            return;
        };
        match (purpose, result) {
            (_, Err(Failed::NotMaster)) => self.depose(),
            (purpose, Err(Failed::Retry)) => self.again(now_ms + self.config.propose_retry_ms, purpose),
            (Purpose::Accept { origin, transfer }, Ok(Outcome::Accepted { refused })) => {
                self.stored(now_ms, origin, transfer, refused);
                self.propose_arrived(now_ms, origin);
            }
            (Purpose::Accept { origin, transfer }, Ok(Outcome::Settled)) => {
                self.settled_long_ago(origin, transfer);
                self.propose_arrived(now_ms, origin);
            }
            (
                Purpose::Release { group, transfer } | Purpose::TakeBack { group, transfer },
                Ok(Outcome::Done | Outcome::NotFound),
            ) => {
                self.released(now_ms, group, transfer);
            }
            (Purpose::Renew(_), Ok(Outcome::Renewed { incarnation, lineage })) => {
                self.renewed(now_ms, Life { incarnation, lineage });
            }
            (Purpose::Forget { origin, floor }, Ok(_)) => self.receivers.forgotten(origin, floor),
            (purpose, Ok(outcome)) => {
                // Answering or forgetting on a guess could lose messages or double them, so it stays in doubt.
                tracing::warn!(?purpose, ?outcome, "unexpected outcome, proposing again");
                self.again(now_ms + UNEXPECTED_RETRY_MS, purpose);
            }
        }
    }

    fn again(&mut self, due_ms: u64, purpose: Purpose) {
        match purpose {
            Purpose::Accept { origin, transfer } => self.receivers.failed(origin, transfer, due_ms),
            Purpose::Forget { origin, .. } => self.receivers.forget_failed(origin, due_ms),
            Purpose::Release { .. } | Purpose::TakeBack { .. } | Purpose::Renew(_) => {
                self.proposals.again_at(due_ms, purpose)
            }
        }
    }

    pub(super) fn repeat_due(&mut self, now_ms: u64) {
        for purpose in self.proposals.due(now_ms) {
            self.propose(now_ms, purpose);
        }
        for (origin, transfer) in self.receivers.retriable(now_ms) {
            self.propose(now_ms, Purpose::Accept { origin, transfer });
        }
    }

    /// What the other side or the node has left without an answer for too long is repeated; each step is idempotent.
    pub(super) fn repeat_overdue(&mut self, now_ms: u64) {
        let before_ms = now_ms.saturating_sub(self.config.answer_deadline_ms);
        for purpose in self.proposals.unanswered_since(before_ms) {
            self.again(now_ms, purpose);
        }
        for group in self.demand.neighbours() {
            let Some(link) = self.links.cleared_link_of(group) else {
                continue;
            };
            for transfer in self.bridges.overdue(group, now_ms) {
                self.send_transfer(now_ms, link, transfer);
            }
        }
    }
}
