//! Numbers that look random, from a seed that is an argument: pauses between dials must differ from node to node, while
//! a test must be able to repeat them.

/// A SplitMix64 sequence.
#[derive(Debug, Clone)]
pub(crate) struct Jitter(u64);

impl Jitter {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// Any number but 0.
    pub(crate) fn any(&mut self) -> u64 {
        self.next().max(1)
    }

    /// Between half of `ms` and `ms`.
    pub(crate) fn around(&mut self, ms: u64) -> u64 {
        ms - self.next() % (ms / 2 + 1)
    }
}

/// The finaliser of SplitMix64 (Steele, Lea, Flood 2014): every input bit changes half of the output bits.
pub(crate) fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_stay_in_their_range_and_differ() {
        let mut jitter = Jitter::new(1);
        let pauses: Vec<u64> = (0..100).map(|_| jitter.around(100)).collect();
        assert!(pauses.iter().all(|p| (50..=100).contains(p)));
        assert!(pauses.iter().collect::<std::collections::BTreeSet<_>>().len() > 20);
        assert_eq!(Jitter::new(7).around(0), 0);
    }
}
