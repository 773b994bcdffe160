//! Reads a journal's directory at start, changing nothing: which segments live, what they hold, and where the records
//! end. Decides between a torn tail, which is cut, and damage, which stops the node (promise P9).
//!
//! A hole is an offset where a record should begin and none is valid. Everything behind it is given up as the torn
//! tail, unless something later proves that the hole had been synced: a header of the same segment or of a later one.
//! Which segments must be there is told by the heads (a list), the seals (the next one) and the releases.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::{
    catalog::Catalog,
    disk as fs,
    error::Error,
    event::Event,
    outline::Outline,
    segment::{SegmentFile, read_file_header},
    window::{Scan, proves, proves_earlier, scan},
};

/// What the directory holds.
#[derive(Debug, Default)]
pub(crate) struct Recovered {
    pub(crate) catalog: Catalog,
    /// The journal's random number; `None` where the directory is empty.
    pub(crate) journal: Option<u64>,
    pub(crate) tail: Option<TornTail>,
    /// Up to where the newest head says that all was synced.
    pub(crate) synced: (u64, u64),
    /// Segment files that nothing needs.
    pub(crate) leftovers: Vec<PathBuf>,
    pub(crate) spares: Vec<PathBuf>,
    /// Half-made files.
    pub(crate) unfinished: Vec<PathBuf>,
    /// The greatest number that any file has or had.
    pub(crate) id_max: u64,
}

/// The last segment: without a seal, perhaps torn.
#[derive(Debug)]
pub(crate) struct TornTail {
    pub(crate) file: Arc<SegmentFile>,
    pub(crate) scan: Scan,
    pub(crate) outline: Outline,
}

/// Reads the journal in `dir`.
pub(crate) fn recover(dir: &Path, write: bool) -> Result<Recovered, Error> {
    let mut files = list(dir)?;
    let mut replay = Replay::default();
    let segments = std::mem::take(&mut files.segments);
    for (nth, (id, path)) in segments.iter().enumerate() {
        let file = match SegmentFile::open(path, *id, write) {
            Ok(file) => Arc::new(file),
            Err(error @ Error::Damaged { .. }) => {
                replay.problems.insert(*id, error);
                continue;
            }
            Err(error) => return Err(error),
        };
        if *replay.journal.get_or_insert(file.journal) != file.journal {
            replay
                .problems
                .insert(*id, Error::damaged(path, 16, "the segment belongs to another journal"));
            continue;
        }
        if replay.load(file, &segments[nth + 1..])? {
            break;
        }
    }
    replay.verdict(dir, segments.first().map(|(id, _)| *id), files.id_max)?;
    let mut catalog = replay.catalog;
    catalog.drop_pending();
    let leftovers = segments
        .into_iter()
        .filter(|(id, _)| !catalog.segments.contains_key(id))
        .map(|(_, p)| p)
        .collect();
    Ok(Recovered {
        catalog,
        journal: replay.journal,
        tail: replay.tail,
        synced: replay.synced,
        leftovers,
        spares: files.spares,
        unfinished: files.unfinished,
        id_max: files.id_max,
    })
}

/// The segments read so far.
#[derive(Debug, Default)]
struct Replay {
    catalog: Catalog,
    journal: Option<u64>,
    synced: (u64, u64),
    /// Segments that must be there, by what was read so far.
    expected: BTreeSet<u64>,
    /// What is wrong with a segment, if it is still needed.
    problems: BTreeMap<u64, Error>,
    tail: Option<TornTail>,
}

impl Replay {
    /// Takes in one segment; true where the journal ends with it.
    fn load(&mut self, file: Arc<SegmentFile>, later: &[(u64, PathBuf)]) -> Result<bool, Error> {
        let id = file.id;
        self.catalog.add_segment(file.clone());
        if let Some((at, payload)) = file.read_seal()? {
            match Outline::decode(payload, |event| self.apply(id, &event)) {
                Ok(next) => _ = self.expected.insert(next),
                Err(what) => _ = self.problems.insert(id, Error::damaged(&file.path, at, what)),
            }
            return Ok(false);
        }
        let mut outline = Outline::default();
        let scanned = scan(&file, |header, at, payload| {
            if let Some(event) = Event::of_record(header, at, payload)? {
                outline.push(&event);
                self.apply(id, &event)?;
            }
            Ok(())
        });
        let scan = match scanned {
            Ok(Scan { next: Some(next), .. }) => {
                self.expected.insert(next);
                return Ok(false);
            }
            Ok(scan) => scan,
            Err(error @ Error::Damaged { .. }) => {
                self.problems.insert(id, error);
                return Ok(false);
            }
            Err(error) => return Err(error),
        };
        if self.hole_was_synced(&file, scan.end, later)? {
            let what = "a record is not valid, though it had been on disk when later ones were written";
            self.problems.insert(id, Error::damaged(&file.path, scan.end, what));
            return Ok(false);
        }
        self.tail = Some(TornTail { file, scan, outline });
        Ok(true)
    }

    fn apply(&mut self, id: u64, event: &Event) -> Result<(), &'static str> {
        match event {
            Event::Head(head) => {
                self.expected = head.segments.iter().map(|(id, _, _)| *id).chain([id]).collect();
                self.synced = head.synced;
            }
            Event::Release { segments } => segments.iter().for_each(|id| _ = self.expected.remove(id)),
            _ => {}
        }
        self.catalog.apply(id, event)
    }

    fn hole_was_synced(&self, file: &SegmentFile, hole: u64, later: &[(u64, PathBuf)]) -> Result<bool, Error> {
        if proves(file, hole, hole)? {
            return Ok(true);
        }
        for (id, path) in later {
            match SegmentFile::open(path, *id, false) {
                Ok(after) if after.journal == file.journal && proves_earlier(&after, file.id, hole)? => {
                    return Ok(true);
                }
                Ok(_) | Err(Error::Damaged { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(false)
    }

    /// Whether everything that must be there is there and whole.
    fn verdict(&mut self, dir: &Path, first: Option<u64>, id_max: u64) -> Result<(), Error> {
        for id in &self.expected {
            if let Some(error) = self.problems.remove(id) {
                return Err(error);
            }
            if !self.catalog.segments.contains_key(id) {
                return Err(Error::damaged(&segment_path(dir, *id), 0, "the file is missing"));
            }
        }
        // No head was read: only right for a journal whose first start was cut short.
        if self.expected.is_empty() {
            if let Some((_, error)) = self.problems.pop_first() {
                return Err(error);
            }
            if id_max > 0 && first != Some(FIRST_ID) {
                return Err(Error::damaged(&segment_path(dir, FIRST_ID), 0, "the file is missing"));
            }
        }
        Ok(())
    }
}

/// Number of a journal's first segment.
pub(crate) const FIRST_ID: u64 = 1;

pub(crate) fn segment_path(dir: &Path, id: u64) -> PathBuf {
    dir.join(format!("{id:016x}.seg"))
}

pub(crate) fn spare_path(dir: &Path, id: u64) -> PathBuf {
    dir.join(format!("{id:016x}.spare"))
}

/// A segment file under way to its name.
pub(crate) fn unfinished_path(dir: &Path, id: u64) -> PathBuf {
    dir.join(format!("{id:016x}.new"))
}

/// The journal's files, by what their names say.
#[derive(Debug, Default)]
pub(crate) struct Files {
    pub(crate) segments: Vec<(u64, PathBuf)>,
    spares: Vec<PathBuf>,
    unfinished: Vec<PathBuf>,
    id_max: u64,
}

/// Lists `dir`; files with other names are left alone.
pub(crate) fn list(dir: &Path) -> Result<Files, Error> {
    let mut files = Files::default();
    for entry in fs::read_dir(dir).map_err(|e| Error::io("list", dir, e))? {
        let path = entry.map_err(|e| Error::io("list", dir, e))?.path();
        let stem = path
            .file_stem()
            .and_then(|stem| stem.to_str())
            .filter(|stem| stem.len() == 16);
        let Some(id) = stem.and_then(|stem| u64::from_str_radix(stem, 16).ok()) else {
            continue;
        };
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("seg") => files.segments.push((id, path)),
            Some("spare") => {
                // It may have been given a number that it did not live to carry as a name.
                let file = fs::File::open(&path).map_err(|e| Error::io("open", &path, e))?;
                let number = read_file_header(&file, &path).map_or(0, |(_, number)| number);
                files.id_max = files.id_max.max(number);
                files.spares.push(path);
            }
            Some("new") => {
                files.unfinished.push(path);
                continue;
            }
            _ => continue,
        }
        files.id_max = files.id_max.max(id);
    }
    files.segments.sort_unstable();
    Ok(files)
}
