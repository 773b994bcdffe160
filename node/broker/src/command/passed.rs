//! Note the numbers of a producer's messages that the master handed out without the log: a resend of one of them is
//! recognised (P5), and they do not count as gaps.

use bytes::{BufMut, BytesMut};

use crate::{
    ApplyError, Outcome,
    producers::{Producers, Who},
    wire::{Reader, put_text},
};

/// Numbers of one producer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Passed {
    /// As which user it came in.
    pub user: String,
    /// The producer.
    pub producer: String,
    /// (first, last), in any order.
    pub numbers: Vec<(u64, u64)>,
    /// (number, digest) of the latest ones: see [`ferrymq_message::Digest`].
    pub digests: Vec<(u64, u64)>,
}

impl Passed {
    pub(crate) fn encode(&self, out: &mut BytesMut) {
        put_text(out, &self.user);
        put_text(out, &self.producer);
        put_pairs(out, &self.numbers);
        put_pairs(out, &self.digests);
    }
}

pub(super) fn put_pairs(out: &mut BytesMut, pairs: &[(u64, u64)]) {
    out.put_u32_le(pairs.len() as u32);
    for &(one, other) in pairs {
        out.put_u64_le(one);
        out.put_u64_le(other);
    }
}

pub(super) fn take_pairs(body: &mut Reader) -> Result<Vec<(u64, u64)>, ApplyError> {
    body.list(|body| Ok((body.u64()?, body.u64()?)))
}

pub(crate) fn apply(producers: &mut Producers, index: u64, mut body: Reader) -> Result<Outcome, ApplyError> {
    let (user, id) = (body.text()?, body.text()?);
    let (numbers, digests) = (take_pairs(&mut body)?, take_pairs(&mut body)?);
    let who = Who {
        user: Some(&user),
        id: &id,
    };
    producers.come(who, &numbers, &digests, index);
    Ok(Outcome::Done)
}
