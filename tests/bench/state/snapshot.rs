//! The replicated state alone, in this process: what a queued message takes in memory and in a snapshot, and how long a
//! snapshot takes to write and to read.

use std::time::Instant;

use anyhow::{Context, Result};
use bytes::Bytes;
use ferrymq_broker::{BatchBuilder, Broker, Command, EnqueueOnce, Settings};
use ferrymq_message::{Destination, Message, Producer};
use serde::Serialize;

/// What a state with so many messages takes.
#[derive(Debug, Serialize)]
pub(crate) struct Snapshot {
    pub(crate) messages: u64,
    pub(crate) apply_ns: f64,
    pub(crate) memory_bytes_per_message: f64,
    pub(crate) bytes: usize,
    pub(crate) write_ms: f64,
    pub(crate) read_ms: f64,
}

const BATCH: u64 = 1_000;

pub(crate) fn measure(messages: u64) -> Result<Snapshot> {
    let before = resident()?;
    let mut broker = Broker::new(Settings::default());
    let body = Bytes::from(vec![0x5a; 1024]);
    let mut applying = std::time::Duration::ZERO;
    for index in 0..messages.div_ceil(BATCH) {
        let count = BATCH.min(messages - index * BATCH);
        let payload = entry(index, count, &body);
        let begun = Instant::now();
        broker.apply(index + 1, &payload)?;
        applying += begun.elapsed();
    }
    let grown = resident()?.saturating_sub(before);
    let begun = Instant::now();
    let bytes = broker.encode();
    let write_ms = begun.elapsed().as_secs_f64() * 1e3;
    let begun = Instant::now();
    let again = Broker::decode(&bytes, Settings::default())?;
    let read_ms = begun.elapsed().as_secs_f64() * 1e3;
    anyhow::ensure!(again == broker, "what was read is not what was written");
    Ok(Snapshot {
        messages,
        apply_ns: applying.as_nanos() as f64 / messages as f64,
        memory_bytes_per_message: grown as f64 / messages as f64,
        bytes: bytes.len(),
        write_ms,
        read_ms,
    })
}

fn entry(index: u64, count: u64, body: &Bytes) -> Bytes {
    let mut batch = BatchBuilder::default();
    for at in 0..count {
        let mut message = Message::new(format!("ID:{index}-{at}"), Destination::queue("BACKLOG"), body.clone());
        message.producer = Some(Producer {
            id: "ID:producer".into(),
            sequence: index * BATCH + at,
        });
        let enqueue = EnqueueOnce {
            user: "anonymous".into(),
            digest: at + 1,
            duplicate_id: None,
            message: message.encode(),
        };
        batch.push(&Command::EnqueueOnce(enqueue).encode());
    }
    batch.finish()
}

/// Memory of this process, in bytes: the second field of proc(5)'s `statm`, in pages.
fn resident() -> Result<u64> {
    let text = std::fs::read_to_string("/proc/self/statm")?;
    let pages: u64 = text.split_whitespace().nth(1).context("two fields")?.parse()?;
    Ok(pages * rustix::param::page_size() as u64)
}
