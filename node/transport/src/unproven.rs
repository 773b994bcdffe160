//! Places for connections that have not proven yet who they are. Where all are taken a newcomer gets the place of somebody
//! who has had a fair moment, so that strangers who hold on to theirs keep nobody out.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

/// All places of a port. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Unproven {
    places_max: usize,
    taken: Arc<Mutex<Taken>>,
}

#[derive(Debug, Default)]
struct Taken {
    next: u64,
    /// In the order in which they came.
    strangers: BTreeMap<u64, Stranger>,
    /// Those that have proven who they are and wait to be accepted. They yield to nobody.
    proven: usize,
}

#[derive(Debug)]
struct Stranger {
    address: IpAddr,
    since: Instant,
    has_spoken: bool,
    cut: Arc<Notify>,
}

/// One connection's place; free again when dropped.
#[derive(Debug)]
pub(crate) struct UnprovenPlace {
    taken: Arc<Mutex<Taken>>,
    number: u64,
    is_proven: bool,
    cut: Arc<Notify>,
}

impl Unproven {
    pub(crate) fn new(places_max: usize) -> Self {
        Self {
            places_max,
            taken: Arc::default(),
        }
    }

    /// A place for a newcomer; none where nobody can yield yet.
    pub(crate) fn enter(&self, address: IpAddr) -> Option<UnprovenPlace> {
        self.enter_at(address, Instant::now())
    }

    fn enter_at(&self, address: IpAddr, now: Instant) -> Option<UnprovenPlace> {
        let address = network(address);
        let mut taken = lock(&self.taken);
        if taken.count() >= self.places_max {
            let yields = taken.crowding(address).or_else(|| taken.longest(now))?;
            let stranger = taken.strangers.remove(&yields)?;
            // It is gone as soon as its task runs, so for a moment there is one more.
            stranger.cut.notify_one();
        }
        let number = taken.next;
        taken.next += 1;
        let cut = Arc::new(Notify::new());
        let stranger = Stranger {
            address,
            since: now,
            has_spoken: false,
            cut: cut.clone(),
        };
        taken.strangers.insert(number, stranger);
        Some(UnprovenPlace {
            taken: self.taken.clone(),
            number,
            is_proven: false,
            cut,
        })
    }

    /// Whether at least half of the places are taken.
    pub(crate) fn is_crowded(&self) -> bool {
        2 * lock(&self.taken).count() >= self.places_max
    }
}

impl Taken {
    fn count(&self) -> usize {
        self.strangers.len() + self.proven
    }

    /// The youngest stranger of the address that has most places, where that has at least two more than the newcomer's:
    /// no address gets more than its share where others want theirs.
    fn crowding(&self, newcomer: IpAddr) -> Option<u64> {
        let mut shares: BTreeMap<IpAddr, (usize, u64)> = BTreeMap::new();
        for (number, stranger) in &self.strangers {
            let (count, youngest) = shares.entry(stranger.address).or_default();
            *count += 1;
            *youngest = *number;
        }
        let own = shares.get(&newcomer).map_or(0, |(count, _)| *count);
        let (count, youngest) = shares.into_values().max()?;
        (count >= own + 2).then_some(youngest)
    }

    /// Who has been here longest: of those that have said nothing, else of all.
    fn longest(&self, now: Instant) -> Option<u64> {
        let longer_than = |min: Duration, silent_only: bool| {
            self.strangers
                .iter()
                .filter(|(_, stranger)| !(silent_only && stranger.has_spoken))
                .find(|(_, stranger)| now.saturating_duration_since(stranger.since) >= min)
                .map(|(number, _)| *number)
        };
        longer_than(SILENT_MIN, true).or_else(|| longer_than(SPOKEN_MIN, false))
    }
}

impl UnprovenPlace {
    /// It has begun to speak, and so keeps its place for longer.
    pub(crate) fn spoke(&self) {
        if let Some(stranger) = lock(&self.taken).strangers.get_mut(&self.number) {
            stranger.has_spoken = true;
        }
    }

    /// It has proven who it is: the place is its own until it is dropped.
    pub(crate) fn prove(&mut self) {
        let mut taken = lock(&self.taken);
        // Where it was given away just now there is one more for a moment.
        if taken.strangers.remove(&self.number).is_some() {
            taken.proven += 1;
            self.is_proven = true;
        }
    }

    /// Completes when the place was given to somebody else.
    pub(crate) async fn lost(&self) {
        self.cut.notified().await;
    }
}

impl Drop for UnprovenPlace {
    fn drop(&mut self) {
        let mut taken = lock(&self.taken);
        if self.is_proven {
            taken.proven -= 1;
        } else {
            taken.strangers.remove(&self.number);
        }
    }
}

fn lock(taken: &Mutex<Taken>) -> MutexGuard<'_, Taken> {
    taken.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What one host can have without effort: an IPv4 address, or an IPv6 network of 64 bits.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        address => address,
    }
}

/// A node speaks as soon as it is connected; so whoever says nothing keeps its place only for so long in any case.
const SILENT_MIN: Duration = Duration::from_millis(25);
/// And whoever has begun for so long: three round trips and some work.
const SPOKEN_MIN: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    fn is_lost(place: &UnprovenPlace) -> bool {
        !lock(&place.taken).strangers.contains_key(&place.number)
    }

    #[tokio::test]
    async fn the_silent_yield_soon_and_those_who_speak_later() {
        let places = Unproven::new(2);
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let speaking = places.enter_at(address(1), at(0)).unwrap();
        speaking.spoke();
        let silent = places.enter_at(address(1), at(1)).unwrap();
        assert!(places.enter_at(address(1), at(20)).is_none(), "both have just come");
        let late = places.enter_at(address(1), at(30)).unwrap();
        silent.lost().await;
        assert!(is_lost(&silent) && !is_lost(&speaking));
        late.spoke();
        assert!(places.enter_at(address(1), at(499)).is_none(), "both speak");
        let later = places.enter_at(address(1), at(501)).unwrap();
        speaking.lost().await;
        drop((speaking, silent));
        assert!(!is_lost(&late) && !is_lost(&later));
    }

    #[test]
    fn who_has_proven_itself_yields_to_nobody_and_counts_until_it_is_gone() {
        let places = Unproven::new(1);
        let start = Instant::now();
        let mut proven = places.enter_at(address(1), start).unwrap();
        proven.prove();
        assert!(places.is_crowded());
        let much_later = start + Duration::from_secs(60);
        assert!(places.enter_at(address(2), much_later).is_none());
        drop(proven);
        assert!(!places.is_crowded());
        drop(places.enter_at(address(2), much_later).unwrap());
        assert_eq!(lock(&places.taken).count(), 0);
    }

    #[test]
    fn no_address_keeps_others_from_their_share() {
        let places = Unproven::new(8);
        let now = Instant::now();
        let many: Vec<_> = (0..8).map(|_| places.enter_at(address(1), now).unwrap()).collect();
        let few: Vec<_> = (0..4).map(|_| places.enter_at(address(2), now).unwrap()).collect();
        assert_eq!(many.iter().map(is_lost).filter(|lost| *lost).count(), 4);
        assert!(
            many[..4].iter().all(|place| !is_lost(place)),
            "the youngest ones yielded"
        );
        assert!(few.iter().all(|place| !is_lost(place)));
        for crowd in [1, 2] {
            assert!(places.enter_at(address(crowd), now).is_none(), "both have their half");
        }
        let _third = places.enter_at(address(3), now).unwrap();
    }

    #[test]
    fn a_host_is_one_address_in_whatever_words() {
        let parsed = |text: &str| network(text.parse().unwrap());
        assert_eq!(parsed("::ffff:10.0.0.1"), address(1));
        assert_eq!(parsed("2001:db8::1"), parsed("2001:db8::2:3:4:5"));
        assert_ne!(parsed("2001:db8::1"), parsed("2001:db8:0:1::1"));
    }

    #[test]
    fn a_place_that_was_given_away_is_not_given_back_twice() {
        let places = Unproven::new(1);
        let start = Instant::now();
        let mut first = places.enter_at(address(1), start).unwrap();
        let second = places.enter_at(address(1), start + SILENT_MIN).unwrap();
        first.prove();
        drop(first);
        assert_eq!(lock(&places.taken).count(), 1);
        drop(second);
        assert_eq!(lock(&places.taken).count(), 0);
    }
}
