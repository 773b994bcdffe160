//! The root of the replicated state. It only routes: each command borrows the parts that it needs.

use bytes::Bytes;
use ferrymq_message::StoredError;

use crate::{
    Applied, GroupId, Outcome, Place, batch,
    command::{self, kind, transaction::Part},
    duplicate_ids::DuplicateIds,
    life::Life,
    producers::Producers,
    queues::Queues,
    subscriptions::Subscriptions,
    transfers::Transfers,
    wants::Wants,
    wire::Reader,
};

/// What all replicas must agree on beforehand. Whatever an operator can change travels inside the commands instead.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Settings {}

/// Why a batch or a snapshot cannot be applied. The replica must stop: going on would make it differ from the others.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    /// Ends in the middle.
    #[error("a command or snapshot is cut short")]
    Truncated,
    /// Written by a later version of this program.
    #[error("batch or snapshot of version {0}, which this program does not read")]
    Version(u8),
    /// A part of a snapshot that this version does not know.
    #[error("section {tag} of a snapshot has version {version}, which this program does not read: update this node")]
    Section {
        /// Which part of the state.
        tag: u8,
        /// Its form.
        version: u8,
    },
    /// A command that this version does not know.
    #[error("unknown command {0}: the group runs a later version, update this node")]
    UnknownCommand(u8),
    /// A part does not make sense.
    #[error("malformed {0} in a command or snapshot")]
    Malformed(&'static str),
    /// A message's bytes are not a stored message.
    #[error("a command holds a damaged message: {0}")]
    Message(StoredError),
    /// Transactions inside of transactions.
    #[error("transactions are nested")]
    Nested,
}

/// The replicated state.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Broker {
    pub(crate) group: GroupId,
    pub(crate) life: Life,
    pub(crate) queues: Queues,
    pub(crate) subscriptions: Subscriptions,
    pub(crate) producers: Producers,
    pub(crate) duplicate_ids: DuplicateIds,
    pub(crate) transfers: Transfers,
    pub(crate) wants: Wants,
    /// The group's time as it was last noted, milliseconds since 1970; 0 for never.
    pub(crate) time_ms: u64,
}

impl Broker {
    /// The state of a group that is just being founded.
    pub fn new(_settings: Settings) -> Self {
        Self::default()
    }

    /// Applies one committed batch.
    ///
    /// # Errors
    /// Where the batch cannot be read; the replica must stop, since part of the batch may have been applied.
    pub fn apply(&mut self, index: u64, payload: &Bytes) -> Result<Applied, ApplyError> {
        let mut applied = Applied::default();
        let (count, mut reader) = batch::open(payload)?;
        for _ in 0..count {
            let (kind, body) = batch::next(&mut reader)?;
            let outcome = self.apply_one(index, kind, body, false, &mut applied)?;
            applied.outcomes.push(outcome);
        }
        if reader.is_empty() {
            Ok(applied)
        } else {
            Err(ApplyError::Malformed("end of a batch"))
        }
    }

    fn apply_one(
        &mut self,
        index: u64,
        kind: u8,
        body: Reader,
        nested: bool,
        out: &mut Applied,
    ) -> Result<Outcome, ApplyError> {
        let Self {
            group,
            life,
            queues,
            subscriptions,
            producers,
            duplicate_ids,
            transfers,
            wants,
            time_ms,
        } = self;
        match kind {
            kind::ENQUEUE => command::enqueue::apply(queues, subscriptions, producers, index, body, out),
            kind::ENQUEUE_ONCE => {
                let known = (producers, duplicate_ids);
                command::enqueue_once::apply(queues, subscriptions, known, index, body, out)
            }
            kind::ACKNOWLEDGE => command::acknowledge::apply(queues, body, out),
            kind::RETURN => command::return_::apply(queues, body, out),
            kind::EXPIRE => command::expire::apply(queues, body, out),
            kind::SUBSCRIBE => command::subscribe::apply(queues, subscriptions, transfers, body, out),
            kind::UNSUBSCRIBE => command::unsubscribe::apply(queues, subscriptions, transfers, body, out),
            kind::TRANSACTION | kind::PIECEMEAL if nested => Err(ApplyError::Nested),
            kind::TRANSACTION => self.apply_transaction(index, body, out),
            kind::PIECEMEAL => self.apply_piecemeal(index, body, out),
            kind::OFFER => command::offer::apply(queues, transfers, *life, body, out),
            kind::ACCEPT => command::accept::apply(queues, subscriptions, transfers, *group, index, body, out),
            kind::RELEASE => command::release::apply(queues, transfers, body, out),
            kind::FORGET => command::forget::apply(transfers, body),
            kind::RECLAIM => command::reclaim::apply(queues, transfers, body, out),
            kind::CONSUMING => command::consuming::apply(queues, body, out),
            kind::BEGIN_TERM => Ok(command::consuming::begin_term(queues)),
            kind::FOUND => command::found::apply(group, body),
            kind::DELETE_DESTINATION => command::delete_destination::apply(queues, transfers, body, out),
            kind::OPEN_DESTINATION => command::open_destination::apply(queues, body, out),
            kind::PUT_BACK => command::put_back::apply(queues, index, body, out),
            kind::PASS => command::pass::apply(producers, index, body),
            kind::NOTE_WANTS => command::note_wants::apply(wants, body),
            kind::FORGET_GROUP => command::forget_group::apply(queues, subscriptions, transfers, wants, body, out),
            kind::NOTE_TIME => command::note_time::apply(time_ms, body),
            kind::PASSED => command::passed::apply(producers, index, body),
            kind::RENEW => command::renew::apply(life, body),
            kind::TAKE_BACK => command::take_back::apply(queues, transfers, *life, body, out),
            kind::SKIP => command::skip::apply(producers, index, body),
            other => Err(ApplyError::UnknownCommand(other)),
        }
    }

    /// All of it, or nothing: see [`command::transaction`].
    fn apply_transaction(&mut self, index: u64, body: Reader, out: &mut Applied) -> Result<Outcome, ApplyError> {
        let parts = match command::transaction::judge(&self.producers, &self.duplicate_ids, index, body)? {
            Ok(parts) => parts,
            Err(text) => return Ok(Outcome::Refused(text)),
        };
        let mut outcomes = Vec::with_capacity(parts.len());
        for part in parts {
            let Self {
                queues,
                subscriptions,
                producers,
                duplicate_ids,
                ..
            } = self;
            outcomes.push(match part {
                Part::New(sent) => {
                    sent.note(producers, index)?;
                    sent.store(queues, subscriptions, duplicate_ids, out)?
                }
                Part::Marked(sent) => {
                    sent.note(producers, index)?;
                    Outcome::Duplicate
                }
                Part::Duplicate => Outcome::Duplicate,
                Part::Other(kind, body) => self.apply_one(index, kind, body, true, out)?,
            });
        }
        Ok(Outcome::Many(outcomes))
    }

    /// A transaction in the log's first form.
    fn apply_piecemeal(&mut self, index: u64, mut body: Reader, out: &mut Applied) -> Result<Outcome, ApplyError> {
        let count = body.u32()?;
        let mut outcomes = Vec::new();
        for _ in 0..count {
            let (kind, body) = batch::next(&mut body)?;
            outcomes.push(self.apply_one(index, kind, body, true, out)?);
        }
        Ok(Outcome::Many(outcomes))
    }

    /// This group's id; 0 until it is founded.
    pub fn group(&self) -> GroupId {
        self.group
    }

    /// Which life of its group this is.
    pub fn life(&self) -> Life {
        self.life
    }

    /// All queues.
    pub fn queues(&self) -> &Queues {
        &self.queues
    }

    /// All durable subscriptions.
    pub fn subscriptions(&self) -> &Subscriptions {
        &self.subscriptions
    }

    /// Resend detection.
    pub fn producers(&self) -> &Producers {
        &self.producers
    }

    /// Ids of messages that may come twice.
    pub fn duplicate_ids(&self) -> &DuplicateIds {
        &self.duplicate_ids
    }

    /// What is being handed over.
    pub fn transfers(&self) -> &Transfers {
        &self.transfers
    }

    /// What other groups want of topics.
    pub fn wants(&self) -> &Wants {
        &self.wants
    }

    /// The group's time as it was last noted, in milliseconds since 1970; none where it never was.
    pub fn time_ms(&self) -> Option<u64> {
        (self.time_ms != 0).then_some(self.time_ms)
    }

    /// The places in these log entries that the state refers to, in order, each once.
    pub fn live_places(&self, first_index: u64, last_index: u64) -> Vec<Place> {
        let range = first_index..=last_index;
        let mut places: Vec<Place> = self
            .queues
            .iter()
            .flat_map(|queue| queue.iter_from(0))
            .map(|(_, slot)| slot.place)
            .filter(|place| range.contains(&place.index))
            .collect();
        places.sort_unstable();
        places.dedup();
        places
    }

    /// For each log entry that is referred to: (index, references, bytes), in order.
    pub fn live_counts(&self) -> Vec<(u64, u64, u64)> {
        let mut all: Vec<(u64, u32)> = self
            .queues
            .iter()
            .flat_map(|queue| queue.iter_from(0))
            .map(|(_, slot)| (slot.place.index, slot.place.len))
            .collect();
        all.sort_unstable_by_key(|&(index, _)| index);
        let mut counts: Vec<(u64, u64, u64)> = Vec::new();
        for (index, len) in all {
            match counts.last_mut() {
                Some(last) if last.0 == index => {
                    last.1 += 1;
                    last.2 += u64::from(len);
                }
                _ => counts.push((index, 1, u64::from(len))),
            }
        }
        counts
    }
}
