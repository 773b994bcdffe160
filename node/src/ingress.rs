//! Station 5 of a message's road: a client's request becomes a command of the log, or is refused with a reason.
//!
//! The only place where the protocols' words meet the broker's. The checks here are the master's alone; whatever the
//! replicas must agree on is decided when the command is applied.

use bytes::{Bytes, BytesMut};
use ferrymq_access::{Pass, Right};
use ferrymq_broker::{Enqueue, is_pattern};
use ferrymq_message::{Destination, Message};
use ferrymq_protocol::{Refusal, RefusalKind, Subscribe};

/// What a send turns into.
pub(crate) struct Admitted {
    /// An encoded `Enqueue`.
    pub(crate) command: Bytes,
}

/// Whether a client may do this.
pub(crate) fn authorize(pass: &mut Pass, right: Right, destination: &Destination) -> Result<(), Refusal> {
    pass.check(right, destination)
        .map_err(|denied| Refusal::new(RefusalKind::Unauthorized, denied.to_string()))
}

/// Checks and encodes a message.
pub(crate) fn admit_send(message: &Message) -> Result<Admitted, Refusal> {
    check_send_destination(&message.destination)?;
    let mut out = BytesMut::with_capacity(message.body.len() + 512);
    Enqueue::encode_with(&mut out, |out| message.encode_into(out));
    Ok(Admitted { command: out.freeze() })
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
