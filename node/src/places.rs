//! Places for client connections. Whoever has not logged in keeps its place only as long as nobody else needs it.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::Notify;

use crate::load::Load;

/// All places of a node. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Places {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    connections_max: usize,
    per_address_max: usize,
    load: Arc<Load>,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    next: u64,
    count: usize,
    /// Those that have not logged in, in the order in which they came.
    strangers: BTreeMap<u64, (Instant, Arc<Notify>)>,
    by_address: HashMap<IpAddr, usize>,
}

/// One connection's place; free again when dropped.
#[derive(Debug)]
pub(crate) struct Place {
    shared: Arc<Shared>,
    number: u64,
    address: IpAddr,
    cut: Arc<Notify>,
}

/// Why there is no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoPlace {
    /// All are taken.
    Full,
    /// This address has as many as it may have.
    Address,
}

/// A stranger keeps its place for so long in any case: time to log in.
const STRANGER_MIN: Duration = Duration::from_millis(250);

impl Places {
    pub(crate) fn new(connections_max: usize, per_address_max: usize, load: Arc<Load>) -> Self {
        Self {
            shared: Arc::new(Shared {
                connections_max,
                per_address_max,
                load,
                taken: Mutex::default(),
            }),
        }
    }

    /// A place for a newcomer. Where all are taken, the longest stranger gives up its own.
    pub(crate) fn enter(&self, address: IpAddr) -> Result<Place, NoPlace> {
        let address = address.to_canonical();
        let counts = &self.shared.load.counts;
        let mut taken = self.shared.lock();
        // As many as there may be at all is no bound of its own: strangers from there yield as any others do.
        let is_bounded = self.shared.per_address_max < self.shared.connections_max;
        if is_bounded && taken.by_address.get(&address).copied().unwrap_or(0) >= self.shared.per_address_max {
            counts.refused_address.add();
            return Err(NoPlace::Address);
        }
        if taken.count >= self.shared.connections_max {
            let yields = taken
                .strangers
                .first_key_value()
                .is_some_and(|(_, (since, _))| since.elapsed() >= STRANGER_MIN);
            let longest = if yields { taken.strangers.pop_first() } else { None };
            let Some((_, (_, cut))) = longest else {
                counts.refused.add();
                return Err(NoPlace::Full);
            };
            // Its place counts until it is gone, so for a moment there is one more.
            cut.notify_one();
            counts.strangers_cut.add();
        }
        counts.accepted.add();
        let number = taken.next;
        taken.next += 1;
        taken.count += 1;
        *taken.by_address.entry(address).or_default() += 1;
        let cut = Arc::new(Notify::new());
        taken.strangers.insert(number, (Instant::now(), cut.clone()));
        Ok(Place {
            shared: self.shared.clone(),
            number,
            address,
            cut,
        })
    }

    /// Connections that may be there at one time.
    pub(crate) fn connections_max(&self) -> usize {
        self.shared.connections_max
    }

    /// Taken places, and how many of them by strangers.
    pub(crate) fn taken(&self) -> (usize, usize) {
        let taken = self.shared.lock();
        (taken.count, taken.strangers.len())
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// Its client has logged in: the place is its own from now on.
    pub(crate) fn settle(&self) {
        self.shared.lock().strangers.remove(&self.number);
    }

    /// Completes when the place was given to somebody else.
    pub(crate) async fn lost(&self) {
        self.cut.notified().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.shared.lock();
        taken.count -= 1;
        taken.strangers.remove(&self.number);
        if let Some(count) = taken.by_address.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                taken.by_address.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::Memory;

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    fn places(connections_max: usize, per_address_max: usize) -> Places {
        let load = Arc::new(Load::new(Memory::new(1 << 20, 1 << 10)));
        Places::new(connections_max, per_address_max, load)
    }

    /// As if it had been there for long.
    fn age(places: &Places) {
        let mut taken = places.shared.lock();
        for (since, _) in taken.strangers.values_mut() {
            *since = since.checked_sub(STRANGER_MIN).expect("the clock has run for a second");
        }
    }

    #[tokio::test]
    async fn the_longest_stranger_yields_and_who_has_logged_in_stays() {
        let places = places(2, 9);
        let client = places.enter(HERE).unwrap();
        client.settle();
        let stranger = places.enter(HERE).unwrap();
        assert_eq!(places.enter(HERE).unwrap_err(), NoPlace::Full, "it has just come");
        age(&places);
        let newcomer = places.enter(HERE).unwrap();
        stranger.lost().await;
        drop(stranger);
        newcomer.settle();
        age(&places);
        assert_eq!(places.enter(HERE).unwrap_err(), NoPlace::Full, "no stranger is left");
        drop(client);
        assert_eq!(places.taken(), (1, 0));
        drop(places.enter(HERE).unwrap());
        let counts = &places.shared.load.counts;
        assert_eq!((counts.strangers_cut.get(), counts.refused.get()), (1, 2));
    }

    #[test]
    fn one_address_has_its_own_bound() {
        let places = places(9, 1);
        let _one = places.enter(HERE).unwrap();
        assert_eq!(places.enter(HERE).unwrap_err(), NoPlace::Address);
        let mapped: IpAddr = "::ffff:127.0.0.1".parse().unwrap();
        assert_eq!(
            places.enter(mapped).unwrap_err(),
            NoPlace::Address,
            "the same address in other words"
        );
        assert!(places.enter("10.0.0.1".parse().unwrap()).is_ok());
    }
}
