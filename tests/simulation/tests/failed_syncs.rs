//! The journal on a simulated disk whose n-th sync fails, for every n: it stops then, whoever asked for the sync, and the
//! next start finds everything that was answered (P9, P2).

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use bytes::Bytes;
use ferrymq_simulated_journal::{Config, Crash, Journal, Machine, Record, disk};

fn config() -> Config {
    Config {
        segment_bytes: 8 << 10,
        cache_bytes_max: 16 << 10,
        ..Config::new("/m/journal")
    }
}

/// Appends until the journal fails or `count` records are answered; how many were.
fn append(journal: &Journal, count: u64) -> u64 {
    let answered = Arc::new(AtomicU64::new(0));
    for index in 1..=count {
        let (told, payload) = (answered.clone(), Bytes::from(vec![index as u8; 700]));
        let record = Record {
            term: 1,
            index,
            payload,
        };
        let done = Box::new(move |result: Result<(), _>| {
            if result.is_ok() {
                told.store(index, Ordering::Relaxed);
            }
        });
        journal.append(vec![record], done);
        journal.step(false);
        if journal.failed().is_some() {
            break;
        }
    }
    answered.load(Ordering::Relaxed)
}

#[test]
fn a_failed_sync_stops_the_journal_and_loses_nothing_that_was_answered() {
    let mut stopped = 0;
    for failing in 0..80 {
        for crash in [Crash::Killed, Crash::PowerCut] {
            disk::seed(failing);
            let machine = Machine::begin("m", failing + 1);
            let journal = Journal::open(config()).unwrap();
            let before = machine.syncs();
            machine.fail_sync_at(failing);
            let answered = append(&journal, 60);
            let has_failed = machine.syncs() > before + failing;
            assert_eq!(
                journal.failed().is_some(),
                has_failed,
                "sync {failing}: a failed sync is fatal, and nothing else is"
            );
            stopped += u64::from(has_failed);
            drop(journal);
            machine.crash(crash);
            let journal =
                Journal::open(config()).unwrap_or_else(|error| panic!("after sync {failing}, {crash:?}: {error}"));
            let last = journal.log_state().last.map_or(0, |(_, index)| index);
            assert!(
                last >= answered,
                "sync {failing}: {answered} were answered, {last} are there"
            );
        }
    }
    assert!(stopped > 100, "only {stopped} syncs failed");
}
