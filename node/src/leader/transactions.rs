//! Transactions of clients: what is sent and acknowledged in one is held back until it is committed as one command.

use ferrymq_broker::QueueId;
use ferrymq_dispatch::ConnectionId;
use ferrymq_protocol::{Refusal, RefusalKind, Token};

use super::{Leader, client::Transaction, outcome::Pending};

/// What a command in a transaction takes beside its bytes.
const HELD_COMMAND_BYTES: usize = 64;

impl Leader {
    pub(super) fn begin(&mut self, connection: ConnectionId, name: String) -> Result<(), Refusal> {
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
        let refusal = if !client.outbox.keep_in_transaction(kept) {
            Some("the transactions of all clients hold as much as there is memory for (see [limits] memory)".into())
        } else {
            transaction.kept += kept;
            transaction.bytes += bytes;
            (transaction.bytes > max).then(|| {
                format!("transaction {name:?} holds more than {max} bytes, which is the limit; commit earlier")
            })
        };
        if let Some(text) = refusal {
            // It cannot be whole any more, so nobody shall commit the rest.
            self.end_transaction(connection, name);
            return Err(Refusal::new(RefusalKind::Full, text));
        }
        transaction.commands.extend_from_slice(commands);
        transaction.acknowledged.extend(acknowledged);
        Ok(())
    }

    pub(super) fn commit(&mut self, connection: ConnectionId, token: Option<Token>, name: &str) {
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

    pub(super) fn abort(&mut self, connection: ConnectionId, token: Option<Token>, name: &str) {
        let result = if self.end_transaction(connection, name) {
            Ok(())
        } else {
            Err(no_transaction(name))
        };
        self.reply(connection, token, result);
    }

    /// What it holds is forgotten, and what it acknowledged comes back. False if there is none of this name.
    fn end_transaction(&mut self, connection: ConnectionId, name: &str) -> bool {
        let ended = self
            .clients
            .get_mut(&connection)
            .and_then(|client| client.transactions.remove(name));
        let Some(transaction) = ended else { return false };
        self.let_transaction_go(connection, transaction.kept);
        self.roll_back(transaction);
        true
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
}

fn no_transaction(name: &str) -> Refusal {
    Refusal::new(
        RefusalKind::NotFound,
        format!("there is no transaction {name:?}; it was not begun, or has ended"),
    )
}
