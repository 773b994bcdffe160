//! Section 5: what other groups want of topics.

use bytes::{BufMut, BytesMut};

use crate::{
    ApplyError, Broker, GroupId,
    command::note_wants::{put_head, put_texts, take_head},
    wire::Reader,
};

pub(super) const VERSION: u8 = 1;

pub(super) fn put(broker: &Broker, out: &mut BytesMut) {
    let wants = &broker.wants.by_group;
    out.put_u32_le(wants.len() as u32);
    for (&group, wanted) in wants {
        out.put_u64_le(group);
        put_head(out, &wanted.name, wanted.version, &wanted.path, wanted.away_since_ms);
        put_texts(out, wanted.topics.iter());
    }
}

pub(super) fn take(broker: &mut Broker, body: &mut Reader) -> Result<(), ApplyError> {
    let mut last: Option<GroupId> = None;
    for _ in 0..body.u32()? {
        let group = body.u64()?;
        if last.is_some_and(|last| last >= group) {
            return Err(ApplyError::Malformed("order of other groups"));
        }
        last = Some(group);
        let mut wanted = take_head(body)?;
        wanted.topics = body.list(Reader::text)?.into_iter().collect();
        broker.wants.by_group.insert(group, wanted);
    }
    Ok(())
}
