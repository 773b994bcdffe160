//! P4 as a model: two groups hand messages to and fro; every step may be repeated, delayed or lost, and masters change.
//! At any time every message is owned by exactly one group, and at the end each message lies in exactly one place.

use std::collections::BTreeMap;

use ferrymq_broker::{Accept, Command, Enqueue, Forget, Offer, Outcome, Refused, Release, TransferId};
use ferrymq_message::{Destination, Message};
use proptest::{collection::vec, prelude::*, sample::Index};

use crate::group::Group;

/// What happens next; sides are 0 and 1.
#[derive(Debug, Clone)]
enum Step {
    /// A client sends a message to this side.
    Send(usize),
    /// This side offers some of its messages to the other.
    Offer(usize, Index, usize),
    /// This side's master (the old one or the new one) sends a pending transfer, perhaps again.
    Transfer(usize, Index),
    /// A transfer of this side that was sent at any time arrives at the other, perhaps not for the first time. The
    /// receiver does not take the message at this position.
    Arrive(usize, Index, Option<u32>),
    /// An answer that this side got at any time leads to a release, perhaps not for the first time.
    Release(usize, Index),
    /// This side hears a floor that the other one told at any time, and forgets.
    Forget(usize, Index),
    /// This side's master dies; what it had sent may still arrive.
    Crash(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let side = || 0..2usize;
    prop_oneof![
        4 => side().prop_map(Step::Send),
        4 => (side(), any::<Index>(), 1..4usize).prop_map(|(side, at, count)| Step::Offer(side, at, count)),
        5 => (side(), any::<Index>()).prop_map(|(side, at)| Step::Transfer(side, at)),
        5 => (side(), any::<Index>(), prop::option::weighted(0.2, 0..3u32))
            .prop_map(|(side, at, refused)| Step::Arrive(side, at, refused)),
        5 => (side(), any::<Index>()).prop_map(|(side, at)| Step::Release(side, at)),
        3 => (side(), any::<Index>()).prop_map(|(side, at)| Step::Forget(side, at)),
        1 => side().prop_map(Step::Crash),
    ]
}

/// Two groups and everything that was ever on its way between them.
struct World {
    groups: [Group; 2],
    queue: Destination,
    sent: usize,
    /// By sender: transfers that may arrive at any time from now on.
    under_way: [Vec<Accept>; 2],
    /// By owner: answers that may arrive at any time from now on.
    answers: [Vec<(TransferId, Vec<Refused>)>; 2],
    /// By owner: floors that it told.
    floors: [Vec<TransferId>; 2],
}

const IDS: [u64; 2] = [1, 2];

impl World {
    fn new() -> Self {
        Self {
            groups: IDS.map(Group::new),
            queue: Destination::queue("Q"),
            sent: 0,
            under_way: Default::default(),
            answers: Default::default(),
            floors: Default::default(),
        }
    }

    fn run(&mut self, step: &Step) {
        match step {
            Step::Send(side) => self.send(*side),
            Step::Offer(side, at, count) => self.offer(*side, at, *count),
            Step::Transfer(side, at) => {
                let pending = self.pending(*side);
                if !pending.is_empty() {
                    self.transfer(*side, *at.get(&pending));
                }
            }
            Step::Arrive(side, at, refused) if !self.under_way[*side].is_empty() => {
                let transfer = at.get(&self.under_way[*side]).clone();
                self.arrive(*side, transfer, *refused);
            }
            Step::Release(side, at) if !self.answers[*side].is_empty() => {
                let (transfer, refused) = at.get(&self.answers[*side]).clone();
                self.release(*side, transfer, refused);
            }
            Step::Forget(side, at) if !self.floors[1 - side].is_empty() => {
                let floor = *at.get(&self.floors[1 - side]);
                self.groups[*side].apply(&Command::Forget(Forget {
                    origin: IDS[1 - side],
                    floor,
                }));
            }
            Step::Crash(side) => {
                self.groups[*side].apply(&Command::BeginTerm);
            }
            _ => {}
        }
    }

    fn send(&mut self, side: usize) {
        let message = Message::new(format!("m{}", self.sent), self.queue.clone(), "x");
        self.sent += 1;
        let enqueue = Enqueue {
            message: message.encode(),
        };
        self.groups[side].apply(&Command::Enqueue(enqueue));
    }

    fn offer(&mut self, side: usize, at: &Index, count: usize) {
        let Some(id) = self.groups[side].queue(&self.queue) else {
            return;
        };
        let queue = self.groups[side].broker.queues().get(id).unwrap();
        let all: Vec<u64> = queue.iter_from(0).map(|(seq, _)| seq).collect();
        if all.is_empty() {
            return;
        }
        // Blindly: also what is under offer already, which must not be offered twice.
        let seqs: Vec<u64> = all
            .into_iter()
            .skip(at.index(queue.len() as usize))
            .take(count)
            .collect();
        let group_name = format!("g{}", 1 - side);
        self.groups[side].apply(&Command::Offer(Offer {
            queue: id,
            seqs,
            group: IDS[1 - side],
            group_name,
        }));
    }

    fn pending(&self, side: usize) -> Vec<TransferId> {
        let outgoing = self.groups[side].broker.transfers().outgoing.get(&IDS[1 - side]);
        outgoing
            .map(|o| o.pending.keys().copied().collect())
            .unwrap_or_default()
    }

    fn transfer(&mut self, side: usize, transfer: TransferId) {
        let accept = self.groups[side]
            .carry(IDS[1 - side], transfer, &[])
            .expect("its queue is there");
        self.under_way[side].push(accept);
        let outgoing = &self.groups[side].broker.transfers().outgoing;
        self.floors[side].push(outgoing[&IDS[1 - side]].floor());
    }

    fn arrive(&mut self, from: usize, mut accept: Accept, refuse: Option<u32>) {
        if let Some(position) = refuse.filter(|&position| (position as usize) < accept.messages.len()) {
            accept.messages.remove(position as usize);
            accept.refused.push(Refused { position, reason: 1 });
        }
        let transfer = accept.transfer;
        match self.groups[1 - from].outcome(&Command::Accept(accept)) {
            Outcome::Accepted { refused } => self.answers[from].push((transfer, refused)),
            Outcome::Settled => assert!(!self.pending(from).contains(&transfer), "settled but not released"),
            other => panic!("{other:?}"),
        }
    }

    fn release(&mut self, side: usize, transfer: TransferId, refused: Vec<Refused>) {
        let release = Release {
            group: IDS[1 - side],
            transfer,
            refused,
        };
        self.groups[side].apply(&Command::Release(release));
        let outgoing = &self.groups[side].broker.transfers().outgoing;
        self.floors[side].push(outgoing[&IDS[1 - side]].floor());
    }

    /// Who owns which message: it lies in a group, and the group has not heard yet that the other one has accepted it.
    fn owners(&self) -> BTreeMap<String, usize> {
        let mut owners = BTreeMap::new();
        for side in 0..2 {
            let group = &self.groups[side];
            let Some(id) = group.queue(&self.queue) else { continue };
            let given_away = self.given_away(side);
            for (seq, slot) in group.broker.queues().get(id).unwrap().iter_from(0) {
                if !given_away.contains(&seq) {
                    *owners.entry(group.read(slot.place).id).or_insert(0) += 1;
                }
            }
        }
        owners
    }

    /// Messages under offer that the other side has accepted.
    fn given_away(&self, side: usize) -> Vec<u64> {
        let Some(outgoing) = self.groups[side].broker.transfers().outgoing.get(&IDS[1 - side]) else {
            return Vec::new();
        };
        let mut given = Vec::new();
        let incoming = self.groups[1 - side].broker.transfers().incoming.get(&IDS[side]);
        for (transfer, offer) in &outgoing.pending {
            if let Some(refused) = incoming.and_then(|incoming| incoming.accepted.get(transfer)) {
                let positions = (0u32..).zip(&offer.seqs);
                let taken = positions.filter(|(position, _)| !refused.iter().any(|r| r.position == *position));
                given.extend(taken.map(|(_, &seq)| seq));
            }
        }
        given
    }

    fn check(&self) {
        let owners = self.owners();
        assert_eq!(owners.len(), self.sent, "a message is lost");
        assert!(
            owners.values().all(|&owners| owners == 1),
            "a message is doubled: {owners:?}"
        );
    }

    /// Every pending step is repeated until nothing is pending.
    fn settle(&mut self) {
        for (side, origin) in IDS.into_iter().enumerate() {
            for transfer in self.pending(side) {
                self.transfer(side, transfer);
                let accept = self.under_way[side].last().unwrap().clone();
                self.arrive(side, accept, None);
                let (transfer, refused) = self.answers[side].last().unwrap().clone();
                self.release(side, transfer, refused);
            }
            assert_eq!(self.pending(side), Vec::<TransferId>::new());
            let floor = self.floors[side].iter().max().copied().unwrap_or(0);
            self.groups[1 - side].apply(&Command::Forget(Forget { origin, floor }));
            let incoming = &self.groups[1 - side].broker.transfers().incoming[&origin];
            assert!(incoming.accepted.is_empty(), "marks are left behind");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn handing_over_neither_loses_nor_doubles(steps in vec(step(), 1..120)) {
        let mut world = World::new();
        for step in &steps {
            world.run(step);
            world.check();
        }
        world.settle();
        world.check();
        let lying: usize = (0..2)
            .filter_map(|side| world.groups[side].queue(&world.queue).map(|id| world.groups[side].ids(id).len()))
            .sum();
        prop_assert_eq!(lying, world.sent, "each message lies in one place");
        for side in 0..2 {
            for accept in std::mem::take(&mut world.under_way[side]) {
                world.arrive(side, accept, None);
            }
        }
        world.check();
    }
}
