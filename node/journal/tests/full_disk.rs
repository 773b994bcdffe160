//! A full disk: nothing is lost, votes can still be written, and appends resume when there is room. Needs to mount a
//! small tmpfs, hence root; says so when it cannot.
#![allow(clippy::unwrap_used)]

mod common;

use std::{path::Path, process::Command};

use bytes::Bytes;
use common::*;
use ferrymq_journal::{Config, Error, Journal};
use ferrymq_tests::skip::skipped;

/// A tmpfs of its own, gone with the value.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount(bytes: u64) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let options = format!("size={bytes}");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &options, "tmpfs"])
            .arg(dir.path())
            .status();
        mounted.is_ok_and(|status| status.success()).then_some(Self(dir))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0.path()).status();
    }
}

const SEGMENT: u64 = 64 << 10;

#[test]
fn a_full_disk_refuses_entries_keeps_votes_and_recovers() {
    let Some(disk) = SmallDisk::mount(10 * SEGMENT) else {
        return skipped(
            "a_full_disk_refuses_entries_keeps_votes_and_recovers",
            "cannot mount a tmpfs here (not root?)",
        );
    };
    let config = Config {
        segment_bytes: SEGMENT,
        cache_bytes_max: 8 << 10,
        ..Config::new(disk.path().join("journal"))
    };
    let journal = Journal::open(config.clone()).unwrap();
    journal.reset_live(std::iter::empty());
    journal.set_live_horizon(u64::MAX);
    assert!(journal.has_room(1000));
    let mut last = 0;
    let full = loop {
        match wait(|done| journal.append(vec![record(1, last + 1, 10_000)], done)) {
            Ok(()) => last += 1,
            Err(error) => break error,
        }
        assert!(last < 100, "the disk must become full");
    };
    assert!(matches!(full, Error::Full { .. }), "{full}");
    until("the journal knows", || !journal.has_room(0));
    assert_eq!(journal.failed(), None);
    assert_eq!(journal.log_state().last, Some((1, last)));
    assert_eq!(
        read_all(&journal, 1),
        (1..=last).map(|i| record(1, i, 10_000)).collect::<Vec<_>>()
    );

    // Several in the queue: all fail, and the log is as before.
    let refused = wait(|done| {
        journal.append(vec![record(1, last + 1, 10_000)], Box::new(|_| {}));
        journal.append(vec![record(1, last + 2, 10_000)], done);
    });
    assert!(refused.is_err(), "{refused:?}");
    assert_eq!(journal.log_state().last, Some((1, last)));

    // More votes than fit in what is left of the segment being written.
    for vote in 0..200u64 {
        let value = Bytes::from(vote.to_le_bytes().repeat(16));
        wait(|done| journal.put_cell(1, value, true, done)).unwrap();
    }
    journal.close();
    // The reserve is used up, and still the node starts and can vote.
    for vote in 200..205u64 {
        let journal = Journal::open(config.clone()).unwrap();
        assert_eq!(
            journal.cell(1).unwrap(),
            Bytes::from((vote - 1).to_le_bytes().repeat(16))
        );
        wait(|done| journal.put_cell(1, Bytes::from(vote.to_le_bytes().repeat(16)), true, done)).unwrap();
        journal.close();
    }
    let journal = Journal::open(config).unwrap();
    assert_eq!(read_all(&journal, 1).len() as u64, last);

    journal.reset_live(std::iter::empty());
    journal.set_live_horizon(u64::MAX);
    wait(|done| journal.purge(last - 2, 1, done)).unwrap();
    until("room again", || journal.has_room(1000));
    append_each(&journal, 2, last + 1..=last + 10, 10_000);
    assert_eq!(journal.log_state().last, Some((2, last + 10)));
    assert_eq!(journal.failed(), None);
}

/// What takes messages away must find room where a whole segment does not fit any more.
#[test]
fn where_a_whole_segment_does_not_fit_entries_go_to_a_shorter_one() {
    let Some(disk) = SmallDisk::mount(10 * SEGMENT + SEGMENT * 7 / 8) else {
        eprintln!("SKIPPED: cannot mount a tmpfs here (not root?)");
        return;
    };
    let config = Config {
        segment_bytes: SEGMENT,
        cache_bytes_max: 8 << 10,
        ..Config::new(disk.path().join("journal"))
    };
    let journal = Journal::open(config.clone()).unwrap();
    journal.reset_live(std::iter::empty());
    journal.set_live_horizon(u64::MAX);
    let mut last = 0;
    while wait(|done| journal.append(vec![record(1, last + 1, 1_000)], done)).is_ok() {
        last += 1;
        assert!(last < 1_000, "the disk must become full");
    }
    assert_eq!(journal.failed(), None);
    let left = rustix::fs::statvfs(disk.path()).unwrap();
    let left_bytes = left.f_bavail * left.f_frsize;
    assert!(left_bytes < SEGMENT / 2, "{left_bytes} bytes are left");
    assert!(left_bytes >= SEGMENT / 4, "only {left_bytes} bytes are left for votes");
    wait(|done| journal.put_cell(1, Bytes::from_static(b"vote"), true, done)).unwrap();
    journal.close();

    let journal = Journal::open(config).unwrap();
    assert_eq!(journal.log_state().last, Some((1, last)));
    assert_eq!(read_all(&journal, 1).len() as u64, last);
}
