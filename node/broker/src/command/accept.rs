//! Take over another group's messages: step two of handing over (P4). The messages and the transfer's mark are stored
//! in one entry; from here on they are this group's.

use std::collections::BTreeMap;

use bytes::{BufMut, Bytes, BytesMut};
use ferrymq_message::Destination;

use crate::{
    ApplyError, DeadLetter, GroupId, Outcome, Owner, Slot, TransferId,
    command::{
        enqueue::{Publisher, add, publish, take_slot},
        subscribe::subscribe,
    },
    effect::Applied,
    queue::REDELIVERED,
    queues::Queues,
    subscriptions::Subscriptions,
    transfers::{Outgoing, Transfers},
    wire::{Reader, put_dead_letter, put_destination, put_option},
};

/// A transfer's messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accept {
    /// The owner until now.
    pub origin: GroupId,
    /// The owner's number for it.
    pub transfer: TransferId,
    /// Where the messages go.
    pub destination: Destination,
    /// Of a topic: the group whose subscribers this copy is for.
    pub target: Option<GroupId>,
    /// The messages, in order.
    pub messages: Vec<Carried>,
    /// What the receiver would not take, by position among all of the transfer's messages; `messages` leaves them out.
    pub refused: Vec<Refused>,
}

/// A message on its way between groups, with what the state knew of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Carried {
    /// Times it was dispatched and came back.
    pub redeliveries: u16,
    /// May have been delivered before.
    pub redelivered: bool,
    /// Times it was handed to another group, this one included.
    pub hops: u8,
    /// Where it is from, if it is a dead letter.
    pub dead_letter: Option<DeadLetter>,
    /// Its stored form.
    pub message: Bytes,
}

/// A message that the receiving group did not take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused {
    /// Position in the transfer, from 0.
    pub position: u32,
    /// Why; the numbers belong to the forwarding room.
    pub reason: u8,
}

impl Accept {
    pub(crate) fn encode(&self, out: &mut BytesMut) {
        out.put_u64_le(self.origin);
        out.put_u64_le(self.transfer);
        put_destination(out, &self.destination);
        put_option(out, self.target.as_ref(), |out, target| out.put_u64_le(*target));
        put_refused(out, &self.refused);
        out.put_u32_le(self.messages.len() as u32);
        for carried in &self.messages {
            out.put_u16_le(carried.redeliveries);
            out.put_u8(u8::from(carried.redelivered));
            out.put_u8(carried.hops);
            put_option(out, carried.dead_letter.as_ref(), put_dead_letter);
            out.put_u32_le(carried.message.len() as u32);
            out.put_slice(&carried.message);
        }
    }
}

pub(crate) fn put_refused(out: &mut BytesMut, refused: &[Refused]) {
    out.put_u32_le(refused.len() as u32);
    for r in refused {
        out.put_u32_le(r.position);
        out.put_u8(r.reason);
    }
}

pub(crate) fn take_refused(body: &mut Reader) -> Result<Vec<Refused>, ApplyError> {
    body.list(|r| {
        Ok(Refused {
            position: r.u32()?,
            reason: r.u8()?,
        })
    })
}

pub(crate) fn apply(
    queues: &mut Queues,
    subscriptions: &mut Subscriptions,
    transfers: &mut Transfers,
    own_group: GroupId,
    index: u64,
    mut body: Reader,
    out: &mut Applied,
) -> Result<Outcome, ApplyError> {
    let origin = body.u64()?;
    let transfer = body.u64()?;
    let Transfers { outgoing, incoming } = transfers;
    let incoming = incoming.entry(origin).or_default();
    if transfer < incoming.floor {
        return Ok(Outcome::Settled);
    }
    if let Some(refused) = incoming.accepted.get(&transfer) {
        return Ok(Outcome::Accepted {
            refused: refused.clone(),
        });
    }
    let destination = body.destination()?;
    let target = body.option(Reader::u64)?;
    let refused = take_refused(&mut body)?;
    let count = body.u32()?;
    for _ in 0..count {
        let redeliveries = body.u16()?;
        let redelivered = body.u8()? != 0;
        let hops = body.u8()?;
        let dead_letter = body.option(Reader::dead_letter)?;
        let len = body.u32()? as usize;
        let offset = body.offset();
        let (mut slot, message) = take_slot(Reader::new(body.bytes(len)?, offset), index)?;
        slot.redeliveries = redeliveries;
        slot.hops = hops;
        slot.set(REDELIVERED, redelivered);
        if dead_letter.is_some() {
            slot.expires_ms = 0;
        }
        if !destination.kind().is_topic() {
            place(queues, &destination, slot, dead_letter, out);
            continue;
        }
        match target.filter(|&group| group != own_group) {
            None => {
                // The row of demand may be a pattern; the message itself knows where it was published.
                let topic = message.destination().map_err(ApplyError::Message)?;
                publish(queues, subscriptions, &topic, slot, Publisher::Group, out);
            }
            Some(group) => pass_on(queues, subscriptions, outgoing, &destination, group, slot, out),
        }
    }
    incoming.accepted.insert(transfer, refused.clone());
    Ok(Outcome::Accepted { refused })
}

/// Stores one message on its queue.
fn place(
    queues: &mut Queues,
    destination: &Destination,
    slot: Slot,
    dead_letter: Option<DeadLetter>,
    out: &mut Applied,
) {
    let queue = queues.open(destination, out);
    let seq = add(queues, queue, slot, out);
    if let (Some(letter), Some(seq), Some(queue)) = (dead_letter, seq, queues.get_mut(queue)) {
        queue.dead_letters.insert(seq, letter);
    }
}

/// Puts a copy that is for another group with what waits for that group.
fn pass_on(
    queues: &mut Queues,
    subscriptions: &mut Subscriptions,
    outgoing: &mut BTreeMap<GroupId, Outgoing>,
    row: &Destination,
    group: GroupId,
    slot: Slot,
    out: &mut Applied,
) {
    let owner = Owner::Group {
        group,
        topic: row.name().to_owned(),
    };
    let queue = subscribe(queues, subscriptions, outgoing, row.clone(), owner, String::new(), out);
    add(queues, queue, slot, out);
}
