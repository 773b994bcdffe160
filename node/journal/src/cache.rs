//! The read cache: whole payloads that were read back from disk and verified, so that their neighbours need neither.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;

use crate::event::Eights;

/// Segment number and offset of a record.
pub(crate) type RecordKey = (u64, Eights);

/// Bounded in bytes; the longest unused payload goes first.
#[derive(Debug, Default)]
pub(crate) struct ReadCache {
    bytes_max: usize,
    bytes: usize,
    records: HashMap<RecordKey, (Bytes, u64)>,
    by_age: BTreeMap<u64, RecordKey>,
    clock: u64,
}

impl ReadCache {
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self {
            bytes_max,
            ..Self::default()
        }
    }

    pub(crate) fn get(&mut self, key: RecordKey) -> Option<Bytes> {
        let (payload, age) = self.records.get_mut(&key)?;
        self.by_age.remove(age);
        self.clock += 1;
        *age = self.clock;
        self.by_age.insert(self.clock, key);
        Some(payload.clone())
    }

    /// A payload longer than the whole cache is not kept.
    pub(crate) fn put(&mut self, key: RecordKey, payload: Bytes) {
        if payload.len() > self.bytes_max || self.get(key).is_some() {
            return;
        }
        self.clock += 1;
        self.bytes += payload.len();
        self.by_age.insert(self.clock, key);
        self.records.insert(key, (payload, self.clock));
        while self.bytes > self.bytes_max {
            let Some((_, oldest)) = self.by_age.pop_first() else {
                break;
            };
            if let Some((payload, _)) = self.records.remove(&oldest) {
                self.bytes -= payload.len();
            }
        }
    }

    /// Bytes held.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_unused_goes_first_and_the_bound_holds() {
        let mut cache = ReadCache::new(10);
        let payload = |b: u8| Bytes::from(vec![b; 4]);
        cache.put((1, Eights(1)), payload(1));
        cache.put((1, Eights(2)), payload(2));
        assert_eq!(cache.get((1, Eights(1))), Some(payload(1)));
        cache.put((1, Eights(3)), payload(3));
        assert_eq!(cache.get((1, Eights(2))), None);
        assert_eq!(cache.get((1, Eights(1))), Some(payload(1)));
        assert_eq!(cache.bytes(), 8);
        cache.put((1, Eights(4)), Bytes::from(vec![0; 11]));
        assert_eq!((cache.get((1, Eights(4))), cache.bytes()), (None, 8));
    }
}
