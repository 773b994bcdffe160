//! How often passwords may be tried from one address.
//!
//! The first wrong ones cost nothing, since people mistype; after that each has to wait longer than the one before, and
//! what would have to wait for too long is turned away without being looked at. No user is ever locked: only addresses
//! wait. A user who came in from an address before has an account of their own there, so that a stranger behind the same
//! address does not keep them out.

// Addresses are plain values; nothing is sent to them here.
use core::net::{IpAddr, Ipv6Addr};
use std::collections::BTreeMap;

/// Bounds on trying passwords.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttemptLimits {
    /// Wrong ones before the first has to wait.
    pub free: u32,
    /// How long the first has to wait, in milliseconds; each further one twice as long.
    pub delay_ms_min: u64,
    /// Longest time between two, in milliseconds.
    pub delay_ms_max: u64,
    /// Whoever would have to wait longer is turned away, in milliseconds.
    pub wait_ms_max: u64,
    /// One wrong one is forgotten after so long, in milliseconds.
    pub forgive_every_ms: u64,
    /// Addresses remembered, and as many users at addresses; beyond that the oldest are forgotten.
    pub remembered_max: usize,
}

impl Default for AttemptLimits {
    fn default() -> Self {
        Self {
            free: 10,
            delay_ms_min: 100,
            delay_ms_max: 10_000,
            wait_ms_max: 5_000,
            forgive_every_ms: 10_000,
            remembered_max: 4_096,
        }
    }
}

/// When a password may be looked at.
#[derive(Debug, PartialEq, Eq)]
pub enum Turn {
    /// After so many milliseconds, which may be 0. The ticket must be handed back.
    Granted {
        /// For [`Attempts::settle`].
        ticket: Ticket,
        /// How long to wait before it is looked at.
        wait_ms: u64,
    },
    /// So many others from there are being looked at that it must be seen first how they end: ask again after so many
    /// milliseconds.
    AskAgain {
        /// How long.
        wait_ms: u64,
    },
    /// Not now.
    Refused {
        /// It is of no use to come before so many milliseconds.
        retry_ms: u64,
    },
}

/// A password that is being looked at.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "it must be handed back"]
pub struct Ticket {
    address: IpAddr,
    name: String,
    known: bool,
}

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It was the password.
    Right,
    /// It was not.
    Wrong,
    /// Nobody knows: the node ended it.
    Abandoned,
}

/// Who has tried how often.
#[derive(Debug)]
pub struct Attempts {
    limits: AttemptLimits,
    addresses: BTreeMap<IpAddr, Account>,
    /// Users who came in from an address.
    known: BTreeMap<(IpAddr, String), Account>,
}

#[derive(Debug, Clone, Default)]
struct Account {
    wrong: u32,
    /// When the last wrong one came, less what was forgiven since.
    wrong_ms: u64,
    /// The next may be looked at from then on.
    next_ms: u64,
    /// Being looked at, or waiting for their turn.
    under_way: u32,
    used_ms: u64,
}

/// The time that one check takes, roughly.
const ASK_AGAIN_MS: u64 = 25;
/// Wrong ones counted beyond the free ones: the delay is at its longest by then, and forgiving takes no longer.
const COUNTED_MAX: u32 = 16;

impl Attempts {
    /// Nobody has tried.
    pub fn new(limits: AttemptLimits) -> Self {
        Self {
            limits,
            addresses: BTreeMap::new(),
            known: BTreeMap::new(),
        }
    }

    /// Somebody shows a login. `now_ms` is a monotonic clock of any origin.
    pub fn begin(&mut self, from: IpAddr, name: &str, now_ms: u64) -> Turn {
        let address = network(from);
        let limits = &self.limits;
        let pair = (address, name.to_owned());
        let known = self.known.contains_key(&pair);
        let account = if known {
            self.known.entry(pair).or_default()
        } else {
            if !self.addresses.contains_key(&address) && !make_room(&mut self.addresses, limits.remembered_max) {
                return Turn::Refused {
                    retry_ms: limits.wait_ms_max,
                };
            }
            self.addresses.entry(address).or_default()
        };
        account.forgive(limits, now_ms);
        account.used_ms = now_ms;
        let wait_ms = if account.wrong >= limits.free {
            let wait_ms = account.next_ms.saturating_sub(now_ms);
            if wait_ms > limits.wait_ms_max {
                return Turn::Refused { retry_ms: wait_ms };
            }
            account.next_ms = now_ms.max(account.next_ms) + account.delay_ms(limits);
            wait_ms
        } else if account.wrong + account.under_way < limits.free {
            0
        } else {
            return Turn::AskAgain { wait_ms: ASK_AGAIN_MS };
        };
        account.under_way += 1;
        let ticket = Ticket {
            address,
            name: name.to_owned(),
            known,
        };
        Turn::Granted { ticket, wait_ms }
    }

    /// It has been looked at.
    pub fn settle(&mut self, ticket: Ticket, verdict: Verdict, now_ms: u64) {
        let Ticket { address, name, known } = ticket;
        let pair = (address, name);
        let account = if known {
            self.known.get_mut(&pair)
        } else {
            self.addresses.get_mut(&address)
        };
        if let Some(account) = account {
            account.under_way = account.under_way.saturating_sub(1);
            if verdict == Verdict::Wrong {
                account.forgive(&self.limits, now_ms);
                account.wrong = (account.wrong + 1).min(self.limits.free + COUNTED_MAX);
                account.wrong_ms = now_ms;
                account.next_ms = account.next_ms.max(now_ms + account.delay_ms(&self.limits));
            }
        }
        if verdict == Verdict::Right
            && (self.known.contains_key(&pair) || make_room(&mut self.known, self.limits.remembered_max))
        {
            // A right one takes no wrong one back: else whoever has a login of their own could try others' for ever.
            self.known.entry(pair).or_default().used_ms = now_ms;
        }
    }
}

impl Account {
    fn forgive(&mut self, limits: &AttemptLimits, now_ms: u64) {
        let forgiven = now_ms.saturating_sub(self.wrong_ms) / limits.forgive_every_ms;
        let counted = u32::try_from(forgiven).unwrap_or(u32::MAX);
        self.wrong = self.wrong.saturating_sub(counted);
        self.wrong_ms = self.wrong_ms.saturating_add(forgiven * limits.forgive_every_ms);
    }

    fn delay_ms(&self, limits: &AttemptLimits) -> u64 {
        match self.wrong.checked_sub(limits.free) {
            None => 0,
            Some(beyond) => limits
                .delay_ms_min
                .saturating_mul(1 << beyond.min(COUNTED_MAX))
                .min(limits.delay_ms_max),
        }
    }
}

/// False where every account is in use.
fn make_room<K: Ord + Clone>(accounts: &mut BTreeMap<K, Account>, max: usize) -> bool {
    if accounts.len() < max {
        return true;
    }
    let idle = accounts.iter().filter(|(_, account)| account.under_way == 0);
    let Some(oldest) = idle
        .min_by_key(|(_, account)| account.used_ms)
        .map(|(key, _)| key.clone())
    else {
        return false;
    };
    accounts.remove(&oldest);
    true
}

/// Where addresses of IPv6 are handed out, everybody gets 2^64 of them.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(v4) => IpAddr::V4(v4),
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64)),
    }
}

#[cfg(test)]
mod tests {
    use core::net::Ipv4Addr;

    use super::*;

    const HERE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
    const THERE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2));

    fn attempts() -> Attempts {
        Attempts::new(AttemptLimits::default())
    }

    /// Tries once, waits as long as is demanded, and returns when it was looked at.
    fn attempt(attempts: &mut Attempts, from: IpAddr, name: &str, verdict: Verdict, now_ms: &mut u64) -> u64 {
        loop {
            match attempts.begin(from, name, *now_ms) {
                Turn::Granted { ticket, wait_ms } => {
                    *now_ms += wait_ms;
                    attempts.settle(ticket, verdict, *now_ms);
                    return *now_ms;
                }
                Turn::AskAgain { wait_ms } => *now_ms += wait_ms,
                Turn::Refused { retry_ms } => *now_ms += retry_ms,
            }
        }
    }

    #[test]
    fn ten_are_free_and_then_each_waits_longer_up_to_a_bound() {
        let (mut attempts, mut now_ms) = (attempts(), 0);
        let mut gaps = Vec::new();
        let mut last = 0;
        for _ in 0..24 {
            let at = attempt(&mut attempts, HERE, "u", Verdict::Wrong, &mut now_ms);
            gaps.push(at - last);
            last = at;
        }
        assert_eq!(gaps[..10], [0; 10]);
        assert_eq!(gaps[10..14], [100, 200, 400, 800]);
        assert!(gaps[18..].iter().all(|gap| *gap >= 5_000), "{gaps:?}");
        assert!(gaps.iter().all(|gap| *gap <= 10_000), "{gaps:?}");
    }

    #[test]
    fn a_thousand_at_once_get_no_more_than_one_after_the_other() {
        let mut attempts = attempts();
        let mut tickets = Vec::new();
        for number in 0..1_000 {
            match attempts.begin(HERE, &format!("u{number}"), 0) {
                Turn::Granted { ticket, wait_ms: 0 } => tickets.push(ticket),
                other => assert!(matches!(other, Turn::AskAgain { .. }), "{other:?}"),
            }
        }
        assert_eq!(tickets.len(), 10);
        for ticket in tickets {
            attempts.settle(ticket, Verdict::Wrong, 30);
        }
        // Now it is known what they are: the rest has its turn at most every 100 ms, and most are turned away.
        let mut waits = Vec::new();
        let mut refused = 0;
        for _ in 0..990 {
            match attempts.begin(HERE, "u", 31) {
                Turn::Granted { wait_ms, .. } => waits.push(wait_ms),
                Turn::Refused { retry_ms } => {
                    assert!(retry_ms > 5_000);
                    refused += 1;
                }
                other => panic!("{other:?}"),
            }
        }
        assert!(waits.windows(2).all(|two| two[1] - two[0] >= 100), "{waits:?}");
        assert!(waits.len() <= 51 && refused >= 939, "{} {refused}", waits.len());
    }

    #[test]
    fn nobody_waits_for_what_others_do_elsewhere_or_did_here_before() {
        let (mut attempts, mut now_ms) = (attempts(), 0);
        attempt(&mut attempts, HERE, "known", Verdict::Right, &mut now_ms);
        for _ in 0..30 {
            attempt(&mut attempts, HERE, "victim", Verdict::Wrong, &mut now_ms);
        }
        let before = now_ms;
        attempt(&mut attempts, THERE, "victim", Verdict::Right, &mut now_ms);
        attempt(&mut attempts, HERE, "known", Verdict::Right, &mut now_ms);
        assert_eq!(now_ms, before, "neither waits");
        assert!(matches!(attempts.begin(HERE, "victim", now_ms), Turn::Refused { .. }));
        // But who is known has no more tries than others.
        for _ in 0..10 {
            attempt(&mut attempts, HERE, "known", Verdict::Wrong, &mut now_ms);
        }
        attempt(&mut attempts, HERE, "known", Verdict::Wrong, &mut now_ms);
        assert!(now_ms > before);
    }

    #[test]
    fn a_login_of_ones_own_gives_no_more_tries_at_those_of_others() {
        let (mut attempts, mut now_ms) = (attempts(), 0);
        for _ in 0..15 {
            attempt(&mut attempts, HERE, "own", Verdict::Right, &mut now_ms);
            attempt(&mut attempts, HERE, "victim", Verdict::Wrong, &mut now_ms);
        }
        assert!(now_ms >= 100 + 200 + 400 + 800, "{now_ms}");
    }

    #[test]
    fn five_thousand_good_clients_behind_one_address_are_not_taken_for_an_attack() {
        let mut attempts = attempts();
        for number in 0..5_000 {
            let Turn::Granted { ticket, wait_ms: 0 } = attempts.begin(HERE, &format!("u{}", number % 50), 0) else {
                panic!("{number} has to wait");
            };
            attempts.settle(ticket, Verdict::Right, 0);
        }
    }

    #[test]
    fn what_was_wrong_is_forgotten_with_time() {
        let (mut attempts, mut now_ms) = (attempts(), 0);
        for _ in 0..12 {
            attempt(&mut attempts, HERE, "u", Verdict::Wrong, &mut now_ms);
        }
        now_ms += 12 * 10_000;
        let before = now_ms;
        for _ in 0..10 {
            attempt(&mut attempts, HERE, "u", Verdict::Wrong, &mut now_ms);
        }
        assert_eq!(now_ms, before);
    }

    #[test]
    fn what_the_node_ends_counts_as_nothing() {
        let mut attempts = attempts();
        for _ in 0..100 {
            let Turn::Granted { ticket, wait_ms: 0 } = attempts.begin(HERE, "u", 0) else {
                panic!("it has to wait");
            };
            attempts.settle(ticket, Verdict::Abandoned, 0);
        }
    }

    #[test]
    fn memory_is_bounded_whatever_addresses_come() {
        let mut attempts = Attempts::new(AttemptLimits {
            remembered_max: 8,
            ..AttemptLimits::default()
        });
        let mut now_ms = 0;
        for number in 0..100u32 {
            let from = IpAddr::V4(Ipv4Addr::from_bits(number));
            attempt(&mut attempts, from, "u", Verdict::Wrong, &mut now_ms);
            attempt(&mut attempts, from, &format!("u{number}"), Verdict::Right, &mut now_ms);
            now_ms += 1;
            assert!(attempts.addresses.len() <= 8 && attempts.known.len() <= 8);
        }
        // Where each is in use there is no room, and nobody else comes in without being counted.
        let mut tickets = Vec::new();
        for number in 200..208u32 {
            match attempts.begin(IpAddr::V4(Ipv4Addr::from_bits(number)), "u", now_ms) {
                Turn::Granted { ticket, .. } => tickets.push(ticket),
                other => panic!("{other:?}"),
            }
        }
        assert!(matches!(attempts.begin(HERE, "u", now_ms), Turn::Refused { .. }));
        attempts.settle(tickets.remove(0), Verdict::Wrong, now_ms);
        assert!(matches!(attempts.begin(HERE, "u", now_ms), Turn::Granted { .. }));
    }

    #[test]
    fn addresses_that_are_one_customer_are_one() {
        let same = |a: &str, b: &str| network(a.parse().unwrap()) == network(b.parse().unwrap());
        assert!(same("2001:db8::1", "2001:db8::ffff:1:2:3"));
        assert!(!same("2001:db8::1", "2001:db8:0:1::1"));
        assert!(same("::ffff:10.0.0.1", "10.0.0.1"));
        assert!(!same("10.0.0.1", "10.0.0.2"));
    }
}
