//! The writer thread: gathers what is queued, writes it with one vectored write, syncs once, answers all. While it
//! syncs, the next batch gathers.
//!
//! Invariants: a batch lies in one segment; it is written only after the batch before it was synced (unless syncing is
//! off); the catalog learns of a record after it was written, and a caller after it was synced.

use std::{
    sync::{Arc, PoisonError},
    time::{Duration, Instant},
};

use crate::{
    error::Error,
    event::Event,
    layout::Layout,
    outline::{Outline, STEP_BYTES_MAX},
    queue::{Draft, Need, Op, Queued},
    record::{HEADER_BYTES, Kind, record_bytes},
    segment::{FIRST_RECORD, SegmentFile, TRAILER_BYTES},
    shared::{Rest, Shared, State},
};

/// A batch is written when it has grown to this many bytes, or with the first operation that is larger.
const BATCH_BYTES: u64 = 8 << 20;
/// How long a lazy operation may wait for another's sync, and how long the journal rests before it proves its last sync.
const LAZY_DELAY: Duration = Duration::from_millis(200);

/// See the file's head.
pub(crate) struct Writer {
    shared: Arc<Shared>,
    active: Arc<SegmentFile>,
    /// Where the next record goes.
    at: u64,
    outline: Outline,
    /// Segment and offset up to which everything is on disk.
    synced: (u64, u64),
    /// Written and not synced.
    dirty: Vec<Arc<SegmentFile>>,
    /// A record on disk proves the last sync.
    proven: bool,
    /// A write failed half-way for lack of space: nothing may follow it in this segment.
    must_roll: bool,
}

/// What there is to do.
pub(crate) enum Next {
    Commit(Vec<Queued>),
    Roll { bytes: u64, control: bool },
    Prove,
    Close,
}

impl Writer {
    /// Starts in the empty segment `active`. Everything up to `synced` is on disk.
    pub(crate) fn start(shared: Arc<Shared>, active: SegmentFile, synced: (u64, u64)) -> Result<Self, Error> {
        let active = Arc::new(active);
        let mut writer = Self {
            shared,
            active: active.clone(),
            at: FIRST_RECORD,
            outline: Outline::default(),
            synced,
            dirty: Vec::new(),
            proven: true,
            must_roll: false,
        };
        writer.begin(active)?;
        writer.sync()?;
        Ok(writer)
    }

    pub(crate) fn run(mut self) {
        loop {
            let next = self.next();
            if !self.carry_out(next) {
                return;
            }
        }
    }

    /// False after the last.
    pub(crate) fn carry_out(&mut self, next: Next) -> bool {
        match next {
            Next::Commit(batch) => self.commit(batch),
            Next::Roll { bytes, control } => match self.roll(bytes, control) {
                Ok(()) => {}
                Err(error @ Error::Full { .. }) if !control => self.refuse(error),
                Err(error) => self.shared.fail(error.to_string()),
            },
            Next::Prove => self.prove(),
            Next::Close => {
                self.close();
                return false;
            }
        }
        true
    }

    /// Waits for work.
    fn next(&mut self) -> Next {
        let shared = self.shared.clone();
        let mut state = shared.lock();
        let mut rested = false;
        loop {
            if let Some(next) = self.ready(&mut state, rested) {
                return next;
            }
            let idle = state.queue.is_empty() && self.proven;
            if idle {
                state.writer = Rest::Asleep;
                state = shared.work.wait(state).unwrap_or_else(PoisonError::into_inner);
                state.writer = Rest::Awake;
                continue;
            }
            state.writer = Rest::Dozing;
            let waited = shared.work.wait_timeout(state, LAZY_DELAY);
            let (woken, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
            rested = timeout.timed_out();
            state = woken;
            state.writer = Rest::Awake;
        }
    }

    /// What there is to do now; `rested`: nothing came for [`LAZY_DELAY`].
    pub(crate) fn ready(&self, state: &mut State, rested: bool) -> Option<Next> {
        if self.shared.failure().is_some() && !state.queue.is_empty() {
            state.urgent = 0;
            return Some(Next::Commit(state.queue.drain(..).collect()));
        }
        self.queue_release(state);
        if state.urgent > 0 || (state.closing || rested) && !state.queue.is_empty() {
            return Some(self.take_batch(state));
        }
        if state.closing {
            return Some(Next::Close);
        }
        (rested && !self.proven).then_some(Next::Prove)
    }

    /// Puts the release of dead segments in front of the queue.
    fn queue_release(&self, state: &mut State) {
        if !std::mem::take(&mut state.catalog.release_due) || self.shared.failure().is_some() {
            return;
        }
        let segments = state.catalog.releasable(self.active.id);
        if !segments.is_empty() {
            let sequence = state
                .queue
                .front()
                .map_or(state.front.sequence, |first| first.sequence - 1);
            let op = Op::Release { segments };
            let done = Box::new(|_| {});
            // Synced even where entries are not: the files are overwritten next.
            state.queue.push_front(Queued {
                sequence,
                op,
                need: Need::Synced,
                bytes: 0,
                done,
            });
            state.urgent += 1;
        }
    }

    /// The longest prefix of the queue that fits in the active segment and in one batch.
    fn take_batch(&self, state: &mut State) -> Next {
        let mut batch: Vec<Queued> = Vec::new();
        let (mut bytes, mut outline_bytes, mut moved) = (0, 0, false);
        // The index that follows the entries of this batch, which the catalog does not know yet.
        let mut following: Option<u64> = None;
        while let Some(first) = state.queue.front() {
            let (more, more_outline) = (first.op.disk_bytes(), first.op.outline_bytes());
            let entries = match &first.op {
                Op::Append(records) => records.first().zip(records.last()).map(|(a, z)| (a.index, z.index + 1)),
                _ => None,
            };
            let follows = entries.is_none_or(|(index, _)| match following {
                _ if moved => false,
                Some(following) => index <= following,
                None => state.catalog.accepts(self.active.id, index),
            });
            if !self.fits(bytes + more, outline_bytes + more_outline) || self.must_roll || !follows {
                if batch.is_empty() {
                    let seal = record_bytes(more_outline);
                    return Next::Roll {
                        bytes: more + seal,
                        control: first.op.is_control(),
                    };
                }
                break;
            }
            if bytes + more > BATCH_BYTES && !batch.is_empty() {
                break;
            }
            (bytes, outline_bytes, moved) = (bytes + more, outline_bytes + more_outline, moved | first.op.moves_log());
            following = entries.map(|(_, end)| end).or(following);
            state.urgent -= usize::from(first.need != Need::Lazy);
            batch.extend(state.queue.pop_front());
        }
        Next::Commit(batch)
    }

    /// Whether records of `bytes` leave room for the seal.
    fn fits(&self, bytes: u64, outline_bytes: usize) -> bool {
        self.at + bytes + record_bytes(self.outline.bytes() + outline_bytes) + TRAILER_BYTES <= self.active.len()
    }

    /// Writes, syncs and answers `batch`.
    fn commit(&mut self, batch: Vec<Queued>) {
        if let Some(reason) = self.shared.failure() {
            self.answer(batch, Err(Error::Failed { reason }));
            return;
        }
        let drafts = batch.iter().flat_map(|queued| queued.op.drafts());
        let layout = Layout::of(drafts, &self.active, self.at, self.synced);
        let written = layout.and_then(|layout| layout.write(&self.active).map(|()| layout));
        let layout = match written {
            Ok(layout) => layout,
            Err(error) if error.is_no_space() => {
                self.put_back(batch);
                return;
            }
            Err(error) => {
                self.shared.fail(error.to_string());
                let reason = self.shared.failure().unwrap_or_default();
                self.answer(batch, Err(Error::Failed { reason }));
                return;
            }
        };
        self.at = layout.end;
        self.mark_dirty();
        self.shared.counters.wrote(layout.bytes());
        layout.events.iter().for_each(|event| self.outline.push(event));
        // A batch of lazy operations alone has waited long enough.
        let sync = batch.iter().any(|q| q.need == Need::Synced) || batch.iter().all(|q| q.need == Need::Lazy);
        let outcome = if sync { self.sync() } else { Ok(()) };
        let outcome = outcome.and_then(|()| self.learn(&layout.events, batch.last().map_or(0, |q| q.sequence)));
        let result = outcome.map_err(|error| {
            self.shared.fail(error.to_string());
            Error::Failed {
                reason: self.shared.failure().unwrap_or_default(),
            }
        });
        self.answer(batch, result);
    }

    /// Brings the catalog up to date with what is on disk now.
    fn learn(&mut self, events: &[Event], sequence: u64) -> Result<(), Error> {
        let mut state = self.shared.lock();
        let mut released = Vec::new();
        for event in events {
            if let Event::Release { segments } = event {
                released.extend(
                    segments
                        .iter()
                        .filter_map(|id| state.catalog.segments.get(id))
                        .map(|s| s.file.clone()),
                );
            }
            let id = self.active.id;
            state
                .catalog
                .apply(id, event)
                .map_err(|what| Error::damaged(&self.active.path, self.at, what))?;
        }
        state.front.tail.evict(self.shared.config.tail_bytes_max(), sequence);
        drop(state);
        if !released.is_empty() {
            self.shared.room.recycle(released);
        }
        Ok(())
    }

    fn answer(&self, batch: Vec<Queued>, result: Result<(), Error>) {
        for queued in batch {
            self.shared.answer(queued, result.clone());
        }
        self.shared.wake_waiters();
    }

    fn mark_dirty(&mut self) {
        if self.dirty.last().is_none_or(|last| last.id != self.active.id) {
            self.dirty.push(self.active.clone());
        }
    }

    /// Waits until everything written is on disk. A failure is final: what the disk holds is then unknown, and a second
    /// `fdatasync` would say that all is well.
    fn sync(&mut self) -> Result<(), Error> {
        for file in self.dirty.drain(..) {
            let begin = Instant::now();
            file.sync()?;
            self.shared.counters.synced(begin.elapsed());
        }
        self.synced = (self.active.id, self.at);
        self.proven = false;
        Ok(())
    }

    fn close(&mut self) {
        if self.shared.failure().is_none()
            && let Err(error) = self.sync()
        {
            self.shared.fail(error.to_string());
        }
        self.prove();
    }

    /// Writes a record that proves the last sync, so that damage of the newest records is not taken for a torn tail.
    fn prove(&mut self) {
        if self.proven || self.shared.failure().is_some() {
            return;
        }
        self.proven = true;
        if !self.fits(Op::Proof.disk_bytes(), STEP_BYTES_MAX) {
            return;
        }
        let layout = Layout::of(Op::Proof.drafts(), &self.active, self.at, self.synced);
        match layout.and_then(|layout| layout.write(&self.active).map(|()| layout)) {
            Ok(layout) => {
                self.at = layout.end;
                self.shared.counters.wrote(layout.bytes());
                self.mark_dirty();
            }
            Err(error) => self.shared.fail(error.to_string()),
        }
    }

    /// Seals the active segment and begins the next, with space for `bytes`.
    fn roll(&mut self, bytes: u64, control: bool) -> Result<(), Error> {
        let head = record_bytes(self.shared.lock().catalog.head(self.synced).encode().len() + HEADER_BYTES + 64);
        // The head stands in the outline too.
        let needed = FIRST_RECORD + 2 * head + bytes + record_bytes(STEP_BYTES_MAX) + TRAILER_BYTES;
        let next = Arc::new(self.shared.room.take_next(needed, control)?);
        let sealed = seal(&self.active, self.at, &self.outline, next.id, false)?;
        self.shared.counters.wrote(sealed);
        self.mark_dirty();
        self.begin(next)
    }

    /// Writes the head of `next` and makes it the active segment.
    fn begin(&mut self, next: Arc<SegmentFile>) -> Result<(), Error> {
        let head = self.shared.lock().catalog.head(self.synced).encode();
        let draft = Draft::new(Kind::Head, head);
        let layout = Layout::of([draft], &next, FIRST_RECORD, self.synced)?;
        if layout.end + record_bytes(layout.bytes() as usize + STEP_BYTES_MAX) + TRAILER_BYTES > next.len() {
            next.grow((2 * layout.bytes() + 4096).next_multiple_of(4096))?;
        }
        layout.write(&next)?;
        self.shared.counters.wrote(layout.bytes());
        self.active = next.clone();
        self.at = layout.end;
        self.must_roll = false;
        self.outline = Outline::default();
        layout.events.iter().for_each(|event| self.outline.push(event));
        self.mark_dirty();
        let mut state = self.shared.lock();
        if let Some(before) = state.catalog.segments.values_mut().next_back() {
            before.slots.shrink_to_fit();
        }
        state.active = next.id;
        state.catalog.add_segment(next);
        state.catalog.release_due = true;
        drop(state);
        self.learn(&layout.events, 0)
    }

    /// There is no room. Entries depend on each other, so all payloads that are queued fail, and the log is as it was
    /// before them.
    fn refuse(&mut self, error: Error) {
        let mut guard = self.shared.lock();
        let state = &mut *guard;
        let (control, refused) = state
            .queue
            .drain(..)
            .partition::<Vec<_>, _>(|queued| queued.op.is_control());
        state.queue.extend(control);
        state.urgent = state.queue.iter().filter(|queued| queued.need != Need::Lazy).count();
        state
            .front
            .roll_back(&state.catalog, state.queue.iter().map(|queued| &queued.op));
        drop(guard);
        self.answer(refused, Err(error));
    }

    /// `batch` could not be written for lack of space although its segment is allocated: the file system copies on
    /// write. What was written of it must not be read, so the segment ends here.
    fn put_back(&mut self, batch: Vec<Queued>) {
        self.must_roll = true;
        let mut state = self.shared.lock();
        for queued in batch.into_iter().rev() {
            state.queue.push_front(queued);
        }
        drop(state);
        self.refuse(Error::Full {
            dir: self.shared.config.dir.clone(),
        });
    }
}

/// Ends `file` at `at`: its last record says what it did and that `next` follows. `cut`: the file is cut behind it, so
/// that nothing of a torn tail remains. Returns how many bytes it wrote.
pub(crate) fn seal(file: &SegmentFile, at: u64, outline: &Outline, next: u64, cut: bool) -> Result<u64, Error> {
    let draft = Draft::new(Kind::Seal, outline.encode(next));
    let len = draft.payload.len() as u32;
    let layout = Layout::of([draft], file, at, (0, 0))?;
    layout.write(file)?;
    let trailer_at = if cut { layout.end } else { file.len() - TRAILER_BYTES };
    file.write(&file.trailer(trailer_at, at, len), trailer_at)?;
    if cut {
        file.cut(trailer_at + TRAILER_BYTES)?;
    }
    Ok(layout.bytes() + TRAILER_BYTES)
}
