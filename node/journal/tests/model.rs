//! Random operations against a model that is nothing but maps, with restarts and crashes in between.
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeMap;

use bytes::Bytes;
use common::*;
use ferrymq_journal::{Journal, LogState, Place, Record};
use proptest::prelude::*;

#[derive(Debug, Clone)]
enum Step {
    Append {
        count: u64,
        len: usize,
        wait: bool,
    },
    /// Drops at most so many entries that are not applied.
    Truncate(u64),
    /// Applies what is there; every `every`-th entry brings two messages with three references.
    Apply {
        every: u64,
    },
    /// Forgets one reference.
    Acknowledge(usize),
    /// Purges up to so many entries before the last applied one.
    Purge(u64),
    Cell {
        key: u8,
        value: u8,
        sync: bool,
    },
    CopySparse,
    CopySome(usize),
    Install {
        count: u64,
        finish: bool,
    },
    Reopen,
    Crash,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (1..4u64, prop_oneof![3 => 200..1500usize, 1 => 1..20usize, 1 => 4000..9000usize], any::<bool>())
            .prop_map(|(count, len, wait)| Step::Append { count, len, wait }),
        2 => (1..5u64).prop_map(Step::Truncate),
        5 => (1..6u64).prop_map(|every| Step::Apply { every }),
        6 => any::<usize>().prop_map(Step::Acknowledge),
        3 => (0..4u64).prop_map(Step::Purge),
        2 => (0..3u8, any::<u8>(), any::<bool>()).prop_map(|(key, value, sync)| Step::Cell { key, value, sync }),
        2 => Just(Step::CopySparse),
        1 => any::<usize>().prop_map(Step::CopySome),
        1 => (0..40u64, any::<bool>()).prop_map(|(count, finish)| Step::Install { count, finish }),
        1 => Just(Step::Reopen),
        2 => Just(Step::Crash),
    ]
}

struct Model {
    dir: tempfile::TempDir,
    journal: Option<Journal>,
    term: u64,
    log: LogState,
    records: BTreeMap<u64, Record>,
    applied: u64,
    /// References: place and what must be read there.
    live: Vec<(Place, Bytes)>,
    cells: BTreeMap<u8, Bytes>,
}

impl Model {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let journal = Some(open(dir.path()));
        let mut model = Self {
            dir,
            journal,
            term: 1,
            log: LogState::default(),
            records: BTreeMap::new(),
            applied: 0,
            live: Vec::new(),
            cells: BTreeMap::new(),
        };
        model.tell_live();
        model
    }

    fn journal(&self) -> &Journal {
        self.journal.as_ref().unwrap()
    }

    fn tell_live(&mut self) {
        let journal = self.journal();
        journal.reset_live(self.live.iter().map(|(place, _)| (place.index, u64::from(place.len))));
        journal.set_live_horizon(self.applied);
    }

    fn last(&self) -> u64 {
        self.log.last.map_or(0, |(_, index)| index)
    }

    /// Waits until everything queued is on disk.
    fn settle(&self) {
        let value = self.cells.get(&99).cloned().unwrap_or_default();
        wait(|done| self.journal().put_cell(99, value, true, done)).unwrap();
    }

    fn run(&mut self, step: &Step) {
        match *step {
            Step::Append { count, len, wait } => self.append(count, len, wait),
            Step::Truncate(count) => {
                let to = self
                    .last()
                    .saturating_sub(count)
                    .max(self.applied)
                    .max(self.log.purged.map_or(0, |p| p.1));
                wait(|done| self.journal().truncate_after(Some(to), done)).unwrap();
                self.records.split_off(&(to + 1));
                self.term += 1;
                self.log.last = self.records.get(&to).map(|r| (r.term, to)).or(self.log.purged);
            }
            Step::Apply { every } => self.apply(every),
            Step::Acknowledge(nth) => {
                if !self.live.is_empty() {
                    let (place, _) = self.live.swap_remove(nth % self.live.len());
                    self.journal().adjust_live(place.index, -1, -i64::from(place.len));
                }
            }
            Step::Purge(before) => {
                let upto = self.applied.saturating_sub(before);
                if let Some(record) = self.records.get(&upto).cloned() {
                    self.journal().purge(upto, record.term, Box::new(|r| r.unwrap()));
                    self.log.purged = Some((record.term, upto));
                    self.records = self.records.split_off(&(upto + 1));
                }
            }
            Step::Cell { key, value, sync } => {
                let value = Bytes::from(vec![value; 50]);
                self.journal()
                    .put_cell(key, value.clone(), sync, Box::new(|r| r.unwrap()));
                self.cells.insert(key, value);
            }
            Step::CopySparse => {
                let sparse = self.journal().sparse_segments();
                let indexes: Vec<u64> = sparse.into_iter().flat_map(|s| s.indexes).collect();
                let places = self
                    .live
                    .iter()
                    .map(|(p, _)| *p)
                    .filter(|p| indexes.contains(&p.index))
                    .collect();
                wait(|done| self.journal().copy_forward(places, done)).unwrap();
            }
            Step::CopySome(modulus) => {
                let some = self
                    .live
                    .iter()
                    .enumerate()
                    .filter(|(nth, _)| modulus >> (nth % 60) & 1 == 1);
                let places = some.map(|(_, (place, _))| *place).collect();
                wait(|done| self.journal().copy_forward(places, done)).unwrap();
            }
            Step::Install { count, finish } => self.install(count, finish),
            Step::Reopen => {
                self.journal.take().unwrap().close();
                self.journal = Some(open(self.dir.path()));
                self.tell_live();
            }
            Step::Crash => {
                self.settle();
                let copy = crash_copy(self.dir.path());
                self.journal = None;
                self.journal = Some(open(copy.path()));
                self.dir = copy;
                self.tell_live();
            }
        }
    }

    fn append(&mut self, count: u64, len: usize, wait_for_it: bool) {
        let first = self.last() + 1;
        let records: Vec<Record> = (first..first + count).map(|i| record(self.term, i, len)).collect();
        for record in &records {
            self.records.insert(record.index, record.clone());
            self.log.last = Some((record.term, record.index));
        }
        if wait_for_it {
            wait(|done| self.journal().append(records, done)).unwrap();
        } else {
            self.journal().append(records, Box::new(|r| r.unwrap()));
        }
    }

    fn apply(&mut self, every: u64) {
        let upto = self.last();
        for index in self.applied + 1..=upto {
            let Some(record) = self.records.get(&index) else {
                continue;
            };
            if index % every == 0 {
                // Two places, the second one referenced twice.
                let half = record.payload.len() / 2;
                let rest = record.payload.len() - half;
                let first = (place(index, 0, half as u32), record.payload.slice(..half));
                let second = (place(index, half as u32, rest as u32), record.payload.slice(half..));
                self.journal().adjust_live(index, 3, (half + 2 * rest) as i64);
                self.live.extend([first, second.clone(), second]);
            }
        }
        self.applied = self.applied.max(upto);
        self.journal().set_live_horizon(self.applied);
    }

    fn install(&mut self, count: u64, finish: bool) {
        let first = self.last() + 1;
        let mut install = self.journal().begin_install();
        let mut live = Vec::new();
        for index in first..first + count {
            for offset in [0, 2000] {
                let bytes = payload(index, u64::from(offset), 300);
                let place = place(index, offset, 300);
                install.put(place, &bytes).unwrap();
                live.push((place, bytes));
            }
        }
        if finish {
            let last = (self.term, first + count);
            install.finish(last.0, last.1).unwrap();
            self.log = LogState {
                purged: Some(last),
                last: Some(last),
            };
            self.records.clear();
            self.applied = last.1;
            self.live = live;
            self.tell_live();
        }
    }

    fn check(&self) {
        let journal = self.journal();
        assert_eq!(journal.log_state(), self.log);
        let from = self.log.purged.map_or(1, |(_, index)| index + 1);
        assert_eq!(
            read_all(journal, from),
            self.records.values().cloned().collect::<Vec<_>>()
        );
        for (place, bytes) in &self.live {
            assert_eq!(journal.read_place(*place).unwrap(), bytes, "{place:?}");
        }
        for (key, value) in &self.cells {
            assert_eq!(journal.cell(*key).as_ref(), Some(value));
        }
        assert_eq!(journal.failed(), None);
        assert!(journal.stats().live_bytes <= self.live.iter().map(|(place, _)| u64::from(place.len)).sum());
    }

    /// When nothing lives and all is purged, nothing stays.
    fn drain(&mut self) {
        self.apply(u64::MAX);
        for (place, _) in std::mem::take(&mut self.live) {
            self.journal().adjust_live(place.index, -1, -i64::from(place.len));
        }
        if let Some((term, index)) = self.log.last {
            wait(|done| self.journal().purge(index, term, done)).unwrap();
        }
        self.settle();
        until("everything dead goes", || self.journal().stats().segments == 1);
        assert_eq!(self.journal().stats().live_bytes, 0);
    }
}

proptest! {
    // PROPTEST_CASES asks for more.
    #![proptest_config(ProptestConfig {
        cases: std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(32),
        max_shrink_iters: 400,
        ..ProptestConfig::default()
    })]

    #[test]
    fn the_journal_is_its_model(steps in proptest::collection::vec(step(), 1..120)) {
        let mut model = Model::new();
        for step in &steps {
            model.run(step);
            model.check();
        }
        model.drain();
    }
}
