//! What a group has truly committed: each entry once, in order, from whichever node applied it first. It knows more than
//! any node does, and is never asked by one.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use ferrymq_broker::{Broker, Outcome, Place, Settings, stored_in};
use ferrymq_message::StoredMessage;

use crate::{
    history::{History, id_in},
    raft::Committed,
};

/// One group's truth.
#[derive(Debug, Clone)]
pub(crate) struct Oracle {
    pub(crate) broker: Broker,
    pub(crate) index: u64,
    /// (term, payload) of each entry, from index 1.
    log: Vec<(u64, Bytes)>,
    /// Times that a message was stored by a producer's send.
    pub(crate) stored: BTreeMap<String, u32>,
    ids: BTreeMap<Place, String>,
    /// The highest term of which a node was master, and every term's master.
    pub(crate) term: u64,
    pub(crate) masters: BTreeMap<u64, usize>,
}

/// Kinds of commands as `node/broker/src/command/mod.rs` numbers them.
const ENQUEUE: u8 = 1;
const EXPIRE: u8 = 4;
const PIECEMEAL: u8 = 7;
const TRANSACTION: u8 = 21;
const ENQUEUE_ONCE: u8 = 20;
const BATCH_HEAD_BYTES: usize = 5;
const HEAD_BYTES: usize = 5;
const ID_BYTES_MAX: usize = 16;

impl Oracle {
    pub(crate) fn new() -> Self {
        Self {
            broker: Broker::new(Settings::default()),
            index: 0,
            log: Vec::new(),
            stored: BTreeMap::new(),
            ids: BTreeMap::new(),
            term: 0,
            masters: BTreeMap::new(),
        }
    }

    /// A node has applied this.
    pub(crate) fn learn(&mut self, entry: &Committed, history: &mut History) {
        let known = entry.index.checked_sub(1).and_then(|at| self.log.get(at as usize));
        if let Some((term, payload)) = known {
            if (*term, payload) != (entry.term, &entry.payload) {
                let text = format!("two nodes have committed different entries {}", entry.index);
                history.break_promise(7, text);
            }
            return;
        }
        if entry.index != self.index + 1 {
            return history.break_promise(2, format!("entry {} was committed after {}", entry.index, self.index));
        }
        self.index = entry.index;
        self.log.push((entry.term, entry.payload.clone()));
        if entry.payload.is_empty() {
            return;
        }
        match self.broker.apply(entry.index, &entry.payload) {
            Ok(applied) => self.note(&entry.payload, &applied.outcomes, history),
            Err(error) => history.break_promise(9, format!("entry {} cannot be applied: {error}", entry.index)),
        }
    }

    fn note(&mut self, payload: &Bytes, outcomes: &[Outcome], history: &mut History) {
        let commands = split(&payload[BATCH_HEAD_BYTES.min(payload.len())..]);
        for (command, outcome) in commands.into_iter().zip(outcomes) {
            self.note_one(command, outcome, history);
        }
    }

    fn note_one(&mut self, command: (u8, &[u8]), outcome: &Outcome, history: &mut History) {
        match (command, outcome) {
            ((ENQUEUE | ENQUEUE_ONCE, body), Outcome::Done) => {
                let id = command_of(command.0, body).and_then(|command| message_id(stored_in(&command)?));
                if let Some(id) = id {
                    let times = self.stored.entry(id.clone()).or_default();
                    *times += 1;
                    if *times > 1 {
                        history.break_promise(5, format!("{id} was stored {times} times"));
                    }
                }
            }
            // The world does not last as long as messages live.
            ((EXPIRE, _), Outcome::Done) => {
                history.break_promise(2, "messages have expired before their time");
            }
            ((TRANSACTION | PIECEMEAL, body), Outcome::Many(outcomes)) => {
                for (command, outcome) in split(&body[4.min(body.len())..]).into_iter().zip(outcomes) {
                    self.note_one(command, outcome, history);
                }
            }
            _ => {}
        }
    }

    /// The id of the message at a place.
    pub(crate) fn id_at(&mut self, place: Place) -> Option<String> {
        if let Some(id) = self.ids.get(&place) {
            return Some(id.clone());
        }
        let (_, payload) = self.log.get((place.index - 1) as usize)?;
        let from = place.offset as usize;
        let id = message_id(payload.get(from..from + place.len as usize)?.to_vec().into())?;
        self.ids.insert(place, id.clone());
        Some(id)
    }

    /// Messages on queues (not topics' backlogs) that are not under offer: (id, queue).
    pub(crate) fn owned(&mut self) -> Vec<(String, String)> {
        self.on_queues(false)
    }

    /// Messages on queues: (id, queue), with those under offer or without.
    pub(crate) fn on_queues(&mut self, offered: bool) -> Vec<(String, String)> {
        let places: Vec<(Place, String)> = self
            .broker
            .queues()
            .iter()
            .filter(|queue| !queue.destination().kind().is_topic())
            .flat_map(|queue| {
                let name = queue.destination().name();
                queue.iter_from(0).map(move |(_, slot)| (slot, name))
            })
            .filter(|(slot, _)| offered || !slot.offered())
            .map(|(slot, name)| (slot.place, name.to_owned()))
            .collect();
        places
            .into_iter()
            .filter_map(|(place, name)| Some((self.id_at(place)?, name)))
            .collect()
    }

    /// The ids of all messages that are anywhere in the group, topics' backlogs included.
    pub(crate) fn ids(&mut self) -> BTreeSet<String> {
        let queues = self.broker.queues().iter();
        let places: Vec<Place> = queues
            .flat_map(|queue| queue.iter_from(0))
            .map(|(_, slot)| slot.place)
            .collect();
        places.into_iter().filter_map(|place| self.id_at(place)).collect()
    }

    /// Those of these ids that stand at the beginning of a body somewhere in the log behind an entry.
    pub(crate) fn logged_behind<'a>(&self, index: u64, ids: impl Iterator<Item = &'a String>) -> BTreeSet<String> {
        let ids: BTreeSet<&[u8]> = ids.map(String::as_bytes).collect();
        let mut found = BTreeSet::new();
        for (_, payload) in self.log.iter().skip(index as usize) {
            for end in payload
                .iter()
                .enumerate()
                .filter(|(_, byte)| **byte == b' ')
                .map(|(at, _)| at)
            {
                let tokens = (3..=ID_BYTES_MAX.min(end)).map(|len| &payload[end - len..end]);
                let known = tokens.filter(|token| ids.contains(token));
                found.extend(known.map(|token| String::from_utf8_lossy(token).into_owned()));
            }
        }
        found
    }

    /// Messages that are anywhere in the group.
    pub(crate) fn messages(&self) -> u64 {
        self.broker.queues().iter().map(ferrymq_broker::Queue::len).sum()
    }

    /// Transfers that are not released.
    pub(crate) fn in_doubt(&self) -> usize {
        self.broker
            .transfers()
            .outgoing
            .values()
            .map(|outgoing| outgoing.pending.len())
            .sum()
    }
}

/// The command with its head again.
fn command_of(kind: u8, body: &[u8]) -> Option<Bytes> {
    let len = u32::try_from(body.len()).ok()?;
    Some([&[kind][..], &len.to_le_bytes(), body].concat().into())
}

fn message_id(bytes: Bytes) -> Option<String> {
    let stored = StoredMessage::new(bytes).ok()?;
    id_in(&stored.body()).map(str::to_owned)
}

/// Commands one after the other: kind and body.
fn split(mut bytes: &[u8]) -> Vec<(u8, &[u8])> {
    let mut commands = Vec::new();
    while let Some(head) = bytes.get(..HEAD_BYTES) {
        let len = u32::from_le_bytes([head[1], head[2], head[3], head[4]]) as usize;
        let end = (HEAD_BYTES + len).min(bytes.len());
        commands.push((head[0], &bytes[HEAD_BYTES..end]));
        bytes = &bytes[end..];
    }
    commands
}
