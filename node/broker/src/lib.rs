//! The replicated core: queues, durable subscriptions, resend detection, transfers between groups.
//!
//! *From* the group's log, one committed batch after the other; *to* the master's dispatcher as [`Effect`]s and to the
//! proposers as [`Outcome`]s. *Never* asks whether it runs on the master, what time it is or what lies on disk: every
//! replica that applies the same batches holds the same state.

pub mod broker;

pub mod batch;
pub mod command;

pub mod duplicate_ids;
pub mod life;
pub mod place;
pub mod producers;
pub mod queue;
pub mod queues;
pub mod subscriptions;
pub mod transfers;
pub mod wants;

pub mod effect;
mod snapshot;
mod wire;

pub use batch::BatchBuilder;
pub use broker::{ApplyError, Broker, Settings};
pub use command::{
    Accept, Acknowledge, Carried, Command, Consuming, DeleteDestination, Enqueue, EnqueueOnce, Expire, Forget,
    ForgetGroup, NoteTime, NoteWants, Offer, Pass, Passed, PutBack, Reclaim, Refused, Release, Renew, Return, Skip,
    Subscribe, TakeBack, Unsubscribe, encode_transaction, stored_in, stores_messages,
};
pub use effect::{Applied, Effect, Forgotten, LiveChange, Outcome};
pub use life::{INCARNATION_MAX, Life, epoch_of, first_transfer, incarnation_of, term_of};
pub use place::{DeadLetter, GroupId, Place, QueueId, TransferId};
pub use producers::{Admission, Numbered, Who};
pub use queue::{Queue, QueueKind, Slot};
pub use subscriptions::{Owner, is_pattern, matches};
pub use wants::{DemandVersion, Wanted, Wants};
