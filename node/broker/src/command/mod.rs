//! The commands of the log, one per file: type, encoding, apply, tests.
//!
//! ```text
//! 0 kind u8 | 1 bytes u32 | 5 body
//! ```
//!
//! A kind's number is on disk for ever and is never used for something else.

pub mod accept;
pub mod acknowledge;
pub mod consuming;
pub mod delete_destination;
pub mod enqueue;
pub mod enqueue_once;
pub mod expire;
pub mod forget;
pub mod forget_group;
pub mod found;
pub mod note_time;
pub mod note_wants;
pub mod offer;
pub mod open_destination;
pub mod pass;
pub mod passed;
pub mod put_back;
pub mod reclaim;
pub mod release;
pub mod renew;
pub mod return_;
pub mod skip;
pub mod subscribe;
pub mod take_back;
pub(crate) mod transaction;
pub mod unsubscribe;

use bytes::{BufMut, Bytes, BytesMut};
use ferrymq_message::Destination;

pub use accept::{Accept, Carried, Refused};
pub use acknowledge::Acknowledge;
pub use consuming::Consuming;
pub use delete_destination::DeleteDestination;
pub use enqueue::Enqueue;
pub use enqueue_once::{EnqueueOnce, stored_in};
pub use expire::Expire;
pub use forget::Forget;
pub use forget_group::ForgetGroup;
pub use note_time::NoteTime;
pub use note_wants::NoteWants;
pub use offer::Offer;
pub use pass::Pass;
pub use passed::Passed;
pub use put_back::PutBack;
pub use reclaim::Reclaim;
pub use release::Release;
pub use renew::Renew;
pub use return_::Return;
pub use skip::Skip;
pub use subscribe::Subscribe;
pub use take_back::TakeBack;
pub use unsubscribe::Unsubscribe;

use crate::{GroupId, wire::put_destination};

/// An entry of the group's log, before it is packed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Store a message.
    Enqueue(Enqueue),
    /// Store a message that may come twice.
    EnqueueOnce(EnqueueOnce),
    /// Forget consumed messages.
    Acknowledge(Acknowledge),
    /// Take back what was dispatched and not acknowledged.
    Return(Return),
    /// Take out what is past its time.
    Expire(Expire),
    /// Make a durable subscription.
    Subscribe(Subscribe),
    /// End a durable subscription.
    Unsubscribe(Unsubscribe),
    /// Carry out all of these, or none.
    Transaction(Vec<Command>),
    /// Set messages aside for another group.
    Offer(Offer),
    /// Take over another group's messages.
    Accept(Accept),
    /// Forget what another group has accepted.
    Release(Release),
    /// Drop the marks of settled transfers.
    Forget(Forget),
    /// Take back what is under offer to a lost group.
    Reclaim(Reclaim),
    /// Note that a queue has consumers, or has none any more.
    Consuming(Consuming),
    /// A master begins its term.
    BeginTerm,
    /// Give the group its id; the first one counts.
    Found(GroupId),
    /// Delete a queue.
    DeleteDestination(DeleteDestination),
    /// Make a queue, if it is not there.
    OpenDestination(Destination),
    /// Store what the master had handed out without the log.
    PutBack(PutBack),
    /// Note numbers of messages that the master handed out without the log, in its first form.
    Pass(Pass),
    /// Note numbers of messages that the master handed out without the log.
    Passed(Passed),
    /// Note numbers of messages that will not come.
    Skip(Skip),
    /// Note what another group wants of topics.
    NoteWants(NoteWants),
    /// Forget a group that is lost for good.
    ForgetGroup(ForgetGroup),
    /// Begin a new life of this group.
    Renew(Renew),
    /// Take back a transfer of an earlier life.
    TakeBack(TakeBack),
    /// Note the group's time.
    NoteTime(NoteTime),
}

/// The numbers of the kinds.
pub(crate) mod kind {
    pub(crate) const ENQUEUE: u8 = 1;
    pub(crate) const ACKNOWLEDGE: u8 = 2;
    pub(crate) const RETURN: u8 = 3;
    pub(crate) const EXPIRE: u8 = 4;
    pub(crate) const SUBSCRIBE: u8 = 5;
    pub(crate) const UNSUBSCRIBE: u8 = 6;
    /// The log's first form: parts that were refused did not keep the others from being carried out.
    pub(crate) const PIECEMEAL: u8 = 7;
    pub(crate) const OFFER: u8 = 8;
    pub(crate) const ACCEPT: u8 = 9;
    pub(crate) const RELEASE: u8 = 10;
    pub(crate) const FORGET: u8 = 11;
    pub(crate) const RECLAIM: u8 = 12;
    pub(crate) const CONSUMING: u8 = 13;
    pub(crate) const BEGIN_TERM: u8 = 14;
    pub(crate) const FOUND: u8 = 15;
    pub(crate) const DELETE_DESTINATION: u8 = 16;
    pub(crate) const OPEN_DESTINATION: u8 = 17;
    pub(crate) const PUT_BACK: u8 = 18;
    pub(crate) const PASS: u8 = 19;
    pub(crate) const ENQUEUE_ONCE: u8 = 20;
    pub(crate) const TRANSACTION: u8 = 21;
    pub(crate) const PASSED: u8 = 22;
    pub(crate) const SKIP: u8 = 23;
    pub(crate) const NOTE_WANTS: u8 = 25;
    pub(crate) const FORGET_GROUP: u8 = 26;
    pub(crate) const RENEW: u8 = 30;
    pub(crate) const TAKE_BACK: u8 = 31;
    pub(crate) const NOTE_TIME: u8 = 35;
}

impl Command {
    /// Appends the command with its header.
    pub fn encode_into(&self, out: &mut BytesMut) {
        match self {
            Self::Enqueue(c) => framed(out, kind::ENQUEUE, |out| c.encode(out)),
            Self::EnqueueOnce(c) => framed(out, kind::ENQUEUE_ONCE, |out| c.encode(out)),
            Self::Acknowledge(c) => framed(out, kind::ACKNOWLEDGE, |out| c.encode(out)),
            Self::Return(c) => framed(out, kind::RETURN, |out| c.encode(out)),
            Self::Expire(c) => framed(out, kind::EXPIRE, |out| c.encode(out)),
            Self::Subscribe(c) => framed(out, kind::SUBSCRIBE, |out| c.encode(out)),
            Self::Unsubscribe(c) => framed(out, kind::UNSUBSCRIBE, |out| c.encode(out)),
            Self::Transaction(commands) => framed(out, kind::TRANSACTION, |out| {
                out.put_u32_le(commands.len() as u32);
                for command in commands {
                    command.encode_into(out);
                }
            }),
            Self::Offer(c) => framed(out, kind::OFFER, |out| c.encode(out)),
            Self::Accept(c) => framed(out, kind::ACCEPT, |out| c.encode(out)),
            Self::Release(c) => framed(out, kind::RELEASE, |out| c.encode(out)),
            Self::Forget(c) => framed(out, kind::FORGET, |out| c.encode(out)),
            Self::Reclaim(c) => framed(out, kind::RECLAIM, |out| c.encode(out)),
            Self::Consuming(c) => framed(out, kind::CONSUMING, |out| c.encode(out)),
            Self::BeginTerm => framed(out, kind::BEGIN_TERM, |_| {}),
            Self::Found(group) => framed(out, kind::FOUND, |out| out.put_u64_le(*group)),
            Self::DeleteDestination(c) => framed(out, kind::DELETE_DESTINATION, |out| c.encode(out)),
            Self::OpenDestination(d) => framed(out, kind::OPEN_DESTINATION, |out| put_destination(out, d)),
            Self::PutBack(c) => framed(out, kind::PUT_BACK, |out| c.encode(out)),
            Self::Pass(c) => framed(out, kind::PASS, |out| c.encode(out)),
            Self::Passed(c) => framed(out, kind::PASSED, |out| c.encode(out)),
            Self::Skip(c) => framed(out, kind::SKIP, |out| c.encode(out)),
            Self::NoteWants(c) => framed(out, kind::NOTE_WANTS, |out| c.encode(out)),
            Self::ForgetGroup(c) => framed(out, kind::FORGET_GROUP, |out| c.encode(out)),
            Self::Renew(c) => framed(out, kind::RENEW, |out| c.encode(out)),
            Self::TakeBack(c) => framed(out, kind::TAKE_BACK, |out| c.encode(out)),
            Self::NoteTime(c) => framed(out, kind::NOTE_TIME, |out| c.encode(out)),
        }
    }

    /// The command with its header, by itself.
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(64);
        self.encode_into(&mut out);
        out.freeze()
    }
}

/// Makes one transaction of commands that are encoded already.
pub fn encode_transaction(commands: &[Bytes]) -> Bytes {
    let mut out = BytesMut::with_capacity(commands.iter().map(Bytes::len).sum::<usize>() + 16);
    framed(&mut out, kind::TRANSACTION, |out| {
        out.put_u32_le(commands.len() as u32);
        for command in commands {
            out.put_slice(command);
        }
    });
    out.freeze()
}

/// Whether an encoded command stores messages: where space is short, what takes them away or only notes something goes on.
/// What is not known here counts as storing.
pub fn stores_messages(command: &[u8]) -> bool {
    match command.first() {
        Some(&kind::TRANSACTION) => {
            let mut rest = command.get(HEADER_BYTES + 4..).unwrap_or_default();
            while let Some((header, body)) = rest.split_first_chunk::<HEADER_BYTES>() {
                let len = u32::from_le_bytes([header[1], header[2], header[3], header[4]]);
                if stores_messages(rest) {
                    return true;
                }
                rest = body.get(len as usize..).unwrap_or_default();
            }
            false
        }
        Some(kind) => !NOTES.contains(kind),
        None => false,
    }
}

/// Kinds that store no message.
const NOTES: [u8; 22] = [
    kind::ACKNOWLEDGE,
    kind::RETURN,
    kind::EXPIRE,
    kind::SUBSCRIBE,
    kind::UNSUBSCRIBE,
    kind::OFFER,
    kind::RELEASE,
    kind::FORGET,
    kind::RECLAIM,
    kind::CONSUMING,
    kind::BEGIN_TERM,
    kind::FOUND,
    kind::DELETE_DESTINATION,
    kind::OPEN_DESTINATION,
    kind::PASS,
    kind::PASSED,
    kind::SKIP,
    kind::NOTE_WANTS,
    kind::FORGET_GROUP,
    kind::RENEW,
    kind::TAKE_BACK,
    kind::NOTE_TIME,
];

/// Bytes of a command's header.
pub(crate) const HEADER_BYTES: usize = 5;

/// Writes a header, lets `body` append, and fills the length in.
pub(crate) fn framed(out: &mut BytesMut, kind: u8, body: impl FnOnce(&mut BytesMut)) {
    out.put_u8(kind);
    let at = out.len();
    out.put_u32_le(0);
    body(out);
    let len = (out.len() - at - 4) as u32;
    out[at..at + 4].copy_from_slice(&len.to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stores_messages_is_known_by_its_encoding() {
        let enqueue = || {
            Command::Enqueue(Enqueue {
                message: Bytes::from_static(b"message"),
            })
        };
        let acknowledge = || {
            Command::Acknowledge(Acknowledge {
                queue: 1,
                seqs: vec![1, 2],
            })
        };
        for (command, stores) in [
            (enqueue(), true),
            (acknowledge(), false),
            (Command::BeginTerm, false),
            (Command::Transaction(vec![]), false),
            (Command::Transaction(vec![acknowledge(), acknowledge()]), false),
            (Command::Transaction(vec![acknowledge(), enqueue()]), true),
        ] {
            assert_eq!(stores_messages(&command.encode()), stores, "{command:?}");
        }
        let cut = Command::Transaction(vec![acknowledge()]).encode();
        for len in 0..cut.len() {
            stores_messages(&cut[..len]);
        }
        assert!(stores_messages(&[255, 0, 0, 0, 0]), "of a later version");
    }
}
