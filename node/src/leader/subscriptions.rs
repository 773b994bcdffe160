//! Subscriptions of clients: what consumes from a queue, a durable subscription's backlog or a topic, and what ends it.

use ferrymq_access::Right;
use ferrymq_broker::{Command, Owner, QueueId, QueueKind, Subscribe as OpenSubscription, Unsubscribe};
use ferrymq_dispatch::{ConnectionId, Consumer, Subscriber};
use ferrymq_message::DestinationKind;
use ferrymq_protocol::{Durable, Refusal, RefusalKind, Subscribe, Token};

use super::{Attached, Leader, outcome::Pending, request::too_many};
use crate::ingress;

/// What a subscription takes beside its texts, in bytes, and a selector for each byte of its own.
const SUBSCRIPTION_BYTES: usize = 512;
const SELECTOR_FACTOR: usize = 8;

impl Leader {
    pub(super) fn subscribe(&mut self, connection: ConnectionId, token: Option<Token>, subscribe: Subscribe) {
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
    pub(super) fn forget_durable(&mut self, connection: ConnectionId, token: Option<Token>, owner: Owner) {
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
                subscribe: Box::new(subscribe),
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

    pub(super) fn unsubscribe(&mut self, connection: ConnectionId, subscription: u32) {
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

    pub(super) fn end_subscriptions(&mut self, connection: ConnectionId) {
        let subscriptions: Vec<u32> = self
            .clients
            .get(&connection)
            .map(|c| c.subscriptions.keys().copied().collect())
            .unwrap_or_default();
        for subscription in subscriptions {
            self.unsubscribe(connection, subscription);
        }
    }
}
