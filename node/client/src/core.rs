//! The connection's state without its socket: what is to be written, what awaits a receipt, what was delivered.
//!
//! Invariant: `unanswered` holds requests `first_request..next_request` in order, so a receipt is found by its number.
//! A send stays there until its receipt, whatever becomes of sockets, and after each reconnect all of them are written
//! again in the order in which they were sent (P5, P6). Anything else concerns one socket only and is settled with it.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use ferrymq_protocol::{
    AckMode, Output,
    stomp::{Command, Frame, Version, encode},
};

use crate::{
    consumer_state::ConsumerState,
    error::{Ended, SendError},
    outgoing::Outgoing,
    producer_state::ProducerState,
    received::Received,
    unanswered::Unanswered,
};

/// A number of a producer or consumer within its connection.
pub(crate) type Id = u32;

/// See the module.
pub(crate) struct Core {
    /// Grows with every connected socket; 0 before the first.
    session: u64,
    connected: bool,
    ended: Option<Ended>,
    /// The application wants to leave once everything is answered.
    closing: bool,

    /// Frames for the socket, in order.
    outbox: VecDeque<Bytes>,

    unanswered: VecDeque<Unanswered>,
    first_request: u64,

    producers: BTreeMap<Id, ProducerState>,
    consumers: BTreeMap<Id, ConsumerState>,
    next_id: Id,
    inbox_bytes: usize,

    /// Why the last attempt to connect failed.
    last_failure: String,
    /// Whether this socket has brought any receipt or message.
    progress: bool,
    /// Sockets in a row that ended with an ERROR which names no request, without any progress.
    barren: u32,
}

/// Sockets that an ERROR without a name may end before the oldest send is taken for its cause. Without this, a message
/// that the broker cannot even parse would be sent again for ever.
const BARREN_MAX: u32 = 3;

impl Core {
    pub(crate) fn new() -> Self {
        Self {
            session: 0,
            connected: false,
            ended: None,
            closing: false,
            outbox: VecDeque::new(),
            unanswered: VecDeque::new(),
            first_request: 1,
            producers: BTreeMap::new(),
            consumers: BTreeMap::new(),
            next_id: 1,
            inbox_bytes: 0,
            last_failure: String::new(),
            progress: false,
            barren: 0,
        }
    }

    // ---- producers

    pub(crate) fn add_producer(&mut self, producer: ProducerState) -> Id {
        let id = self.take_id();
        self.producers.insert(id, producer);
        id
    }

    pub(crate) fn producer(&mut self, id: Id) -> &mut ProducerState {
        self.producers
            .get_mut(&id)
            .expect("a producer is removed only by its own handle")
    }

    /// Forgets the producer; what it has sent is still carried to its receipt.
    pub(crate) fn remove_producer(&mut self, id: Id) {
        self.commit(id);
        self.producers.remove(&id);
    }

    /// Sends a message if its producer's window has room; `Ok(None)` where it has none.
    ///
    /// # Errors
    /// Where the connection has ended.
    pub(crate) fn send(&mut self, id: Id, message: &Outgoing) -> Result<Option<u64>, SendError> {
        self.check_ended()?;
        if !self.producer(id).has_room(message) {
            return Ok(None);
        }
        if self.producer(id).is_to_begin() {
            let begin = self.next_request();
            self.request(Unanswered::begin(begin));
            self.producer(id).on_begun(begin);
        }
        let receipt = self.next_request();
        let (sequence, transaction, frame) = self.producer(id).take(receipt, message);
        self.request(Unanswered::Send {
            producer: id,
            sequence,
            transaction,
            frame,
        });
        if self.producer(id).is_to_commit() {
            self.commit(id);
        }
        Ok(Some(sequence))
    }

    /// Ends the producer's transaction, if one has begun.
    pub(crate) fn commit(&mut self, id: Id) {
        if let Some(begin) = self.producer(id).take_transaction() {
            let number = self.next_request();
            self.request(Unanswered::commit(id, begin, number));
        }
    }

    // ---- consumers

    pub(crate) fn add_consumer(&mut self, consumer: ConsumerState) -> Id {
        let id = self.take_id();
        self.consumers.insert(id, consumer);
        if self.connected {
            self.subscribe(id);
        }
        id
    }

    pub(crate) fn consumer(&mut self, id: Id) -> &mut ConsumerState {
        self.consumers
            .get_mut(&id)
            .expect("a consumer is removed only by its own handle")
    }

    pub(crate) fn remove_consumer(&mut self, id: Id) {
        if let Some(consumer) = self.consumers.remove(&id) {
            self.inbox_bytes -= consumer.inbox_bytes();
            if self.connected && consumer.failed.is_none() {
                self.write(&Frame::new(Command::Unsubscribe).with("id", id.to_string()));
            }
        }
    }

    /// The next delivery, if one is waiting.
    pub(crate) fn receive(&mut self, id: Id) -> Option<Received> {
        let received = self.consumer(id).pop()?;
        self.inbox_bytes -= received.cost();
        Some(received)
    }

    /// Appends all deliveries that are waiting.
    pub(crate) fn receive_all(&mut self, id: Id, into: &mut Vec<Received>) {
        let before = self.consumer(id).inbox_bytes();
        let consumer = self.consumer(id);
        while let Some(received) = consumer.pop() {
            into.push(received);
        }
        self.inbox_bytes -= before;
    }

    /// Writes ACK or NACK. `false` where another socket delivered the message, so that this would mean nothing.
    pub(crate) fn acknowledge(&mut self, id: Id, received: &Received, command: Command) -> bool {
        let mode = self.consumer(id).ack;
        if !self.connected || received.session != self.session {
            return false;
        }
        let Some(ack) = received.ack_id().filter(|_| mode != AckMode::Auto) else {
            return true;
        };
        let frame = Frame::new(command).with("id", ack);
        if !self.consumer(id).ack_receipts() {
            self.write(&frame);
            return true;
        }
        let receipt = self.next_request().to_string();
        self.write(&frame.with("receipt", receipt));
        self.unanswered.push_back(Unanswered::Acknowledge { consumer: id });
        self.consumer(id).unconfirmed += 1;
        true
    }

    // ---- the socket

    /// The socket is connected and logged in: subscribes and sends again. Returns how many messages were sent again.
    pub(crate) fn on_connected(&mut self) -> usize {
        self.session += 1;
        self.connected = true;
        self.progress = false;
        let consumers: Vec<Id> = self
            .consumers
            .iter()
            .filter(|(_, consumer)| consumer.failed.is_none())
            .map(|(id, _)| *id)
            .collect();
        consumers.into_iter().for_each(|id| self.subscribe(id));
        let mut resent = 0;
        for request in &self.unanswered {
            request.write(&mut self.outbox);
            resent += usize::from(request.is_send());
        }
        resent
    }

    /// The socket is gone. What it delivered and nobody took is dropped here, since the broker delivers it again.
    pub(crate) fn on_disconnected(&mut self) {
        self.connected = false;
        self.outbox.clear();
        for consumer in self.consumers.values_mut() {
            self.inbox_bytes -= consumer.on_disconnected();
        }
        self.unanswered.iter_mut().for_each(Unanswered::on_disconnected);
        self.drop_answered();
    }

    /// Whether the socket has brought any receipt or message.
    pub(crate) fn progress(&self) -> bool {
        self.progress
    }

    /// Takes what is to be written next.
    pub(crate) fn take_outbox(&mut self, into: &mut VecDeque<Bytes>) {
        into.append(&mut self.outbox);
    }

    /// Whether something is to be written.
    pub(crate) fn has_output(&self) -> bool {
        !self.outbox.is_empty()
    }

    /// Deliveries that wait for the application, in bytes.
    pub(crate) fn inbox_bytes(&self) -> usize {
        self.inbox_bytes
    }

    /// A frame from the broker. `Err` is its ERROR, after which it closes the socket.
    pub(crate) fn on_frame(&mut self, frame: Frame) -> Result<(), String> {
        match frame.command {
            Command::Message => self.on_message(frame),
            Command::Receipt => {
                if let Some(number) = frame.headers.get("receipt-id").and_then(|id| id.parse().ok()) {
                    self.on_receipt(number);
                }
            }
            Command::Error => return Err(self.on_error(&frame)),
            // A client is sent nothing else; what a later version may add is let pass.
            _ => {}
        }
        Ok(())
    }

    fn on_message(&mut self, frame: Frame) {
        self.progress = true;
        let id = frame.headers.get("subscription").and_then(|id| id.parse::<Id>().ok());
        // A message for a consumer that has just gone is dropped: its UNSUBSCRIBE gives it back.
        let Some(consumer) = id.and_then(|id| self.consumers.get_mut(&id)) else {
            return;
        };
        let received = Received::new(frame, self.session);
        self.inbox_bytes += received.cost();
        consumer.push(received);
    }

    fn on_receipt(&mut self, number: u64) {
        self.progress = true;
        self.barren = 0;
        match self.settle(number) {
            Some(Unanswered::Send { producer, frame, .. }) => {
                if let Some(producer) = self.producers.get_mut(&producer) {
                    producer.on_answered(frame.len());
                }
            }
            Some(Unanswered::Commit { producer, begin, .. }) => {
                for (_, bytes) in self.settle_transaction(begin, number) {
                    if let Some(producer) = self.producers.get_mut(&producer) {
                        producer.on_answered(bytes);
                    }
                }
            }
            Some(Unanswered::Acknowledge { consumer }) => {
                if let Some(consumer) = self.consumers.get_mut(&consumer) {
                    consumer.on_confirmed();
                }
            }
            Some(Unanswered::Subscribe { consumer }) => {
                if let Some(consumer) = self.consumers.get_mut(&consumer) {
                    consumer.on_subscribed();
                }
            }
            Some(Unanswered::Disconnect | Unanswered::Begin { .. } | Unanswered::Done) | None => {}
        }
        self.drop_answered();
    }

    fn on_error(&mut self, frame: &Frame) -> String {
        let text = error_text(frame);
        let kind = frame.headers.get("refusal").unwrap_or("unknown").to_owned();
        let number = match frame.headers.get("receipt-id").and_then(|id| id.parse().ok()) {
            Some(number) => Some(number),
            None if self.progress => None,
            None => {
                self.barren += 1;
                (self.barren >= BARREN_MAX).then(|| self.oldest_send()).flatten()
            }
        };
        // A transient refusal is about the broker's state, not about the message, which is sent again.
        if let Some(number) = number
            && !is_transient(&kind)
            && !(kind == IN_USE && self.was_subscribed(number))
        {
            self.barren = 0;
            self.refuse(number, kind, &text);
        }
        text
    }

    /// Whether the request subscribes a consumer that had been subscribed before: then what holds its subscription is
    /// most likely our own lost connection, of which the broker has not heard yet.
    fn was_subscribed(&self, number: u64) -> bool {
        let at = number
            .checked_sub(self.first_request)
            .and_then(|at| usize::try_from(at).ok());
        match at.and_then(|at| self.unanswered.get(at)) {
            Some(Unanswered::Subscribe { consumer }) => self.consumers.get(consumer).is_some_and(|c| c.subscribed),
            _ => false,
        }
    }

    fn refuse(&mut self, number: u64, kind: String, text: &str) {
        match self.settle(number) {
            Some(Unanswered::Send {
                producer,
                sequence,
                frame,
                ..
            }) => {
                if let Some(producer) = self.producers.get_mut(&producer) {
                    let text = text.to_owned();
                    producer.on_refused(SendError::Refused { sequence, kind, text }, frame.len());
                }
            }
            Some(Unanswered::Commit { producer, begin, .. }) => {
                for (sequence, bytes) in self.settle_transaction(begin, number) {
                    if let Some(producer) = self.producers.get_mut(&producer) {
                        let (kind, text) = (kind.clone(), text.to_owned());
                        producer.on_refused(SendError::Refused { sequence, kind, text }, bytes);
                    }
                }
            }
            Some(Unanswered::Subscribe { consumer }) => {
                if let Some(consumer) = self.consumers.get_mut(&consumer) {
                    consumer.on_refused(text.to_owned());
                }
            }
            // Its message stays the broker's, like those of all acknowledgements that this socket takes with it.
            Some(Unanswered::Acknowledge { consumer }) => {
                if let Some(consumer) = self.consumers.get_mut(&consumer) {
                    consumer.on_ack_lost();
                }
            }
            Some(Unanswered::Disconnect | Unanswered::Begin { .. } | Unanswered::Done) | None => {}
        }
        self.drop_answered();
    }

    // ---- the end

    /// Writes DISCONNECT; its receipt says that everything before was taken.
    pub(crate) fn disconnect(&mut self) {
        self.closing = true;
        if self.connected {
            let receipt = self.next_request().to_string();
            self.write(&Frame::new(Command::Disconnect).with("receipt", receipt));
            self.unanswered.push_back(Unanswered::Disconnect);
        }
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.closing
    }

    /// Whether nothing awaits an answer.
    pub(crate) fn is_idle(&self) -> bool {
        self.unanswered.is_empty()
    }

    /// The connection is over for good: wakes everybody who waits.
    pub(crate) fn end(&mut self, reason: &str) {
        self.on_disconnected();
        self.ended.get_or_insert_with(|| Ended(reason.into()));
        self.producers.values().for_each(ProducerState::on_ended);
        self.consumers
            .values()
            .for_each(|consumer| consumer.changed.notify_waiters());
    }

    pub(crate) fn note_failure(&mut self, text: String) {
        self.last_failure = text;
    }

    /// Why the last attempt to connect failed.
    pub(crate) fn last_failure(&self) -> &str {
        if self.last_failure.is_empty() {
            "no attempt has failed yet"
        } else {
            &self.last_failure
        }
    }

    pub(crate) fn check_ended(&self) -> Result<(), Ended> {
        self.ended.clone().map_or(Ok(()), Err)
    }

    // ---- within

    fn subscribe(&mut self, id: Id) {
        let receipt = self.next_request().to_string();
        let frame = self.consumer(id).subscribe_frame(id).with("receipt", receipt);
        self.write(&frame);
        self.unanswered.push_back(Unanswered::Subscribe { consumer: id });
    }

    /// Writes what outlives the socket, now and after each reconnect until it is settled.
    fn request(&mut self, request: Unanswered) {
        if self.connected {
            request.write(&mut self.outbox);
        }
        self.unanswered.push_back(request);
    }

    fn write(&mut self, frame: &Frame) {
        let mut out = Output::new();
        encode(frame, Version::V1_2, &mut out);
        self.outbox.append(&mut out.take_chunks());
    }

    fn next_request(&self) -> u64 {
        self.first_request + self.unanswered.len() as u64
    }

    /// Takes the request of this number out, leaving its place.
    fn settle(&mut self, number: u64) -> Option<Unanswered> {
        let at = usize::try_from(number.checked_sub(self.first_request)?).ok()?;
        Some(std::mem::replace(self.unanswered.get_mut(at)?, Unanswered::Done))
    }

    /// Takes the BEGIN with request number `begin` out, and its sends: their sequences and bytes on the wire.
    fn settle_transaction(&mut self, begin: u64, commit: u64) -> Vec<(u64, usize)> {
        self.settle(begin);
        let mut settled = Vec::new();
        for number in begin + 1..commit {
            let at = number
                .checked_sub(self.first_request)
                .and_then(|at| usize::try_from(at).ok());
            let Some(request) = at.and_then(|at| self.unanswered.get_mut(at)) else {
                continue;
            };
            // Other producers' requests may lie in between.
            if let Unanswered::Send {
                sequence,
                transaction,
                frame,
                ..
            } = request
                && *transaction == Some(begin)
            {
                settled.push((*sequence, frame.len()));
                *request = Unanswered::Done;
            }
        }
        settled
    }

    fn drop_answered(&mut self) {
        while let Some(Unanswered::Done) = self.unanswered.front() {
            self.unanswered.pop_front();
            self.first_request += 1;
        }
    }

    fn oldest_send(&self) -> Option<u64> {
        let at = self
            .unanswered
            .iter()
            .position(|request| matches!(request, Unanswered::Send { .. }))?;
        Some(self.first_request + at as u64)
    }

    fn take_id(&mut self) -> Id {
        let id = self.next_id;
        self.next_id += 1;
        id
    }
}

/// Whether after this kind of refusal the same request may succeed a moment later, perhaps at another node.
pub(crate) fn is_transient(kind: &str) -> bool {
    ["not-master", "no-quorum", "full", "stopping"].contains(&kind)
}

/// The kind of refusal that says who else holds it.
pub(crate) const IN_USE: &str = "in-use";

/// What an ERROR frame says, in one line.
pub(crate) fn error_text(frame: &Frame) -> String {
    let body = String::from_utf8_lossy(&frame.body);
    let text = frame
        .headers
        .get("message")
        .filter(|text| !text.is_empty())
        .unwrap_or(body.trim());
    text.lines()
        .next()
        .filter(|line| !line.is_empty())
        .unwrap_or("the broker gave no reason")
        .to_owned()
}
