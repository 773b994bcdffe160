//! Store a message that may come twice, if it has not come before (P5): one that its producer has numbered, or that has a
//! duplicate id, or both.
//!
//! ```text
//! user bytes, varint | user | digest u64 | duplicate id bytes, varint; 0: none | duplicate id | the stored form
//! ```

use bytes::{BufMut, Bytes, BytesMut};
use ferrymq_message::{Routing, StoredMessage};

use crate::{
    ApplyError, Outcome, Slot,
    command::{
        HEADER_BYTES,
        enqueue::{store, take_slot},
        framed, kind,
    },
    duplicate_ids::DuplicateIds,
    effect::Applied,
    producers::{Admission, Producers, Who},
    queues::Queues,
    subscriptions::Subscriptions,
    wire::{Reader, put_varint},
};

/// A client's message, with what its master found out about it when it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnqueueOnce {
    /// As which user its producer came in.
    pub user: String,
    /// Of what the client wrote: see [`ferrymq_message::Digest`].
    pub digest: u64,
    /// Artemis's `_AMQ_DUPL_ID`.
    pub duplicate_id: Option<String>,
    /// Its stored form, which names destination, producer and number.
    pub message: Bytes,
}

impl EnqueueOnce {
    pub(crate) fn encode(&self, out: &mut BytesMut) {
        put_head(out, &self.user, self.digest, self.duplicate_id.as_deref());
        out.put_slice(&self.message);
    }

    /// Appends a whole command without a copy of the message in between: `write` appends the stored form.
    pub fn encode_with(
        out: &mut BytesMut,
        user: &str,
        digest: u64,
        duplicate_id: Option<&str>,
        write: impl FnOnce(&mut BytesMut),
    ) {
        framed(out, kind::ENQUEUE_ONCE, |out| {
            put_head(out, user, digest, duplicate_id);
            write(out);
        });
    }
}

fn put_head(out: &mut BytesMut, user: &str, digest: u64, duplicate_id: Option<&str>) {
    let duplicate_id = duplicate_id.unwrap_or_default();
    put_varint(out, user.len() as u64);
    out.put_slice(user.as_bytes());
    out.put_u64_le(digest);
    put_varint(out, duplicate_id.len() as u64);
    out.put_slice(duplicate_id.as_bytes());
}

/// The stored form inside a command that stores a client's message, sharing its memory.
pub fn stored_in(command: &Bytes) -> Option<Bytes> {
    let body = command.get(HEADER_BYTES..).map(|_| command.slice(HEADER_BYTES..))?;
    match *command.first()? {
        kind::ENQUEUE => Some(body),
        kind::ENQUEUE_ONCE => {
            let mut body = Reader::new(body, 0);
            take_head(&mut body).ok()?;
            Some(body.rest())
        }
        _ => None,
    }
}

/// User, digest, duplicate id; the last may be empty.
type Head = (Bytes, u64, Bytes);

fn take_head(body: &mut Reader) -> Result<Head, ApplyError> {
    let user = body.varint()? as usize;
    let user = body.bytes(user)?;
    let digest = body.u64()?;
    let id = body.varint()? as usize;
    Ok((user, digest, body.bytes(id)?))
}

/// What is to be done with a part of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Store it.
    New,
    /// It is stored already.
    Duplicate,
    /// Its duplicate id has come before, whatever else is in its transaction.
    DuplicateId,
    /// Against a rule, which the text names.
    Refused(String),
}

/// The command as it is read.
#[derive(Debug)]
pub(crate) struct Sent {
    pub(crate) user: Bytes,
    pub(crate) digest: u64,
    pub(crate) duplicate_id: Bytes,
    pub(crate) routing: Routing,
    slot: Slot,
}

impl Sent {
    pub(crate) fn read(mut body: Reader, index: u64) -> Result<Self, ApplyError> {
        let (user, digest, duplicate_id) = take_head(&mut body)?;
        let (slot, message): (Slot, StoredMessage) = take_slot(body, index)?;
        Ok(Self {
            user,
            digest,
            duplicate_id,
            routing: message.routing().map_err(ApplyError::Message)?,
            slot,
        })
    }

    /// Whose number it has, if any.
    pub(crate) fn number(&self) -> Result<Option<(Who<'_>, u64)>, ApplyError> {
        let Some((id, sequence)) = &self.routing.producer else {
            return Ok(None);
        };
        let user = Some(text(&self.user, "name of a user")?);
        let id = text(id, "producer id")?;
        Ok(Some((Who { user, id }, *sequence)))
    }

    fn id(&self) -> Result<Option<(&str, &str)>, ApplyError> {
        if self.duplicate_id.is_empty() {
            return Ok(None);
        }
        let name = text(&self.routing.name, "destination name")?;
        Ok(Some((name, text(&self.duplicate_id, "duplicate id")?)))
    }

    /// What is to be done with it as the state is.
    pub(crate) fn judge(&self, producers: &Producers, ids: &DuplicateIds) -> Result<Verdict, ApplyError> {
        if let Some((who, sequence)) = self.number()? {
            match producers.look(who, sequence, self.digest) {
                Admission::New => {}
                Admission::Seen => return Ok(Verdict::Duplicate),
                other => return Ok(Verdict::Refused(refusal(producers, other, who, sequence))),
            }
        }
        let is_known = self
            .id()?
            .is_some_and(|(name, id)| ids.has(self.routing.kind, name, id));
        Ok(if is_known { Verdict::DuplicateId } else { Verdict::New })
    }

    /// Remembers its number.
    pub(crate) fn note(&self, producers: &mut Producers, index: u64) -> Result<(), ApplyError> {
        if let Some((who, sequence)) = self.number()? {
            producers.note(who, sequence, self.digest, index);
        }
        Ok(())
    }

    /// Stores it, unless its duplicate id has come meanwhile.
    pub(crate) fn store(
        &self,
        queues: &mut Queues,
        subscriptions: &Subscriptions,
        ids: &mut DuplicateIds,
        out: &mut Applied,
    ) -> Result<Outcome, ApplyError> {
        if let Some((name, id)) = self.id()?
            && !ids.add(self.routing.kind, name, id)
        {
            return Ok(Outcome::Duplicate);
        }
        let destination = (self.routing.kind, &self.routing.name[..]);
        store(queues, subscriptions, destination, self.slot, out)?;
        Ok(Outcome::Done)
    }
}

pub(crate) fn apply(
    queues: &mut Queues,
    subscriptions: &Subscriptions,
    (producers, ids): (&mut Producers, &mut DuplicateIds),
    index: u64,
    body: Reader,
    out: &mut Applied,
) -> Result<Outcome, ApplyError> {
    let sent = Sent::read(body, index)?;
    if let Some((who, sequence)) = sent.number()? {
        match producers.admit(who, sequence, sent.digest, index) {
            Admission::New => {}
            Admission::Seen => return Ok(Outcome::Duplicate),
            other => return Ok(Outcome::Refused(refusal(producers, other, who, sequence))),
        }
    }
    sent.store(queues, subscriptions, ids, out)
}

/// Why a number is refused, and what helps.
fn refusal(producers: &Producers, admission: Admission, who: Who<'_>, sequence: u64) -> String {
    let Who { user, id } = who;
    let why = match admission {
        Admission::Other => "another message had this number before",
        _ => "this number was used or left out so long ago that nobody can tell whether this is a resend",
    };
    let next = match producers.highest(who) {
        Some(highest) => format!(", or go on above {highest}"),
        None => String::new(),
    };
    format!(
        "producer {id:?} of user {:?}, number {sequence}: {why}; nothing was stored. Use a new producer-id for each run of \
         a program{next}",
        user.unwrap_or_default()
    )
}

pub(crate) fn another_of_the_transaction(who: Who<'_>, sequence: u64) -> String {
    let Who { user, id } = who;
    format!(
        "producer {id:?} of user {:?}, number {sequence}: two messages of the transaction have it; nothing was stored. Give \
         each message a number of its own",
        user.unwrap_or_default()
    )
}

fn text<'a>(bytes: &'a Bytes, what: &'static str) -> Result<&'a str, ApplyError> {
    std::str::from_utf8(bytes).map_err(|_| ApplyError::Malformed(what))
}
