//! One STOMP connection, the server's side (`ProtocolConverter` in ActiveMQ).
//!
//! Frames are taken in order and become requests at once. A frame with a `receipt` header gives its request a token; the
//! RECEIPT follows that token's reply. ERROR ends the connection, except for an ACK or NACK of something that the
//! connection does not hold any more, which ActiveMQ forgives too.

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};

use super::{
    Command, Decoder, Frame, Headers, StompError, StompLimits, Version,
    codec::FrameWriter,
    connect::{self, Handshake},
    deliver::{self, Envelope},
    destination,
    heartbeat::HeartBeat,
    send,
    subscribe::{self, Subscriber},
    subscriptions::{Subscription, Subscriptions},
    transactions::Transactions,
};
use crate::{AckMode, AckTarget, Delivery, Output, Refusal, Request, Session, Token, Verdict};

mod acknowledge;

/// Longest name of a receipt, a subscription, a transaction, a client or a durable subscription, in bytes: each is
/// remembered, and there may be many. The last two are replicated.
pub(super) const NAME_BYTES_MAX: usize = 1024;

/// One connection that speaks STOMP.
#[derive(Debug)]
pub struct StompSession {
    connection_id: String,
    carried: bool,
    limits: StompLimits,
    decoder: Decoder,
    state: State,
    version: Version,
    client_id: Option<String>,
    heartbeat: HeartBeat,
    subscriptions: Subscriptions,
    transactions: Transactions,
    pending: BTreeMap<Token, Pending>,
    /// What `pending` takes.
    pending_bytes: usize,
    last_token: Token,
    last_message: u64,
    last_subscription: u32,
}

#[derive(Debug)]
enum State {
    /// Nothing but CONNECT may come; by this time, once a tick has told it.
    Greeting {
        deadline_ms: Option<u64>,
    },
    /// The login is being decided.
    Connecting(Box<Handshake>),
    Open,
    /// DISCONNECT came; its receipt is owed.
    Leaving {
        receipt: String,
        replied: bool,
    },
    Closed,
}

/// What a reply is awaited for.
#[derive(Debug)]
struct Pending {
    /// The client's name for the receipt.
    receipt: Option<String>,
    /// A refusal leaves the connection open.
    forgiving: bool,
}

impl Pending {
    /// What it takes, in bytes.
    fn bytes(&self) -> usize {
        64 + self.receipt.as_ref().map_or(0, String::len)
    }
}

impl StompSession {
    /// A session for a new connection. `connection_id` is unique for ever and begins with `ID:`; messages and temporary
    /// destinations are named after it.
    pub fn new(connection_id: impl Into<String>, limits: StompLimits) -> Self {
        Self {
            connection_id: connection_id.into(),
            carried: false,
            decoder: Decoder::new(limits.clone()),
            limits,
            state: State::Greeting { deadline_ms: None },
            version: Version::V1_0,
            client_id: None,
            heartbeat: HeartBeat::default(),
            subscriptions: Subscriptions::default(),
            transactions: Transactions::default(),
            pending: BTreeMap::new(),
            pending_bytes: 0,
            last_token: 0,
            last_message: 0,
            last_subscription: 0,
        }
    }

    /// Another node of the group carries this connection here. The client is told, since it may know a shorter way.
    pub fn carried(mut self) -> Self {
        self.carried = true;
        self
    }

    /// The version agreed upon; 1.0 before that.
    pub fn version(&self) -> Version {
        self.version
    }

    fn on_frame(&mut self, mut frame: Frame, now_ms: i64, out: &mut Output) {
        let receipt = if frame.command.is_handshake() {
            None
        } else {
            frame.headers.take("receipt")
        };
        if let Some(header) = too_long_a_name(&frame, receipt.as_deref()) {
            let max = NAME_BYTES_MAX;
            return self.fail(&StompError::NameTooLong { header, max }, None, out);
        }
        let result = match (&self.state, frame.command) {
            (State::Greeting { .. }, Command::Connect | Command::Stomp) => self.on_connect(frame.headers, out),
            (State::Greeting { .. }, _) => Err(StompError::NotConnected),
            (_, Command::Connect | Command::Stomp) => Err(StompError::AlreadyConnected),
            (_, Command::Send) => self.on_send(frame, receipt.clone(), now_ms, out),
            (_, Command::Subscribe) => self.on_subscribe(frame.headers, receipt.clone(), out),
            (_, Command::Unsubscribe) => self.on_unsubscribe(&frame.headers, receipt.clone(), out),
            (_, Command::Ack) => self.on_ack(Command::Ack, &frame.headers, receipt.clone(), out),
            (_, Command::Nack) => self.on_ack(Command::Nack, &frame.headers, receipt.clone(), out),
            (_, Command::Begin | Command::Commit | Command::Abort) => {
                self.on_transaction(frame.command, &frame.headers, receipt.clone(), out)
            }
            (_, Command::Disconnect) => {
                self.on_disconnect(receipt.clone(), out);
                Ok(())
            }
            (_, Command::Connected | Command::Message | Command::Receipt | Command::Error) => {
                Err(StompError::Unexpected(frame.command.as_str()))
            }
        };
        match result {
            Ok(()) => {}
            Err(error @ StompError::UnknownDelivery) => self.write_error(&error.to_string(), receipt, None, out),
            Err(error) => self.fail(&error, receipt, out),
        }
    }

    fn on_connect(&mut self, headers: Headers, out: &mut Output) -> Result<(), StompError> {
        let (handshake, login) = connect::read(headers, &self.limits)?;
        self.state = State::Connecting(Box::new(handshake));
        let token = self.await_reply(None, false);
        out.requests.push(Request::Connect { token, login });
        Ok(())
    }

    fn on_send(
        &mut self,
        mut frame: Frame,
        receipt: Option<String>,
        now_ms: i64,
        out: &mut Output,
    ) -> Result<(), StompError> {
        let transaction = frame.headers.take("transaction");
        if let Some(name) = &transaction {
            self.transactions.number(name)?;
        }
        let id = format!("{}:{}", self.connection_id, self.last_message + 1);
        let digest = send::digest(&frame);
        let message = send::message(frame, id, &self.connection_id, now_ms)?;
        self.last_message += 1;
        let token = self.token(receipt);
        out.requests.push(Request::Send {
            token,
            message,
            digest,
            transaction,
        });
        Ok(())
    }

    fn on_subscribe(
        &mut self,
        mut headers: Headers,
        receipt: Option<String>,
        out: &mut Output,
    ) -> Result<(), StompError> {
        let id = headers.take("id");
        if id.is_none() && self.version > Version::V1_0 {
            return Err(StompError::MissingHeader {
                command: "SUBSCRIBE",
                header: "id",
            });
        }
        if self.subscriptions.len() >= self.limits.subscriptions_max {
            return Err(StompError::TooMany {
                what: "subscriptions",
                max: self.limits.subscriptions_max,
            });
        }
        let number = self.last_subscription + 1;
        let subscriber = Subscriber {
            version: self.version,
            connection_id: &self.connection_id,
            client_id: self.client_id.as_deref(),
        };
        let subscribe = subscribe::consumer(&headers, number, &subscriber, &self.limits)?;
        let subscription = Subscription::new(id, subscribe.destination.clone(), subscribe.ack);
        if !self.subscriptions.add(number, subscription) {
            return Err(StompError::SubscriptionInUse);
        }
        self.last_subscription = number;
        let token = self.token(receipt);
        out.requests.push(Request::Subscribe { token, subscribe });
        Ok(())
    }

    fn on_unsubscribe(
        &mut self,
        headers: &Headers,
        receipt: Option<String>,
        out: &mut Output,
    ) -> Result<(), StompError> {
        let forget = subscribe::durable_name(headers)?.map(str::to_owned);
        let number = match (headers.get("id"), headers.get("destination")) {
            (Some(id), _) => self.subscriptions.number_of(id),
            (None, Some(text)) if self.version == Version::V1_0 => self
                .subscriptions
                .number_at(&destination::read(text, &self.connection_id)?),
            _ if forget.is_some() => None,
            _ => {
                return Err(StompError::MissingHeader {
                    command: "UNSUBSCRIBE",
                    header: "id",
                });
            }
        };
        let client_id = if forget.is_some() { self.client_id.clone() } else { None };
        match (number, &forget) {
            (None, None) => return Err(StompError::UnknownSubscription),
            (_, Some(_)) if client_id.is_none() => return Err(StompError::NoClientId),
            _ => {}
        }
        let token = self.token(receipt);
        if let Some(subscription) = number {
            self.subscriptions.remove(subscription);
            let token = token.filter(|_| forget.is_none());
            out.requests.push(Request::Unsubscribe { token, subscription });
        }
        if let Some((client_id, name)) = client_id.zip(forget) {
            out.requests.push(Request::ForgetDurable { token, client_id, name });
        }
        Ok(())
    }

    fn on_disconnect(&mut self, receipt: Option<String>, out: &mut Output) {
        let Some(receipt) = receipt else {
            out.requests.push(Request::Disconnect { token: None });
            return self.close("the client disconnected", true, out);
        };
        let token = self.await_reply(None, false);
        self.state = State::Leaving {
            receipt,
            replied: false,
        };
        out.requests.push(Request::Disconnect { token: Some(token) });
    }

    /// The receipt of DISCONNECT comes last: it says that everything before it was done.
    fn leave_if_done(&mut self, out: &mut Output) {
        if let State::Leaving { receipt, replied: true } = &self.state
            && self.pending.is_empty()
        {
            let receipt = receipt.clone();
            self.write_receipt(&receipt, out);
            self.close("the client disconnected", true, out);
        }
    }

    fn on_login(&mut self, handshake: Handshake, out: &mut Output) {
        connect::write_connected(&handshake, &self.connection_id, self.carried, out);
        self.decoder.open(handshake.version);
        self.version = handshake.version;
        self.heartbeat = handshake.heartbeat;
        // The greetings are the first sign of life of either side.
        self.heartbeat.on_read();
        self.heartbeat.on_write();
        self.client_id = handshake.client_id;
        self.state = State::Open;
    }

    fn token(&mut self, receipt: Option<String>) -> Option<Token> {
        receipt.map(|receipt| self.await_reply(Some(receipt), false))
    }

    fn await_reply(&mut self, receipt: Option<String>, forgiving: bool) -> Token {
        self.last_token += 1;
        let pending = Pending { receipt, forgiving };
        self.pending_bytes += pending.bytes();
        self.pending.insert(self.last_token, pending);
        self.last_token
    }

    fn write_receipt(&mut self, receipt: &str, out: &mut Output) {
        let mut frame = FrameWriter::new(Command::Receipt, self.version, out);
        frame.header("receipt-id", receipt);
        frame.end(Bytes::new());
        self.heartbeat.on_write();
    }

    fn write_error(&mut self, text: &str, receipt: Option<String>, extra: Option<(&str, &str)>, out: &mut Output) {
        let mut frame = FrameWriter::new(Command::Error, self.version, out);
        frame.header("message", text);
        if let Some(receipt) = receipt {
            frame.header("receipt-id", &receipt);
        }
        if let Some((name, value)) = extra {
            frame.header(name, value);
        }
        frame.header("content-type", "text/plain");
        frame.number("content-length", text.len());
        frame.end(Bytes::copy_from_slice(text.as_bytes()));
        self.heartbeat.on_write();
    }

    fn fail(&mut self, error: &StompError, receipt: Option<String>, out: &mut Output) {
        let text = error.to_string();
        let extra = (*error == StompError::NoCommonVersion).then_some(("version", Version::ALL));
        self.write_error(&text, receipt, extra, out);
        self.close(text, false, out);
    }

    /// The `refusal` header lets a client of ours tell what it can do about it.
    fn write_refusal(&mut self, refusal: &Refusal, receipt: Option<String>, out: &mut Output) {
        self.write_error(&refusal.text, receipt, Some(("refusal", refusal.kind.as_str())), out);
    }

    fn close(&mut self, reason: impl Into<String>, clean: bool, out: &mut Output) {
        self.state = State::Closed;
        self.pending.clear();
        self.pending_bytes = 0;
        out.close(reason, clean);
    }
}

/// A name that the session would have to remember for the client, and is too long for that.
fn too_long_a_name(frame: &Frame, receipt: Option<&str>) -> Option<&'static str> {
    let is_long = |name: &str| name.len() > NAME_BYTES_MAX;
    if receipt.is_some_and(is_long) {
        return Some("receipt");
    }
    let header = match frame.command {
        Command::Subscribe => "id",
        Command::Begin => "transaction",
        Command::Connect | Command::Stomp => "client-id",
        _ => return None,
    };
    frame.headers.get(header).is_some_and(is_long).then_some(header)
}

impl Session for StompSession {
    fn on_bytes(&mut self, input: &mut BytesMut, now_ms: i64, out: &mut Output) {
        if !input.is_empty() {
            self.heartbeat.on_read();
        }
        while !self.is_paused() {
            match self.decoder.decode(input) {
                Ok(Some(frame)) => self.on_frame(frame, now_ms, out),
                Ok(None) => return,
                Err(error) => self.fail(&error, None, out),
            }
        }
        if matches!(self.state, State::Leaving { .. } | State::Closed) {
            input.clear();
        }
    }

    fn is_paused(&self) -> bool {
        match self.state {
            State::Connecting(_) | State::Leaving { .. } | State::Closed => true,
            State::Greeting { .. } | State::Open => {
                self.pending.len() >= self.limits.awaiting_max || self.pending_bytes >= self.limits.awaiting_bytes_max
            }
        }
    }

    fn on_reply(&mut self, token: Token, result: Result<(), Refusal>, out: &mut Output) {
        let Some(pending) = self.pending.remove(&token) else {
            return;
        };
        self.pending_bytes -= pending.bytes();
        if let Err(refusal) = result {
            self.write_refusal(&refusal, pending.receipt, out);
            if !pending.forgiving {
                return self.close(refusal.text, false, out);
            }
        } else if let Some(receipt) = pending.receipt {
            self.write_receipt(&receipt, out);
        } else {
            match std::mem::replace(&mut self.state, State::Closed) {
                State::Connecting(handshake) => self.on_login(*handshake, out),
                State::Leaving { receipt, .. } => self.state = State::Leaving { receipt, replied: true },
                other => self.state = other,
            }
        }
        self.leave_if_done(out);
    }

    fn on_failure(&mut self, refusal: Refusal, out: &mut Output) {
        if !matches!(self.state, State::Closed) {
            self.write_refusal(&refusal, None, out);
            self.close(refusal.text, false, out);
        }
    }

    fn on_delivery(&mut self, delivery: Delivery, out: &mut Output) {
        if !matches!(self.state, State::Open) {
            return;
        }
        let (number, tag) = (delivery.subscription, delivery.tag);
        let Some(subscription) = self.subscriptions.get_mut(number) else {
            return;
        };
        subscription.last_tag = tag;
        let Ok(message) = delivery.message.decode() else {
            // Its checksum was right, so whoever stored it wrote nonsense: let it be parked, not end every consumer.
            out.requests.push(Request::Acknowledge {
                token: None,
                subscription: number,
                target: AckTarget::One(tag),
                verdict: Verdict::Rejected,
                transaction: None,
            });
            return;
        };
        let asks_ack = subscription.ack != AckMode::Auto;
        let envelope = Envelope {
            version: self.version,
            connection_id: &self.connection_id,
            subscription: subscription.id.as_deref(),
            ack: (asks_ack && self.version == Version::V1_2).then(|| format!("{number}-{tag}")),
            redelivery_count: delivery.redelivery_count,
            redelivered: delivery.redelivered,
            dead_letter: delivery.dead_letter.as_ref(),
        };
        deliver::write(&message, &envelope, out);
        if !asks_ack {
            out.acknowledge_up_to(number, tag);
        } else if self.version < Version::V1_2 {
            subscription.on_delivery(tag, message.id);
        }
        self.heartbeat.on_write();
    }

    /// ActiveMQ's mark for it (`StompQueueBrowserSubscription`): a message with `browser:end`.
    fn on_browse_end(&mut self, subscription: u32, out: &mut Output) {
        let Some(subscription) = self.subscriptions.get_mut(subscription) else {
            return;
        };
        let mut frame = FrameWriter::new(Command::Message, self.version, out);
        if let Some(id) = &subscription.id {
            frame.header("subscription", id);
        }
        frame.header("message-id", "0");
        frame.header(
            "destination",
            &destination::write(&subscription.destination, &self.connection_id),
        );
        frame.header("browser", "end");
        frame.end(Bytes::new());
        self.heartbeat.on_write();
    }

    fn on_tick(&mut self, mono_ms: u64, out: &mut Output) {
        match &mut self.state {
            State::Greeting { deadline_ms } => {
                let timeout_ms = self.limits.connect_timeout_ms;
                if mono_ms >= *deadline_ms.get_or_insert(mono_ms.saturating_add(timeout_ms)) {
                    self.fail(&StompError::ConnectTimeout(timeout_ms), None, out);
                }
            }
            State::Open => match self.heartbeat.tick(mono_ms) {
                Ok(true) => out.put_slice(b"\n"),
                Ok(false) => {}
                Err(error) => self.fail(&error, None, out),
            },
            State::Connecting(_) | State::Leaving { .. } | State::Closed => {}
        }
    }

    fn on_throttled(&mut self) {
        self.heartbeat.on_read();
    }

    fn next_tick_ms(&self) -> Option<u64> {
        match &self.state {
            State::Greeting { deadline_ms } => Some(deadline_ms.unwrap_or(0)),
            State::Open => self.heartbeat.next_ms(),
            State::Connecting(_) | State::Leaving { .. } | State::Closed => None,
        }
    }

    fn awaiting(&self) -> usize {
        self.pending.len()
    }

    fn held_bytes(&self) -> usize {
        self.decoder.head_bytes() + self.pending_bytes
    }
}

#[cfg(test)]
mod tests;
