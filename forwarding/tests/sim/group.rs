//! One group: its replicated state, and what its master remembers of consumers and of the other groups' demand.

use std::collections::{BTreeMap, VecDeque};

use ferrymq_broker::{Carried, GroupId};
use ferrymq_forwarding::{Config, Input, KnownGroup, Pace, PeerCandidate, RemoteDemand, Room};
use ferrymq_message::Destination;

use super::{
    model::{Model, Place, id_of, message},
    rng::Rng,
};

pub(crate) struct Group {
    pub(crate) index: usize,
    pub(crate) id: GroupId,
    /// Of the node that is master: each mesh has another one.
    pub(crate) epoch: u64,
    pub(crate) term: u64,
    pub(crate) model: Model,
    /// What the master was told of the others' demand.
    pub(crate) remote: BTreeMap<Destination, Vec<RemoteDemand>>,
    /// What it is told of the other groups; what they want outlives the term.
    pub(crate) known: BTreeMap<GroupId, KnownGroup>,
    consumers: BTreeMap<Destination, (u32, bool)>,
    /// Dispatched and not acknowledged.
    in_hand: BTreeMap<Destination, VecDeque<Carried>>,
    /// Offered and not yet told to the mesh, by next hop and place.
    untold: BTreeMap<(GroupId, Place), u32>,
    log_at_ms: u64,
    pub(crate) frozen: bool,
    pub(crate) room: Room,
    /// Messages that consumers are said to finish in a second.
    pub(crate) per_second: u32,
}

/// What an operator has copied of a group.
#[derive(Clone)]
pub(crate) struct Copied {
    term: u64,
    pub(crate) model: Model,
    known: BTreeMap<GroupId, KnownGroup>,
}

/// Messages that one consumer has room for.
pub(crate) const PREFETCH: u32 = 5;

impl Group {
    pub(crate) fn new(index: usize) -> Self {
        // Ids in another order than indices, so that neither side of an edge is always the smaller one.
        let id = 1_000 + (index as u64 * 7) % 5;
        let model = Model {
            group: id,
            ..Model::default()
        };
        Self {
            index,
            id,
            epoch: 1,
            term: 1,
            model,
            remote: BTreeMap::new(),
            known: BTreeMap::new(),
            consumers: BTreeMap::new(),
            in_hand: BTreeMap::new(),
            untold: BTreeMap::new(),
            log_at_ms: 0,
            frozen: false,
            room: Room::Plenty,
            per_second: 0,
        }
    }

    pub(crate) fn config(&self) -> Config {
        let mut config = Config::new(format!("g{}", self.index), self.id, self.epoch, self.term);
        config.life = self.model.life;
        config.forget_transfers_min = 4;
        config.forget_interval_ms = 100;
        config.transfers_in_flight_max = 2;
        config.transfer_messages_max = 8;
        config
    }

    pub(crate) fn candidate(&self) -> PeerCandidate {
        let name = format!("g{}", self.index);
        PeerCandidate {
            group: None,
            group_id: None,
            endpoints: vec![format!("{name}-slave"), name],
        }
    }

    pub(crate) fn new_term(&mut self) {
        self.epoch += 1;
        self.term += 1;
        self.remote.clear();
        self.untold.clear();
        self.take_back_in_hand();
    }

    fn take_back_in_hand(&mut self) {
        for (destination, in_hand) in std::mem::take(&mut self.in_hand) {
            let queue = self.model.queues.entry((destination, None)).or_default();
            in_hand.into_iter().rev().for_each(|carried| queue.push_front(carried));
        }
    }

    /// A copy of what is replicated.
    pub(crate) fn copy(&self) -> Copied {
        let mut model = self.model.clone();
        for (destination, in_hand) in &self.in_hand {
            let queue = model.queues.entry((destination.clone(), None)).or_default();
            in_hand
                .iter()
                .rev()
                .for_each(|carried| queue.push_front(carried.clone()));
        }
        let (term, known) = (self.term, self.known.clone());
        Copied { term, model, known }
    }

    /// Puts a copy in the place of what is replicated; returns what is lost by that. What was consumed was consumed.
    pub(crate) fn put_back(&mut self, copied: Copied) -> Model {
        self.take_back_in_hand();
        self.term = copied.term;
        self.known = copied.known;
        let mut lost = std::mem::replace(&mut self.model, copied.model);
        self.model.consumed = std::mem::take(&mut lost.consumed);
        lost
    }

    pub(crate) fn first_inputs(&self) -> Vec<Input> {
        let outgoing = &self.model.outgoing;
        let next = outgoing.iter().map(|(group, o)| (*group, o.next)).collect();
        let pending = outgoing
            .iter()
            .flat_map(|(group, o)| o.pending.keys().map(|t| (*group, *t)));
        let mut inputs = vec![
            Input::Room(self.room),
            Input::Remembered(self.known.values().cloned().collect()),
        ];
        inputs.extend(
            self.consumers
                .keys()
                .filter_map(|destination| self.local_demand(destination)),
        );
        inputs.push(Input::Settled {
            next,
            pending: pending.collect(),
            arrived: self.model.arrived(),
        });
        for (group, outgoing) in outgoing {
            for (transfer, (place, messages)) in &outgoing.pending {
                inputs.push(offered(*group, *transfer, place, messages.clone()));
            }
        }
        inputs
    }

    pub(crate) fn set_consumers(&mut self, destination: &Destination, consumers: u32, durable: bool) {
        self.consumers.insert(destination.clone(), (consumers, durable));
        if consumers == 0 {
            let back = self.in_hand.remove(destination).unwrap_or_default();
            let queue = self.model.queues.entry((destination.clone(), None)).or_default();
            back.into_iter().rev().for_each(|carried| queue.push_front(carried));
        }
    }

    pub(crate) fn wants(&self, destination: &Destination) -> (u32, bool) {
        self.consumers.get(destination).copied().unwrap_or((0, false))
    }

    pub(crate) fn local_demand(&self, destination: &Destination) -> Option<Input> {
        let (consumers, durable) = *self.consumers.get(destination)?;
        Some(Input::LocalDemand {
            destination: destination.clone(),
            consumers,
            credit: self.credit(destination),
            selectors: vec![None],
            durable,
            pace: self.pace(destination, consumers),
        })
    }

    fn pace(&self, destination: &Destination, consumers: u32) -> Pace {
        let place = (destination.clone(), None);
        let waiting = self.model.queues.get(&place).map_or(0, VecDeque::len) as u32;
        let in_hand = self.in_hand.get(destination).map_or(0, VecDeque::len) as u32;
        Pace {
            busy: if self.per_second > 0 { consumers } else { 0 },
            per_second: self.per_second,
            behind: (waiting + in_hand).saturating_sub(consumers * PREFETCH),
            in_hand,
        }
    }

    pub(crate) fn credit(&self, destination: &Destination) -> u32 {
        let (consumers, _) = self.wants(destination);
        let place = (destination.clone(), None);
        let waiting = self.model.queues.get(&place).map_or(0, VecDeque::len);
        let in_hand = self.in_hand.get(destination).map_or(0, VecDeque::len);
        (consumers * PREFETCH).saturating_sub((waiting + in_hand) as u32)
    }

    pub(crate) fn produce(&mut self, destination: &Destination, id: &str) {
        let carried = message(id, destination);
        if !destination.kind().is_topic() {
            self.model
                .queues
                .entry((destination.clone(), None))
                .or_default()
                .push_back(carried);
            return;
        }
        for row in self.remote.get(destination).into_iter().flatten() {
            let place = (destination.clone(), Some(row.origin));
            self.model.queues.entry(place).or_default().push_back(carried.clone());
        }
        if self.consumers.contains_key(destination) {
            self.model
                .queues
                .entry((destination.clone(), None))
                .or_default()
                .push_back(carried);
        }
    }

    pub(crate) fn produce_unreadable(&mut self, destination: &Destination) {
        let mut carried = message("bad", destination);
        let mut bytes = carried.message.to_vec();
        bytes[0] = 99;
        carried.message = bytes.into();
        self.model
            .queues
            .entry((destination.clone(), None))
            .or_default()
            .push_back(carried);
    }

    /// Messages that came from elsewhere and are here.
    pub(crate) fn received(&self, destination: &Destination) -> usize {
        let waiting = self
            .model
            .queues
            .get(&(destination.clone(), None))
            .map_or(0, VecDeque::len);
        waiting + self.in_hand.get(destination).map_or(0, VecDeque::len)
    }

    /// Gives waiting messages to consumers here; the destinations where that changed something.
    pub(crate) fn deliver(&mut self) -> Vec<Destination> {
        let mut changed = Vec::new();
        for (destination, (consumers, _)) in &self.consumers {
            let Some(queue) = self.model.queues.get_mut(&(destination.clone(), None)) else {
                continue;
            };
            let in_hand = self.in_hand.entry(destination.clone()).or_default();
            let room = ((consumers * PREFETCH) as usize).saturating_sub(in_hand.len());
            let taken = queue.drain(..room.min(queue.len())).collect::<Vec<_>>();
            if !taken.is_empty() {
                in_hand.extend(taken);
                changed.push(destination.clone());
            }
        }
        changed
    }

    pub(crate) fn acknowledge(&mut self) -> Vec<Destination> {
        let mut changed = Vec::new();
        if self.frozen {
            return changed;
        }
        for (destination, in_hand) in &mut self.in_hand {
            if !in_hand.is_empty() {
                self.model
                    .consumed
                    .extend(in_hand.drain(..).map(|carried| id_of(&carried)));
                changed.push(destination.clone());
            }
        }
        changed
    }

    pub(crate) fn remote_demand(&mut self, destination: Destination, rows: Vec<RemoteDemand>) {
        self.remote.insert(destination, rows);
    }

    /// The mesh is being told of an offer: from now on it counts it.
    pub(crate) fn told(&mut self, offered: &Input) {
        let Input::Offered {
            group,
            destination,
            target,
            messages,
            ..
        } = offered
        else {
            return;
        };
        if let Some(left) = self.untold.get_mut(&(*group, (destination.clone(), *target))) {
            *left = left.saturating_sub(messages.len() as u32);
        }
    }

    /// The rows through which messages of a place may go.
    fn rows(&self, place: &Place) -> Vec<RemoteDemand> {
        let topic = place.0.kind().is_topic();
        let local = !topic && self.wants(&place.0).0 > 0;
        if local || (topic && place.1.is_none()) {
            return Vec::new();
        }
        let rows = self.remote.get(&place.0).into_iter().flatten();
        rows.filter(|row| !topic || place.1 == Some(row.origin))
            .cloned()
            .collect()
    }

    pub(crate) fn could_offer(&self, place: &Place) -> bool {
        self.model.queues.get(place).is_some_and(|queue| !queue.is_empty())
            && self.rows(place).iter().any(|row| row.available > 0)
    }

    pub(crate) fn offers(&mut self, place: &Place, wish: usize) -> Vec<Input> {
        let mut inputs = Vec::new();
        for row in self.rows(place) {
            let untold = self.untold.entry((row.next_hop, place.clone())).or_default();
            let room = row.available.saturating_sub(*untold) as usize;
            if let Some((transfer, messages)) = self.model.offer(place, row.next_hop, room.min(wish)) {
                *untold += messages.len() as u32;
                inputs.push(offered(row.next_hop, transfer, place, messages));
            }
        }
        inputs
    }

    /// When the next entry is committed: each after the one before.
    pub(crate) fn log_delay(&mut self, rng: &mut Rng, now_ms: u64, delay_ms_max: u64) -> u64 {
        self.log_at_ms = self.log_at_ms.max(now_ms) + rng.below(delay_ms_max / 3 + 1);
        self.log_at_ms
    }

    pub(crate) fn describe(&self) -> String {
        let waiting: Vec<_> = self
            .model
            .queues
            .iter()
            .map(|(place, queue)| (place, queue.len()))
            .collect();
        let pending: Vec<_> = self
            .model
            .outgoing
            .iter()
            .map(|(group, o)| (group, o.pending.keys().collect::<Vec<_>>()))
            .collect();
        let parked = self.model.parked.len();
        format!(
            "id {} epoch {} consumed {} waiting {waiting:?} pending {pending:?} parked {parked} remote {:#?}",
            self.id,
            self.epoch,
            self.model.consumed.len(),
            self.remote
        )
    }
}

fn offered(group: GroupId, transfer: u64, place: &Place, messages: Vec<Carried>) -> Input {
    let (destination, target) = place.clone();
    Input::Offered {
        queue: 1,
        group,
        transfer,
        destination,
        target,
        messages,
    }
}
