//! A journal's files with anything changed in them: what is read back was written, or damage is reported (P9).

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::mpsc,
    time::Duration,
};

use bytes::Bytes;
use ferrymq_fuzz::{Rng, Target};
use ferrymq_journal::{Config, Done, Error, Journal, Place, Record, check};

fn config(dir: &Path) -> Config {
    Config {
        segment_bytes: 16 << 10,
        cache_bytes_max: 8 << 10,
        // Nothing is at stake here, and it is quicker.
        sync: false,
        ..Config::new(dir)
    }
}

fn wait(submit: impl FnOnce(Done)) -> Result<(), Error> {
    let (told, outcome) = mpsc::channel();
    // The receiver waits for it.
    submit(Box::new(move |result| drop(told.send(result))));
    outcome.recv_timeout(Duration::from_secs(60)).expect("an answer")
}

fn payload(index: u64) -> Bytes {
    let mut rng = Rng::new(index);
    (0..200 + index % 700)
        .map(|_| rng.next_u64() as u8)
        .collect::<Vec<_>>()
        .into()
}

/// The files of a journal with entries, cells, a cut, a purge and copies, by name.
fn files() -> BTreeMap<String, Vec<u8>> {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(config(dir.path())).unwrap();
    for index in 1..=80u64 {
        let term = 1 + index / 50;
        let record = Record {
            term,
            index,
            payload: payload(index),
        };
        wait(|done| journal.append(vec![record], done)).unwrap();
        if index % 20 == 0 {
            wait(|done| journal.put_cell(1, payload(index).slice(..17), true, done)).unwrap();
        }
    }
    journal.reset_live((1..=80u64).map(|index| (index, 100)));
    let place = |index| Place {
        index,
        offset: 10,
        len: 50,
    };
    wait(|done| journal.copy_forward(vec![place(3), place(5)], done)).unwrap();
    wait(|done| journal.purge(30, 1, done)).unwrap();
    journal.close();
    let entries = fs::read_dir(dir.path()).unwrap().flatten().map(|entry| entry.path());
    let named = |path: PathBuf| (path.file_name().unwrap().to_str().unwrap().to_owned(), path);
    entries
        .map(named)
        .map(|(name, path)| (name, fs::read(path).unwrap()))
        .collect()
}

#[test]
fn fuzz_journal_files() {
    let files = files();
    let names: Vec<&String> = files.keys().collect();
    assert!(
        names.iter().filter(|name| name.ends_with(".seg")).count() >= 3,
        "{names:?}"
    );
    // The first byte chooses the file that the rest takes the place of.
    let seeds = names.iter().enumerate().map(|(at, name)| {
        let used = files[*name].iter().rposition(|byte| *byte != 0).map_or(0, |at| at + 1);
        [&[at as u8], &files[*name][..used]].concat()
    });
    Target::new("journal-files")
        .seeds(seeds)
        .rounds(250)
        .bytes_max(20 << 10)
        // Every segment is read whole, whichever was changed.
        .allocates(300, 64 << 20)
        .takes(100_000, 3_000)
        .run(|input| {
            let Some((which, bytes)) = input.split_first() else {
                return "nothing".into();
            };
            let changed = names[usize::from(*which) % names.len()];
            let dir = tempfile::tempdir().unwrap();
            for (name, good) in &files {
                let mut bytes = if name == changed { bytes } else { good }.to_vec();
                // Segments have a fixed size; a shorter one is tried once in a while.
                if name.ends_with(".seg") && bytes.len() % 16 != 7 {
                    bytes.resize(good.len(), 0);
                }
                fs::write(dir.path().join(name), bytes).unwrap();
            }
            let checked = check(dir.path(), |_| {});
            let outcome = read_all(dir.path());
            if let (Ok(report), Err(error)) = (&checked, &outcome) {
                assert!(
                    !report.problems.is_empty(),
                    "the check finds nothing, and opening ends with: {error}"
                );
            }
            match outcome {
                Ok(()) => format!("{:?} problems", checked.map(|report| report.problems.len()).ok()),
                Err(error) => format!("{error:?}").chars().take(12).collect(),
            }
        });
}

/// Opens and reads what there is. What comes is what was written.
fn read_all(dir: &Path) -> Result<(), Error> {
    let journal = Journal::open(config(dir))?;
    let state = journal.log_state();
    let (mut from, last) = (
        state.purged.map_or(1, |(_, index)| index + 1),
        state.last.map_or(0, |(_, index)| index),
    );
    assert!(last <= 80, "an entry that was never written: {last}");
    while from <= last {
        let records = match journal.read_log(from, last + 1, 1 << 20) {
            Ok(records) => records,
            Err(error) => {
                journal.close();
                return Err(error);
            }
        };
        assert!(
            !records.is_empty(),
            "the log ends at {from}, and not at {last} as it says"
        );
        for record in &records {
            assert_eq!(record.index, from);
            assert!(record.payload == payload(from), "entry {from} is not what was written");
            from += 1;
        }
    }
    if let Some(cell) = journal.cell(1) {
        assert!(
            [20, 40, 60, 80].iter().any(|index| cell == payload(*index)[..17]),
            "a cell holds what was never written"
        );
    }
    journal.close();
    Ok(())
}
