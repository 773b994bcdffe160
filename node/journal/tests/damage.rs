//! What a crash or a failing disk leaves: a torn tail is cut, damage is found, nothing wrong is ever read (promise P9).
#![allow(clippy::unwrap_used)]

mod common;

use std::{
    fs::{self, OpenOptions},
    os::unix::fs::FileExt,
    path::Path,
};

use bytes::Bytes;
use common::*;
use ferrymq_journal::{Error, Journal, Record, check};

fn is_damage(error: &Error) -> bool {
    matches!(error, Error::Damaged { .. })
}

fn copy_of(dir: &Path) -> tempfile::TempDir {
    crash_copy(dir)
}

/// The segment that was being written: the last one with anything behind its header.
fn active(dir: &Path) -> std::path::PathBuf {
    let used = |path: &std::path::PathBuf| fs::read(path).unwrap()[64..].iter().any(|byte| *byte != 0);
    segment_files(dir).into_iter().rfind(used).unwrap()
}

/// End of the last byte that is not zero.
fn used_len(path: &Path) -> u64 {
    fs::read(path)
        .unwrap()
        .iter()
        .rposition(|byte| *byte != 0)
        .map_or(0, |at| at as u64 + 1)
}

#[test]
fn the_last_record_torn_at_every_byte_is_cut_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path());
    append(&journal, 1, 1..=3, 100);
    wait(|done| journal.put_cell(1, Bytes::from_static(b"vote"), true, done)).unwrap();
    let before = crash_copy(dir.path());
    let path = active(before.path());
    // The proof of the last sync may or may not have been written; without it the last record is not proven.
    let start = used_len(&path);
    append(&journal, 1, 4..=4, 100);
    let after = crash_copy(dir.path());
    let whole = fs::read(after.path().join(path.file_name().unwrap())).unwrap();
    let end = used_len(&after.path().join(path.file_name().unwrap()));
    assert!(end > start + 100);
    for cut in start..end {
        let torn = copy_of(before.path());
        let file = OpenOptions::new()
            .write(true)
            .open(torn.path().join(path.file_name().unwrap()))
            .unwrap();
        file.write_all_at(&whole[..cut as usize], 0).unwrap();
        let journal = open(torn.path());
        let records = read_all(&journal, 1);
        let expected: Vec<_> = (1..=3 + records.len() as u64 / 4).map(|i| record(1, i, 100)).collect();
        assert_eq!(records, expected, "cut at {cut}");
        assert!(records.len() == 3 || cut >= end - 140, "cut at {cut}");
        assert_eq!(journal.cell(1).unwrap(), "vote");
        // What was cut cannot come back, whatever is appended in its place.
        let next = records.len() as u64 + 1;
        append(&journal, 2, next..=next, 100);
        journal.close();
        let journal = open(torn.path());
        assert_eq!(journal.log_state().last, Some((2, next)), "cut at {cut}");
        assert_eq!(journal.read_place(place(next, 0, 100)).unwrap(), payload(next, 2, 100));
    }
}

/// A batch whose first record was lost while the second reached the disk: a torn tail, not damage, and the second must
/// not come back.
#[test]
fn a_batch_torn_in_its_middle_is_cut_as_a_whole() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path());
    append(&journal, 1, 1..=3, 100);
    let start = used_len(&active(dir.path())).next_multiple_of(8);
    append(&journal, 1, 4..=6, 96);
    let torn = crash_copy(dir.path());
    let path = active(torn.path());
    let bytes = fs::read(&path).unwrap();
    let at = find(&bytes, &payload(4, 1, 96)).unwrap() as u64;
    assert!(at >= start);
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    file.write_all_at(&[0; 96], at).unwrap();
    // The proof, if one was written already, would make it damage, and rightly so.
    let proof = find(&bytes, &payload(6, 1, 96)).unwrap() as u64 + 96;
    file.write_all_at(&[0; 64], proof).unwrap();
    for term in 7..10 {
        let journal = open(torn.path());
        assert_eq!(read_all(&journal, 1).len() as u64, 3 + (term - 7));
        append(&journal, term, term - 3..=term - 3, 96);
    }
    let journal = open(torn.path());
    assert_eq!(journal.log_state().last, Some((9, 6)));
    assert_eq!(
        read_all(&journal, 4),
        (4..=6).map(|i| record(i + 3, i, 96)).collect::<Vec<Record>>()
    );
}

fn find(bytes: &[u8], needle: &[u8]) -> Option<usize> {
    bytes.windows(needle.len()).position(|window| window == needle)
}

#[test]
fn a_bad_record_before_the_last_sync_stops_the_node() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path());
    append(&journal, 1, 1..=3, 100);
    append(&journal, 1, 4..=6, 100);
    let copy = crash_copy(dir.path());
    let path = active(copy.path());
    let at = find(&fs::read(&path).unwrap(), &payload(2, 1, 100)).unwrap() as u64;
    OpenOptions::new()
        .write(true)
        .open(&path)
        .unwrap()
        .write_all_at(b"x", at + 50)
        .unwrap();
    let error = Journal::open(config(copy.path())).unwrap_err();
    assert!(is_damage(&error), "{error}");
    let text = error.to_string();
    assert!(
        text.contains(path.file_name().unwrap().to_str().unwrap()) && text.contains("Cure:"),
        "{text}"
    );
    let report = check(copy.path(), |_| {}).unwrap();
    assert!(
        !report.problems.is_empty() && report.problems.iter().all(is_damage),
        "{report:?}"
    );
}

#[test]
fn after_a_clean_end_the_newest_record_is_protected_too() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path());
    append(&journal, 1, 1..=3, 100);
    journal.close();
    let path = active(dir.path());
    let at = find(&fs::read(&path).unwrap(), &payload(3, 1, 100)).unwrap() as u64;
    OpenOptions::new()
        .write(true)
        .open(&path)
        .unwrap()
        .write_all_at(b"x", at + 99)
        .unwrap();
    assert!(is_damage(&Journal::open(config(dir.path())).unwrap_err()));
}

/// Flips bits all over the files: the journal refuses to start, or refuses to read, or gives the right bytes, or has cut
/// the last batch. It never gives wrong ones.
#[test]
fn a_flipped_bit_is_found_or_harmless() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path());
    let records: u64 = 60;
    append_each(&journal, 1, 1..=records, 700);
    wait(|done| journal.put_cell(1, Bytes::from_static(b"vote"), true, done)).unwrap();
    journal.close();
    let (mut refused, mut unreadable, mut harmless) = (0, 0, 0);
    let mut x: u64 = 0x2545_F491_4F6C_DD1D;
    for path in segment_files(dir.path()) {
        let len = fs::metadata(&path).unwrap().len();
        let mut at = 0;
        while at < len {
            let copy = copy_of(dir.path());
            let victim = copy.path().join(path.file_name().unwrap());
            x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let bit = (x >> 40) % 8;
            let file = OpenOptions::new().read(true).write(true).open(&victim).unwrap();
            let mut byte = [0];
            file.read_exact_at(&mut byte, at).unwrap();
            file.write_all_at(&[byte[0] ^ 1 << bit], at).unwrap();
            match Journal::open(config(copy.path())) {
                Err(error) => {
                    assert!(is_damage(&error), "{error}");
                    refused += 1;
                }
                Ok(journal) => {
                    assert_eq!(
                        journal.log_state().last,
                        Some((1, records)),
                        "{victim:?} at {at} bit {bit}"
                    );
                    assert_eq!(journal.cell(1).unwrap(), "vote");
                    let mut found = false;
                    for index in 1..=records {
                        match journal.read_place(place(index, 0, 700)) {
                            Ok(bytes) => assert_eq!(bytes, payload(index, 1, 700), "{victim:?} at {at} bit {bit}"),
                            Err(error) => {
                                assert!(is_damage(&error), "{error}");
                                found = true;
                            }
                        }
                        if let Ok(read) = journal.read_log(index, index + 1, 1) {
                            assert_eq!(read, vec![record(1, index, 700)]);
                        }
                    }
                    if found {
                        unreadable += 1;
                    } else {
                        harmless += 1;
                    }
                }
            }
            at += 1 + (x >> 33) % 400;
        }
    }
    assert!(
        refused > 5 && unreadable > 20,
        "{refused} refused, {unreadable} unreadable, {harmless} harmless"
    );
}

#[test]
fn a_missing_segment_stops_the_node_wherever_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path());
    append_each(&journal, 1, 1..=60, 1000);
    journal.close();
    let files = segment_files(dir.path());
    let last_used = active(dir.path());
    for path in files.iter().filter(|path| **path <= last_used) {
        let copy = copy_of(dir.path());
        fs::remove_file(copy.path().join(path.file_name().unwrap())).unwrap();
        let error = Journal::open(config(copy.path())).unwrap_err();
        assert!(error.to_string().contains("missing"), "{path:?}: {error}");
        assert!(!check(copy.path(), |_| {}).unwrap().problems.is_empty());
    }
    let copy = copy_of(dir.path());
    files
        .iter()
        .for_each(|path| fs::remove_file(copy.path().join(path.file_name().unwrap())).unwrap());
    assert!(is_damage(&Journal::open(config(copy.path())).unwrap_err()));
}

#[test]
fn a_cut_or_foreign_segment_stops_the_node() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for dir in [&dir, &other] {
        let journal = open(dir.path());
        append_each(&journal, 1, 1..=60, 1000);
        journal.close();
    }
    let second = segment_files(dir.path())[1].file_name().unwrap().to_owned();
    for len in [0, 10, 64, 5000, 16_000] {
        let copy = copy_of(dir.path());
        OpenOptions::new()
            .write(true)
            .open(copy.path().join(&second))
            .unwrap()
            .set_len(len)
            .unwrap();
        let error = Journal::open(config(copy.path())).unwrap_err();
        assert!(is_damage(&error), "cut to {len}: {error}");
    }
    let copy = copy_of(dir.path());
    fs::copy(other.path().join(&second), copy.path().join(&second)).unwrap();
    let error = Journal::open(config(copy.path())).unwrap_err();
    assert!(error.to_string().contains("another journal"), "{error}");
}

/// Files go round for a long time; after each step a crash image is read, and holds just what was answered.
#[test]
fn what_a_recycled_file_held_never_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path());
    journal.reset_live(std::iter::empty());
    journal.set_live_horizon(u64::MAX);
    let mut last = 0;
    for round in 1..=60u64 {
        // All records have one length, so that old ones lie exactly where new ones would.
        append_each(&journal, round, last + 1..=last + 7, 1000);
        last += 7;
        let purged = last - 3;
        wait(|done| journal.purge(purged, round, done)).unwrap();
        until("dead segments go", || journal.stats().segments <= 2);
        if round % 4 == 0 {
            let image = crash_copy(dir.path());
            let seen = open(image.path());
            assert_eq!(seen.log_state().last, Some((round, last)));
            assert_eq!(seen.log_state().purged, Some((round, purged)));
            assert_eq!(
                read_all(&seen, purged + 1),
                (purged + 1..=last).map(|i| record(round, i, 1000)).collect::<Vec<_>>()
            );
        }
    }
    assert!(journal.stats().bytes_on_disk < 9 * (16 << 10));
}
