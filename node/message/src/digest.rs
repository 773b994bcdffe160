//! A digest of what a sender wrote, by which a resend is told from another message under the same number (P5).
//!
//! It is kept in the replicated state, so the same parts must have the same digest in every version of this program: the
//! function is spelled out here and does not change. It is no defence against somebody who looks for two messages with
//! one digest: that harms nobody but the one whose messages they are.

/// Gathers a message's parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Digest {
    parts: u64,
}

/// Where nothing else is known: also the first value that [`Digest::finish`] never gives.
pub const NO_DIGEST: u64 = 0;

/// Odd numbers with as many ones as zeros, drawn once.
const LEFT: u64 = 0x9e6c_63d0_a7a3_b52d;
const RIGHT: u64 = 0xc2b5_1d6e_83f4_5a97;
/// Bytes taken at a time.
const BLOCK_BYTES: usize = 16;

impl Digest {
    /// Adds a part under its name. The parts' order does not matter: clients keep headers in tables without one.
    pub fn add(&mut self, name: &[u8], value: &[u8]) {
        self.parts = self.parts.wrapping_add(hash(value, hash(name, 0)));
    }

    /// The digest of all parts; never [`NO_DIGEST`].
    pub fn finish(self) -> u64 {
        mix(self.parts ^ LEFT, RIGHT).max(NO_DIGEST + 1)
    }
}

/// Sixteen bytes a step; the length goes in first, so that the padding of the last step says nothing.
fn hash(bytes: &[u8], seed: u64) -> u64 {
    let mut state = mix(seed ^ LEFT, bytes.len() as u64 ^ RIGHT);
    let mut blocks = bytes.chunks_exact(BLOCK_BYTES);
    for block in &mut blocks {
        state = step(state, block);
    }
    let rest = blocks.remainder();
    if !rest.is_empty() {
        let mut block = [0; BLOCK_BYTES];
        block[..rest.len()].copy_from_slice(rest);
        state = step(state, &block);
    }
    mix(state ^ LEFT, RIGHT)
}

/// The old state is added, so that a block that makes a factor 0 does not wipe out those before it.
fn step(state: u64, block: &[u8]) -> u64 {
    let word = |at: usize| u64::from_le_bytes(block[at..at + 8].try_into().expect("eight bytes were sliced"));
    mix(word(0) ^ LEFT, word(8) ^ state).wrapping_add(state)
}

/// Both halves of the product.
fn mix(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    (product as u64) ^ (product >> 64) as u64
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn of(parts: &[(&str, &[u8])]) -> u64 {
        let mut digest = Digest::default();
        for (name, value) in parts {
            digest.add(name.as_bytes(), value);
        }
        digest.finish()
    }

    /// What is on disk says so: these numbers never change.
    #[test]
    fn the_function_is_the_same_for_ever() {
        let long: Vec<u8> = (0..=255).collect();
        let digests = [
            of(&[]),
            of(&[("", b"")]),
            of(&[("destination", b"/queue/A"), ("body", b"hello")]),
            of(&[("body", &long)]),
        ];
        assert_eq!(digests, GOLDEN, "{digests:#x?}");
    }

    const GOLDEN: [u64; 4] = [
        0x4423_836a_783f_64a8,
        0xc1e1_fcdd_a723_1198,
        0x5c62_30b4_2cce_203b,
        0x0cf4_b69c_db14_dbae,
    ];

    #[test]
    fn every_part_counts_and_their_order_does_not() {
        let base: &[(&str, &[u8])] = &[("a", b"1"), ("b", b"2"), ("body", b"hello hello hello hello")];
        let turned: Vec<_> = base.iter().rev().copied().collect();
        assert_eq!(of(base), of(&turned));
        let others: [&[(&str, &[u8])]; 6] = [
            &[("a", b"2"), ("b", b"1"), ("body", b"hello hello hello hello")],
            &[("a", b"1"), ("body", b"hello hello hello hello")],
            &[("a", b"1"), ("b", b"2"), ("body", b"hello hello hello hellO")],
            &[("a", b"1"), ("b", b"2"), ("body", b"hello hello hello hello\0")],
            &[("ab", b""), ("b", b"2"), ("body", b"hello hello hello hello")],
            &[
                ("a", b"1"),
                ("a", b"1"),
                ("b", b"2"),
                ("body", b"hello hello hello hello"),
            ],
        ];
        let mut all: BTreeSet<u64> = others.iter().map(|parts| of(parts)).collect();
        all.insert(of(base));
        assert_eq!(all.len(), 7);
    }

    #[test]
    fn one_bit_changes_about_half_of_the_digest() {
        let body = vec![7u8; 100];
        let whole = of(&[("body", &body)]);
        for at in 0..body.len() {
            for bit in 0..8 {
                let mut other = body.clone();
                other[at] ^= 1 << bit;
                let changed = (whole ^ of(&[("body", &other)])).count_ones();
                assert!((8..=56).contains(&changed), "{changed} bits at {at}");
            }
        }
        // Blocks that make a factor 0 do not hide what was before them.
        let mut blind = LEFT.to_le_bytes().to_vec();
        blind.extend([0; 8]);
        let hidden = |first: u8| {
            let mut bytes = vec![first; 16];
            bytes.extend(&blind);
            of(&[("body", &bytes)])
        };
        assert_ne!(hidden(1), hidden(2));
    }
}
