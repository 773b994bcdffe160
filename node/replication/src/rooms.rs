//! How much room slaves have on their disks, as they tell it with their answers: the master takes messages only while a
//! majority has room for them, since what fills slaves that cannot say no would stop them from taking acknowledgements.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::config::NodeId;

/// A slave that has not answered for so long does not count.
const HEARD_MAX: Duration = Duration::from_secs(5);

/// See the file's head.
pub(crate) struct Rooms {
    told: Mutex<BTreeMap<NodeId, (u64, Instant)>>,
    /// What those slaves have that are a majority together with this node; `u64::MAX` where that is not known.
    majority_bytes: AtomicU64,
}

impl Default for Rooms {
    fn default() -> Rooms {
        Rooms {
            told: Mutex::default(),
            majority_bytes: AtomicU64::new(u64::MAX),
        }
    }
}

impl Rooms {
    /// A slave has so many bytes free; the group has so many voters.
    pub(crate) fn told(&self, slave: NodeId, free_bytes: u64, voters: usize, now: Instant) {
        let mut told = self.told.lock().expect("no code panics under this lock");
        told.insert(slave, (free_bytes, now));
        told.retain(|_, (_, at)| now.saturating_duration_since(*at) < HEARD_MAX);
        let mut free: Vec<u64> = told.values().map(|(free_bytes, _)| *free_bytes).collect();
        free.sort_unstable_by(|a, b| b.cmp(a));
        // With this node so many others are a majority.
        let others = voters / 2;
        let majority = others.checked_sub(1).and_then(|at| free.get(at)).copied();
        self.majority_bytes
            .store(majority.unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Bytes that a majority's slaves have free.
    pub(crate) fn majority_bytes(&self) -> u64 {
        self.majority_bytes.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_majority_has_what_the_least_of_its_best_has() {
        let (rooms, now) = (Rooms::default(), Instant::now());
        assert_eq!(rooms.majority_bytes(), u64::MAX);
        rooms.told(2, 100, 3, now);
        assert_eq!(rooms.majority_bytes(), 100, "with the master two of three");
        rooms.told(3, 300, 3, now);
        assert_eq!(rooms.majority_bytes(), 300, "one full disk does not stop the group");
        rooms.told(3, 50, 3, now);
        assert_eq!(rooms.majority_bytes(), 100);
        rooms.told(3, 50, 3, now + HEARD_MAX);
        assert_eq!(rooms.majority_bytes(), 50, "the other one is gone");
        let five = Rooms::default();
        five.told(2, 100, 5, now);
        assert_eq!(five.majority_bytes(), u64::MAX, "not known");
        five.told(3, 200, 5, now);
        assert_eq!(five.majority_bytes(), 100);
    }
}
