//! Requests of a client that wait because a backlog of their topic, kept for another group, has reached its bound. Nothing
//! else waits with them but what must not overtake them: later sends to the same destination (P6), the rest of their
//! transaction, and what tells that everything before it was done.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use ferrymq_broker::Numbered;
use ferrymq_dispatch::ConnectionId;
use ferrymq_message::Destination;
use ferrymq_protocol::{Refusal, RefusalKind, Request};

use super::Leader;

/// What waits of one client, in order.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    requests: VecDeque<Request>,
    destinations: BTreeSet<Destination>,
    transactions: BTreeSet<String>,
    /// A send of whose outcome the client wants to hear nothing is among them: what it acknowledges next relies on it.
    has_unheard: bool,
    /// Something else than a send is among them.
    has_others: bool,
}

/// Messages to topics on their way through the log: they count for the bound of a backlog already.
#[derive(Debug, Default)]
pub(crate) struct Crossing {
    by_token: BTreeMap<u64, (String, u64)>,
    bytes: BTreeMap<String, u64>,
}

/// What sends do where a backlog for another group has reached its bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WhenFull {
    /// They wait.
    Wait,
    /// They are refused.
    Refuse,
}

impl Waiting {
    pub(super) fn is_empty(&self) -> bool {
        self.requests.is_empty()
    }

    fn push(&mut self, request: Request) {
        match &request {
            Request::Send { token, message, .. } => {
                self.destinations.insert(message.destination.clone());
                self.has_unheard |= token.is_none();
            }
            _ => self.has_others = true,
        }
        if let Some(transaction) = transaction(&request) {
            self.transactions.insert(transaction.to_owned());
        }
        self.requests.push_back(request);
    }

    /// Whether a request must not overtake what waits.
    fn holds_back(&self, request: &Request) -> bool {
        if self.is_empty() {
            return false;
        }
        if transaction(request).is_some_and(|name| self.transactions.contains(name)) {
            return true;
        }
        match request {
            Request::Send { message, .. } => self.destinations.contains(&message.destination),
            Request::Acknowledge { .. } => self.has_unheard || self.has_others,
            Request::Disconnect { .. } => true,
            Request::Connect { .. } | Request::Begin { .. } => false,
            _ => self.has_others,
        }
    }
}

impl Crossing {
    pub(super) fn begin(&mut self, token: u64, topic: &str, bytes: u64) {
        self.by_token.insert(token, (topic.to_owned(), bytes));
        *self.bytes.entry(topic.to_owned()).or_default() += bytes;
    }

    /// A command has its outcome.
    pub(super) fn end(&mut self, token: u64) {
        let Some((topic, bytes)) = self.by_token.remove(&token) else {
            return;
        };
        if let Some(left) = self.bytes.get_mut(&topic) {
            *left -= bytes;
            if *left == 0 {
                self.bytes.remove(&topic);
            }
        }
    }

    pub(super) fn bytes(&self, topic: &str) -> u64 {
        self.bytes.get(topic).copied().unwrap_or(0)
    }
}

impl Leader {
    /// Whether a message to it may be kept for another group.
    pub(super) fn may_cross(&self, destination: &Destination) -> bool {
        destination.kind().is_topic() && !self.bridges.groups.is_empty()
    }

    /// Has a request wait, or refused, where its topic has no room, or where it must not overtake one that waits; gives it
    /// back where it may go on.
    pub(super) fn hold_for_topic(&mut self, connection: ConnectionId, request: Request) -> Option<Request> {
        let full = match &request {
            Request::Send { message, .. } if self.may_cross(&message.destination) => {
                self.full_backlog(message.destination.name())
            }
            _ => None,
        };
        let client = self.clients.get_mut(&connection)?;
        let is_held_back = client.waiting.holds_back(&request);
        if full.is_none() && !is_held_back {
            return Some(request);
        }
        if let (Some(text), false, WhenFull::Refuse) = (full, is_held_back, self.config.group_backlog_when_full) {
            let bytes = crate::connection::request_bytes(&request);
            if let Request::Send {
                token, message, digest, ..
            } = request
            {
                let user = client.user.clone();
                let numbered = message.producer.map(|producer| Numbered { user, producer, digest });
                self.answered(connection, bytes, false);
                self.tell_skipped(numbered.iter());
                self.reply(connection, token, Err(Refusal::new(RefusalKind::Full, text)));
            }
            return None;
        }
        if client.waiting.is_empty() {
            self.config.load.counts.producers_slowed.add();
            self.waiting.insert(connection);
        }
        client.waiting.push(request);
        None
    }

    /// Goes on with what waited for a topic that has room again.
    pub(super) fn retry_waiting(&mut self) {
        for connection in self.waiting.clone() {
            let Some(client) = self.clients.get(&connection) else {
                self.waiting.remove(&connection);
                continue;
            };
            let mut topics = client.waiting.destinations.iter().filter(|name| name.kind().is_topic());
            if !topics.any(|topic| self.full_backlog(topic.name()).is_none()) {
                continue;
            }
            self.waiting.remove(&connection);
            let Some(client) = self.clients.get_mut(&connection) else {
                continue;
            };
            for request in std::mem::take(&mut client.waiting).requests {
                self.on_request(connection, request);
            }
        }
    }
}

fn transaction(request: &Request) -> Option<&str> {
    match request {
        Request::Send { transaction, .. } | Request::Acknowledge { transaction, .. } => transaction.as_deref(),
        Request::Begin { transaction, .. }
        | Request::Commit { transaction, .. }
        | Request::Abort { transaction, .. } => Some(transaction),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use ferrymq_message::Message;

    use super::*;

    fn send(destination: Destination, transaction: Option<&str>, heard: bool) -> Request {
        Request::Send {
            token: heard.then_some(1),
            message: Message::new("m", destination, "x"),
            digest: 1,
            transaction: transaction.map(str::to_owned),
        }
    }

    #[test]
    fn only_what_must_not_overtake_waits_too() {
        let (full, other) = (Destination::topic("FULL"), Destination::queue("Q"));
        let mut waiting = Waiting::default();
        assert!(!waiting.holds_back(&Request::Disconnect { token: None }));
        waiting.push(send(full.clone(), None, true));
        assert!(waiting.holds_back(&send(full.clone(), None, true)), "order (P6)");
        assert!(!waiting.holds_back(&send(other.clone(), None, true)));
        assert!(waiting.holds_back(&Request::Disconnect { token: None }));
        let begin = Request::Begin {
            token: None,
            transaction: "t".into(),
        };
        assert!(!waiting.holds_back(&begin));
        waiting.push(send(full, Some("t"), true));
        let commit = Request::Commit {
            token: None,
            transaction: "t".into(),
        };
        assert!(
            waiting.holds_back(&send(other.clone(), Some("t"), true)),
            "a transaction stays in order"
        );
        assert!(waiting.holds_back(&commit));
        assert!(!waiting.holds_back(&send(other, Some("u"), true)));
    }
}
