//! Journal append: one record (a log entry, which holds a batch of messages) to its answer, with and without sync, alone
//! and with a second one under way, as the pipeline has it.

use std::{
    sync::mpsc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput};
use ferrymq_journal::{Config, Error, Journal, Record};

/// Bytes of a record: one message of 1 KiB, 32 of them, and a full batch.
const RECORD_BYTES: [usize; 3] = [1 << 10, 32 << 10, 1 << 20];
const UNDER_WAY: [usize; 2] = [1, 2];
/// The log is purged after so much, so that segments are used again.
const PURGE_BYTES: usize = 128 << 20;

/// A journal with its tail's index, and the answers that are awaited.
struct Log {
    journal: Journal,
    index: u64,
    since_purge: usize,
    tell: mpsc::Sender<Result<(), Error>>,
    told: mpsc::Receiver<Result<(), Error>>,
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    for sync in [true, false] {
        append(&mut criterion, sync);
    }
    criterion.final_summary();
}

fn append(criterion: &mut Criterion, sync: bool) {
    let mut group = criterion.benchmark_group(if sync { "journal/synced" } else { "journal/written" });
    group
        .sample_size(20)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(3));
    for bytes in RECORD_BYTES {
        for under_way in UNDER_WAY {
            let dir = directory();
            let mut log = Log::open(dir.path(), sync);
            let payload = Bytes::from(vec![0x5a; bytes]);
            group.throughput(Throughput::Bytes(bytes as u64));
            let name = format!("{under_way} under way");
            group.bench_function(BenchmarkId::new(name, format!("{} KiB", bytes >> 10)), |bencher| {
                bencher.iter_custom(|count| log.append(&payload, count, under_way));
            });
            log.journal.close();
        }
    }
    group.finish();
}

/// Below the build directory: the disk that matters, where a temporary directory may be memory.
fn directory() -> tempfile::TempDir {
    let built = std::env::current_exe().expect("the benchmark has a path");
    let beside = built.parent().expect("a file lies in a directory");
    tempfile::tempdir_in(beside).expect("the build directory can be written")
}

impl Log {
    fn open(dir: &std::path::Path, sync: bool) -> Self {
        let config = Config {
            sync,
            ..Config::new(dir)
        };
        let journal = Journal::open(config).expect("an empty directory can be opened");
        journal.reset_live(std::iter::empty());
        let (tell, told) = mpsc::channel();
        Self {
            journal,
            index: 0,
            since_purge: 0,
            tell,
            told,
        }
    }

    /// The time for so many records, of which some are under way at a time.
    fn append(&mut self, payload: &Bytes, count: u64, under_way: usize) -> Duration {
        let began = Instant::now();
        for sent in 0..count {
            if sent >= under_way as u64 {
                self.wait();
            }
            self.index += 1;
            let record = Record {
                term: 1,
                index: self.index,
                payload: payload.clone(),
            };
            let tell = self.tell.clone();
            let done = move |result| drop(tell.send(result));
            self.journal.append(vec![record], Box::new(done));
            self.purge(payload.len());
        }
        for _ in 0..count.min(under_way as u64) {
            self.wait();
        }
        began.elapsed()
    }

    fn wait(&self) {
        let answer = self.told.recv_timeout(Duration::from_secs(60));
        answer.expect("an answer within a minute").expect("the disk takes it");
    }

    fn purge(&mut self, bytes: usize) {
        self.since_purge += bytes;
        if self.since_purge > PURGE_BYTES {
            self.since_purge = 0;
            self.journal.set_live_horizon(self.index - 1);
            self.journal.purge(self.index - 1, 1, Box::new(drop));
        }
    }
}
