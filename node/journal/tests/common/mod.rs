//! What the journal's tests share: opening with small segments, waiting for answers, copying a directory as a crash
//! would leave it.
#![allow(clippy::unwrap_used, dead_code, unreachable_pub)]

use std::{
    fs,
    path::{Path, PathBuf},
    sync::mpsc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use ferrymq_journal::{Config, Done, Error, Journal, Place, Record};

const DEADLINE: Duration = Duration::from_secs(20);

/// Small segments, so that a test fills many.
pub fn config(dir: &Path) -> Config {
    Config {
        segment_bytes: 16 << 10,
        cache_bytes_max: 8 << 10,
        ..Config::new(dir)
    }
}

pub fn open(dir: &Path) -> Journal {
    Journal::open(config(dir)).unwrap()
}

/// Runs `submit` and waits until its `done` is told.
pub fn wait(submit: impl FnOnce(Done)) -> Result<(), Error> {
    let (told, outcome) = mpsc::channel();
    submit(Box::new(move |result| told.send(result).unwrap()));
    outcome.recv_timeout(DEADLINE).expect("an answer within the deadline")
}

/// Waits until `holds`.
pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !holds() {
        assert!(begin.elapsed() < DEADLINE, "in vain waited for: {what}");
        std::thread::yield_now();
    }
}

/// A payload of `len` bytes that tells `index` and `salt`, and no other.
pub fn payload(index: u64, salt: u64, len: usize) -> Bytes {
    let mut x = index.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ salt.wrapping_mul(0xD1B5_4A32_D192_ED03) | 1;
    let byte = |_| {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        x as u8
    };
    (0..len).map(byte).collect::<Vec<_>>().into()
}

pub fn record(term: u64, index: u64, len: usize) -> Record {
    Record {
        term,
        index,
        payload: payload(index, term, len),
    }
}

pub fn append(journal: &Journal, term: u64, indexes: impl Iterator<Item = u64>, len: usize) {
    let records = indexes.map(|index| record(term, index, len)).collect();
    wait(|done| journal.append(records, done)).unwrap();
}

/// Each index alone, so that many segments are filled.
pub fn append_each(journal: &Journal, term: u64, indexes: impl Iterator<Item = u64>, len: usize) {
    indexes.for_each(|index| append(journal, term, index..index + 1, len));
}

pub fn read_all(journal: &Journal, from: u64) -> Vec<Record> {
    let mut records = Vec::new();
    loop {
        let next = journal.read_log(from + records.len() as u64, u64::MAX, 1000).unwrap();
        if next.is_empty() {
            return records;
        }
        records.extend(next);
    }
}

pub fn place(index: u64, offset: u32, len: u32) -> Place {
    Place { index, offset, len }
}

/// The journal's files as they are now, in a new directory.
pub fn crash_copy(dir: &Path) -> tempfile::TempDir {
    'again: loop {
        let copy = tempfile::tempdir().unwrap();
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            // The room's thread may rename a file in between.
            if fs::copy(&path, copy.path().join(path.file_name().unwrap())).is_err() {
                continue 'again;
            }
        }
        return copy;
    }
}

pub fn segment_files(dir: &Path) -> Vec<PathBuf> {
    let paths = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = paths
        .filter(|path| path.extension().is_some_and(|e| e == "seg"))
        .collect();
    files.sort();
    files
}
