//! Stations 5 to 9 without the log between them: non-persistent messages to queues, as long as a consumer can take them
//! at once (node/dispatch/src/direct.rs decides).

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use ferrymq_broker::{Command, Numbered, QueueId, Skip, Who, stored_in};
use ferrymq_dispatch::{Arrival, Arrived, ConnectionId, ConsumerId, Direct, Settled, Ways};
use ferrymq_message::StoredMessage;
use ferrymq_protocol::{Delivery, Refusal, Token};

use super::{
    Leader,
    client::Transaction,
    delivery::{DELIVERY_BYTES, Reading},
    outcome::Pending,
    request::Sending,
};

/// What became of a non-persistent message to a queue.
pub(super) enum Sent {
    /// It is with a consumer: its producer can be answered.
    Done,
    /// It is held; its producer is answered later.
    Held,
    /// It takes the log. None where the log will first have to make the queue.
    Log(Option<QueueId>),
}

/// Direct messages that a transaction has acknowledged: forgotten when it is committed, back when it is aborted.
#[derive(Debug)]
pub(crate) struct Acknowledged {
    queue: QueueId,
    messages: Vec<Direct>,
}

impl Leader {
    /// Hands a non-persistent message straight to a consumer, where that keeps the order. Where it takes the log instead
    /// its number is left in `numbered`.
    pub(super) fn send_direct(&mut self, sending: &Sending, numbered: &mut Option<Numbered>, command: &Bytes) -> Sent {
        let Sending {
            connection,
            token,
            ref message,
            bytes,
            ..
        } = *sending;
        let Some(stored) = stored_in(command).and_then(|stored| StoredMessage::new(stored).ok()) else {
            return Sent::Log(None);
        };
        let arrival = Arrival {
            connection,
            producer: numbered.take(),
            command: command.clone(),
            message: stored,
        };
        let logging = self.clients.get(&connection).map_or(0, |client| client.logging);
        let ways = Ways {
            direct: logging == 0 && self.group.lease_valid(),
            wait: !self.store_full,
        };
        let now_ms = self.clock.now_ms();
        let mut actions = Vec::new();
        let bodies = Reading::new(&self.group, &self.clients, self.config.outbox_bytes_max);
        let dispatcher = &mut self.dispatcher;
        let destination = &message.destination;
        let (queue, arrived) =
            self.group.with_broker(
                |broker| match broker.queues().find(destination.kind(), destination.name()) {
                    Some(queue) => {
                        let arrived = dispatcher.arrive(queue, arrival, ways, broker, &bodies, now_ms, &mut actions);
                        (Some(queue), arrived)
                    }
                    None => (None, Arrived::Log(arrival)),
                },
            );
        for action in actions {
            self.carry_out(action);
        }
        match (queue, arrived) {
            (_, Arrived::Done) => Sent::Done,
            (Some(queue), Arrived::Wait(arrival)) => {
                let ticket = self.await_outcome(Pending::Send {
                    connection,
                    token,
                    bytes,
                    queue: Some(queue),
                });
                self.dispatcher.hold(queue, ticket, arrival, now_ms);
                if let Some(client) = self.clients.get_mut(&connection) {
                    client.holding = true;
                }
                Sent::Held
            }
            (queue, Arrived::Log(arrival) | Arrived::Wait(arrival)) => {
                *numbered = arrival.producer;
                Sent::Log(queue)
            }
        }
    }

    /// What is held of this client goes into the log before something that it sends now.
    pub(super) fn spill_of(&mut self, connection: ConnectionId) {
        if !self.dispatcher.is_holding() {
            return;
        }
        let client = self.clients.get_mut(&connection);
        if !client.is_some_and(|client| std::mem::take(&mut client.holding)) {
            return;
        }
        let mut actions = Vec::new();
        self.dispatcher.spill_of(connection, &mut actions);
        for action in actions {
            self.carry_out(action);
        }
    }

    /// How long what is held may still be held, if nothing happens.
    pub(super) fn held_for(&self) -> Option<Duration> {
        let left_ms = self.dispatcher.held_until_ms()? - self.clock.now_ms();
        Some(Duration::from_millis(left_ms.clamp(1, 1_000) as u64))
    }

    /// What has been held for too long goes into the log.
    pub(super) fn spill_old(&mut self) {
        if !self.dispatcher.is_holding() {
            return;
        }
        let mut actions = Vec::new();
        self.dispatcher.spill_old(self.clock.now_ms(), &mut actions);
        for action in actions {
            self.carry_out(action);
        }
    }

    /// The log hears of the numbers that have passed it by before it hears of this producer again (P5).
    pub(super) fn tell_passed(&mut self, producer: Option<&Numbered>) {
        if let Some(command) = self.dispatcher.passed(producer) {
            self.submit(command.encode(), Pending::Nobody);
        }
    }

    /// The log hears of numbers that will not come, so that they are no gaps.
    pub(super) fn tell_skipped<'a>(&mut self, numbers: impl Iterator<Item = &'a Numbered>) {
        let mut by_producer: BTreeMap<Who<'_>, Vec<(u64, u64)>> = BTreeMap::new();
        for numbered in numbers {
            let stretches = by_producer.entry(numbered.who()).or_default();
            let number = numbered.producer.sequence;
            match stretches.last_mut() {
                Some((_, last)) if last.checked_add(1) == Some(number) => *last = number,
                _ => stretches.push((number, number)),
            }
        }
        for (who, numbers) in by_producer {
            let skip = Skip {
                user: who.user.unwrap_or_default().to_owned(),
                producer: who.id.to_owned(),
                numbers,
            };
            self.submit_along(Command::Skip(skip).encode(), Pending::Nobody);
        }
    }

    pub(super) fn deliver_direct(
        &mut self,
        consumer: ConsumerId,
        connection: ConnectionId,
        tag: u64,
        message: StoredMessage,
        redeliveries: u16,
    ) {
        let Some(subscription) = self.consumers.get(&consumer).map(|attached| attached.subscription) else {
            return;
        };
        if let Some(client) = self.touch(connection) {
            // As it was counted when it was handed out.
            let charged = DELIVERY_BYTES + message.bytes().len();
            let delivery = Delivery {
                subscription,
                tag,
                message,
                redelivery_count: u32::from(redeliveries),
                redelivered: redeliveries > 0,
                dead_letter: None,
            };
            client.deliver(delivery, charged);
        }
    }

    /// An acknowledgement that concerns direct messages, and maybe logged ones too.
    pub(super) fn acknowledge_direct(
        &mut self,
        connection: ConnectionId,
        token: Option<Token>,
        settled: Settled,
        rejected: bool,
        transaction: Option<String>,
    ) {
        let Settled { command, queue, direct } = settled;
        let mut commands: Vec<Bytes> = command.iter().map(Command::encode).collect();
        if rejected {
            let letters = direct.iter().filter_map(|message| self.dispatcher.bury(queue, message));
            commands.extend(letters.map(|command| command.encode()));
        }
        if let Some(name) = transaction {
            let acknowledged = Acknowledged {
                queue,
                messages: direct,
            };
            let back = command.as_ref().and_then(super::request::acknowledged);
            let result = self.take_into(connection, &name, &commands, back, acknowledged);
            return self.reply_acknowledgement(connection, token, result);
        }
        self.dispatcher.forget(queue, direct);
        let Some(last) = commands.pop() else {
            return self.reply(connection, token, Ok(()));
        };
        for command in commands {
            self.submit(command, Pending::Nobody);
        }
        if token.is_none() && !rejected {
            self.acknowledge_along(connection, last);
        } else {
            self.submit(last, Pending::Reply { connection, token });
        }
    }

    /// [`Leader::hold_back`] of an acknowledgement that concerns direct messages. What a transaction does not take comes
    /// back.
    fn take_into(
        &mut self,
        connection: ConnectionId,
        name: &str,
        commands: &[Bytes],
        back: Option<(QueueId, Vec<u64>)>,
        acknowledged: Acknowledged,
    ) -> Result<(), Refusal> {
        let result = self.hold_back(connection, name, commands, back.clone(), None);
        let transaction = self
            .clients
            .get_mut(&connection)
            .and_then(|client| client.transactions.get_mut(name));
        match (result, transaction) {
            (Ok(()), Some(transaction)) => {
                transaction.direct.push(acknowledged);
                Ok(())
            }
            (result, _) => {
                let lost = Transaction {
                    acknowledged: back.into_iter().collect(),
                    direct: vec![acknowledged],
                    ..Transaction::default()
                };
                self.roll_back(lost);
                result
            }
        }
    }

    /// The transaction is being committed.
    pub(super) fn forget_direct(&mut self, acknowledged: Vec<Acknowledged>) {
        for Acknowledged { queue, messages } in acknowledged {
            self.dispatcher.forget(queue, messages);
        }
    }

    /// The transaction was aborted.
    pub(super) fn take_back_direct(&mut self, acknowledged: Vec<Acknowledged>) {
        for Acknowledged { queue, messages } in acknowledged {
            for command in self.dispatcher.take_back(queue, messages) {
                self.submit(command.encode(), Pending::Nobody);
            }
        }
    }
}
