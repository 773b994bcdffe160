//! Whom to connect to, in which order and after which pauses: the `failover:(…)` URI, made ready for use.

use std::{
    hash::{BuildHasher, RandomState},
    time::Duration,
};

/// The addresses and the reconnect policy.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Endpoints {
    /// `host:port` of each, in the order of the URI; with TLS, [`SECURE`] stands before it.
    pub(crate) addresses: Vec<String>,
    pub(crate) randomize: bool,
    pub(crate) initial_delay: Duration,
    pub(crate) delay_max: Duration,
    /// Factor from one pause to the next; 1 where the back-off is not exponential.
    pub(crate) multiplier: f64,
    /// Passes over all addresses before giving up; `None` is for ever.
    pub(crate) passes_max: Option<u32>,
    pub(crate) startup_passes_max: Option<u32>,
    /// How long a send may wait for room.
    pub(crate) send_timeout: Option<Duration>,
}

/// Before the address of a broker that is spoken to with TLS.
pub(crate) const SECURE: &str = "ssl://";

impl Endpoints {
    /// Whether one of them is spoken to with TLS.
    pub(crate) fn wants_tls(&self) -> bool {
        self.addresses.iter().any(|address| address.starts_with(SECURE))
    }

    /// How many passes over all addresses are made before the connection is given up.
    pub(crate) fn passes_max(&self, startup: bool) -> Option<u32> {
        if startup {
            self.startup_passes_max.or(self.passes_max)
        } else {
            self.passes_max
        }
    }

    /// The pause after pass number `pass` (1, 2, …) has failed, shortened by up to half at random so that clients which
    /// lost the same broker do not come back as one.
    pub(crate) fn pause(&self, pass: u32, random: &mut Random) -> Duration {
        let exponent = i32::try_from(pass.saturating_sub(1)).unwrap_or(i32::MAX);
        let factor = self.multiplier.powi(exponent).min(1e9);
        let full = self.initial_delay.mul_f64(factor).min(self.delay_max);
        full.mul_f64(0.5 + 0.5 * random.fraction())
    }

    /// The order in which the addresses are tried; the one that was just lost comes last.
    pub(crate) fn order(&self, lost: Option<&str>, random: &mut Random) -> Vec<String> {
        let mut order = self.addresses.clone();
        if self.randomize {
            for last in (1..order.len()).rev() {
                order.swap(last, random.below(last + 1));
            }
        }
        if let Some(at) = lost.and_then(|lost| order.iter().position(|address| address == lost)) {
            let address = order.remove(at);
            order.push(address);
        }
        order
    }
}

/// A generator for pauses and orders, where nothing depends on its quality (xorshift64*).
#[derive(Debug)]
pub(crate) struct Random(u64);

impl Random {
    /// Seeded differently in each process and for each instance.
    pub(crate) fn new() -> Self {
        Self(RandomState::new().hash_one(0) | 1)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn fraction(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }
}

/// A name that nobody else has: 128 bits from the process's random hash keys, the clock and the process's number. Every
/// message carries it to every replica's disk, so six bits go into each letter.
pub(crate) fn unique_name() -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    let half = |salt: u8| RandomState::new().hash_one((salt, now, std::process::id()));
    let bits = u128::from(half(0)) << 64 | u128::from(half(1));
    (0..22)
        .map(|at| char::from(LETTERS[(bits >> (6 * at)) as usize & 63]))
        .collect()
}
