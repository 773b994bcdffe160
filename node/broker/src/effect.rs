//! What applying a batch brings about: outcomes for the proposers, effects for the master, changes of liveness for
//! the journal.

use ferrymq_message::Destination;

use crate::{GroupId, Place, QueueId, Refused, TransferId};

/// What the master's dispatcher has to know. The list is closed: a replica that is not the master drops it unread.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// A message can be dispatched; or again, after a return or a refused transfer (`returned`).
    Available {
        /// The queue.
        queue: QueueId,
        /// The message's number in it.
        seq: u64,
        /// It was dispatched or offered before.
        returned: bool,
    },
    /// A message is gone from the queue.
    Removed {
        /// The queue.
        queue: QueueId,
        /// The message's number in it.
        seq: u64,
    },
    /// A message is for the topic's subscribers of the moment.
    Published {
        /// The topic.
        topic: Destination,
        /// Where its bytes lie.
        place: Place,
    },
    /// A queue or the backlog of a durable subscription came to be.
    QueueCreated {
        /// The queue.
        queue: QueueId,
    },
    /// A queue or the backlog of a durable subscription is no more.
    QueueDeleted {
        /// The queue.
        queue: QueueId,
    },
    /// The log knows now that the queue has consumers: dispatching may begin.
    ConsumingBegan {
        /// The queue.
        queue: QueueId,
    },
    /// Messages were set aside for another group; the mesh shall send them.
    Offered {
        /// From this queue.
        queue: QueueId,
        /// To this group.
        group: GroupId,
        /// Under this number.
        transfer: TransferId,
    },
}

/// What became of one command, for the one who proposed it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Carried out, or there was nothing left to do.
    Done,
    /// This message was stored before; nothing was stored now (P5).
    Duplicate,
    /// The durable subscription's backlog.
    Queue(QueueId),
    /// The messages set aside and the number under which they go.
    Offered {
        /// Its number.
        transfer: TransferId,
        /// Those of the asked-for messages that were there and free.
        taken: Vec<u64>,
    },
    /// The transfer's messages are this group's now, or were already; but for these.
    Accepted {
        /// Not taken, with the reason.
        refused: Vec<Refused>,
    },
    /// A transfer that its owner has settled long ago came again; nothing was stored.
    Settled,
    /// What the command speaks of is not there.
    NotFound,
    /// What was offered to a lost group came back: so many transfers and messages.
    Reclaimed {
        /// Transfers that were not settled.
        transfers: u64,
        /// Their messages, which are here again.
        messages: u64,
    },
    /// The group's life has begun anew, or had before.
    Renewed {
        /// The incarnation that it is in.
        incarnation: u64,
        /// Its lineage.
        lineage: u64,
    },
    /// What went with a group that was forgotten.
    Forgotten(Forgotten),
    /// Against a rule, which the text names.
    Refused(String),
    /// Those of a transaction's commands.
    Many(Vec<Outcome>),
}

/// What is kept for another group, or went when it was forgotten.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Forgotten {
    /// Backlogs of topics.
    pub backlogs: u64,
    /// Messages in them.
    pub messages: u64,
    /// Bytes of these messages.
    pub bytes: u64,
    /// Transfers to it that were not settled, and those of its backlogs that were under way over another group.
    pub transfers: u64,
    /// Messages of such transfers that came back to where they were offered from.
    pub returned: u64,
}

/// How many more (or fewer) references point into one log entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LiveChange {
    /// The entry.
    pub index: u64,
    /// References gained or lost.
    pub references: i64,
    /// Bytes behind those references.
    pub bytes: i64,
}

/// The result of one batch.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Applied {
    /// One for each command, in their order.
    pub outcomes: Vec<Outcome>,
    /// In the order in which they came about.
    pub effects: Vec<Effect>,
    /// Folded where neighbours name the same entry.
    pub live: Vec<LiveChange>,
}

impl Applied {
    pub(crate) fn pin(&mut self, place: Place) {
        self.change(place, 1);
    }

    pub(crate) fn unpin(&mut self, place: Place) {
        self.change(place, -1);
    }

    fn change(&mut self, place: Place, sign: i64) {
        let bytes = sign * i64::from(place.len);
        match self.live.last_mut() {
            Some(last) if last.index == place.index => {
                last.references += sign;
                last.bytes += bytes;
            }
            _ => self.live.push(LiveChange {
                index: place.index,
                references: sign,
                bytes,
            }),
        }
    }
}
