//! One consumer's inbox and its acknowledgements under way.

use std::{collections::VecDeque, sync::Arc};

use ferrymq_protocol::{
    AckMode,
    stomp::{Command, Frame},
};
use tokio::sync::Notify;

use crate::{options::ConsumerOptions, received::Received};

pub(crate) struct ConsumerState {
    destination: String,
    options: ConsumerOptions,
    pub(crate) ack: AckMode,
    inbox: VecDeque<Received>,
    inbox_bytes: usize,
    /// Acknowledgements without receipt.
    pub(crate) unconfirmed: u64,
    /// Acknowledgements that were under way when a socket was lost, not told yet.
    pub(crate) lost: u64,
    /// Whether the broker has ever confirmed the subscription.
    pub(crate) subscribed: bool,
    /// Set where the broker refused the subscription.
    pub(crate) failed: Option<String>,
    /// Told when there is a message, an answer, or the end.
    pub(crate) changed: Arc<Notify>,
}

impl ConsumerState {
    pub(crate) fn new(destination: String, options: ConsumerOptions, changed: Arc<Notify>) -> Self {
        Self {
            destination,
            ack: options.ack,
            options,
            inbox: VecDeque::new(),
            inbox_bytes: 0,
            unconfirmed: 0,
            lost: 0,
            subscribed: false,
            failed: None,
            changed,
        }
    }

    /// SUBSCRIBE with ActiveMQ's headers (`Stomp.Headers.Subscribe`).
    pub(crate) fn subscribe_frame(&self, id: u32) -> Frame {
        let ack = match self.ack {
            AckMode::Auto => "auto",
            AckMode::Client => "client",
            AckMode::Individual => "client-individual",
        };
        let options = &self.options;
        let mut frame = Frame::new(Command::Subscribe)
            .with("id", id.to_string())
            .with("destination", &*self.destination)
            .with("ack", ack)
            .with("activemq.prefetchSize", options.prefetch.max(1).to_string());
        if let Some(selector) = &options.selector {
            frame = frame.with("selector", &**selector);
        }
        if let Some(name) = &options.durable {
            frame = frame.with("activemq.subscriptionName", &**name);
        }
        if options.no_local {
            frame = frame.with("activemq.noLocal", "true");
        }
        if options.exclusive {
            frame = frame.with("activemq.exclusive", "true");
        }
        if options.browser {
            frame = frame.with("browser", "true");
        }
        if options.priority != 0 {
            frame = frame.with("activemq.priority", options.priority.to_string());
        }
        frame
    }

    /// Whether the broker is asked to confirm acknowledgements.
    pub(crate) fn ack_receipts(&self) -> bool {
        self.options.ack_receipts
    }

    pub(crate) fn on_subscribed(&mut self) {
        self.subscribed = true;
        self.changed.notify_waiters();
    }

    pub(crate) fn push(&mut self, received: Received) {
        self.inbox_bytes += received.cost();
        self.inbox.push_back(received);
        if self.inbox.len() == 1 {
            self.changed.notify_waiters();
        }
    }

    pub(crate) fn pop(&mut self) -> Option<Received> {
        let received = self.inbox.pop_front()?;
        self.inbox_bytes -= received.cost();
        Some(received)
    }

    pub(crate) fn inbox_bytes(&self) -> usize {
        self.inbox_bytes
    }

    pub(crate) fn on_confirmed(&mut self) {
        self.unconfirmed -= 1;
        if self.unconfirmed == 0 {
            self.changed.notify_waiters();
        }
    }

    pub(crate) fn on_ack_lost(&mut self) {
        self.lost += 1;
        self.on_confirmed();
    }

    pub(crate) fn on_refused(&mut self, text: String) {
        self.failed = Some(text);
        self.changed.notify_waiters();
    }

    /// Drops the inbox and returns its size in bytes.
    pub(crate) fn on_disconnected(&mut self) -> usize {
        self.lost += std::mem::take(&mut self.unconfirmed);
        self.inbox.clear();
        self.changed.notify_waiters();
        std::mem::take(&mut self.inbox_bytes)
    }
}
