//! What clients ask for: each request becomes a command, a change of the dispatcher, or a refusal.

use ferrymq_access::Right;
use ferrymq_broker::{
    Broker, Command, DeleteDestination, Owner, QueueId, QueueKind, Subscribe as OpenSubscription, Unsubscribe,
};
use ferrymq_dispatch::{ConnectionId, Consumer, Subscriber, Target};
use ferrymq_message::{Destination, DestinationKind, Message, StoredMessage};
use ferrymq_protocol::{AckTarget, Durable, Login, Refusal, RefusalKind, Request, Subscribe, Token, Verdict};

use super::{Attached, Leader, client::Transaction, direct::Sent, outcome::Pending};
use crate::{connection::request_bytes, ingress};

impl Leader {
    pub(super) fn on_request(&mut self, connection: ConnectionId, request: Request) {
        let waits = self.must_wait(&request);
        let Some(client) = self.clients.get_mut(&connection) else {
            return;
        };
        if client.parked.is_empty() {
            if !waits {
                return self.handle(connection, request);
            }
        } else if may_overtake(client.parked_unheard, &request) {
            return self.handle(connection, request);
        }
        self.park(connection, request);
    }

    /// Whether there is no room for it now.
    fn must_wait(&self, request: &Request) -> bool {
        match request {
            Request::Send {
                message, transaction, ..
            } => {
                // Subscribers that do not keep up slow down those who publish, until they move on or are ended.
                let crowded = message.destination.kind().is_topic() && self.config.load.memory.outgoing.is_spent();
                (self.store_full && takes_log(message, transaction.as_deref())) || crowded
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
                transaction,
            } => self.send(connection, token, message, transaction, bytes),
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

    fn connect(&mut self, connection: ConnectionId, token: Token, login: Login) {
        if let Some(client) = self.clients.get_mut(&connection) {
            client.client_id = login.client_id;
        }
        self.reply(connection, Some(token), Ok(()));
    }

    /// Whether one more destination would be one too many. Known ones are always fine.
    fn refuse_destination(&self, destination: &Destination) -> Option<Refusal> {
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

    fn send(
        &mut self,
        connection: ConnectionId,
        token: Option<Token>,
        mut message: Message,
        transaction: Option<String>,
        bytes: usize,
    ) {
        let takes_log = takes_log(&message, transaction.as_deref());
        let authorized = self.authorize(connection, Right::Write, &message.destination);
        let admitted = match authorized.and_then(|()| ingress::admit_send(&message)) {
            Ok(admitted) => admitted,
            Err(refusal) => {
                self.answered(connection, bytes, takes_log);
                return self.reply(connection, token, Err(refusal));
            }
        };
        if let Some(refusal) = self.refuse_destination(&message.destination) {
            self.answered(connection, bytes, takes_log);
            return self.reply(connection, token, Err(refusal));
        }
        if let Some(name) = transaction {
            self.tell_passed(message.producer.as_ref());
            let result = self.hold_back(connection, &name, &[admitted.command], None);
            self.answered(connection, bytes, takes_log);
            return self.reply(connection, token, result);
        }
        if message.destination.kind().is_topic() && self.publish_at_once(connection, &message) {
            self.answered(connection, bytes, takes_log);
            return self.reply(connection, token, Ok(()));
        }
        let mut queue = None;
        if takes_log {
            self.spill_of(connection);
        } else {
            match self.send_direct(connection, token, &mut message, &admitted.command, bytes) {
                Sent::Done => {
                    self.answered(connection, bytes, false);
                    return self.reply(connection, token, Ok(()));
                }
                Sent::Held => return,
                Sent::Log(_) if self.store_full => {
                    let request = Request::Send {
                        token,
                        message,
                        transaction: None,
                    };
                    return self.park(connection, request);
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
        self.tell_passed(message.producer.as_ref());
        self.submit(
            admitted.command,
            Pending::Send {
                connection,
                token,
                bytes,
                queue,
            },
        );
    }

    /// A topic that nobody has a durable subscription of, here or in another group, needs no log. While any such is being
    /// made the log's order decides whether a message is for it; and with an uncertain lease it takes the log's way all
    /// the same, which will tell (P7).
    fn publish_at_once(&mut self, connection: ConnectionId, message: &Message) -> bool {
        let topic = message.destination.name();
        let nobody_waits = self
            .group
            .with_broker(|broker| broker.subscriptions().matching(topic).is_empty());
        if !nobody_waits || self.bridges.backlogs_opening > 0 || !self.group.lease_valid() {
            return false;
        }
        if let Ok(stored) = StoredMessage::new(message.encode()) {
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

    fn subscribe(&mut self, connection: ConnectionId, token: Option<Token>, subscribe: Subscribe) {
        let authorized = self.authorize(connection, Right::Read, &subscribe.destination);
        if let Err(refusal) = authorized.and_then(|()| ingress::check_subscribe(&subscribe)) {
            return self.reply(connection, token, Err(refusal));
        }
        let destination = subscribe.destination.clone();
        if let Some(refusal) = self
            .refuse_destination(&destination)
            .or_else(|| self.keep_subscription(connection, &subscribe))
        {
            return self.reply(connection, token, Err(refusal));
        }
        if let Some(Durable { client_id, name }) = subscribe.durable.clone() {
            let owner = Owner::Client { client_id, name };
            if self.destinations_full
                && self
                    .group
                    .with_broker(|broker| broker.subscriptions().find(&owner).is_none())
            {
                self.config.load.counts.destinations_refused.add();
                let refusal = too_many(&destination, self.config.destinations_max);
                return self.reply(connection, token, Err(refusal));
            }
            let selector = subscribe
                .selector
                .as_ref()
                .map(|s| s.text().to_owned())
                .unwrap_or_default();
            let command = Command::Subscribe(OpenSubscription {
                topic: destination,
                owner,
                selector,
            })
            .encode();
            return self.open(connection, token, subscribe, command);
        }
        if destination.kind().is_topic() {
            let mut subscriber = Subscriber::new(connection, destination.name());
            subscriber.selector = subscribe.selector;
            subscriber.no_local = subscribe.no_local;
            let id = self.attach(connection, subscribe.subscription, None);
            self.topics.add(id, subscriber);
            self.bridges.topic_changed(&destination);
            return self.reply(connection, token, Ok(()));
        }
        if destination.kind() == DestinationKind::TempQueue
            && let Some(client) = self.clients.get_mut(&connection)
            && !client.temporary.contains(&destination)
        {
            client.temporary.push(destination.clone());
        }
        match self
            .group
            .with_broker(|broker| broker.queues().find(destination.kind(), destination.name()))
        {
            Some(queue) => self.consume(connection, token, subscribe, queue),
            None => {
                let command = Command::OpenDestination(destination).encode();
                self.open(connection, token, subscribe, command);
            }
        }
    }

    /// Whoever may read the topic may drop a subscription of it. One that is not there is nobody's.
    fn forget_durable(&mut self, connection: ConnectionId, token: Option<Token>, owner: Owner) {
        let topic = self.group.with_broker(|broker| {
            let queue = broker.queues().get(broker.subscriptions().find(&owner)?)?;
            match &queue.kind {
                QueueKind::Subscription { topic, .. } => Some(topic.clone()),
                QueueKind::Queue(_) => None,
            }
        });
        if let Some(topic) = topic
            && let Err(refusal) = self.authorize(connection, Right::Read, &topic)
        {
            return self.reply(connection, token, Err(refusal));
        }
        let command = Command::Unsubscribe(Unsubscribe { owner }).encode();
        self.submit(command, Pending::Reply { connection, token });
    }

    /// Decided once for each destination of a connection, see [`ferrymq_access::Pass`].
    fn authorize(&mut self, connection: ConnectionId, right: Right, destination: &Destination) -> Result<(), Refusal> {
        match self.clients.get_mut(&connection) {
            Some(client) => ingress::authorize(&mut client.pass, right, destination),
            None => Ok(()),
        }
    }

    /// What a subscription takes counts as long as it is there.
    fn keep_subscription(&mut self, connection: ConnectionId, subscribe: &Subscribe) -> Option<Refusal> {
        let client = self.clients.get_mut(&connection)?;
        if client.kept.contains_key(&subscribe.subscription) {
            return None;
        }
        let selector = subscribe.selector.as_ref().map_or(0, |selector| selector.text().len());
        let bytes = SUBSCRIPTION_BYTES + subscribe.destination.name().len() + SELECTOR_FACTOR * selector;
        if !client.outbox.keep(bytes) {
            let text = "there is no memory for one more subscription (see [limits] memory); try again later";
            return Some(Refusal::new(RefusalKind::Full, text));
        }
        client.kept.insert(subscribe.subscription, bytes);
        None
    }

    /// Has the log make a queue or a backlog first.
    fn open(&mut self, connection: ConnectionId, token: Option<Token>, subscribe: Subscribe, command: bytes::Bytes) {
        if let Some(client) = self.clients.get_mut(&connection) {
            client.opening.insert(subscribe.subscription);
        }
        self.submit(
            command,
            Pending::Subscribe {
                connection,
                token,
                subscribe,
            },
        );
    }

    /// The queue or the backlog has been made.
    pub(super) fn opened(
        &mut self,
        connection: ConnectionId,
        token: Option<Token>,
        subscribe: Subscribe,
        queue: QueueId,
    ) {
        let Some(client) = self.clients.get_mut(&connection) else {
            return;
        };
        if !client.opening.remove(&subscribe.subscription) {
            // The client has unsubscribed meanwhile.
            return self.reply(connection, token, Ok(()));
        }
        if self.group.with_broker(|broker| broker.queues().get(queue).is_none()) {
            // It was deleted as soon as it was made: make it again.
            return self.subscribe(connection, token, subscribe);
        }
        self.consume(connection, token, subscribe, queue);
    }

    /// Begins to consume from a queue that is there.
    fn consume(&mut self, connection: ConnectionId, token: Option<Token>, subscribe: Subscribe, queue: QueueId) {
        if !self.clients.contains_key(&connection) {
            return;
        }
        if subscribe.durable.is_some() {
            self.take_over(queue, connection);
            self.bridges.topic_changed(&subscribe.destination);
        }
        let mut consumer = Consumer::new(connection, queue, subscribe.prefetch);
        consumer.selector = subscribe.selector;
        consumer.priority = subscribe.priority;
        consumer.exclusive = subscribe.exclusive;
        consumer.browser = subscribe.browser;
        let id = self.attach(connection, subscribe.subscription, Some(queue));
        self.dispatcher.add_consumer(id, consumer);
        self.reply(connection, token, Ok(()));
    }

    /// A durable subscription has one consumer. A second one is nearly always the same client that comes back before
    /// its lost connection was noticed, so the older one yields.
    fn take_over(&mut self, queue: QueueId, by: ConnectionId) {
        let older: Vec<_> = self
            .consumers
            .iter()
            .filter(|(_, attached)| attached.queue == Some(queue))
            .map(|(_, attached)| (attached.connection, attached.subscription))
            .collect();
        for (connection, subscription) in older {
            self.unsubscribe(connection, subscription);
            if connection != by
                && let Some(client) = self.touch(connection)
            {
                let text = "another connection took over this durable subscription";
                client.fail(Refusal::new(RefusalKind::InUse, text));
            }
        }
    }

    fn attach(&mut self, connection: ConnectionId, subscription: u32, queue: Option<QueueId>) -> u64 {
        let id = self.next_consumer;
        self.next_consumer += 1;
        self.consumers.insert(
            id,
            Attached {
                connection,
                subscription,
                queue,
            },
        );
        if let Some(client) = self.clients.get_mut(&connection) {
            client.subscriptions.insert(subscription, id);
        }
        id
    }

    fn unsubscribe(&mut self, connection: ConnectionId, subscription: u32) {
        let Some(client) = self.clients.get_mut(&connection) else {
            return;
        };
        client.opening.remove(&subscription);
        if let Some(bytes) = client.kept.remove(&subscription) {
            client.outbox.let_go(bytes);
        }
        let Some(id) = client.subscriptions.remove(&subscription) else {
            return;
        };
        self.consumers.remove(&id);
        if let Some(topic) = self.topics.remove(id) {
            self.bridges.topic_name_changed(&topic);
        }
        if let Some(command) = self.dispatcher.remove_consumer(id, true) {
            self.submit(command.encode(), Pending::Nobody);
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
                let result = self.hold_back(connection, &name, &[command.encode()], back.clone());
                if let (Err(_), Some((queue, seqs))) = (&result, back) {
                    let command = self.dispatcher.give_back(queue, seqs).encode();
                    self.submit(command, Pending::Nobody);
                }
                self.reply(connection, token, result);
            }
        }
    }

    /// An acknowledgement that asks for no answer rides along with what comes next.
    pub(super) fn acknowledge_along(&mut self, connection: ConnectionId, command: bytes::Bytes) {
        if let Some(client) = self.clients.get_mut(&connection) {
            client.unanswered += 1;
        }
        self.submit_along(command, Pending::Acknowledge { connection });
    }

    fn begin(&mut self, connection: ConnectionId, name: String) -> Result<(), Refusal> {
        let Some(client) = self.clients.get_mut(&connection) else {
            return Ok(());
        };
        if client.transactions.contains_key(&name) {
            let text = format!("transaction {name:?} has already begun");
            return Err(Refusal::new(RefusalKind::InUse, text));
        }
        client.transactions.insert(name, Transaction::default());
        Ok(())
    }

    pub(super) fn hold_back(
        &mut self,
        connection: ConnectionId,
        name: &str,
        commands: &[bytes::Bytes],
        acknowledged: Option<(QueueId, Vec<u64>)>,
    ) -> Result<(), Refusal> {
        let max = self.config.transaction_bytes_max;
        let Some(client) = self.clients.get_mut(&connection) else {
            return Ok(());
        };
        let Some(transaction) = client.transactions.get_mut(name) else {
            return Err(no_transaction(name));
        };
        let bytes = commands.iter().map(bytes::Bytes::len).sum::<usize>();
        let kept = bytes + commands.len() * HELD_COMMAND_BYTES;
        if !client.outbox.keep_in_transaction(kept) {
            let text = "the transactions of all clients hold as much as there is memory for (see [limits] memory)";
            return Err(Refusal::new(RefusalKind::Full, text));
        }
        transaction.kept += kept;
        transaction.bytes += bytes;
        if transaction.bytes > max {
            let text = format!("transaction {name:?} holds more than {max} bytes, which is the limit; commit earlier");
            return Err(Refusal::new(RefusalKind::Full, text));
        }
        transaction.commands.extend_from_slice(commands);
        transaction.acknowledged.extend(acknowledged);
        Ok(())
    }

    fn commit(&mut self, connection: ConnectionId, token: Option<Token>, name: &str) {
        let found = self
            .clients
            .get_mut(&connection)
            .and_then(|client| client.transactions.remove(name));
        match found {
            None => self.reply(connection, token, Err(no_transaction(name))),
            Some(transaction) => {
                self.forget_direct(transaction.direct);
                if transaction.commands.is_empty() {
                    return self.reply(connection, token, Ok(()));
                }
                self.spill_of(connection);
                if let Some(client) = self.clients.get_mut(&connection) {
                    client.logging += 1;
                }
                let command = ferrymq_broker::encode_transaction(&transaction.commands);
                let pending = Pending::Commit {
                    connection,
                    token,
                    kept: transaction.kept,
                };
                self.submit(command, pending);
            }
        }
    }

    fn abort(&mut self, connection: ConnectionId, token: Option<Token>, name: &str) {
        match self
            .clients
            .get_mut(&connection)
            .and_then(|client| client.transactions.remove(name))
        {
            None => self.reply(connection, token, Err(no_transaction(name))),
            Some(transaction) => {
                self.let_transaction_go(connection, transaction.kept);
                self.roll_back(transaction);
                self.reply(connection, token, Ok(()));
            }
        }
    }

    /// The memory of a transaction that has ended is free again.
    pub(super) fn let_transaction_go(&self, connection: ConnectionId, kept: usize) {
        if let Some(client) = self.clients.get(&connection) {
            client.outbox.end_transaction(kept);
        }
    }

    pub(super) fn roll_back(&mut self, transaction: Transaction) {
        self.take_back_direct(transaction.direct);
        for (queue, seqs) in transaction.acknowledged {
            let command = self.dispatcher.give_back(queue, seqs).encode();
            self.submit(command, Pending::Nobody);
        }
    }

    fn end_subscriptions(&mut self, connection: ConnectionId) {
        let subscriptions: Vec<u32> = self
            .clients
            .get(&connection)
            .map(|c| c.subscriptions.keys().copied().collect())
            .unwrap_or_default();
        for subscription in subscriptions {
            self.unsubscribe(connection, subscription);
        }
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

/// A send that is not a non-persistent one to a queue, which may do without the log.
fn takes_log(message: &Message, transaction: Option<&str>) -> bool {
    transaction.is_some() || message.persistent || message.destination.kind().is_topic()
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

fn too_many(destination: &Destination, max: usize) -> Refusal {
    let text = format!("{destination}: there are {max} queues and durable subscriptions, which is the limit");
    Refusal::new(RefusalKind::Full, text)
}

/// What a subscription takes beside its texts, in bytes, and a selector for each byte of its own.
const SUBSCRIPTION_BYTES: usize = 512;
const SELECTOR_FACTOR: usize = 8;
/// What a command in a transaction takes beside its bytes.
const HELD_COMMAND_BYTES: usize = 64;

fn no_transaction(name: &str) -> Refusal {
    Refusal::new(
        RefusalKind::NotFound,
        format!("there is no transaction {name:?}; it was not begun, or has ended"),
    )
}
