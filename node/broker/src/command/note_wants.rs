//! Note what another group wants of topics: its word reaches the state, so that it outlives this group's masters. Written
//! only when it changes, with what has changed.

use std::collections::BTreeSet;

use bytes::{BufMut, BytesMut};

use crate::{
    ApplyError, GroupId, Outcome,
    wants::{DemandVersion, Wanted, Wants},
    wire::{Reader, put_option, put_text},
};

/// What is new about one group's wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoteWants {
    /// The group.
    pub group: GroupId,
    /// Its name, for people.
    pub name: String,
    /// As of this word of it.
    pub version: DemandVersion,
    /// The groups on the way to it, the next hop first and itself last.
    pub path: Vec<GroupId>,
    /// Since when it cannot be reached.
    pub away_since_ms: Option<i64>,
    /// Topics that it wants now.
    pub added: Vec<String>,
    /// Topics that it does not want any more.
    pub removed: Vec<String>,
}

impl NoteWants {
    pub(crate) fn encode(&self, out: &mut BytesMut) {
        out.put_u64_le(self.group);
        put_head(out, &self.name, self.version, &self.path, self.away_since_ms);
        put_texts(out, self.added.iter());
        put_texts(out, self.removed.iter());
    }
}

pub(crate) fn apply(wants: &mut Wants, mut body: Reader) -> Result<Outcome, ApplyError> {
    let group = body.u64()?;
    let head = take_head(&mut body)?;
    let added = body.list(Reader::text)?;
    let removed = body.list(Reader::text)?;
    let wanted = wants.by_group.entry(group).or_default();
    let mut topics = std::mem::take(&mut wanted.topics);
    topics.extend(added);
    for topic in &removed {
        topics.remove(topic);
    }
    *wanted = Wanted { topics, ..head };
    Ok(Outcome::Done)
}

pub(crate) fn put_head(
    out: &mut BytesMut,
    name: &str,
    version: DemandVersion,
    path: &[GroupId],
    away_since_ms: Option<i64>,
) {
    put_text(out, name);
    out.put_u64_le(version.term);
    out.put_u64_le(version.change);
    out.put_u32_le(path.len() as u32);
    path.iter().for_each(|&group| out.put_u64_le(group));
    put_option(out, away_since_ms.as_ref(), |out, ms| out.put_i64_le(*ms));
}

pub(crate) fn put_texts<'a>(out: &mut BytesMut, texts: impl ExactSizeIterator<Item = &'a String>) {
    out.put_u32_le(texts.len() as u32);
    texts.for_each(|text| put_text(out, text));
}

/// All but the topics.
pub(crate) fn take_head(body: &mut Reader) -> Result<Wanted, ApplyError> {
    Ok(Wanted {
        name: body.text()?,
        version: DemandVersion {
            term: body.u64()?,
            change: body.u64()?,
        },
        path: body.list(Reader::u64)?,
        away_since_ms: body.option(|body| Ok(body.u64()? as i64))?,
        topics: BTreeSet::new(),
    })
}
