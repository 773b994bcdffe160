//! What the benchmarks of `apply` and `dispatch` share: a replicated state, and entries of its log made on the way.
#![allow(dead_code)]

use bytes::Bytes;
use ferrymq_broker::{Applied, BatchBuilder, Broker, Command, EnqueueOnce, QueueId, Settings};
use ferrymq_message::{Destination, DestinationKind, Message, Producer};

/// A group of which only the state matters.
pub(crate) struct Group {
    pub(crate) broker: Broker,
    pub(crate) index: u64,
    sequence: u64,
    body: Bytes,
}

/// Clients that take turns.
const PRODUCERS: u64 = 8;
const BODY_BYTES: usize = 1 << 10;

impl Group {
    /// Founded, with these queues.
    pub(crate) fn new(queues: &[&str]) -> Self {
        let mut group = Self {
            broker: Broker::new(Settings::default()),
            index: 0,
            sequence: 0,
            body: vec![0x5a; BODY_BYTES].into(),
        };
        group.commit(&[Command::Found(1)]);
        for queue in queues {
            group.commit(&[Command::OpenDestination(Destination::queue(queue))]);
        }
        group
    }

    pub(crate) fn queue(&self, name: &str) -> QueueId {
        let found = self.broker.queues().find(DestinationKind::Queue, name);
        found.expect("it was opened at the beginning")
    }

    /// An entry with so many messages of several producers.
    pub(crate) fn enqueues(&mut self, queue: &str, count: usize) -> Bytes {
        let destination = Destination::queue(queue);
        let commands = (0..count as u64).map(|at| {
            let mut message = Message::new(
                format!("ID:{}-{at}", self.sequence),
                destination.clone(),
                self.body.clone(),
            );
            message.producer = Some(Producer {
                id: format!("ID:client-{}-1700000000000", at % PRODUCERS),
                sequence: self.sequence + at / PRODUCERS,
            });
            Command::EnqueueOnce(EnqueueOnce {
                user: "anonymous".into(),
                digest: self.sequence + at + 1,
                duplicate_id: None,
                message: message.encode(),
            })
        });
        let payload = entry(commands);
        self.sequence += (count as u64).div_ceil(PRODUCERS);
        payload
    }

    /// Applies an entry.
    pub(crate) fn apply(&mut self, payload: &Bytes) -> Applied {
        self.index += 1;
        let applied = self.broker.apply(self.index, payload);
        applied.expect("the entry was just made")
    }

    pub(crate) fn commit(&mut self, commands: &[Command]) -> Applied {
        let payload = entry(commands.iter().cloned());
        self.apply(&payload)
    }
}

pub(crate) fn entry(commands: impl Iterator<Item = Command>) -> Bytes {
    let mut batch = BatchBuilder::default();
    commands.for_each(|command| batch.push(&command.encode()));
    batch.finish()
}
