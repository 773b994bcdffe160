//! The catalog: what is where on disk. It is the sum of all events, at start and while running.
//!
//! Invariants: the log entries of one segment have consecutive indexes; over the segments, in the order of their
//! numbers, indexes rise. Gaps between segments are what was released. An index has at most one slot.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use bytes::Bytes;

use crate::{
    event::{Eights, Event, Head, LogId},
    front::{LogState, Place},
    live::Live,
    segment::SegmentFile,
};

/// See the file's head.
#[derive(Debug, Default)]
pub(crate) struct Catalog {
    pub(crate) segments: BTreeMap<u64, Segment>,
    /// First index of each segment that holds log entries → the segment's number.
    by_index: BTreeMap<u64, u64>,
    pub(crate) cells: BTreeMap<u8, Bytes>,
    pub(crate) log: LogState,
    /// Numbers of the segments that hold kept slices.
    pub(crate) with_kept: BTreeSet<u64>,
    /// The install under way.
    installing: Option<u64>,
    /// The segment with the mark of the newest install. Without the mark, segments before it would be read as they
    /// were when the install was under way, so it stays as long as one of them does.
    pub(crate) install_mark: Option<u64>,
    /// Counters of indexes that live in kept slices.
    pub(crate) kept_live: HashMap<u64, Live>,
    /// Changes told before the entry was on disk: a commit needs only a majority.
    pub(crate) early_live: BTreeMap<u64, (i64, i64)>,
    /// The owner has told what lives since the start or the last install.
    pub(crate) live_known: bool,
    /// Entries up to here are applied, so their counters can be believed.
    pub(crate) horizon: Option<u64>,
    /// Something changed that may let a segment go.
    pub(crate) release_due: bool,
}

/// What one segment holds.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) file: Arc<SegmentFile>,
    /// Index of the first slot.
    pub(crate) first: u64,
    pub(crate) slots: Vec<Slot>,
    /// Sorted by index and offset.
    pub(crate) kept: Vec<KeptSlice>,
    /// Slices of the install under way.
    pending: Vec<KeptSlice>,
    /// Living indexes.
    pub(crate) live: u32,
    pub(crate) live_bytes: u64,
}

/// A log entry on disk, and what lives in it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Slot {
    pub(crate) term: u64,
    pub(crate) at: Eights,
    pub(crate) len: u32,
    pub(crate) live: Live,
}

/// A slice that was written again.
#[derive(Debug, Clone, Copy)]
pub(crate) struct KeptSlice {
    pub(crate) place: Place,
    at: Eights,
    /// Offset in the kept record's payload; the top bit says that earlier copies no longer count.
    within: u32,
}

const COMPLETE: u32 = 1 << 31;

impl KeptSlice {
    fn key(&self) -> (u64, u32) {
        (self.place.index, self.place.offset)
    }

    pub(crate) fn complete(&self) -> bool {
        self.within & COMPLETE != 0
    }
}

/// Where bytes are to be read.
#[derive(Debug, Clone)]
pub(crate) struct Location {
    pub(crate) file: Arc<SegmentFile>,
    pub(crate) at: Eights,
    /// Of the record's payload, where known.
    pub(crate) len: Option<u32>,
    /// First byte in the record's payload.
    pub(crate) within: u32,
}

impl Catalog {
    /// A new, empty segment; its number is the greatest.
    pub(crate) fn add_segment(&mut self, file: Arc<SegmentFile>) {
        let segment = Segment {
            first: 0,
            slots: Vec::new(),
            kept: Vec::new(),
            pending: Vec::new(),
            live: 0,
            live_bytes: 0,
            file,
        };
        self.segments.insert(segment.file.id, segment);
    }

    /// Applies what a record of segment `id` changed. An error means that the event contradicts the ones before it.
    pub(crate) fn apply(&mut self, id: u64, event: &Event) -> Result<(), &'static str> {
        match event {
            Event::Head(head) => self.apply_head(id, head),
            Event::Entry { term, index, at, len } => {
                return self.apply_entry(
                    id,
                    *index,
                    Slot {
                        term: *term,
                        at: *at,
                        len: *len,
                        live: Live::default(),
                    },
                );
            }
            Event::Cell { key, value } => {
                self.cells.insert(*key, value.clone());
            }
            Event::Truncate { from, term } => self.truncate(*from, *term),
            Event::Purge { upto } => self.purge(*upto),
            Event::Kept {
                install, at, slices, ..
            } => return self.apply_kept(id, *install, *at, slices),
            Event::InstallBegin { id } => {
                self.drop_pending();
                self.installing = Some(*id);
            }
            Event::InstallAbandon { id } => {
                if self.installing == Some(*id) {
                    self.drop_pending();
                }
            }
            Event::Install { id: install, last } => return self.apply_install(id, *install, *last),
            Event::Release { segments } => segments.iter().for_each(|id| self.remove_segment(*id)),
        }
        Ok(())
    }

    /// Brings the segments before `id` to what held when `id` began: what a released segment did to them is lost with
    /// it, so the head repeats it.
    fn apply_head(&mut self, id: u64, head: &Head) {
        let listed: BTreeMap<u64, (u64, u32)> = head
            .segments
            .iter()
            .map(|(id, first, count)| (*id, (*first, *count)))
            .collect();
        let before: Vec<u64> = self.segments.range(..id).map(|(id, _)| *id).collect();
        for id in before {
            match listed.get(&id) {
                None => self.remove_segment(id),
                Some((first, count)) => self.cut_slots(id, first.saturating_add(u64::from(*count))),
            }
        }
        self.log = LogState {
            purged: head.purged,
            last: head.last,
        };
        self.cells = head.cells.clone();
        if self.installing != head.installing {
            self.drop_pending();
            self.installing = head.installing;
        }
    }

    fn apply_entry(&mut self, id: u64, index: u64, slot: Slot) -> Result<(), &'static str> {
        if self.log.last.is_some_and(|(_, last)| index <= last) {
            self.truncate(index, None);
        }
        let segment = self
            .segments
            .get_mut(&id)
            .ok_or("an entry lies in a segment that is not known")?;
        if segment.slots.is_empty() {
            segment.first = index;
            self.by_index.insert(index, id);
        } else if segment.first + segment.slots.len() as u64 != index {
            return Err("the indexes of the entries are not consecutive");
        }
        segment.slots.push(slot);
        self.log.last = Some((slot.term, index));
        if let Some((count, bytes)) = self.early_live.remove(&index) {
            self.adjust_live(index, count, bytes);
        }
        Ok(())
    }

    /// Ends the log before `from`, with an entry of `term` if any remains. That entry's slot may be unknown: a segment
    /// that is gone already when the journal is read again.
    fn truncate(&mut self, from: u64, term: Option<u64>) {
        if self.log.last.is_none_or(|(_, last)| last < from) {
            return;
        }
        let from_here: Vec<u64> = self.by_index.range(from..).map(|(_, id)| *id).collect();
        let straddling = self.by_index.range(..from).next_back().map(|(_, id)| *id);
        for id in from_here.into_iter().chain(straddling) {
            self.cut_slots(id, from);
        }
        self.log.last = term.zip(from.checked_sub(1)).or(self.log.purged);
        self.release_due = true;
    }

    /// Drops the slots of segment `id` whose index is `from` or more.
    fn cut_slots(&mut self, id: u64, from: u64) {
        let Some(segment) = self.segments.get_mut(&id) else {
            return;
        };
        let keep = from.saturating_sub(segment.first).min(segment.slots.len() as u64) as usize;
        for slot in segment.slots.drain(keep..) {
            if slot.live.is_live() {
                segment.live -= 1;
                segment.live_bytes = segment.live_bytes.saturating_sub(u64::from(slot.live.bytes));
            }
        }
        if segment.slots.is_empty() {
            self.by_index.retain(|_, holder| *holder != id);
        }
    }

    fn purge(&mut self, upto: LogId) {
        if self.log.purged.is_some_and(|(_, purged)| purged >= upto.1) {
            return;
        }
        self.log.purged = Some(upto);
        if self.log.last.is_none_or(|(_, last)| last < upto.1) {
            self.log.last = Some(upto);
        }
        self.release_due = true;
    }

    fn apply_kept(&mut self, id: u64, install: u64, at: Eights, slices: &[Place]) -> Result<(), &'static str> {
        if install != 0 && self.installing != Some(install) {
            return Ok(());
        }
        let mut within = crate::event::table_bytes(slices.len()) as u64;
        let mut kept = Vec::with_capacity(slices.len());
        let flag = if install == 0 { COMPLETE } else { 0 };
        for place in slices {
            let start = u32::try_from(within).ok().filter(|start| start & COMPLETE == 0);
            let start = start.ok_or("a kept record is longer than a record may be")?;
            kept.push(KeptSlice {
                place: *place,
                at,
                within: start | flag,
            });
            within += u64::from(place.len);
        }
        if install != 0 {
            let segment = self
                .segments
                .get_mut(&id)
                .ok_or("a kept record lies in a segment that is not known")?;
            segment.pending.append(&mut kept);
            return Ok(());
        }
        let mut indexes: Vec<u64> = slices.iter().map(|place| place.index).collect();
        indexes.dedup();
        let holders: Vec<Vec<u64>> = indexes.iter().map(|index| self.kept_holders(*index)).collect();
        let segment = self
            .segments
            .get_mut(&id)
            .ok_or("a kept record lies in a segment that is not known")?;
        segment.kept.append(&mut kept);
        segment.kept.sort_by_key(KeptSlice::key);
        self.with_kept.insert(id);
        for (index, holders) in indexes.into_iter().zip(holders) {
            self.move_live(index, &holders, id);
        }
        self.release_due = true;
        Ok(())
    }

    fn apply_install(&mut self, id: u64, install: u64, last: LogId) -> Result<(), &'static str> {
        if self.installing.take() != Some(install) {
            return Err("an install ends that did not begin");
        }
        self.install_mark = Some(id);
        self.with_kept.clear();
        for (id, segment) in &mut self.segments {
            segment.slots = Vec::new();
            segment.kept = std::mem::take(&mut segment.pending);
            segment.kept.sort_by_key(KeptSlice::key);
            (segment.live, segment.live_bytes) = (0, 0);
            if !segment.kept.is_empty() {
                self.with_kept.insert(*id);
            }
        }
        self.by_index.clear();
        self.kept_live.clear();
        self.early_live.clear();
        (self.live_known, self.horizon) = (false, None);
        self.log = LogState {
            purged: Some(last),
            last: Some(last),
        };
        self.release_due = true;
        Ok(())
    }

    /// Forgets what an unfinished install has brought.
    pub(crate) fn drop_pending(&mut self) {
        self.installing = None;
        self.segments
            .values_mut()
            .for_each(|segment| segment.pending = Vec::new());
        self.release_due = true;
    }

    fn remove_segment(&mut self, id: u64) {
        self.segments.remove(&id);
        self.with_kept.remove(&id);
        self.by_index.retain(|_, holder| *holder != id);
    }

    /// What the head of the next segment says.
    pub(crate) fn head(&self, synced: (u64, u64)) -> Head {
        let segments = self
            .segments
            .iter()
            .map(|(id, s)| (*id, s.first, s.slots.len() as u32))
            .collect();
        Head {
            synced,
            purged: self.log.purged,
            last: self.log.last,
            cells: self.cells.clone(),
            installing: self.installing,
            segments,
        }
    }

    /// True where an entry with `index` can follow in segment `id`: consecutive, or overwriting its end.
    pub(crate) fn accepts(&self, id: u64, index: u64) -> bool {
        self.segments
            .get(&id)
            .is_none_or(|s| s.slots.is_empty() || index <= s.first + s.slots.len() as u64)
    }

    fn holder(&self, index: u64) -> Option<u64> {
        self.by_index.range(..=index).next_back().map(|(_, id)| *id)
    }

    pub(crate) fn slot(&self, index: u64) -> Option<&Slot> {
        let segment = self.segments.get(&self.holder(index)?)?;
        segment.slots.get((index - segment.first) as usize)
    }

    /// The segment that holds the slot of `index`, and where in it.
    pub(crate) fn slot_mut(&mut self, index: u64) -> Option<(&mut Segment, usize)> {
        let id = self.holder(index)?;
        let segment = self.segments.get_mut(&id)?;
        let at = (index - segment.first) as usize;
        (at < segment.slots.len()).then_some((segment, at))
    }

    /// The segments whose kept slices of `index` count, newest first.
    pub(crate) fn kept_holders(&self, index: u64) -> Vec<u64> {
        let mut holders = Vec::new();
        for id in self.with_kept.iter().rev() {
            let Some(segment) = self.segments.get(id) else { continue };
            if let Some(slice) = segment.kept_of(index).last() {
                holders.push(*id);
                if slice.complete() {
                    break;
                }
            }
        }
        holders
    }

    /// The log entry `index`.
    pub(crate) fn locate_entry(&self, index: u64) -> Option<(u64, Location)> {
        let segment = self.segments.get(&self.holder(index)?)?;
        let slot = segment.slots.get((index - segment.first) as usize)?;
        Some((
            slot.term,
            Location {
                file: segment.file.clone(),
                at: slot.at,
                len: Some(slot.len),
                within: 0,
            },
        ))
    }

    /// The newest bytes of `place`.
    pub(crate) fn locate(&self, place: Place) -> Option<Location> {
        let end = u64::from(place.offset) + u64::from(place.len);
        // A slot whose living slices moved may be about to go, so the kept ones are asked.
        if let Some(slot) = self.slot(place.index).filter(|slot| !slot.live.is_moved()) {
            let (_, location) = self.locate_entry(place.index)?;
            return (end <= u64::from(slot.len)).then_some(Location {
                within: place.offset,
                ..location
            });
        }
        self.with_kept.iter().rev().find_map(|id| {
            let segment = self.segments.get(id)?;
            let slices = segment.kept_of(place.index);
            let slice = slices.iter().rev().find(|slice| {
                slice.place.offset <= place.offset && end <= u64::from(slice.place.offset) + u64::from(slice.place.len)
            })?;
            let within = (slice.within & !COMPLETE) + (place.offset - slice.place.offset);
            Some(Location {
                file: segment.file.clone(),
                at: slice.at,
                len: None,
                within,
            })
        })
    }
}

impl Segment {
    /// The kept slices of `index`, by offset.
    pub(crate) fn kept_of(&self, index: u64) -> &[KeptSlice] {
        let start = self.kept.partition_point(|slice| slice.place.index < index);
        let len = self.kept[start..].partition_point(|slice| slice.place.index == index);
        &self.kept[start..start + len]
    }

    /// True while an install writes here.
    pub(crate) fn has_pending(&self) -> bool {
        !self.pending.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Segment 2 cut what segment 1 holds, and was released: only the head of segment 3 still tells.
    #[test]
    fn a_head_repeats_what_a_released_segment_did() {
        let dir = tempfile::tempdir().unwrap();
        let mut catalog = Catalog::default();
        let add = |catalog: &mut Catalog, id: u64| {
            let path = dir.path().join(id.to_string());
            let file = std::fs::File::create(&path).unwrap();
            catalog.add_segment(Arc::new(SegmentFile::format(file, 7, id, path).unwrap()));
        };
        add(&mut catalog, 1);
        for index in 5..8 {
            catalog
                .apply(
                    1,
                    &Event::Entry {
                        term: 1,
                        index,
                        at: Eights(8),
                        len: 1,
                    },
                )
                .unwrap();
        }
        add(&mut catalog, 3);
        let head = Head {
            last: Some((1, 5)),
            segments: vec![(1, 5, 1), (2, 0, 0)],
            ..Head::default()
        };
        catalog.apply(3, &Event::Head(Box::new(head))).unwrap();
        assert_eq!(catalog.log.last, Some((1, 5)));
        assert!(catalog.slot(5).is_some() && catalog.slot(6).is_none() && catalog.slot(7).is_none());
    }

    #[test]
    fn an_entry_and_a_kept_slice_cost_24_bytes_of_memory_each() {
        assert_eq!((size_of::<Slot>(), size_of::<KeptSlice>()), (24, 24));
    }
}
