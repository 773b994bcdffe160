//! Give the group its id. Several nodes may try when a group is new; the first one in the log counts.

use crate::{ApplyError, GroupId, Outcome, wire::Reader};

pub(crate) fn apply(own_group: &mut GroupId, mut body: Reader) -> Result<Outcome, ApplyError> {
    let group = body.u64()?;
    if *own_group == 0 {
        *own_group = group;
    }
    Ok(Outcome::Done)
}
