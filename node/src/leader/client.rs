//! What the master's loop knows of one client connection.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use bytes::Bytes;
use ferrymq_access::Pass;
use ferrymq_broker::{Numbered, QueueId};
use ferrymq_dispatch::ConsumerId;
use ferrymq_message::Destination;
use ferrymq_protocol::{Delivery, Refusal, Request, Token};
use tokio::sync::mpsc;

use super::{direct::Acknowledged, waiting::Waiting};
use crate::{connection::ToClient, outbox::Outbox};

/// One connected client.
#[derive(Debug)]
pub(crate) struct Client {
    to: mpsc::UnboundedSender<ToClient>,
    pub(crate) outbox: Arc<Outbox>,
    /// What it may do.
    pub(crate) pass: Pass,
    /// As which user it came in: its producers are told apart from those of others (P5).
    pub(crate) user: Arc<str>,
    pub(crate) client_id: Option<String>,
    pub(crate) subscriptions: BTreeMap<u32, ConsumerId>,
    /// Subscriptions whose queue or backlog is still being made.
    pub(crate) opening: BTreeSet<u32>,
    /// By the client's name for them.
    pub(crate) transactions: BTreeMap<String, Transaction>,
    /// Temporary queues that end with the connection.
    pub(crate) temporary: Vec<Destination>,
    /// Acknowledgements of it that ask for no answer and have no outcome yet.
    pub(crate) unanswered: u32,
    /// Its DISCONNECT is answered when those and its last send are: the answer says that everything before it was done.
    pub(crate) leaving: Option<Token>,
    /// Requests that wait for room in the store.
    pub(crate) parked: VecDeque<Request>,
    /// Requests that wait for room in another group's backlog of their topic, and what must stay behind them.
    pub(crate) waiting: Waiting,
    /// Sends and commits on their way through the log, which its non-persistent messages to queues shall not overtake;
    /// those themselves are counted by their queue.
    pub(crate) logging: usize,
    /// Sends among them of whose outcome the client wants to hear nothing.
    pub(crate) parked_unheard: usize,
    /// What each subscription counts for the node, in bytes.
    pub(crate) kept: BTreeMap<u32, usize>,
    /// Something of it may be held.
    pub(crate) holding: bool,
    pub(crate) touched: bool,
    /// It was told of a failure that ends its session. What it had sent behind that is on its way here all the same; to
    /// take it would put a resend behind it (P6), or commit a transaction of which a part was refused.
    refused: bool,
    replies: Vec<(Token, Result<(), Refusal>)>,
    deliveries: Vec<Delivery>,
    charged_bytes: usize,
}

/// Sends and acknowledgements that wait for their commit.
#[derive(Debug, Default)]
pub(crate) struct Transaction {
    /// Encoded, in order.
    pub(crate) commands: Vec<Bytes>,
    /// What comes back if it is aborted.
    pub(crate) acknowledged: Vec<(QueueId, Vec<u64>)>,
    /// What it acknowledged of messages that the log does not know.
    pub(crate) direct: Vec<Acknowledged>,
    /// The numbers of what it sent.
    pub(crate) numbers: Vec<Numbered>,
    pub(crate) bytes: usize,
    /// What it counts for the node, in bytes.
    pub(crate) kept: usize,
}

impl Client {
    pub(crate) fn new(to: mpsc::UnboundedSender<ToClient>, outbox: Arc<Outbox>) -> Self {
        Self {
            to,
            outbox,
            pass: Pass::none(),
            user: "".into(),
            client_id: None,
            subscriptions: BTreeMap::new(),
            opening: BTreeSet::new(),
            transactions: BTreeMap::new(),
            temporary: Vec::new(),
            unanswered: 0,
            leaving: None,
            parked: VecDeque::new(),
            waiting: Waiting::default(),
            logging: 0,
            parked_unheard: 0,
            kept: BTreeMap::new(),
            holding: false,
            touched: false,
            refused: false,
            replies: Vec::new(),
            deliveries: Vec::new(),
            charged_bytes: 0,
        }
    }

    /// Answers a request, where the client wants an answer or the request failed.
    pub(crate) fn reply(&mut self, token: Option<Token>, result: Result<(), Refusal>) {
        self.refused |= result.is_err();
        self.answer(token, result);
    }

    /// [`Client::reply`] to an acknowledgement: with a receipt, its failure does not end the session.
    pub(crate) fn reply_acknowledgement(&mut self, token: Option<Token>, result: Result<(), Refusal>) {
        self.refused |= token.is_none() && result.is_err();
        self.answer(token, result);
    }

    /// Whether a request is still to be heard.
    pub(crate) fn is_heard(&self, request: &Request) -> bool {
        !self.refused || matches!(request, Request::Acknowledge { transaction: None, .. })
    }

    fn answer(&mut self, token: Option<Token>, result: Result<(), Refusal>) {
        match (token, result) {
            (Some(token), result) => {
                // Replies and deliveries reach the session in the order in which they came about.
                self.flush_deliveries();
                self.replies.push((token, result));
            }
            (None, Err(refusal)) => {
                self.flush();
                let _ = self.to.send(ToClient::Failure(refusal));
            }
            (None, Ok(())) => {}
        }
    }

    /// The delivery's bytes are counted in the outbox already, as `charged_bytes`.
    pub(crate) fn deliver(&mut self, delivery: Delivery, charged_bytes: usize) {
        self.flush_replies();
        self.deliveries.push(delivery);
        self.charged_bytes += charged_bytes;
    }

    /// A browser has seen everything.
    pub(crate) fn end_browse(&mut self, subscription: u32) {
        self.flush();
        let _ = self.to.send(ToClient::BrowseEnd { subscription });
    }

    /// Tells the client what cannot be told as the answer to a request; ends the connection in most languages.
    pub(crate) fn fail(&mut self, refusal: Refusal) {
        self.reply(None, Err(refusal));
    }

    /// Sends what has gathered. An error means that the connection has just ended, which it will tell by itself.
    pub(crate) fn flush(&mut self) {
        self.touched = false;
        self.flush_replies();
        self.flush_deliveries();
    }

    fn flush_replies(&mut self) {
        if !self.replies.is_empty() {
            let _ = self.to.send(ToClient::Replies(std::mem::take(&mut self.replies)));
        }
    }

    fn flush_deliveries(&mut self) {
        if !self.deliveries.is_empty() {
            let _ = self.to.send(ToClient::Deliveries {
                deliveries: std::mem::take(&mut self.deliveries),
                charged_bytes: std::mem::take(&mut self.charged_bytes),
            });
        }
    }
}
