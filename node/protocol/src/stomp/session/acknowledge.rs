//! ACK, NACK and the transactions that hold them back.

use super::StompSession;
use crate::{
    AckMode, AckTarget, Output, Request, Verdict,
    stomp::{Command, Headers, StompError, Version},
};

impl StompSession {
    pub(super) fn on_ack(
        &mut self,
        command: Command,
        headers: &Headers,
        receipt: Option<String>,
        out: &mut Output,
    ) -> Result<(), StompError> {
        if command == Command::Nack && self.version == Version::V1_0 {
            return Err(StompError::NotInVersion {
                command: "NACK",
                version: self.version,
            });
        }
        let transaction = headers.get("transaction");
        let transaction_number = transaction.map(|name| self.transactions.number(name)).transpose()?;
        let (number, tag) = self.delivery_of(command, headers)?;
        let subscription = self.subscriptions.get_mut(number).ok_or(StompError::UnknownDelivery)?;
        if subscription.ack == AckMode::Auto || tag == 0 || tag > subscription.last_tag {
            return Err(StompError::UnknownDelivery);
        }
        // A NACK is about one message even where an ACK is about all before it (`StompSubscription.onStompMessageNack`).
        let target = match (subscription.ack, command) {
            (AckMode::Client, Command::Ack) => AckTarget::UpTo(tag),
            _ => AckTarget::One(tag),
        };
        subscription.settle(target, transaction_number);
        let verdict = if command == Command::Ack {
            Verdict::Consumed
        } else {
            Verdict::Rejected
        };
        let transaction = transaction.map(str::to_owned);
        let token = receipt.map(|receipt| self.await_reply(Some(receipt), true));
        out.requests.push(Request::Acknowledge {
            token,
            subscription: number,
            target,
            verdict,
            transaction,
        });
        Ok(())
    }

    /// The subscription and tag that an ACK or NACK names, in the way of its version.
    fn delivery_of(&self, command: Command, headers: &Headers) -> Result<(u32, u64), StompError> {
        let command = command.as_str();
        let need = |header| headers.get(header).ok_or(StompError::MissingHeader { command, header });
        if self.version == Version::V1_2 {
            let (number, tag) = need("id")?.split_once('-').ok_or(StompError::UnknownDelivery)?;
            let number = number.parse().map_err(|_| StompError::UnknownDelivery)?;
            return Ok((number, tag.parse().map_err(|_| StompError::UnknownDelivery)?));
        }
        let message_id = need("message-id")?;
        if self.version == Version::V1_1 {
            need("subscription")?;
        }
        match headers.get("subscription") {
            None => self.subscriptions.find(message_id),
            Some(id) => {
                let number = self.subscriptions.number_of(id).ok_or(StompError::UnknownDelivery)?;
                self.subscriptions.find_in(number, message_id).map(|tag| (number, tag))
            }
        }
        .ok_or(StompError::UnknownDelivery)
    }

    pub(super) fn on_transaction(
        &mut self,
        command: Command,
        headers: &Headers,
        receipt: Option<String>,
        out: &mut Output,
    ) -> Result<(), StompError> {
        let missing = StompError::MissingHeader {
            command: command.as_str(),
            header: "transaction",
        };
        let transaction = headers.get("transaction").ok_or(missing)?.to_owned();
        if command == Command::Begin {
            self.transactions.begin(&transaction, self.limits.transactions_max)?;
        } else {
            let number = self.transactions.end(&transaction)?;
            self.subscriptions.end_transaction(number, command == Command::Commit);
        }
        let token = self.token(receipt);
        out.requests.push(match command {
            Command::Begin => Request::Begin { token, transaction },
            Command::Commit => Request::Commit { token, transaction },
            _ => Request::Abort { token, transaction },
        });
        Ok(())
    }
}
