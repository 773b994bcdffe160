//! The offline check of a journal's directory: every record of every segment, and whether all segments are there.

use std::path::{Path, PathBuf};

use crate::{
    error::Error,
    opening::lock,
    outline::Outline,
    recovery::{list, recover},
    segment::SegmentFile,
    window::scan,
};

/// What was found in one segment file.
#[derive(Debug, Clone)]
pub struct SegmentReport {
    /// The file.
    pub file: PathBuf,
    /// Valid records.
    pub records: u64,
    /// Bytes up to the end of the last valid record.
    pub bytes: u64,
    /// The segment ends with a seal. The last one of a journal has none.
    pub sealed: bool,
    /// What is wrong with it.
    pub problem: Option<Error>,
}

/// What was found in all.
#[derive(Debug, Clone, Default)]
pub struct CheckReport {
    /// Segment files.
    pub segments: u64,
    /// Valid records.
    pub records: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Everything wrong, with file, offset, reason and cure. Empty: the journal is whole.
    pub problems: Vec<Error>,
}

/// Reads everything in `dir` and changes nothing. `on_segment` is called after each segment file.
///
/// # Errors
/// [`Error::Locked`] where a process uses it, [`Error::Io`] where it cannot be read. Damage is in the report.
pub fn check(dir: &Path, mut on_segment: impl FnMut(&SegmentReport)) -> Result<CheckReport, Error> {
    let _lock = lock(dir)?;
    let mut report = CheckReport::default();
    let (tail, living) = match recover(dir, false) {
        Ok(recovered) => (
            recovered.tail.map(|tail| tail.file.id),
            Some(recovered.catalog.segments.into_keys().collect::<Vec<_>>()),
        ),
        Err(error @ Error::Damaged { .. }) => {
            report.problems.push(error);
            (None, None)
        }
        Err(error) => return Err(error),
    };
    let files = list(dir)?.segments;
    let last = files.last().map(|(id, _)| *id);
    for (id, path) in files {
        // Released or prepared: nothing in it counts.
        if living.as_ref().is_some_and(|living| !living.contains(&id)) {
            continue;
        }
        let may_be_open = if living.is_some() {
            tail == Some(id)
        } else {
            last == Some(id)
        };
        let segment = check_segment(id, path, may_be_open)?;
        report.segments += 1;
        report.records += segment.records;
        report.bytes += segment.bytes;
        on_segment(&segment);
        let known = |error: &Error| report.problems.iter().any(|p| p.to_string() == error.to_string());
        if let Some(problem) = segment.problem.filter(|problem| !known(problem)) {
            report.problems.push(problem);
        }
    }
    Ok(report)
}

fn check_segment(id: u64, path: PathBuf, may_be_open: bool) -> Result<SegmentReport, Error> {
    let mut report = SegmentReport {
        file: path,
        records: 0,
        bytes: 0,
        sealed: false,
        problem: None,
    };
    let outcome = SegmentFile::open(&report.file, id, false).and_then(|file| {
        let scan = scan(&file, |_, _, _| Ok(()))?;
        (report.records, report.bytes) = (scan.records, scan.end);
        report.sealed = scan.next.is_some();
        if !report.sealed && !may_be_open {
            return Err(Error::damaged(&report.file, scan.end, "a record is not valid"));
        }
        if report.sealed {
            let (_, seal) = file.read_record(scan.end, None)?;
            Outline::decode(seal, |_| Ok(())).map_err(|what| Error::damaged(&report.file, scan.end, what))?;
        }
        Ok(())
    });
    match outcome {
        Ok(()) => Ok(report),
        Err(problem @ Error::Damaged { .. }) => Ok(SegmentReport {
            problem: Some(problem),
            ..report
        }),
        Err(error) => Err(error),
    }
}
