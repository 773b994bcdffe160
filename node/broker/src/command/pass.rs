//! [`crate::Passed`] in the log's first form, which knew neither user nor digest.

use bytes::{BufMut, BytesMut};

use crate::{
    ApplyError, Outcome,
    producers::Producers,
    wire::{Reader, put_text},
};

/// Numbers of one producer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pass {
    /// The producer.
    pub producer: String,
    /// (first, last), in any order.
    pub numbers: Vec<(u64, u64)>,
}

impl Pass {
    pub(crate) fn encode(&self, out: &mut BytesMut) {
        put_text(out, &self.producer);
        out.put_u32_le(self.numbers.len() as u32);
        for &(first, last) in &self.numbers {
            out.put_u64_le(first);
            out.put_u64_le(last);
        }
    }
}

pub(crate) fn apply(producers: &mut Producers, index: u64, mut body: Reader) -> Result<Outcome, ApplyError> {
    let producer = body.text()?;
    let numbers = body.list(|body| Ok((body.u64()?, body.u64()?)))?;
    for (first, last) in numbers {
        producers.pass_undigested(&producer, first, last, index);
    }
    Ok(Outcome::Done)
}
