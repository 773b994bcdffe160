//! A second node with a member's number, and without data: whether it may take that member's place.
//!
//! A member that has lost its disk comes back with nothing but its number, and so does a node that was given a number
//! that is taken. They differ in who answers at the member's address: the one that asks, or another. Whoever asks from
//! elsewhere could not be reached as that member anyway.

use std::net::IpAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::founding::{AdmitRequest, Knowledge};
use crate::group::Inner;
use crate::meeting::rpc;
use crate::wire::kind;

/// Why a node is not taken in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Objection {
    /// For both sides' logs.
    pub(crate) reason: String,
    /// The member is there for certain: the other node has no business here and ends. Otherwise it may ask again.
    pub(crate) is_certain: bool,
}

/// Why this master does not let a node take the place of the member with its number; none where it may, and where there
/// is no such member. `from` is where it asks from.
pub(crate) async fn objection(inner: &Inner, asker: &AdmitRequest, from: Option<IpAddr>) -> Option<Objection> {
    let id = asker.node;
    if asker.has_data || !inner.role.borrow().is_master() {
        return None;
    }
    let address = inner.membership().get_node(&id)?.clone();
    let mut rpc = rpc(&inner.dial, id, &address);
    let answer = tokio::time::timeout(ANSWER_WITHIN, rpc.ask_json::<Knowledge>(kind::ASK, &())).await;
    let answers = answer.ok().and_then(Result::ok).map(|known| known.life);
    let heard_ms = inner.lease.last_heard_ms_ago(id);
    let is_heard = heard_ms.is_some_and(|ago| ago < inner.config.election_timeout_max_ms);
    let member = format!("node {id} of group '{}' at {}", inner.config.group, address.peer);
    let stranger = format!(
        "the node that asks for its place, at {}{}",
        asker.listens,
        from.map(|from| format!(" (connected from {from})")).unwrap_or_default()
    );
    let objection = match answers {
        Some(life) if life != asker.life => Objection {
            reason: format!(
                "{member} is alive{}; {stranger}, has no data and is turned away: give it a number of its own",
                heard_ms.map(|ago| format!(" (heard {ago} ms ago)")).unwrap_or_default()
            ),
            is_certain: true,
        },
        _ if is_heard => Objection {
            reason: format!(
                "{member} was heard just now; {stranger}, has to wait until it has been silent for a while"
            ),
            is_certain: false,
        },
        Some(_) => return None,
        None => Objection {
            reason: format!(
                "nobody answers for {member}; {stranger}, could not be reached there. A node that has lost its data comes \
                 back at its own address, or under a new number"
            ),
            is_certain: false,
        },
    };
    if inner.meetings.is_news(id, asker.life, objection.is_certain) {
        tracing::warn!(node = id, "{}", objection.reason);
    }
    Some(objection)
}

/// For the look at who answers at the member's address.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);
