//! Note numbers of a producer that will not come, because their transaction was aborted or they were refused: they shall
//! not count as gaps. One that comes all the same is taken.

use bytes::BytesMut;

use crate::{
    ApplyError, Outcome,
    command::passed::{put_pairs, take_pairs},
    producers::{Producers, Who},
    wire::{Reader, put_text},
};

/// Numbers of one producer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skip {
    /// As which user it came in.
    pub user: String,
    /// The producer.
    pub producer: String,
    /// (first, last), in any order.
    pub numbers: Vec<(u64, u64)>,
}

impl Skip {
    pub(crate) fn encode(&self, out: &mut BytesMut) {
        put_text(out, &self.user);
        put_text(out, &self.producer);
        put_pairs(out, &self.numbers);
    }
}

pub(crate) fn apply(producers: &mut Producers, index: u64, mut body: Reader) -> Result<Outcome, ApplyError> {
    let (user, id) = (body.text()?, body.text()?);
    let numbers = take_pairs(&mut body)?;
    let who = Who {
        user: Some(&user),
        id: &id,
    };
    producers.skip(who, &numbers, index);
    Ok(Outcome::Done)
}
