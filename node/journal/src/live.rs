//! How much still lives in each segment, and what follows: which may go and which are worth emptying.
//!
//! The counter of an index is in its slot. When everything that lives of an entry was copied forward, the counter moves
//! to `kept_live`, and every segment holding kept slices of that index counts it as one living index. An install may
//! spread an index over several segments: then each of them stays until the index is dead.

use crate::{catalog::Catalog, front::Place};

/// References into one record.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Live {
    count: u32,
    pub(crate) bytes: u32,
}

/// In a slot: the counter is in `kept_live`.
const MOVED: Live = Live {
    count: u32::MAX,
    bytes: 0,
};

impl Live {
    pub(crate) fn is_moved(self) -> bool {
        self.count == MOVED.count
    }

    pub(crate) fn is_live(self) -> bool {
        self.count > 0 && !self.is_moved()
    }

    fn adjust(&mut self, count: i64, bytes: i64) {
        self.count = (i64::from(self.count).saturating_add(count)).clamp(0, i64::from(MOVED.count) - 1) as u32;
        self.bytes = (i64::from(self.bytes).saturating_add(bytes)).clamp(0, i64::from(u32::MAX)) as u32;
    }
}

/// A segment most of which is dead, while the rest keeps its file. See [`crate::Journal::sparse_segments`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SparseSegment {
    /// The segment's number.
    pub id: u64,
    /// The first living index.
    pub first_index: u64,
    /// The last living index.
    pub last_index: u64,
    /// Bytes that live, as told to the journal.
    pub live_bytes: u64,
    /// The living indexes, in order: what is to be copied forward.
    pub indexes: Vec<u64>,
}

impl Catalog {
    /// Adds to the counters of `index`.
    pub(crate) fn adjust_live(&mut self, index: u64, count: i64, bytes: i64) {
        if let Some((segment, at)) = self.slot_mut(index) {
            let live = &mut segment.slots[at].live;
            if !live.is_moved() {
                let before = *live;
                live.adjust(count, bytes);
                let after = *live;
                segment.live = segment.live + u32::from(after.is_live()) - u32::from(before.is_live());
                segment.live_bytes =
                    (segment.live_bytes + u64::from(after.bytes)).saturating_sub(u64::from(before.bytes));
                self.release_due |= segment.live == 0;
                return;
            }
        }
        let holders = self.kept_holders(index);
        if !holders.is_empty() {
            let before = self.kept_live.get(&index).copied().unwrap_or_default();
            let mut after = before;
            after.adjust(count, bytes);
            if after.is_live() {
                self.kept_live.insert(index, after);
            } else {
                after.bytes = 0;
                self.kept_live.remove(&index);
            }
            self.recount_kept(&holders, before, after);
        } else if self.log.last.is_none_or(|(_, last)| index > last) {
            let early = self.early_live.entry(index).or_default();
            *early = (early.0 + count, early.1 + bytes);
        } else {
            // A state restored from a snapshot may name what died, and went, after the snapshot; the log's replay
            // forgets it again.
            tracing::trace!(
                index,
                count,
                "liveness told for a record that the journal does not hold"
            );
        }
    }

    /// Bytes count in the newest holder only.
    fn recount_kept(&mut self, holders: &[u64], before: Live, after: Live) {
        for (nth, id) in holders.iter().enumerate() {
            let Some(segment) = self.segments.get_mut(id) else {
                continue;
            };
            segment.live = (segment.live + u32::from(after.is_live())).saturating_sub(u32::from(before.is_live()));
            if nth == 0 {
                segment.live_bytes =
                    (segment.live_bytes + u64::from(after.bytes)).saturating_sub(u64::from(before.bytes));
            }
            self.release_due |= segment.live == 0;
        }
    }

    /// The living slices of `index` were copied to segment `to`; `holders` held them before, unless its slot did.
    pub(crate) fn move_live(&mut self, index: u64, holders: &[u64], to: u64) {
        let mut moved = None;
        if let Some((segment, at)) = self.slot_mut(index) {
            let live = std::mem::replace(&mut segment.slots[at].live, MOVED);
            if !live.is_moved() {
                segment.live -= u32::from(live.is_live());
                segment.live_bytes = segment.live_bytes.saturating_sub(u64::from(live.bytes));
                moved = Some(live);
            }
        }
        let live = match moved {
            Some(live) => live,
            None => {
                let live = self.kept_live.remove(&index).unwrap_or_default();
                self.recount_kept(holders, live, Live::default());
                live
            }
        };
        if live.is_live() {
            self.kept_live.insert(index, live);
            self.recount_kept(&[to], Live::default(), live);
        }
    }

    /// Raises the horizon, and notes whether that lets a segment's end pass below it.
    pub(crate) fn set_horizon(&mut self, index: u64) {
        let before = self.horizon.replace(index);
        let ends_between = |s: &crate::catalog::Segment| {
            let end = s.first + s.slots.len() as u64;
            s.live == 0 && end <= index.saturating_add(1) && before.is_none_or(|before| end > before.saturating_add(1))
        };
        self.release_due |= before.is_none() || self.segments.values().any(ends_between);
    }

    /// Sets all counters to zero.
    pub(crate) fn clear_live(&mut self) {
        for segment in self.segments.values_mut() {
            (segment.live, segment.live_bytes) = (0, 0);
            segment
                .slots
                .iter_mut()
                .filter(|slot| !slot.live.is_moved())
                .for_each(|slot| slot.live = Live::default());
        }
        self.kept_live.clear();
        self.early_live.clear();
    }

    /// References into `index`.
    pub(crate) fn live_count(&self, index: u64) -> u64 {
        let live = match self.slot(index) {
            Some(slot) if !slot.live.is_moved() => slot.live,
            _ => self.kept_live.get(&index).copied().unwrap_or_default(),
        };
        u64::from(live.count)
    }

    /// Whether the log, and what is applied, have passed all entries of segment `id`.
    fn is_passed(&self, id: u64) -> bool {
        let Some(segment) = self.segments.get(&id) else {
            return false;
        };
        let upto = self.log.purged.map(|(_, index)| index).min(self.horizon);
        segment.slots.is_empty() || upto.is_some_and(|upto| segment.first + segment.slots.len() as u64 - 1 <= upto)
    }

    /// Numbers of the segments before `active` that nothing needs any more.
    pub(crate) fn releasable(&self, active: u64) -> Vec<u64> {
        let dead = |id: &u64| {
            self.segments.get(id).is_some_and(|s| {
                let empty = s.slots.is_empty() && s.kept.is_empty();
                !s.has_pending() && (empty || self.live_known && s.live == 0 && self.is_passed(*id))
            })
        };
        let mut releasable: Vec<u64> = self.segments.range(..active).map(|(id, _)| *id).filter(dead).collect();
        if let Some(mark) = self.install_mark {
            let before = self.segments.range(..mark).count();
            if releasable.partition_point(|id| *id < mark) < before {
                releasable.retain(|id| *id != mark);
            }
        }
        releasable
    }

    /// Segments before `active` that hold less than a quarter of `segment_len`.
    pub(crate) fn sparse(&self, active: u64, segment_len: u64) -> Vec<SparseSegment> {
        if !self.live_known {
            return Vec::new();
        }
        let candidates = self.segments.range(..active).filter(|(id, s)| {
            s.live > 0 && !s.has_pending() && s.live_bytes * 4 < segment_len.max(s.file.len()) && self.is_passed(**id)
        });
        let of_candidate = |(id, s): (&u64, &crate::catalog::Segment)| {
            let slots = s
                .slots
                .iter()
                .zip(s.first..)
                .filter(|(slot, _)| slot.live.is_live())
                .map(|(_, index)| index);
            let mut indexes: Vec<u64> = slots.collect();
            let mut kept: Vec<u64> = s.kept.iter().map(|slice| slice.place.index).collect();
            kept.dedup();
            kept.retain(|index| self.kept_live.contains_key(index) && self.kept_holders(*index).contains(id));
            indexes.append(&mut kept);
            indexes.sort_unstable();
            let (first_index, last_index) = (*indexes.first()?, *indexes.last()?);
            Some(SparseSegment {
                id: *id,
                first_index,
                last_index,
                live_bytes: s.live_bytes,
                indexes,
            })
        };
        candidates.filter_map(of_candidate).collect()
    }

    /// Of `places`, those whose record would be emptied: every living reference into it is named. Sorted, each once.
    pub(crate) fn complete_groups(&self, mut places: Vec<Place>) -> Vec<Place> {
        places.sort_unstable();
        let mut complete = Vec::with_capacity(places.len());
        for group in places.chunk_by(|a, b| a.index == b.index) {
            let needed = self.live_count(group[0].index);
            if needed > 0 && group.len() as u64 >= needed {
                complete.extend_from_slice(group);
            }
        }
        complete.dedup();
        complete
    }
}
