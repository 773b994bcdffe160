//! What is to be done when a command that was proposed here has its outcome.

use ferrymq_broker::{GroupId, Outcome, QueueId, TransferId};
use ferrymq_dispatch::ConnectionId;
use ferrymq_protocol::{Refusal, RefusalKind, Subscribe, Token};
use ferrymq_replication::Failure;

use super::{
    Leader,
    client::Transaction,
    mesh::{HandOver, Lost},
};

/// Who waits for a command's outcome. There is one for each message under way, so what is rare and large lies elsewhere.
#[derive(Debug)]
pub(super) enum Pending {
    /// The term itself.
    Begin,
    /// A producer.
    Send {
        connection: ConnectionId,
        token: Option<Token>,
        bytes: usize,
        /// Of a non-persistent message that others of its queue shall not overtake.
        queue: Option<QueueId>,
    },
    /// A client whose transaction held so many bytes.
    Commit {
        connection: ConnectionId,
        token: Option<Token>,
        kept: usize,
        /// What it acknowledged, which comes back if it is refused.
        back: Box<Transaction>,
    },
    /// Messages that came back without the log knowing of them.
    PutBack { queue: QueueId },
    /// A client that wants to know that it is done.
    Reply {
        connection: ConnectionId,
        token: Option<Token>,
    },
    /// A client that wants no answer, unless it leaves meanwhile.
    Acknowledge { connection: ConnectionId },
    /// A consumer whose queue or subscription is being made.
    Subscribe {
        connection: ConnectionId,
        token: Option<Token>,
        subscribe: Box<Subscribe>,
    },
    /// The mesh.
    Mesh {
        token: u64,
        step: HandOver,
        /// Of an accept: whose transfer it is.
        accept: Option<(GroupId, TransferId)>,
    },
    /// The operator, who gave up a group or what it was offered.
    Lost(Box<Lost>),
    /// What another group wants, and since when it is away, is being noted.
    Noted { group: GroupId },
    /// The publishers of a topic of which another group's backlog is being made.
    Backlog,
    /// Nobody: the effects say it all.
    Nobody,
}

impl Leader {
    pub(super) fn on_result(&mut self, token: u64, result: Result<Outcome, Failure>) {
        let Some(pending) = self.pending.remove(&token) else {
            return;
        };
        self.crossing.end(token);
        let refusable = matches!(
            pending,
            Pending::Begin | Pending::Send { .. } | Pending::Subscribe { .. } | Pending::Mesh { .. }
        );
        if result
            .as_ref()
            .is_err_and(|failure| !refusable || *failure != Failure::Full)
        {
            // What the dispatcher believes to be under way may not be, or nothing will be taken any more behind a send that
            // was not: this loop begins anew, with the state as it is.
            self.in_doubt = true;
        }
        match pending {
            // Nobody is heard before there is room for it.
            Pending::Begin => self.begin_refused |= result.is_err(),
            Pending::Send {
                connection,
                token,
                bytes,
                queue,
            } => {
                if let Err(failure) = result {
                    self.refuse_held_of(connection, failure);
                }
                self.answered(connection, bytes, queue.is_none());
                if let Some(queue) = queue {
                    self.dispatcher.logged(queue);
                }
                self.reply(connection, token, to_reply(result));
                self.leave_if_answered(connection);
            }
            Pending::Commit {
                connection,
                token,
                kept,
                back,
            } => {
                self.let_transaction_go(connection, kept);
                if let Ok(Outcome::Refused(_)) = result {
                    self.roll_back(*back);
                } else {
                    self.forget_direct(back.direct);
                }
                self.answered(connection, 0, true);
                self.reply(connection, token, to_reply(result));
            }
            Pending::PutBack { queue } => self.dispatcher.logged(queue),
            Pending::Reply { connection, token } => self.reply(connection, token, to_reply(result)),
            Pending::Acknowledge { connection } => {
                self.reply(connection, None, to_reply(result));
                self.on_acknowledged(connection);
            }
            Pending::Subscribe {
                connection,
                token,
                subscribe,
            } => match result {
                Ok(Outcome::Queue(queue)) => self.opened(connection, token, *subscribe, queue),
                other => self.reply(connection, token, to_reply(other)),
            },
            Pending::Mesh { token, step, accept } => self.tell_mesh(token, step, accept, result),
            Pending::Lost(lost) => self.on_lost(*lost, result),
            Pending::Noted { group } => self.on_noted(group),
            Pending::Backlog => self.bridges.backlogs_opening -= 1,
            Pending::Nobody => {}
        }
    }

    /// What waited behind a send that was not stored is not stored either: its resend would come behind it (P6).
    fn refuse_held_of(&mut self, connection: ConnectionId, failure: Failure) {
        for ticket in self.dispatcher.drop_held_of(connection) {
            if let Some(Pending::Send { token, bytes, .. }) = self.pending.remove(&ticket) {
                self.answered(connection, bytes, false);
                self.reply(connection, token, Err(to_refusal(failure)));
            }
        }
    }
}

fn to_reply(result: Result<Outcome, Failure>) -> Result<(), Refusal> {
    match result {
        Ok(Outcome::Refused(text)) => Err(Refusal::new(RefusalKind::Malformed, text)),
        // What is gone already needs no second taking away; a resend that is stored already is stored (P5).
        Ok(_) => Ok(()),
        Err(failure) => Err(to_refusal(failure)),
    }
}

fn to_refusal(failure: Failure) -> Refusal {
    let (kind, text) = match failure {
        Failure::NotMaster => (
            RefusalKind::NotMaster,
            "nothing was stored: this node is not the master; connect again",
        ),
        Failure::Unknown => (
            RefusalKind::NoQuorum,
            "the master changed while this was under way; connect again and resend what has no receipt",
        ),
        Failure::Full => (RefusalKind::Full, "nothing was stored: the disk is full"),
        Failure::Fatal => (
            RefusalKind::Stopping,
            "this node has stopped; connect to another one and resend",
        ),
    };
    Refusal::new(kind, text)
}
