//! Disk space: the next segment, prepared ahead so that rolling costs no stall; dead files for reuse; one file in
//! reserve, so that a vote can be written on a full disk; and the thread that looks after them.
//!
//! A recycled file is made a segment by a new header and a new number; what it held before can no longer be read (see
//! `record.rs`). Nothing is zeroed: writing zeros in the background halves the speed of bulk writing.

use std::{
    collections::VecDeque,
    path::{Path, PathBuf},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use crate::{
    disk::{self as fs, File, allocate},
    error::Error,
    recovery::{segment_path, spare_path, unfinished_path},
    segment::SegmentFile,
};

/// Files kept for votes and other small records when the disk is full.
const RESERVED: usize = 1;
/// The shortest segment worth making, bytes.
const SEGMENT_BYTES_MIN: u64 = 4096;
/// How often the free space is looked up, and a failed preparation tried again.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Work for the room's thread that is not urgent.
pub(crate) type Job = Box<dyn FnOnce() + Send>;

/// See the file's head.
pub(crate) struct Room {
    dir: PathBuf,
    dir_file: File,
    journal: u64,
    segment_len: u64,
    spares_max: usize,
    free_bytes: AtomicU64,
    state: Mutex<RoomState>,
    wake: Condvar,
}

/// What the room's lock protects.
pub(crate) struct RoomState {
    next_id: u64,
    ready: Option<SegmentFile>,
    spares: Vec<PathBuf>,
    recycle: VecDeque<Arc<SegmentFile>>,
    jobs: VecDeque<Job>,
    closing: bool,
}

impl Room {
    /// `dir_file` is the directory `dir`, open. Numbers from `next_id` on were never used.
    pub(crate) fn new(
        dir: &Path,
        dir_file: File,
        journal: u64,
        next_id: u64,
        segment_len: u64,
        spares_max: usize,
    ) -> Self {
        let state = RoomState {
            next_id,
            ready: None,
            spares: Vec::new(),
            recycle: VecDeque::new(),
            jobs: VecDeque::new(),
            closing: false,
        };
        Self {
            dir: dir.to_owned(),
            dir_file,
            journal,
            segment_len,
            spares_max: spares_max + RESERVED,
            free_bytes: AtomicU64::new(0),
            state: Mutex::new(state),
            wake: Condvar::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, RoomState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next segment, at least `bytes` long, its header on disk and its name durable. `control`: the reserve may be
    /// used. [`Error::Full`] where there is no space.
    pub(crate) fn take_next(&self, bytes: u64, control: bool) -> Result<SegmentFile, Error> {
        let mut state = self.lock();
        let next = match state.ready.take() {
            Some(ready) => ready,
            None => self.make(&mut state, control, Some(bytes))?,
        };
        // Until the next look: whoever asks in between must not take for free what is taken.
        let taken = next.len();
        let less = |free: u64| Some(free.saturating_sub(taken));
        let _ = self.free_bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
        if next.len() < bytes {
            let grown = next.grow(bytes.next_multiple_of(4096)).and_then(|()| next.sync());
            if let Err(error) = grown {
                state.ready = Some(next);
                return Err(self.full_or(error));
            }
        }
        self.wake.notify_one();
        Ok(next)
    }

    /// Makes a spare file, or else a new one, the segment with the next number. Where it is `needed` for so many bytes and
    /// a whole one does not fit on the disk any more, a shorter one does.
    fn make(&self, state: &mut RoomState, control: bool, needed: Option<u64>) -> Result<SegmentFile, Error> {
        let spare = if state.spares.len() > RESERVED {
            state.spares.pop()
        } else {
            None
        };
        let id = state.next_id;
        let (file, from) = match spare {
            Some(spare) => self.open_spare(spare)?,
            None => {
                let from = unfinished_path(&self.dir, id);
                match self.allocate_file(&from, self.segment_len) {
                    Ok(file) => (file, from),
                    Err(Error::Full { .. }) if control => match state.spares.pop() {
                        Some(reserve) => self.open_spare(reserve)?,
                        None => (self.allocate_smaller(&from)?, from),
                    },
                    Err(full @ Error::Full { .. }) => match needed {
                        Some(bytes) if self.leaves_enough(bytes) => {
                            (self.allocate_file(&from, self.shorter(bytes))?, from)
                        }
                        _ => return Err(full),
                    },
                    Err(error) => return Err(error),
                }
            }
        };
        state.next_id += 1;
        let path = segment_path(&self.dir, id);
        let segment = SegmentFile::format(file, self.journal, id, path)?;
        fs::rename(&from, &segment.path).map_err(|e| Error::io("rename the new segment", &from, e))?;
        self.sync_dir()?;
        Ok(segment)
    }

    fn open_spare(&self, path: PathBuf) -> Result<(File, PathBuf), Error> {
        let file = File::options().read(true).write(true).open(&path);
        Ok((file.map_err(|e| Error::io("open the spare segment", &path, e))?, path))
    }

    /// Whether votes, and what the layer above writes beside the journal, find room behind a shorter segment.
    fn leaves_enough(&self, bytes: u64) -> bool {
        let free = fs::free_bytes(&self.dir_file).unwrap_or(0);
        free >= self.shorter(bytes) + self.segment_len / 4
    }

    /// The length of a segment that is made for so many bytes where a whole one does not fit.
    fn shorter(&self, bytes: u64) -> u64 {
        let eighth = (self.segment_len / 8).max(SEGMENT_BYTES_MIN);
        bytes.max(eighth).next_multiple_of(4096)
    }

    /// For a vote, a short segment will do.
    fn allocate_smaller(&self, path: &Path) -> Result<File, Error> {
        let mut len = self.segment_len;
        loop {
            len = (len / 2).next_multiple_of(4096);
            match self.allocate_file(path, len) {
                Err(Error::Full { .. }) if len > SEGMENT_BYTES_MIN => {}
                allocated => return allocated,
            }
        }
    }

    fn allocate_file(&self, path: &Path, len: u64) -> Result<File, Error> {
        let file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(path);
        let allocated = file.and_then(|file| allocate(&file, len).map(|()| file));
        allocated.map_err(|e| {
            let _ = fs::remove_file(path);
            self.full_or(Error::io("allocate a segment", path, e))
        })
    }

    fn full_or(&self, error: Error) -> Error {
        if error.is_no_space() {
            Error::Full { dir: self.dir.clone() }
        } else {
            error
        }
    }

    fn sync_dir(&self) -> Result<(), Error> {
        self.dir_file
            .sync_all()
            .map_err(|e| Error::io("sync the directory", &self.dir, e))
    }

    /// Takes back files that nothing needs; their release is on disk.
    pub(crate) fn recycle(&self, files: Vec<Arc<SegmentFile>>) {
        self.lock().recycle.extend(files);
        self.wake.notify_one();
    }

    /// Keeps the file at `path` for reuse, or removes it.
    pub(crate) fn keep_or_remove(&self, path: &Path) -> Result<(), Error> {
        let mut state = self.lock();
        let len = fs::metadata(path)
            .map_err(|e| Error::io("read the size", path, e))?
            .len();
        if len != self.segment_len || state.spares.len() >= self.spares_max {
            return fs::remove_file(path).map_err(|e| Error::io("remove", path, e));
        }
        let spare = path.with_extension("spare");
        fs::rename(path, &spare).map_err(|e| Error::io("rename", path, e))?;
        state.spares.push(spare);
        Ok(())
    }

    /// Bytes that can be written before the disk is full, as of the last look.
    pub(crate) fn free_bytes(&self) -> u64 {
        self.free_bytes.load(Ordering::Relaxed)
    }

    /// Number and bytes of the files ready for use.
    pub(crate) fn spare(&self) -> (usize, u64) {
        let state = self.lock();
        let ready = state.ready.as_ref();
        let count = state.spares.len() + usize::from(ready.is_some());
        (
            count,
            state.spares.len() as u64 * self.segment_len + ready.map_or(0, SegmentFile::len),
        )
    }

    /// Runs `job` on the room's thread.
    pub(crate) fn run_later(&self, job: Job) {
        self.lock().jobs.push_back(job);
        self.wake.notify_one();
    }

    /// Ends the room's thread once its jobs are done.
    pub(crate) fn close(&self) {
        self.lock().closing = true;
        self.wake.notify_one();
    }

    /// The room's thread. `fail` stops the journal.
    pub(crate) fn look_after(&self, fail: impl Fn(String)) {
        while let Some(state) = self.turn(&fail) {
            drop(self.wake.wait_timeout(state, LOOK_EVERY));
        }
    }

    /// Does what there is to do, jobs first; `None` where the room is closed. A sync that failed stops the journal: what
    /// the disk holds is not known then, and a segment that was half made would be in the way at the next start.
    pub(crate) fn turn(&self, fail: impl Fn(String)) -> Option<MutexGuard<'_, RoomState>> {
        let mut state = self.lock();
        loop {
            if let Some(job) = state.jobs.pop_front() {
                drop(state);
                job();
                state = self.lock();
                continue;
            }
            if state.closing {
                return None;
            }
            let Some(file) = state.recycle.pop_front() else { break };
            drop(state);
            if let Err(error) = self.keep_or_remove(&file.path) {
                tracing::warn!(%error, "a dead segment stays; the next start removes it");
            }
            state = self.lock();
        }
        match self.prepare(&mut state) {
            Err(error) if error.is_failed_sync() => fail(error.to_string()),
            Err(error) => tracing::warn!(%error, "no segment can be prepared; trying again"),
            Ok(()) => {}
        }
        self.look(&state);
        Some(state)
    }

    /// Sees to it that the next segment and the reserve are there.
    pub(crate) fn prepare_now(&self) -> Result<(), Error> {
        let mut state = self.lock();
        let prepared = self.prepare(&mut state);
        self.look(&state);
        prepared
    }

    fn prepare(&self, state: &mut RoomState) -> Result<(), Error> {
        if state.spares.len() < RESERVED {
            let id = state.next_id;
            let from = unfinished_path(&self.dir, id);
            let file = self.allocate_file(&from, self.segment_len)?;
            file.sync_all().map_err(|e| Error::io("sync the reserve", &from, e))?;
            state.next_id += 1;
            let path = spare_path(&self.dir, id);
            fs::rename(&from, &path).map_err(|e| Error::io("rename the reserve", &from, e))?;
            self.sync_dir()?;
            state.spares.push(path);
        }
        if state.ready.is_none() {
            state.ready = Some(self.make(state, false, None)?);
        }
        Ok(())
    }

    fn look(&self, state: &RoomState) {
        let own = state.spares.len().saturating_sub(RESERVED) as u64 * self.segment_len
            + state.ready.as_ref().map_or(0, SegmentFile::len);
        match fs::free_bytes(&self.dir_file) {
            Ok(free) => self.free_bytes.store(free + own, Ordering::Relaxed),
            Err(error) => tracing::warn!(%error, "the free space cannot be looked up"),
        }
    }
}
