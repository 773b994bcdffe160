//! Make a queue before anything is sent to it, because a consumer waits there.

use crate::{ApplyError, Outcome, effect::Applied, queues::Queues, wire::Reader};

pub(crate) fn apply(queues: &mut Queues, mut body: Reader, out: &mut Applied) -> Result<Outcome, ApplyError> {
    let destination = body.destination()?;
    if destination.kind().is_topic() {
        return Ok(Outcome::Refused(format!(
            "{destination} is a topic; only a queue can be opened"
        )));
    }
    Ok(Outcome::Queue(queues.open(&destination, out)))
}
