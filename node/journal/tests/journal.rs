//! The log, the cells, the bodies and the removal of segments, each through a restart.
#![allow(clippy::unwrap_used)]

mod common;

use std::{collections::BTreeSet, sync::mpsc, time::Duration};

use bytes::Bytes;
use common::*;
use ferrymq_journal::{Config, Error, Journal, LogState, check};

#[test]
fn what_is_appended_is_read_at_once_and_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path());
    assert_eq!(journal.log_state(), LogState::default());
    let (told, outcome) = mpsc::channel();
    journal.append(
        (1..=5).map(|i| record(1, i, 700)).collect(),
        Box::new(move |r| told.send(r).unwrap()),
    );
    assert_eq!(
        journal.read_log(1, 9, usize::MAX).unwrap(),
        (1..=5).map(|i| record(1, i, 700)).collect::<Vec<_>>()
    );
    outcome.recv_timeout(Duration::from_secs(10)).unwrap().unwrap();
    append_each(&journal, 2, 6..=200, 300);

    let expected: Vec<_> = (1..=5)
        .map(|i| record(1, i, 700))
        .chain((6..=200).map(|i| record(2, i, 300)))
        .collect();
    assert_eq!(read_all(&journal, 1), expected);
    let slice = journal.read_place(place(3, 10, 20)).unwrap();
    assert_eq!(slice, expected[2].payload.slice(10..30));
    journal.close();

    for _ in 0..3 {
        let journal = open(dir.path());
        assert_eq!(
            journal.log_state(),
            LogState {
                purged: None,
                last: Some((2, 200))
            }
        );
        assert_eq!(read_all(&journal, 1), expected);
        assert_eq!(journal.read_place(place(3, 10, 20)).unwrap(), slice);
        journal.close();
    }
    let report = check(dir.path(), |_| {}).unwrap();
    assert!(report.problems.is_empty() && report.records >= 200, "{report:?}");
}

#[test]
fn a_read_gives_at_least_one_record_and_stops_at_the_bound() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path());
    append_each(&journal, 1, 0..60, 500);
    assert_eq!(journal.read_log(0, 60, 1).unwrap().len(), 1);
    assert_eq!(journal.read_log(0, 60, 1500).unwrap().len(), 3);
    assert_eq!(journal.read_log(50, 60, 1500).unwrap().len(), 3);
    assert_eq!(journal.read_log(60, 70, 1500).unwrap(), vec![]);
    assert_eq!(journal.read_log(58, 70, usize::MAX).unwrap().len(), 2);
}

#[test]
fn indexes_are_consecutive() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path());
    append(&journal, 1, 10..12, 5);
    let gap = wait(|done| journal.append(vec![record(1, 13, 5)], done));
    assert!(matches!(gap, Err(Error::Gap { expected: 12, got: 13 })), "{gap:?}");
    append(&journal, 1, 12..13, 5);
    assert_eq!(journal.log_state().last, Some((1, 12)));
}

#[test]
fn a_place_outside_its_record_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path());
    append(&journal, 1, 1..40, 2000);
    for index in [1, 39] {
        assert!(matches!(
            journal.read_place(place(index, 1990, 11)),
            Err(Error::Gone { .. })
        ));
        assert!(matches!(
            journal.read_place(place(index, u32::MAX, u32::MAX)),
            Err(Error::Gone { .. })
        ));
        assert_eq!(journal.read_place(place(index, 2000, 0)).unwrap().len(), 0);
    }
    assert!(matches!(journal.read_place(place(40, 0, 1)), Err(Error::Gone { .. })));
}

#[test]
fn truncate_then_append_then_restart() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path());
    append_each(&journal, 1, 1..=100, 900);
    wait(|done| journal.truncate_after(Some(40), done)).unwrap();
    assert_eq!(journal.log_state().last, Some((1, 40)));
    append_each(&journal, 3, 41..=60, 450);
    let expected: Vec<_> = (1..=40)
        .map(|i| record(1, i, 900))
        .chain((41..=60).map(|i| record(3, i, 450)))
        .collect();
    assert_eq!(read_all(&journal, 1), expected);
    assert_eq!(journal.read_place(place(41, 0, 450)).unwrap(), payload(41, 3, 450));
    journal.close();
    let journal = open(dir.path());
    assert_eq!(read_all(&journal, 1), expected);
    assert_eq!(journal.log_state().last, Some((3, 60)));
    wait(|done| journal.truncate_after(None, done)).unwrap();
    assert_eq!(journal.log_state(), LogState::default());
    journal.close();
    let journal = open(dir.path());
    assert_eq!(journal.log_state(), LogState::default());
    append(&journal, 4, 1..3, 10);
    assert_eq!(read_all(&journal, 1).len(), 2);
}

#[test]
fn what_is_not_awaited_is_ordered_all_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path());
    for round in 1..=30u64 {
        journal.append(
            (1..=8).map(|i| record(round, i, 600)).collect(),
            Box::new(|r| r.unwrap()),
        );
        if round < 30 {
            journal.truncate_after(Some(0), Box::new(|r| r.unwrap()));
        }
        assert_eq!(
            journal.read_log(1, 9, usize::MAX).unwrap().len(),
            if round < 30 { 0 } else { 8 }
        );
    }
    let expected: Vec<_> = (1..=8).map(|i| record(30, i, 600)).collect();
    assert_eq!(read_all(&journal, 1), expected);
    journal.close();
    assert_eq!(read_all(&open(dir.path()), 1), expected);
}

#[test]
fn a_purge_moves_the_watermark_and_bodies_stay_while_they_live() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path());
    journal.reset_live(std::iter::empty());
    append_each(&journal, 1, 1..=100, 1000);
    journal.adjust_live(7, 2, 400);
    journal.adjust_live(100, 1, 100);
    let before = journal.stats().segments;
    wait(|done| journal.purge(90, 1, done)).unwrap();
    assert_eq!(journal.log_state().purged, Some((1, 90)));
    assert!(matches!(
        journal.read_log(90, 95, 10),
        Err(Error::Purged { index: 90, purged: 90 })
    ));
    // Nothing is known to be applied: all stays.
    wait(|done| journal.put_cell(9, Bytes::new(), true, done)).unwrap();
    assert_eq!(journal.stats().segments, before);

    journal.set_live_horizon(100);
    until("dead segments go", || journal.stats().segments <= 3);
    assert_eq!(
        journal.read_place(place(7, 100, 200)).unwrap(),
        payload(7, 1, 1000).slice(100..300)
    );
    assert!(matches!(journal.read_place(place(50, 0, 1)), Err(Error::Gone { .. })));
    assert_eq!(read_all(&journal, 91).len(), 10);
    journal.adjust_live(7, -1, -200);
    journal.adjust_live(7, -1, -200);
    until("the last reference goes", || {
        matches!(journal.read_place(place(7, 100, 200)), Err(Error::Gone { .. }))
    });
    until("files are kept for reuse", || journal.stats().spare_segments == 4);
    let spares = journal.stats().bytes_on_disk;
    assert!(spares <= 6 * (16 << 10), "{spares} bytes on disk");
    journal.close();

    let journal = open(dir.path());
    assert_eq!(
        journal.log_state(),
        LogState {
            purged: Some((1, 90)),
            last: Some((1, 100))
        }
    );
    assert_eq!(
        read_all(&journal, 91),
        (91..=100).map(|i| record(1, i, 1000)).collect::<Vec<_>>()
    );
    assert_eq!(journal.read_place(place(100, 0, 9)).unwrap(), payload(100, 1, 9));
}

#[test]
fn a_purge_beyond_the_end_moves_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path());
    append(&journal, 1, 1..=3, 10);
    wait(|done| journal.purge(50, 4, done)).unwrap();
    assert_eq!(
        journal.log_state(),
        LogState {
            purged: Some((4, 50)),
            last: Some((4, 50))
        }
    );
    append(&journal, 4, 51..=52, 10);
    journal.close();
    let journal = open(dir.path());
    assert_eq!(
        journal.log_state(),
        LogState {
            purged: Some((4, 50)),
            last: Some((4, 52))
        }
    );
    assert_eq!(read_all(&journal, 51).len(), 2);
}

#[test]
fn cells_survive_the_removal_of_their_segment() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path());
    journal.reset_live(std::iter::empty());
    journal.set_live_horizon(1000);
    wait(|done| journal.put_cell(1, Bytes::from_static(b"vote"), true, done)).unwrap();
    wait(|done| journal.put_cell(2, Bytes::from_static(b"old"), false, done)).unwrap();
    assert_eq!(journal.cell(1).unwrap(), "vote");
    append_each(&journal, 1, 1..=100, 1000);
    wait(|done| journal.put_cell(2, Bytes::from_static(b"new"), false, done)).unwrap();
    wait(|done| journal.purge(100, 1, done)).unwrap();
    until("dead segments go", || journal.stats().segments == 1);
    let copy = crash_copy(dir.path());
    journal.close();
    for dir in [dir.path(), copy.path()] {
        let journal = open(dir);
        assert_eq!(journal.cell(1).unwrap(), "vote");
        assert_eq!(journal.cell(2).unwrap(), "new");
        assert_eq!(journal.cell(3), None);
    }
}

#[test]
fn many_appends_share_a_sync() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(Config::new(dir.path())).unwrap();
    let (told, outcome) = mpsc::channel();
    let before = journal.stats().syncs;
    for index in 1..=2000 {
        let told = told.clone();
        journal.append(
            vec![record(1, index, 100)],
            Box::new(move |r| told.send((index, r)).unwrap()),
        );
    }
    for expected in 1..=2000 {
        let (index, result) = outcome.recv_timeout(Duration::from_secs(20)).unwrap();
        result.unwrap();
        assert_eq!(index, expected);
    }
    let syncs = journal.stats().syncs - before;
    assert!((1..1000).contains(&syncs), "{syncs} syncs for 2000 appends");
    assert_eq!(journal.queued_bytes(), 0);
    assert!(journal.stats().sync_micros.total > 0);
}

#[test]
fn the_cache_is_bounded_and_an_entry_is_not_copied() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path());
    append_each(&journal, 1, 1..=100, 1000);
    assert!(journal.stats().cache_bytes <= 8 << 10);
    let newest = record(1, 101, 1000);
    let at = newest.payload.as_ptr();
    wait(|done| journal.append(vec![newest], done)).unwrap();
    assert_eq!(
        journal.read_place(place(101, 5, 10)).unwrap().as_ptr(),
        at.wrapping_add(5)
    );
    for index in 1..=101 {
        assert_eq!(
            journal.read_place(place(index, 500, 500)).unwrap(),
            payload(index, 1, 1000).slice(500..)
        );
        assert!(journal.stats().cache_bytes <= 8 << 10);
    }
    // Neighbours in a record that was read back share its memory.
    let (a, b) = (
        journal.read_place(place(50, 0, 10)).unwrap(),
        journal.read_place(place(50, 10, 10)).unwrap(),
    );
    assert_eq!(a.as_ptr().wrapping_add(10), b.as_ptr());
}

#[test]
fn a_batch_larger_than_a_segment_gets_a_larger_one() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path());
    append(&journal, 1, 1..=3, 50_000);
    append(&journal, 1, 4..=4, 200_000);
    append(&journal, 1, 5..=5, 10);
    journal.close();
    let journal = open(dir.path());
    assert_eq!(read_all(&journal, 4), vec![record(1, 4, 200_000), record(1, 5, 10)]);
    assert_eq!(
        journal.read_place(place(3, 49_990, 10)).unwrap(),
        payload(3, 1, 50_000).slice(49_990..)
    );
}

#[test]
fn stragglers_are_copied_forward_and_their_files_go() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path());
    journal.reset_live(std::iter::empty());
    append_each(&journal, 1, 1..=200, 1000);
    journal.set_live_horizon(200);
    let living: Vec<_> = [3, 40, 77, 78, 120]
        .into_iter()
        .map(|index| place(index, 100, 300))
        .collect();
    for place in &living {
        journal.adjust_live(place.index, 1, 300);
    }
    // One place with two references.
    journal.adjust_live(120, 1, 300);
    wait(|done| journal.purge(200, 1, done)).unwrap();
    let sparse = journal.sparse_segments();
    let indexes: Vec<u64> = sparse.iter().flat_map(|s| s.indexes.clone()).collect();
    assert_eq!(indexes, [3, 40, 77, 78, 120]);

    // Too few places for 120: it stays where it is.
    wait(|done| journal.copy_forward(living.clone(), done)).unwrap();
    until("the emptied segments go", || journal.stats().segments <= 3);
    assert_eq!(
        journal
            .sparse_segments()
            .iter()
            .flat_map(|s| s.indexes.clone())
            .collect::<Vec<_>>(),
        [120]
    );
    wait(|done| journal.copy_forward(vec![place(120, 100, 300); 2], done)).unwrap();
    until("the emptied segments go", || journal.stats().segments <= 2);
    let holds = |journal: &Journal| {
        for place in &living {
            assert_eq!(
                journal.read_place(*place).unwrap(),
                payload(place.index, 1, 1000).slice(100..400),
                "{place:?}"
            );
        }
    };
    holds(&journal);
    assert_eq!(
        journal.read_place(place(77, 150, 20)).unwrap(),
        payload(77, 1, 1000).slice(150..170)
    );
    assert!(matches!(journal.read_place(place(77, 99, 20)), Err(Error::Gone { .. })));
    let copy = crash_copy(dir.path());
    journal.close();
    for dir in [dir.path(), copy.path()] {
        let journal = open(dir);
        holds(&journal);
        // Copied again, into yet another segment, then forgotten.
        journal.reset_live(living.iter().map(|place| (place.index, 300)));
        journal.set_live_horizon(200);
        append_each(&journal, 1, 201..=230, 1000);
        wait(|done| journal.purge(230, 1, done)).unwrap();
        journal.set_live_horizon(230);
        wait(|done| journal.copy_forward(living.clone(), done)).unwrap();
        until("the older copies go", || journal.stats().segments == 1);
        holds(&journal);
        for place in &living {
            journal.adjust_live(place.index, -1, -300);
        }
        append_each(&journal, 1, 231..=250, 1000);
        wait(|done| journal.purge(250, 1, done)).unwrap();
        journal.set_live_horizon(250);
        until("the copies go", || {
            journal.stats().segments == 1 && journal.stats().live_bytes == 0
        });
        assert!(matches!(journal.read_place(living[0]), Err(Error::Gone { .. })));
    }
}

#[test]
fn an_install_replaces_everything_or_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path());
    append_each(&journal, 1, 1..=50, 1000);
    wait(|done| journal.put_cell(1, Bytes::from_static(b"vote"), true, done)).unwrap();
    let foreign = |i: u64| payload(i, 99, 400);
    let mut install = journal.begin_install();
    for i in 500..600 {
        install.put(place(i, 7, 400), &foreign(i)).unwrap();
    }
    let in_between = crash_copy(dir.path());
    drop(install);
    assert_eq!(read_all(&journal, 1).len(), 50);
    assert!(matches!(
        journal.read_place(place(500, 7, 400)),
        Err(Error::Gone { .. })
    ));

    let given_up = journal.begin_install();
    let mut install = journal.begin_install();
    assert!(matches!(given_up.finish(1, 1), Err(Error::InstallAbandoned)));
    for i in 500..1600 {
        install.put(place(i, 7, 400), &foreign(i)).unwrap();
        install.put(place(i, 1000, 4), b"more").unwrap();
    }
    install.finish(5, 2000).unwrap();
    let after = |journal: &Journal| {
        assert_eq!(
            journal.log_state(),
            LogState {
                purged: Some((5, 2000)),
                last: Some((5, 2000))
            }
        );
        for i in 500..1600 {
            assert_eq!(journal.read_place(place(i, 7, 400)).unwrap(), foreign(i));
            assert_eq!(journal.read_place(place(i, 1000, 4)).unwrap(), &b"more"[..]);
        }
        assert!(matches!(journal.read_place(place(20, 0, 10)), Err(Error::Gone { .. })));
        assert_eq!(journal.cell(1).unwrap(), "vote");
    };
    after(&journal);
    append_each(&journal, 5, 2001..=2050, 1000);
    let copy = crash_copy(dir.path());
    journal.close();
    for dir in [dir.path(), copy.path()] {
        let journal = open(dir);
        assert_eq!(
            read_all(&journal, 2001),
            (2001..=2050).map(|i| record(5, i, 1000)).collect::<Vec<_>>()
        );
        assert_eq!(journal.read_place(place(700, 7, 400)).unwrap(), foreign(700));
        // All but two places die; their segments go, and the rest is still there after another restart.
        journal.reset_live([(500, 400), (1599, 400), (1599, 4)].into_iter());
        journal.set_live_horizon(2050);
        wait(|done| journal.purge(2050, 5, done)).unwrap();
        until("dead segments go", || journal.stats().segments <= 4);
        journal.close();
        let journal = open(dir);
        assert_eq!(journal.read_place(place(500, 7, 400)).unwrap(), foreign(500));
        assert_eq!(journal.read_place(place(1599, 1000, 4)).unwrap(), &b"more"[..]);
        assert!(matches!(journal.read_place(place(20, 0, 10)), Err(Error::Gone { .. })));
    }
    let journal = open(in_between.path());
    assert_eq!(
        read_all(&journal, 1),
        (1..=50).map(|i| record(1, i, 1000)).collect::<Vec<_>>()
    );
    assert!(matches!(
        journal.read_place(place(500, 7, 400)),
        Err(Error::Gone { .. })
    ));
}

#[test]
fn liveness_may_be_told_before_the_entry_is_on_disk() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path());
    journal.reset_live(std::iter::empty());
    journal.adjust_live(1, 3, 30);
    journal.adjust_live(1, -1, -10);
    append_each(&journal, 1, 1..=60, 1000);
    assert_eq!(journal.stats().live_bytes, 20);
    journal.set_live_horizon(60);
    wait(|done| journal.purge(60, 1, done)).unwrap();
    until("dead segments go", || journal.stats().segments == 2);
    assert_eq!(journal.read_place(place(1, 0, 10)).unwrap(), payload(1, 1, 10));
}

#[test]
fn a_directory_has_one_user() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path());
    let second = Journal::open(config(dir.path()));
    assert!(matches!(second, Err(Error::Locked { .. })), "{second:?}");
    assert!(second.unwrap_err().to_string().contains("another process"));
    assert!(matches!(check(dir.path(), |_| {}), Err(Error::Locked { .. })));
    let other = journal.clone();
    append(&other, 1, 1..2, 10);
    journal.close();
    assert!(matches!(
        wait(|done| other.append(vec![record(1, 2, 10)], done)),
        Err(Error::Closed)
    ));
    assert_eq!(read_all(&other, 1).len(), 1);
    open(dir.path());
    let file = dir.path().join("not-a-directory");
    std::fs::write(&file, b"").unwrap();
    let error = Journal::open(config(&file)).unwrap_err();
    assert!(
        matches!(error, Error::Io { .. }) && error.to_string().contains("not-a-directory"),
        "{error}"
    );
}

#[test]
fn without_sync_nothing_waits_for_the_disk_but_a_vote() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(Config {
        sync: false,
        ..config(dir.path())
    })
    .unwrap();
    let syncs = journal.stats().syncs;
    append_each(&journal, 1, 1..=100, 1000);
    assert_eq!(journal.stats().syncs, syncs);
    wait(|done| journal.put_cell(1, Bytes::from_static(b"vote"), true, done)).unwrap();
    assert!(journal.stats().syncs > syncs);
    let copy = crash_copy(dir.path());
    journal.close();
    for dir in [dir.path(), copy.path()] {
        assert_eq!(read_all(&open(dir), 1).len(), 100);
    }
}

#[test]
fn numbers_of_segments_are_never_used_twice() {
    let dir = tempfile::tempdir().unwrap();
    let mut seen = BTreeSet::new();
    for round in 0..4u64 {
        let journal = open(dir.path());
        journal.reset_live(std::iter::empty());
        journal.set_live_horizon(u64::MAX);
        append_each(&journal, 1, round * 50..round * 50 + 50, 1000);
        let active = segment_files(dir.path()).len();
        assert!(active >= 3);
        wait(|done| journal.purge(round * 50 + 49, 1, done)).unwrap();
        until("dead segments go", || journal.stats().segments == 1);
        journal.close();
        for file in segment_files(dir.path()) {
            seen.insert(file);
        }
    }
    assert!(seen.len() >= 4);
}

/// Found by the model: the segment of the entries that a truncation dropped is gone when its record is read again.
#[test]
fn the_log_ends_where_it_was_cut_although_the_segment_that_was_cut_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path());
    append(&journal, 1, 1..=1, 800);
    journal.close();
    let journal = open(dir.path());
    append(&journal, 1, 2..=3, 7000);
    append(&journal, 1, 4..=6, 7000);
    let before = journal.stats().segments;
    wait(|done| journal.truncate_after(Some(2), done)).unwrap();
    wait(|done| journal.truncate_after(Some(1), done)).unwrap();
    until("the emptied segment goes", || journal.stats().segments < before);
    journal.close();
    let journal = open(dir.path());
    assert_eq!(journal.log_state().last, Some((1, 1)));
    assert_eq!(read_all(&journal, 1), vec![record(1, 1, 800)]);
}

#[test]
fn the_last_clone_may_go_on_the_writer_thread() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path());
    let (clone, (told, outcome)) = (journal.clone(), mpsc::channel());
    let done = move |result: Result<(), Error>| {
        until("the test's own clone is gone", || outcome.try_recv().is_ok());
        drop(clone);
        result.unwrap();
    };
    journal.append(vec![record(1, 1, 10)], Box::new(done));
    drop(journal);
    told.send(()).unwrap();
    let mut reopened = None;
    until("the directory is free again", || {
        reopened = Journal::open(config(dir.path())).ok();
        reopened.is_some()
    });
    assert_eq!(read_all(&reopened.unwrap(), 1).len(), 1);
}

/// The record that makes an install count lies in a segment of which nothing else lives; the first slices still do.
#[test]
fn what_an_install_brought_outlives_the_segments_behind_it() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path());
    let mut install = journal.begin_install();
    for i in 1..=3000 {
        install.put(place(i, 0, 1000), &payload(i, 9, 1000)).unwrap();
    }
    install.finish(2, 3000).unwrap();
    append_each(&journal, 2, 3001..=3050, 1000);
    journal.reset_live([(1, 1000)].into_iter());
    wait(|done| journal.purge(3050, 2, done)).unwrap();
    journal.set_live_horizon(3050);
    let gone = |index| matches!(journal.read_place(place(index, 0, 1000)), Err(Error::Gone { .. }));
    until("the slices in between go", || gone(1500));
    // Not 3001: it may share a segment with the record that made the install count.
    until("the entries go", || gone(3030));
    journal.close();
    for _ in 0..2 {
        let journal = open(dir.path());
        assert_eq!(journal.read_place(place(1, 0, 1000)).unwrap(), payload(1, 9, 1000));
        journal.close();
    }
}
