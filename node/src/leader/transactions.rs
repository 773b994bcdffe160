//! Transactions of clients: what is sent and acknowledged in one is held back until it is committed as one command.

use ferrymq_broker::{Numbered, QueueId};
use ferrymq_dispatch::ConnectionId;
use ferrymq_protocol::{Refusal, RefusalKind, Token};

use super::{Leader, client::Transaction, outcome::Pending};

/// What a command in a transaction takes beside its bytes: its place, and that of its number.
const HELD_COMMAND_BYTES: usize = 160;

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
        numbered: Option<Numbered>,
    ) -> Result<(), Refusal> {
        let max = self.config.transaction_bytes_max;
        let Some(client) = self.clients.get_mut(&connection) else {
            return Ok(());
        };
        let Some(transaction) = client.transactions.get_mut(name) else {
            return Err(no_transaction(name));
        };
        let bytes = commands.iter().map(bytes::Bytes::len).sum::<usize>();
        let id_bytes = numbered.as_ref().map_or(0, |numbered| numbered.producer.id.len());
        let kept = bytes + id_bytes + commands.len() * HELD_COMMAND_BYTES;
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
        transaction.numbers.extend(numbered);
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
                if transaction.commands.is_empty() {
                    self.forget_direct(transaction.direct);
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
                    back: Box::new(Transaction {
                        acknowledged: transaction.acknowledged,
                        direct: transaction.direct,
                        ..Transaction::default()
                    }),
                };
                self.submit(command, pending);
            }
        }
    }

    pub(super) fn abort(&mut self, connection: ConnectionId, token: Option<Token>, name: &str) {
        let result = match self.end_transaction(connection, name) {
            Some(numbers) => {
                self.tell_skipped(numbers.iter());
                Ok(())
            }
            None => Err(no_transaction(name)),
        };
        self.reply(connection, token, result);
    }

    /// What it holds is forgotten, and what it acknowledged comes back. Returns the numbers of what it sent, if there is one
    /// of this name.
    fn end_transaction(&mut self, connection: ConnectionId, name: &str) -> Option<Vec<Numbered>> {
        let ended = self
            .clients
            .get_mut(&connection)
            .and_then(|client| client.transactions.remove(name));
        let mut transaction = ended?;
        self.let_transaction_go(connection, transaction.kept);
        let numbers = std::mem::take(&mut transaction.numbers);
        self.roll_back(transaction);
        Some(numbers)
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
