//! Carry out all of a transaction's commands, or none of them.
//!
//! Only sends can be refused; they are all looked at before anything is done. A send that is a resend counts as carried out,
//! and so does an acknowledgement of what is gone. Where a duplicate id has come before, the transaction has: all of its
//! sends are resends then, as Artemis has it.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::{
    ApplyError, batch,
    command::{
        enqueue_once::{Sent, Verdict, another_of_the_transaction},
        kind,
    },
    duplicate_ids::DuplicateIds,
    producers::Producers,
    wire::Reader,
};

/// A part, and what is to be done with it where it is a send.
#[derive(Debug)]
pub(crate) enum Part {
    /// Store it.
    New(Sent),
    /// It is stored already, but its number has to be noted.
    Marked(Sent),
    /// It is stored already.
    Duplicate,
    /// Something else than a numbered send.
    Other(u8, Reader),
}

/// What is to be done with each part; or why nothing is.
pub(crate) fn judge(
    producers: &Producers,
    ids: &DuplicateIds,
    index: u64,
    mut body: Reader,
) -> Result<Result<Vec<Part>, String>, ApplyError> {
    let count = body.u32()?;
    let mut parts = Vec::new();
    // Numbers of this transaction's own sends, with their digests.
    let mut own: BTreeMap<(Bytes, u64), u64> = BTreeMap::new();
    let mut has_come = false;
    for _ in 0..count {
        let (kind, body) = batch::next(&mut body)?;
        if kind != kind::ENQUEUE_ONCE {
            parts.push(Part::Other(kind, body));
            continue;
        }
        let sent = Sent::read(body, index)?;
        let verdict = sent.judge(producers, ids)?;
        if let Verdict::Refused(text) = verdict {
            return Ok(Err(text));
        }
        if let (Some((who, sequence)), Some((id, _))) = (sent.number()?, &sent.routing.producer) {
            match own.insert((id.clone(), sequence), sent.digest) {
                None => {}
                Some(digest) if digest == sent.digest => {
                    parts.push(Part::Duplicate);
                    continue;
                }
                Some(_) => return Ok(Err(another_of_the_transaction(who, sequence))),
            }
        }
        has_come |= verdict == Verdict::DuplicateId;
        parts.push(match verdict {
            Verdict::Duplicate => Part::Duplicate,
            Verdict::DuplicateId => Part::Marked(sent),
            _ => Part::New(sent),
        });
    }
    if has_come {
        for part in &mut parts {
            *part = match std::mem::replace(part, Part::Duplicate) {
                Part::New(sent) => Part::Marked(sent),
                Part::Other(kind::ENQUEUE, _) => Part::Duplicate,
                other => other,
            };
        }
    }
    Ok(Ok(parts))
}
