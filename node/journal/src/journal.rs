//! The journal as its owner sees it. Operations are accepted at once and answered by the writer thread; reads come from
//! memory or disk.

use std::sync::Arc;

use bytes::Bytes;

use crate::{
    config::Config,
    copy,
    disk::random,
    error::Error,
    front::{LogState, Place, Record},
    install::Install,
    live::SparseSegment,
    opening::open,
    queue::{Done, Need, Op},
    record::{HEADER_BYTES, PAYLOAD_BYTES_MAX},
    shared::{Shared, State},
    stats::Stats,
    threads::Threads,
};

/// A journal in one directory. Clones share it; it is closed by [`Journal::close`] or with the last clone.
#[derive(Clone)]
pub struct Journal {
    pub(crate) shared: Arc<Shared>,
    pub(crate) threads: Arc<Threads>,
}

impl Journal {
    /// Opens the journal in `config.dir`, or begins one. A torn tail is cut here. Reads the outlines of all segments
    /// and the records of the last one.
    ///
    /// # Errors
    /// [`Error::Locked`], [`Error::Damaged`] (the node must not start), [`Error::Full`], [`Error::Io`].
    pub fn open(config: Config) -> Result<Self, Error> {
        let (shared, writer) = open(config)?;
        let threads = Arc::new(Threads::start(&shared, writer)?);
        Ok(Self { shared, threads })
    }

    /// Appends to the log. The records can be read at once; `done` is told when they are on disk. Never blocks: see
    /// [`Journal::queued_bytes`].
    ///
    /// Ends in [`Error::Gap`] where an index does not follow the log's last, in [`Error::Full`] where there is no room
    /// for another segment: the log is then as before, and whatever was appended meanwhile has failed too.
    pub fn append(&self, records: Vec<Record>, done: Done) {
        let need = if self.shared.config.sync {
            Need::Synced
        } else {
            Need::Written
        };
        self.shared.submit(need, done, |state| {
            let mut expected = state.front.next_index();
            for record in &records {
                if let Some(expected) = expected.filter(|expected| *expected != record.index) {
                    return Err(Error::Gap {
                        expected,
                        got: record.index,
                    });
                }
                if record.payload.len() > PAYLOAD_BYTES_MAX - HEADER_BYTES {
                    return Err(too_long(&record.payload));
                }
                expected = Some(record.index + 1);
            }
            records.iter().for_each(|record| state.front.append(record));
            Ok(Op::Append(records))
        });
    }

    /// Ends the log with `index` (`None`: drops everything that is not purged).
    pub fn truncate_after(&self, index: Option<u64>, done: Done) {
        let need = if self.shared.config.sync {
            Need::Synced
        } else {
            Need::Written
        };
        self.shared.submit(need, done, |state| {
            let from = index.map_or(0, |index| index + 1);
            let State { front, catalog, .. } = state;
            front.truncate(from, |index| catalog.slot(index).map(|slot| slot.term));
            let term = front
                .log
                .last
                .filter(|(_, last)| last + 1 == from)
                .map(|(term, _)| term);
            Ok(Op::Truncate { from, term })
        });
    }

    /// The log is no longer needed up to `upto_index`. Moves a watermark; bodies stay as long as they live. On disk
    /// with the next sync, which is at most a fraction of a second away.
    pub fn purge(&self, upto_index: u64, upto_term: u64, done: Done) {
        self.shared.submit(Need::Lazy, done, |state| {
            let upto = (upto_term, upto_index);
            state.front.purge(upto);
            Ok(Op::Purge { upto })
        });
    }

    /// Where the log begins and ends.
    pub fn log_state(&self) -> LogState {
        self.shared.lock().front.log
    }

    /// The records from `from` up to, not including, `to_exclusive`: as many as fit in `bytes_max` of payload, and at
    /// least one if there is any.
    ///
    /// # Errors
    /// [`Error::Purged`] where `from` is purged; [`Error::Damaged`] or [`Error::Io`] from disk.
    pub fn read_log(&self, from: u64, to_exclusive: u64, bytes_max: usize) -> Result<Vec<Record>, Error> {
        let mut records = Vec::new();
        let mut bytes = 0;
        let mut from_disk = Vec::new();
        {
            let state = self.shared.lock();
            let log = state.front.log;
            if let Some((_, purged)) = log.purged.filter(|(_, purged)| from <= *purged && from < to_exclusive) {
                return Err(Error::Purged { index: from, purged });
            }
            let end = log.last.map_or(0, |(_, last)| last + 1).min(to_exclusive);
            for index in from..end {
                let (term, payload, len) = if let Some(record) = state.front.tail.get(index) {
                    (record.term, record.payload.clone(), record.payload.len())
                } else if let Some((term, location)) = state.catalog.locate_entry(index) {
                    let len = location.len.unwrap_or_default() as usize;
                    from_disk.push((records.len(), location));
                    (term, Bytes::new(), len)
                } else {
                    return Err(Error::Gone {
                        index,
                        offset: 0,
                        len: 0,
                    });
                };
                bytes += len;
                if bytes > bytes_max && !records.is_empty() {
                    from_disk.truncate(from_disk.partition_point(|(at, _)| *at < records.len()));
                    break;
                }
                records.push(Record { term, index, payload });
            }
        }
        for (at, location) in from_disk {
            let index = records[at].index;
            let payload = self.shared.read_payload(&location, false)?;
            records[at].payload = payload.ok_or(Error::Gone {
                index,
                offset: 0,
                len: 0,
            })?;
        }
        Ok(records)
    }

    /// Sets a named value that survives the removal of segments; the latest wins. `sync`: `done` is told when it is on
    /// disk, whatever [`Config::sync`] says; otherwise it rides with the next sync.
    pub fn put_cell(&self, key: u8, value: Bytes, sync: bool, done: Done) {
        let need = if sync { Need::Synced } else { Need::Lazy };
        self.shared.submit(need, done, |state| {
            if value.len() > CELL_BYTES_MAX {
                return Err(Error::TooLong {
                    bytes: value.len(),
                    max: CELL_BYTES_MAX,
                });
            }
            state.front.cells.insert(key, value.clone());
            Ok(Op::Cell { key, value })
        });
    }

    /// The latest value put.
    pub fn cell(&self, key: u8) -> Option<Bytes> {
        self.shared.lock().front.cells.get(&key).cloned()
    }

    /// The bytes of `place`, sharing memory with the record in the cache where they can.
    ///
    /// # Errors
    /// [`Error::Gone`] where nothing covers the place; [`Error::Damaged`] or [`Error::Io`] from disk.
    pub fn read_place(&self, place: Place) -> Result<Bytes, Error> {
        let gone = Error::Gone {
            index: place.index,
            offset: place.offset,
            len: place.len,
        };
        // A second look when the segment was released in between: the slice was copied forward.
        for _ in 0..2 {
            let (payload, within) = {
                let state = self.shared.lock();
                if let Some(record) = state.front.tail.get(place.index) {
                    (record.payload.clone(), place.offset)
                } else {
                    let location = state.catalog.locate(place).ok_or_else(|| gone.clone())?;
                    drop(state);
                    match self.shared.read_payload(&location, true)? {
                        Some(payload) => (payload, location.within),
                        None => continue,
                    }
                }
            };
            let start = within as usize;
            return match start
                .checked_add(place.len as usize)
                .filter(|end| *end <= payload.len())
            {
                Some(end) => Ok(payload.slice(start..end)),
                None => Err(gone),
            };
        }
        Err(gone)
    }

    /// Adds to the number of references into record `index`, and to their bytes. May come before the record is on
    /// disk. The record's segment stays while the number is above zero.
    pub fn adjust_live(&self, index: u64, delta: i64, bytes_delta: i64) {
        let mut state = self.shared.lock();
        state.catalog.adjust_live(index, delta, bytes_delta);
        self.shared.release_if_due(state);
    }

    /// Replaces all counters: one item (index, bytes) for each reference. Until this and
    /// [`Journal::set_live_horizon`] were called after a start or an install, no segment with bodies is removed.
    pub fn reset_live(&self, live: impl Iterator<Item = (u64, u64)>) {
        let mut state = self.shared.lock();
        state.catalog.clear_live();
        for (index, bytes) in live {
            state
                .catalog
                .adjust_live(index, 1, i64::try_from(bytes).unwrap_or(i64::MAX));
        }
        state.catalog.live_known = true;
        state.catalog.release_due = true;
        self.shared.release_if_due(state);
    }

    /// Everything up to `index` is applied: a record above it is never taken for dead.
    pub fn set_live_horizon(&self, index: u64) {
        let mut state = self.shared.lock();
        state.catalog.set_horizon(index);
        self.shared.release_if_due(state);
    }

    /// Segments, other than the one being written, whose log is purged and of which less than a quarter lives. The
    /// owner gives all living places in their `indexes` to [`Journal::copy_forward`], and the files go.
    pub fn sparse_segments(&self) -> Vec<SparseSegment> {
        let state = self.shared.lock();
        state.catalog.sparse(state.active, self.shared.config.segment_len())
    }

    /// Writes `places` again, so that their old segments can go; done when they are on disk. Reading and writing happen
    /// on the journal's own threads.
    ///
    /// Give one place for each living reference into a record, in one call (a place referenced twice is named twice and
    /// written once): a record with more references than places given is left where it is.
    pub fn copy_forward(&self, places: Vec<Place>, done: Done) {
        let shared = self.shared.clone();
        self.shared
            .room
            .run_later(Box::new(move || copy::forward(&shared, places, done)));
    }

    /// Begins to replace everything by what another node sends. An install begun before is given up.
    pub fn begin_install(&self) -> Install {
        Install::begin(self.shared.clone(), random())
    }

    /// Bytes accepted and not yet answered: whoever appends watches this.
    pub fn queued_bytes(&self) -> usize {
        self.shared.queued_bytes()
    }

    /// Bytes that can still be written, as of at most a second ago.
    pub fn free_bytes(&self) -> u64 {
        self.shared.room.free_bytes()
    }

    /// Whether `bytes` more can be written with two segments to spare. The layer above refuses producers when not.
    pub fn has_room(&self, bytes: u64) -> bool {
        self.free_bytes() >= bytes.saturating_add(ROOM_SEGMENTS * self.shared.config.segment_len())
    }

    /// A reading of gauges and counters.
    pub fn stats(&self) -> Stats {
        let mut stats = Stats::default();
        {
            let state = self.shared.lock();
            stats.segments = state.catalog.segments.len();
            for segment in state.catalog.segments.values() {
                stats.bytes_on_disk += segment.file.len();
                stats.live_bytes += segment.live_bytes;
            }
            stats.cache_bytes = state.front.tail.bytes();
        }
        stats.cache_bytes += self.shared.read_cache().bytes();
        stats.queued_bytes = self.queued_bytes();
        let (spare_segments, spare_bytes) = self.shared.room.spare();
        stats.spare_segments = spare_segments;
        stats.spare_bytes = spare_bytes;
        stats.bytes_on_disk += spare_bytes;
        self.shared.counters.read_into(&mut stats);
        stats
    }

    /// The first failure to write or sync. After it everything submitted ends in [`Error::Failed`].
    pub fn failed(&self) -> Option<String> {
        self.shared.failure().map(|reason| reason.to_string())
    }

    /// Writes and answers what is queued, then ends. Other clones can still read.
    pub fn close(self) {
        self.threads.stop();
    }
}

impl std::fmt::Debug for Journal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Journal")
            .field("dir", &self.shared.config.dir)
            .finish_non_exhaustive()
    }
}

fn too_long(payload: &Bytes) -> Error {
    Error::TooLong {
        bytes: payload.len(),
        max: PAYLOAD_BYTES_MAX - HEADER_BYTES,
    }
}

/// Longest value of a cell: all cells stand at the head of each segment.
const CELL_BYTES_MAX: usize = 64 << 10;
/// What [`Journal::has_room`] leaves free, segments.
const ROOM_SEGMENTS: u64 = 2;
