//! Deliberate faults: each takes away what keeps one promise, at a seam of the simulation. Without them no seed may
//! fail; with each of them some seed must, and the promise's own invariant must say so.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use ferrymq_broker::{Command, Enqueue, EnqueueOnce, Outcome, encode_transaction, stored_in};
use ferrymq_message::{Destination, StoredMessage};

use crate::group::{GroupEvent, Shared, locked};

/// One deliberate fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Sabotage {
    /// `fdatasync` does nothing and says that all is well.
    SkipSync,
    /// The journal answers what is written and not synced.
    AnswerUnsynced,
    /// A producer is answered before the majority has its message.
    AnswerEarly,
    /// A vote is not written to disk.
    ForgetVote,
    /// The lease is not asked for.
    IgnoreLease,
    /// The journal is not told of living messages, so their segments are used again too early.
    ForgetLiving,
    /// Damage whose checksum fits: as if checksums were not looked at.
    SkipChecksum,
    /// What a producer sent is not remembered.
    ForgetProducers,
    /// A number that was used is taken for a resend, whatever is sent under it.
    TrustNumbers,
    /// Messages are delivered without their redelivered mark.
    LoseMarks,
    /// A new master does not mark what the one before it may have delivered.
    ForgetDeliveries,
    /// Acknowledgements are answered and not stored.
    LoseAcknowledgements,
    /// What a consumer had and did not acknowledge is forgotten when it goes.
    DropReturned,
    /// What a consumer rejects is forgotten.
    DropRejected,
    /// Of a transaction the last part is left out.
    CutTransactions,
    /// A transaction is carried out without the parts that are refused.
    CommitInPart,
    /// A transfer is accepted without the mark that it was.
    DropTransferMark,
    /// A transfer counts as accepted when it was sent.
    ReleaseEarly,
    /// A message under offer is delivered here all the same.
    TakeBackOffers,
    /// Behind commands that were not taken later ones are.
    StayOpen,
    /// Requests of one client overtake each other.
    Reorder,
    /// Consumers are given more than they have room for.
    IgnorePrefetch,
    /// Slaves turn clients away.
    CloseDoors,
    /// Bytes that are no frame end the node.
    DieOfGarbage,
    /// Others are not told that a demand has gone.
    KeepDemand,
    /// A new master does not know what absent groups wanted, and takes what it hears of the others for all that there is.
    ForgetAbsent,
    /// The mesh is not told that there is no room.
    TakeUnbounded,
    /// A group is told that its neighbours hold nothing of it.
    TrustOldMarks,
    /// Messages live by their master's own wall clock.
    TrustClocks,
    /// Messages cross with the ends that they had by their owner's clock.
    CarryEnds,
}

impl Sabotage {
    /// All of them.
    pub const ALL: [Self; 30] = [
        Self::SkipSync,
        Self::AnswerUnsynced,
        Self::AnswerEarly,
        Self::ForgetVote,
        Self::IgnoreLease,
        Self::ForgetLiving,
        Self::SkipChecksum,
        Self::ForgetProducers,
        Self::TrustNumbers,
        Self::LoseMarks,
        Self::ForgetDeliveries,
        Self::LoseAcknowledgements,
        Self::DropReturned,
        Self::DropRejected,
        Self::CutTransactions,
        Self::CommitInPart,
        Self::DropTransferMark,
        Self::ReleaseEarly,
        Self::TakeBackOffers,
        Self::StayOpen,
        Self::Reorder,
        Self::IgnorePrefetch,
        Self::CloseDoors,
        Self::DieOfGarbage,
        Self::KeepDemand,
        Self::ForgetAbsent,
        Self::TakeUnbounded,
        Self::TrustOldMarks,
        Self::TrustClocks,
        Self::CarryEnds,
    ];

    /// The promises of which one must notice it, by number; 0 is the transactions' wholeness.
    pub fn breaks(self) -> &'static [u8] {
        match self {
            Self::SkipSync | Self::AnswerUnsynced => &[1, 2],
            // What is in doubt for ever is told at the end.
            Self::TrustOldMarks => &[2, 4],
            Self::ForgetAbsent | Self::TrustClocks | Self::CarryEnds => &[2],
            // Told five times a second who owns a message (P4), and at the end that it is lost.
            Self::DropReturned | Self::DropRejected => &[2, 4],
            Self::AnswerEarly => &[1],
            Self::ForgetVote | Self::IgnoreLease => &[7],
            Self::ForgetLiving => &[2, 9],
            Self::SkipChecksum => &[9],
            Self::ForgetProducers | Self::TrustNumbers => &[5],
            Self::LoseMarks | Self::ForgetDeliveries | Self::LoseAcknowledgements => &[3],
            Self::CutTransactions | Self::CommitInPart => &[0],
            Self::DropTransferMark | Self::ReleaseEarly | Self::TakeBackOffers => &[4],
            Self::StayOpen | Self::Reorder => &[6],
            Self::IgnorePrefetch | Self::TakeUnbounded => &[8],
            Self::CloseDoors => &[10],
            Self::DieOfGarbage => &[11],
            Self::KeepDemand => &[12],
        }
    }

    /// By its name in the code.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|sabotage| format!("{sabotage:?}") == name)
    }
}

/// Kinds of commands as `node/broker/src/command/mod.rs` numbers them.
mod kind {
    pub(super) const ENQUEUE: u8 = 1;
    pub(super) const ENQUEUE_ONCE: u8 = 20;
    pub(super) const ACKNOWLEDGE: u8 = 2;
    pub(super) const RETURN: u8 = 3;
    pub(super) const PIECEMEAL: u8 = 7;
    pub(super) const TRANSACTION: u8 = 21;
    pub(super) const BEGIN_TERM: u8 = 14;
    pub(super) const FOUND: u8 = 15;
}

/// Kind and length stand in front of a command's body.
const HEAD_BYTES: usize = 5;

/// What goes to the log in place of this command. The founding's random number is replaced always.
pub(crate) fn spoil_command(shared: &Shared, command: Bytes, token: u64) -> Bytes {
    match (command.first().copied().unwrap_or(0), shared.sabotage) {
        (kind::FOUND, _) => Command::Found(shared.founds_as).encode(),
        (kind::ENQUEUE | kind::ENQUEUE_ONCE, Some(Sabotage::AnswerEarly)) => {
            let results = vec![(token, Ok(Outcome::Done))];
            locked(&shared.early).push(GroupEvent::Done { results });
            command
        }
        (kind::ENQUEUE_ONCE, Some(Sabotage::ForgetProducers)) => nameless(&command).unwrap_or(command),
        (kind::ENQUEUE_ONCE, Some(Sabotage::TrustNumbers)) => undigested(&command).unwrap_or(command),
        (kind::TRANSACTION, Some(Sabotage::CommitInPart)) => [&[kind::PIECEMEAL][..], &command[1..]].concat().into(),
        (kind::BEGIN_TERM, Some(Sabotage::ForgetDeliveries))
        | (kind::ACKNOWLEDGE, Some(Sabotage::LoseAcknowledgements)) => {
            Command::OpenDestination(Destination::queue("nothing")).encode()
        }
        (kind::RETURN, Some(Sabotage::DropReturned)) => forgotten(&command, false).unwrap_or(command),
        (kind::RETURN, Some(Sabotage::DropRejected)) => forgotten(&command, true).unwrap_or(command),
        (kind::TRANSACTION, Some(Sabotage::CutTransactions)) => {
            let mut parts = parts(command.slice(HEAD_BYTES..));
            if parts.len() > 1 {
                parts.pop();
            }
            encode_transaction(&parts)
        }
        _ => command,
    }
}

/// An acknowledgement of what comes back, where it comes back rejected or not. Both begin with the queue's number and
/// those of the messages; behind a byte follows how many redeliveries are allowed, none for what is rejected.
fn forgotten(command: &Bytes, rejected: bool) -> Option<Bytes> {
    let body = command.get(HEAD_BYTES..)?;
    let count = u32::from_le_bytes(body.get(4..8)?.try_into().ok()?);
    let ends = body.iter().enumerate().skip(8).filter(|(_, byte)| **byte < 0x80);
    let end = match count {
        0 => 8,
        _ => ends.map(|(at, _)| at + 1).nth(count as usize - 1)?,
    };
    let redeliveries_max = u16::from_le_bytes(body.get(end + 1..end + 3)?.try_into().ok()?);
    if (redeliveries_max == 0) != rejected {
        return None;
    }
    let mut out = BytesMut::new();
    out.put_u8(kind::ACKNOWLEDGE);
    out.put_u32_le(end as u32);
    out.put_slice(&body[..end]);
    Some(out.freeze())
}

/// The same message without its producer.
fn nameless(command: &Bytes) -> Option<Bytes> {
    let stored = StoredMessage::new(stored_in(command)?).ok()?;
    let mut message = stored.decode().ok()?;
    message.producer = None;
    let mut out = BytesMut::new();
    Enqueue::encode_with(&mut out, |out| message.encode_into(out));
    Some(out.freeze())
}

/// The same message as if all messages said the same.
fn undigested(command: &Bytes) -> Option<Bytes> {
    let message = stored_in(command)?;
    let mut out = BytesMut::new();
    EnqueueOnce::encode_with(&mut out, "", 1, None, |out| out.put_slice(&message));
    Some(out.freeze())
}

/// A transaction's commands.
fn parts(mut body: Bytes) -> Vec<Bytes> {
    let mut parts = Vec::new();
    let count = body.try_get_u32_le().unwrap_or(0);
    for _ in 0..count {
        let len = body
            .get(1..HEAD_BYTES)
            .and_then(|b| b.try_into().ok())
            .map_or(0, u32::from_le_bytes);
        let end = (HEAD_BYTES + len as usize).min(body.len());
        parts.push(body.split_to(end));
    }
    parts
}
