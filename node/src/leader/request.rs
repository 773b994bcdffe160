//! What clients ask for: each request becomes a command, a change of the dispatcher, or a refusal.

use bytes::Bytes;
use ferrymq_access::Right;
use ferrymq_broker::{Broker, Command, DeleteDestination, Numbered, Owner, QueueId, stored_in};
use ferrymq_dispatch::{ConnectionId, Target};
use ferrymq_message::{Destination, Message, StoredMessage};
use ferrymq_protocol::{AckTarget, Login, Refusal, RefusalKind, Request, Token, Verdict};

use super::{Leader, Stamps, direct::Sent, outcome::Pending};
use crate::{connection::request_bytes, ingress};

/// A client's send, under way to where it will be.
pub(super) struct Sending {
    pub(super) connection: ConnectionId,
    pub(super) token: Option<Token>,
    pub(super) message: Message,
    /// Of what its client wrote.
    pub(super) digest: u64,
    /// What it counts as unanswered.
    pub(super) bytes: usize,
}

/// The request again, to be heard later.
impl From<Sending> for Request {
    fn from(sending: Sending) -> Self {
        Self::Send {
            token: sending.token,
            message: sending.message,
            digest: sending.digest,
            transaction: None,
        }
    }
}

impl Leader {
    pub(super) fn on_request(&mut self, connection: ConnectionId, request: Request) {
        let waits = self.must_wait(&request);
        let Some(client) = self.clients.get_mut(&connection) else {
            return;
        };
        if !client.is_heard(&request) {
            return self.answered(connection, request_bytes(&request), false);
        }
        let goes_on = if client.parked.is_empty() {
            !waits
        } else {
            may_overtake(client.parked_unheard, &request)
        };
        if !goes_on {
            return self.park(connection, request);
        }
        let is_free = client.waiting.is_empty()
            && !matches!(&request, Request::Send { message, .. } if self.may_cross(&message.destination));
        if is_free {
            self.handle(connection, request);
        } else if let Some(request) = self.hold_for_topic(connection, request) {
            self.handle(connection, request);
        }
    }

    /// Whether there is no room for it now.
    fn must_wait(&self, request: &Request) -> bool {
        match request {
            Request::Send {
                message, transaction, ..
            } => {
                // Subscribers that do not keep up slow down those who publish, until they move on or are ended.
                let crowded = message.destination.kind().is_topic() && self.config.load.memory.outgoing.is_spent();
                let full = self.store_full || !self.has_room_for_sends();
                (full && takes_log(message, transaction.as_deref())) || crowded
            }
            Request::Acknowledge { .. } | Request::Disconnect { .. } | Request::Connect { .. } => false,
            // What becomes a command is bounded by the log's pace.
            _ => self.group.backlog_bytes() > self.config.load.memory.incoming.max(),
        }
    }

    fn park(&mut self, connection: ConnectionId, request: Request) {
        let Some(client) = self.clients.get_mut(&connection) else {
            return;
        };
        if client.parked.is_empty() {
            self.config.load.counts.producers_slowed.add();
            self.parked.push_back(connection);
        }
        if matches!(request, Request::Send { token: None, .. }) {
            client.parked_unheard += 1;
        }
        client.parked.push_back(request);
    }

    /// Goes on with a client whose requests waited for room.
    pub(super) fn unpark(&mut self, connection: ConnectionId) {
        let Some(client) = self.clients.get_mut(&connection) else {
            return;
        };
        client.parked_unheard = 0;
        for request in std::mem::take(&mut client.parked) {
            self.on_request(connection, request);
        }
    }

    fn handle(&mut self, connection: ConnectionId, request: Request) {
        let bytes = request_bytes(&request);
        let is_send = matches!(request, Request::Send { .. });
        if let Request::Send {
            message, transaction, ..
        } = &request
            && takes_log(message, transaction.as_deref())
            && let Some(client) = self.clients.get_mut(&connection)
        {
            client.logging += 1;
        }
        self.dispatch_request(connection, request, bytes);
        // A send is answered when it is stored.
        if !is_send {
            self.answered(connection, bytes, false);
            self.leave_if_answered(connection);
        }
    }

    fn dispatch_request(&mut self, connection: ConnectionId, request: Request, bytes: usize) {
        match request {
            Request::Connect { token, login } => self.connect(connection, token, login),
            Request::Send {
                token,
                message,
                digest,
                transaction,
            } => {
                let sending = Sending {
                    connection,
                    token,
                    message,
                    digest,
                    bytes,
                };
                self.send(sending, transaction);
            }
            Request::Subscribe { token, subscribe } => self.subscribe(connection, token, subscribe),
            Request::Unsubscribe { token, subscription } => {
                self.unsubscribe(connection, subscription);
                self.reply(connection, token, Ok(()));
            }
            Request::ForgetDurable { token, client_id, name } => {
                self.forget_durable(connection, token, Owner::Client { client_id, name });
            }
            Request::Acknowledge {
                token,
                subscription,
                target,
                verdict,
                transaction,
            } => {
                let target = match target {
                    AckTarget::UpTo(tag) => Target::UpTo(tag),
                    AckTarget::One(tag) => Target::One(tag),
                };
                self.acknowledge(connection, token, subscription, target, verdict, transaction);
            }
            Request::Begin { token, transaction } => {
                let result = self.begin(connection, transaction);
                self.reply(connection, token, result);
            }
            Request::Commit { token, transaction } => self.commit(connection, token, &transaction),
            Request::Abort { token, transaction } => self.abort(connection, token, &transaction),
            Request::Disconnect { token } => {
                self.end_subscriptions(connection);
                if let Some(client) = self.clients.get_mut(&connection) {
                    client.leaving = token;
                }
            }
        }
    }

    pub(super) fn reply(&mut self, connection: ConnectionId, token: Option<Token>, result: Result<(), Refusal>) {
        if let Some(client) = self.touch(connection) {
            client.reply(token, result);
        }
    }

    pub(super) fn reply_acknowledgement(
        &mut self,
        connection: ConnectionId,
        token: Option<Token>,
        result: Result<(), Refusal>,
    ) {
        if let Some(client) = self.touch(connection) {
            client.reply_acknowledgement(token, result);
        }
    }

    fn connect(&mut self, connection: ConnectionId, token: Token, login: Login) {
        if let Some(client) = self.clients.get_mut(&connection) {
            client.client_id = login.client_id;
        }
        self.reply(connection, Some(token), Ok(()));
    }

    /// Decided once for each destination of a connection, see [`ferrymq_access::Pass`].
    pub(super) fn authorize(
        &mut self,
        connection: ConnectionId,
        right: Right,
        destination: &Destination,
    ) -> Result<(), Refusal> {
        match self.clients.get_mut(&connection) {
            Some(client) => ingress::authorize(&mut client.pass, right, destination),
            None => Ok(()),
        }
    }

    /// Whether one more destination would be one too many. Known ones are always fine.
    pub(super) fn refuse_destination(&self, destination: &Destination) -> Option<Refusal> {
        if !self.destinations_full || destination.kind().is_topic() {
            return None;
        }
        let find = |broker: &Broker| broker.queues().find(destination.kind(), destination.name());
        if self.group.with_broker(find).is_some() {
            return None;
        }
        self.config.load.counts.destinations_refused.add();
        Some(too_many(destination, self.config.destinations_max))
    }

    fn send(&mut self, mut sending: Sending, transaction: Option<String>) {
        let Sending {
            connection,
            token,
            bytes,
            ..
        } = sending;
        let takes_log = takes_log(&sending.message, transaction.as_deref());
        self.stamp(&mut sending.message);
        let (admitted, mut numbered) = self.admit(&mut sending);
        let command = match admitted {
            Ok(command) => command,
            Err(refusal) => {
                self.answered(connection, bytes, takes_log);
                self.tell_skipped(numbered.iter());
                return self.reply(connection, token, Err(refusal));
            }
        };
        if let Some(name) = transaction {
            self.tell_passed(numbered.as_ref());
            let result = self.hold_back(connection, &name, &[command], None, numbered);
            self.answered(connection, bytes, takes_log);
            return self.reply(connection, token, result);
        }
        if sending.message.destination.kind().is_topic() && self.publish_at_once(connection, &sending.message, &command)
        {
            self.answered(connection, bytes, takes_log);
            return self.reply(connection, token, Ok(()));
        }
        let mut queue = None;
        if takes_log {
            self.spill_of(connection);
        } else {
            match self.send_direct(&sending, &mut numbered, &command) {
                Sent::Done => {
                    self.answered(connection, bytes, false);
                    return self.reply(connection, token, Ok(()));
                }
                Sent::Held => return,
                Sent::Log(_) if self.store_full => {
                    sending.message.producer = numbered.map(|numbered| numbered.producer);
                    return self.park(connection, sending.into());
                }
                Sent::Log(Some(id)) => {
                    self.dispatcher.logging(id);
                    queue = Some(id);
                }
                Sent::Log(None) => {
                    if let Some(client) = self.clients.get_mut(&connection) {
                        client.logging += 1;
                    }
                }
            }
        }
        self.tell_passed(numbered.as_ref());
        if self.may_cross(&sending.message.destination) {
            let topic = sending.message.destination.name();
            self.crossing.begin(self.next_token, topic, command.len() as u64);
        }
        let pending = Pending::Send {
            connection,
            token,
            bytes,
            queue,
        };
        self.submit(command, pending);
    }

    fn stamp(&self, message: &mut Message) {
        let stamps = self.config.stamps;
        if stamps != Stamps::Client
            && let Some(now_ms) = self.clock.settled_ms()
        {
            stamps.put_on(message, &self.config.dispatch.dead_letter_queue, now_ms);
        }
    }

    /// The command that stores it, if its client may and there is room; and its number, if it has one, which is taken out of
    /// the message.
    fn admit(&mut self, sending: &mut Sending) -> (Result<Bytes, Refusal>, Option<Numbered>) {
        let Sending { message, digest, .. } = sending;
        let Some(client) = self.clients.get_mut(&sending.connection) else {
            return (Err(Refusal::new(RefusalKind::Full, "the connection has ended")), None);
        };
        let admitted = ingress::authorize(&mut client.pass, Right::Write, &message.destination)
            .and_then(|()| ingress::admit_send(message, &client.user, *digest));
        let numbered = message.producer.take().map(|producer| Numbered {
            user: client.user.clone(),
            producer,
            digest: *digest,
        });
        let command = admitted.and_then(|admitted| match self.refuse_destination(&message.destination) {
            Some(refusal) => Err(refusal),
            None => Ok(admitted.command),
        });
        (command, numbered)
    }

    /// A topic that nobody has a durable subscription of, here or in another group, needs no log. While any such is being
    /// made the log's order decides whether a message is for it; and with an uncertain lease it takes the log's way all
    /// the same, which will tell (P7).
    fn publish_at_once(&mut self, connection: ConnectionId, message: &Message, command: &Bytes) -> bool {
        let topic = message.destination.name();
        let nobody_waits = self
            .group
            .with_broker(|broker| broker.subscriptions().matching(topic).is_empty());
        if !nobody_waits
            || ingress::has_duplicate_id(message)
            || self.bridges.backlogs_opening > 0
            || !self.group.lease_valid()
        {
            return false;
        }
        if let Some(stored) = stored_in(command).and_then(|stored| StoredMessage::new(stored).ok()) {
            self.publish(topic, &stored, Some(connection));
        }
        true
    }

    /// A client's message does not count as under way any more; `logging` where it is one that others shall not overtake.
    pub(super) fn answered(&mut self, connection: ConnectionId, bytes: usize, logging: bool) {
        if let Some(client) = self.clients.get_mut(&connection) {
            client.outbox.answer(bytes);
            client.logging -= usize::from(logging);
        }
    }

    /// Answers a DISCONNECT when nothing that the client sent, with a receipt or without, is under way any more. STOMP 1.2
    /// promises that to clients that have asked for a receipt of everything; to those that have asked for this one alone
    /// it is the only word they get.
    pub(super) fn leave_if_answered(&mut self, connection: ConnectionId) {
        if let Some(client) = self.clients.get_mut(&connection)
            && client.unanswered == 0
            && client.outbox.unanswered_bytes() == 0
            && let Some(token) = client.leaving.take()
        {
            self.reply(connection, Some(token), Ok(()));
        }
    }

    fn acknowledge(
        &mut self,
        connection: ConnectionId,
        token: Option<Token>,
        subscription: u32,
        target: Target,
        verdict: Verdict,
        transaction: Option<String>,
    ) {
        let id = self
            .clients
            .get(&connection)
            .and_then(|client| client.subscriptions.get(&subscription))
            .copied();
        let rejected = verdict == Verdict::Rejected;
        let settled = id
            .map(|id| self.dispatcher.acknowledge(id, target, rejected))
            .unwrap_or_default();
        if !settled.direct.is_empty() {
            return self.acknowledge_direct(connection, token, settled, rejected, transaction);
        }
        // A subscriber's deliveries, or what has been acknowledged before: nothing is left to do.
        let Some(command) = settled.command else {
            return self.reply(connection, token, Ok(()));
        };
        match transaction {
            None if token.is_none() && !rejected => self.acknowledge_along(connection, command.encode()),
            None => self.submit(command.encode(), Pending::Reply { connection, token }),
            Some(name) => {
                let back = acknowledged(&command);
                let result = self.hold_back(connection, &name, &[command.encode()], back.clone(), None);
                if let (Err(_), Some((queue, seqs))) = (&result, back) {
                    let command = self.dispatcher.give_back(queue, seqs).encode();
                    self.submit(command, Pending::Nobody);
                }
                self.reply_acknowledgement(connection, token, result);
            }
        }
    }

    /// An acknowledgement that asks for no answer rides along with what comes next.
    pub(super) fn acknowledge_along(&mut self, connection: ConnectionId, command: Bytes) {
        if let Some(client) = self.clients.get_mut(&connection) {
            client.unanswered += 1;
        }
        self.submit_along(command, Pending::Acknowledge { connection });
    }

    pub(super) fn on_acknowledged(&mut self, connection: ConnectionId) {
        if let Some(client) = self.clients.get_mut(&connection) {
            client.unanswered -= 1;
        }
        self.leave_if_answered(connection);
    }

    pub(super) fn on_closed(&mut self, connection: ConnectionId) {
        self.end_subscriptions(connection);
        let Some(client) = self.clients.remove(&connection) else {
            return;
        };
        for transaction in client.transactions.into_values() {
            self.roll_back(transaction);
        }
        for destination in client.temporary {
            let command = Command::DeleteDestination(DeleteDestination {
                destination,
                if_empty: false,
            })
            .encode();
            self.submit(command, Pending::Nobody);
        }
    }
}

/// A send that is not a plain non-persistent one to a queue, which may do without the log.
fn takes_log(message: &Message, transaction: Option<&str>) -> bool {
    let by_nature = transaction.is_some() || message.persistent || message.destination.kind().is_topic();
    by_nature || ingress::has_duplicate_id(message)
}

/// The logged messages that an acknowledgement speaks of.
pub(super) fn acknowledged(command: &Command) -> Option<(QueueId, Vec<u64>)> {
    match command {
        Command::Acknowledge(ack) => Some((ack.queue, ack.seqs.clone())),
        Command::Return(back) => Some((back.queue, back.seqs.clone())),
        _ => None,
    }
}

/// An acknowledgement makes room, so it shall not wait behind a send that waits for room. But a client that does not want
/// to hear of a send relies on the order: what it acknowledges next would be lost if that send were.
fn may_overtake(parked_unheard: usize, request: &Request) -> bool {
    parked_unheard == 0 && matches!(request, Request::Acknowledge { transaction: None, .. })
}

pub(super) fn too_many(destination: &Destination, max: usize) -> Refusal {
    let text = format!("{destination}: there are {max} queues and durable subscriptions, which is the limit");
    Refusal::new(RefusalKind::Full, text)
}
