//! Station 5 of a message's road: a client's request becomes a command of the log, or is refused with a reason.
//!
//! The only place where the protocols' words meet the broker's. The checks here are the master's alone; whatever the
//! replicas must agree on is decided when the command is applied.

use bytes::{Bytes, BytesMut};
use ferrymq_access::{Pass, Right};
use ferrymq_broker::{Enqueue, EnqueueOnce, duplicate_ids::ID_BYTES_MAX, is_pattern};
use ferrymq_message::{Destination, Message, Value};
use ferrymq_protocol::{Refusal, RefusalKind, Subscribe};

/// What a send turns into.
pub(crate) struct Admitted {
    /// An encoded `Enqueue`, or `EnqueueOnce` of what may come twice.
    pub(crate) command: Bytes,
}

/// Whether a client may do this.
pub(crate) fn authorize(pass: &mut Pass, right: Right, destination: &Destination) -> Result<(), Refusal> {
    pass.check(right, destination)
        .map_err(|denied| Refusal::new(RefusalKind::Unauthorized, denied.to_string()))
}

/// The property by which a sender marks a message that may come twice, as Artemis names it
/// (`org.apache.activemq.artemis.api.core.Message.HDR_DUPLICATE_DETECTION_ID`).
const DUPLICATE_ID: &str = "_AMQ_DUPL_ID";

/// Checks and encodes a message of this user's, with the digest of what its client wrote.
pub(crate) fn admit_send(message: &Message, user: &str, digest: u64) -> Result<Admitted, Refusal> {
    check_send_destination(&message.destination)?;
    let id = duplicate_id(message)?;
    let mut out = BytesMut::with_capacity(message.body.len() + 512);
    if message.producer.is_some() || id.is_some() {
        EnqueueOnce::encode_with(&mut out, user, digest, id, |out| message.encode_into(out));
    } else {
        Enqueue::encode_with(&mut out, |out| message.encode_into(out));
    }
    Ok(Admitted { command: out.freeze() })
}

/// Whether a message is marked as one that may come twice, which only the log can tell.
pub(crate) fn has_duplicate_id(message: &Message) -> bool {
    message.property(DUPLICATE_ID).is_some()
}

fn duplicate_id(message: &Message) -> Result<Option<&str>, Refusal> {
    match message.property(DUPLICATE_ID) {
        None => Ok(None),
        Some(Value::Text(id)) if (1..=ID_BYTES_MAX).contains(&id.len()) => Ok(Some(id)),
        Some(_) => {
            let text = format!("{DUPLICATE_ID} is a text of 1 to {ID_BYTES_MAX} bytes");
            Err(Refusal::new(RefusalKind::Malformed, text))
        }
    }
}

fn check_send_destination(destination: &Destination) -> Result<(), Refusal> {
    let name = destination.name();
    if is_pattern(name) {
        let text = format!("{destination}: a message cannot be sent to a wildcard; name one destination");
        return Err(Refusal::new(RefusalKind::Malformed, text));
    }
    check_plain(destination)
}

/// Checks what a consumer wants to consume from.
pub(crate) fn check_subscribe(subscribe: &Subscribe) -> Result<(), Refusal> {
    let destination = &subscribe.destination;
    if is_pattern(destination.name()) && !destination.kind().is_topic() {
        let text = format!("{destination}: wildcards are for topics; consume each queue by its name");
        return Err(Refusal::new(RefusalKind::Unsupported, text));
    }
    if subscribe.durable.is_some() && !destination.kind().is_topic() {
        let text = format!("{destination}: only a topic has durable subscriptions");
        return Err(Refusal::new(RefusalKind::Malformed, text));
    }
    if subscribe.browser && destination.kind().is_topic() {
        let text = format!("{destination}: only a queue can be browsed");
        return Err(Refusal::new(RefusalKind::Malformed, text));
    }
    check_plain(destination)
}

fn check_plain(destination: &Destination) -> Result<(), Refusal> {
    if destination.name().contains(',') {
        let text = format!("{destination}: composite destinations are not supported; name one destination");
        return Err(Refusal::new(RefusalKind::Unsupported, text));
    }
    Ok(())
}
