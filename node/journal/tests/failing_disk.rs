//! A disk that fails at `fdatasync`, and one that loses power: a file system of its own on a loop device. Needs root
//! and python3; says so when it cannot.
#![allow(clippy::unwrap_used)]

mod common;

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::Command,
};

use bytes::Bytes;
use common::*;
use ferrymq_journal::{Config, Error, Journal};
use ferrymq_tests::skip::skipped;

/// ext4 on a loop device over a sparse file in a tmpfs. What does not fit in the tmpfs fails when it is synced.
struct LoopDisk {
    backing: tempfile::TempDir,
    mount: tempfile::TempDir,
    device: String,
}

fn run(program: &str, arguments: &[&str]) -> Result<String, String> {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .map_err(|error| format!("{program}: {error}"))?;
    if !output.status.success() {
        return Err(format!("{program}: {}", String::from_utf8_lossy(&output.stderr).trim()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

impl LoopDisk {
    fn new(backing_mib: u64, size_mib: u64, features: &str) -> Result<Self, String> {
        let (backing, mount) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let size = format!("size={backing_mib}m");
        run("mount", &["-t", "tmpfs", "-o", &size, "tmpfs", text(backing.path())])?;
        let mut disk = Self {
            backing,
            mount,
            device: String::new(),
        };
        let image = disk.backing.path().join("image");
        File::create(&image).unwrap().set_len(size_mib << 20).unwrap();
        run(
            "mkfs.ext4",
            &[
                "-q",
                "-m",
                "0",
                "-E",
                "lazy_itable_init=0,nodiscard",
                "-O",
                features,
                text(&image),
            ],
        )?;
        disk.device = run("losetup", &["-f", "--show", text(&image)])?;
        disk.mount()?;
        Ok(disk)
    }

    /// From now on everything fits.
    fn grow(&self, backing_mib: u64) {
        let size = format!("remount,size={backing_mib}m");
        run("mount", &["-o", &size, text(self.backing.path())]).unwrap();
    }

    fn mount(&self) -> Result<String, String> {
        run(
            "mount",
            &["-o", "errors=continue", &self.device, text(self.mount.path())],
        )
    }

    /// What was not synced is gone.
    fn cut_power(&self) -> Result<String, String> {
        let shutdown = "import fcntl,os,struct,sys; \
             fcntl.ioctl(os.open(sys.argv[1],0),0x8004587d,struct.pack('I',2))";
        run("python3", &["-c", shutdown, text(self.mount.path())])
    }

    fn power_up(&self) {
        run("umount", &[text(self.mount.path())]).unwrap();
        self.mount().unwrap();
    }

    fn dir(&self) -> PathBuf {
        self.mount.path().join("journal")
    }
}

impl Drop for LoopDisk {
    fn drop(&mut self) {
        // What was not made cannot be taken down.
        let _ = run("umount", &["-l", text(self.mount.path())]);
        let _ = run("losetup", &["-d", &self.device]);
        let _ = run("umount", &["-l", text(self.backing.path())]);
    }
}

#[test]
fn a_failed_sync_is_final() {
    // With a log of its own ext4 would end all writing by itself.
    let disk = match LoopDisk::new(32, 128, "^has_journal") {
        Ok(disk) => disk,
        Err(why) => return skipped("a_failed_sync_is_final", &why),
    };
    let config = Config {
        segment_bytes: 1 << 20,
        cache_bytes_max: 1 << 20,
        ..Config::new(disk.dir())
    };
    let journal = Journal::open(config).unwrap();
    let mut last = 0;
    let error = loop {
        match wait(|done| journal.append(vec![record(1, last + 1, 200_000)], done)) {
            Ok(()) => last += 1,
            Err(error) => break error,
        }
        assert!(last < 600, "the disk must fail");
    };
    assert!(matches!(error, Error::Failed { .. }), "{error}");
    let reason = journal.failed().unwrap();
    assert!(reason.contains(".seg: cannot sync: "), "{reason}");
    // The disk is well again, and a second try would say so, although the pages that it could not take are lost.
    disk.grow(400);
    let syncs = journal.stats().syncs;
    for index in last + 2..last + 5 {
        let after = wait(|done| journal.append(vec![record(1, index, 10)], done));
        assert!(matches!(after, Err(Error::Failed { .. })), "{after:?}");
    }
    let vote = wait(|done| journal.put_cell(1, Bytes::from_static(b"vote"), true, done));
    assert!(matches!(vote, Err(Error::Failed { .. })), "{vote:?}");
    assert_eq!(journal.stats().syncs, syncs, "a failed sync was tried again");
    assert_eq!(journal.queued_bytes(), 0);
    journal.close();
}

#[test]
fn what_was_answered_survives_a_power_cut() {
    let disk = match LoopDisk::new(200, 128, "has_journal") {
        Ok(disk) => disk,
        Err(why) => return skipped("what_was_answered_survives_a_power_cut", &why),
    };
    let config = Config {
        segment_bytes: 256 << 10,
        cache_bytes_max: 64 << 10,
        ..Config::new(disk.dir())
    };
    let mut last = 0;
    for round in 1..=6u64 {
        let journal = Journal::open(config.clone()).unwrap();
        let on_disk = journal.log_state().last.map_or(0, |(_, index)| index);
        assert!(
            on_disk >= last,
            "round {round}: {last} was answered, {on_disk} is there"
        );
        let purged = journal.log_state().purged.map_or(0, |(_, index)| index);
        let records = read_all(&journal, purged + 1);
        assert_eq!(records.len() as u64, on_disk - purged);
        for found in records {
            assert_eq!(found, record(found.term, found.index, 3000));
        }
        if round > 1 {
            assert_eq!(
                journal.cell(1).unwrap(),
                Bytes::from((round - 1).to_le_bytes().to_vec())
            );
        }
        last = on_disk;
        journal.reset_live(std::iter::empty());
        journal.set_live_horizon(u64::MAX);
        append_each(&journal, round, last + 1..=last + 200, 3000);
        last += 200;
        if last > 300 {
            // Files are recycled between the cuts.
            let upto = last - 300;
            let term = journal.read_log(upto, upto + 1, 1).unwrap()[0].term;
            wait(|done| journal.purge(upto, term, done)).unwrap();
        }
        wait(|done| journal.put_cell(1, round.to_le_bytes().to_vec().into(), true, done)).unwrap();
        journal.append(
            (last + 1..=last + 50).map(|i| record(round, i, 3000)).collect(),
            Box::new(|_| {}),
        );
        if let Err(why) = disk.cut_power() {
            return skipped("what_was_answered_survives_a_power_cut", &why);
        }
        journal.close();
        disk.power_up();
    }
}
