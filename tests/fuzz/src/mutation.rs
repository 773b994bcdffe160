//! How a valid input becomes one that almost is.

use crate::Rng;

/// Changes made to one input, at most.
const CHANGES_MAX: usize = 6;
/// How far a piece is repeated in most cases, in bytes; once in a while up to the target's own bound.
const REPEATED_BYTES_USUAL: usize = 2048;

/// Numbers at which lengths and counters go wrong.
const EDGES: [u64; 16] = [
    0,
    1,
    2,
    0x7f,
    0x80,
    0xff,
    0x100,
    0x7fff,
    0xffff,
    0x10000,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    u64::MAX / 2,
    u64::MAX - 7,
    u64::MAX,
];

/// Makes a new input of `from`, of pieces of `other` and of `words`, no longer than `bytes_max`.
pub(crate) fn mutate(from: &[u8], other: &[u8], words: &[Vec<u8>], bytes_max: usize, rng: &mut Rng) -> Vec<u8> {
    let mut bytes = from.to_vec();
    for _ in 0..=rng.below(CHANGES_MAX) {
        change(&mut bytes, other, words, bytes_max, rng);
    }
    bytes.truncate(bytes_max);
    bytes
}

fn change(bytes: &mut Vec<u8>, other: &[u8], words: &[Vec<u8>], bytes_max: usize, rng: &mut Rng) {
    let at = rng.below(bytes.len());
    match rng.below(12) {
        0 => {
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1 << rng.below(8);
            }
        }
        1 => {
            if let Some(byte) = bytes.get_mut(at) {
                *byte = if rng.once_in(2) {
                    rng.next_u64() as u8
                } else {
                    *rng.pick(&EDGES) as u8
                };
            }
        }
        2 => bytes.truncate(at),
        3 => {
            let end = stretch(at, bytes.len(), rng);
            bytes.drain(at..end);
        }
        4 => {
            let end = stretch(at, bytes.len(), rng);
            let copy = bytes[at..end].to_vec();
            insert(bytes, rng, &copy);
        }
        5 => {
            let noise: Vec<u8> = (0..=rng.below(8)).map(|_| rng.next_u64() as u8).collect();
            insert(bytes, rng, &noise);
        }
        6 | 7 => number(bytes, at, rng),
        8 => {
            let from = rng.below(other.len());
            bytes.truncate(at);
            bytes.extend_from_slice(&other[from..]);
        }
        9 if !words.is_empty() => {
            let word = rng.pick(words).clone();
            insert(bytes, rng, &word);
        }
        10 => repeat(bytes, at, words, bytes_max, rng),
        _ => digits(bytes, at, rng),
    }
}

/// The end of a piece that begins at `at`; most are short.
fn stretch(at: usize, len: usize, rng: &mut Rng) -> usize {
    let longest = if rng.once_in(4) { len } else { 16 };
    len.min(at + 1 + rng.below(longest))
}

fn insert(bytes: &mut Vec<u8>, rng: &mut Rng, piece: &[u8]) {
    let at = rng.below(bytes.len() + 1);
    bytes.splice(at..at, piece.iter().copied());
}

/// Puts a telling number where a length or a counter may stand.
fn number(bytes: &mut [u8], at: usize, rng: &mut Rng) {
    let width = *rng.pick(&[1usize, 2, 4, 8]);
    let Some(field) = bytes.get_mut(at..at + width) else {
        return;
    };
    let mut wide = [0; 8];
    wide[..width].copy_from_slice(field);
    let found = u64::from_le_bytes(wide);
    let value = match rng.below(3) {
        0 => *rng.pick(&EDGES),
        1 => found.wrapping_add(rng.below(9) as u64).wrapping_sub(4),
        _ => rng.below(1 << 16) as u64,
    };
    if rng.once_in(4) {
        field.copy_from_slice(&value.to_be_bytes()[8 - width..]);
    } else {
        field.copy_from_slice(&value.to_le_bytes()[..width]);
    }
}

/// Nesting and endless lists: one word or piece again and again.
fn repeat(bytes: &mut Vec<u8>, at: usize, words: &[Vec<u8>], bytes_max: usize, rng: &mut Rng) {
    let piece = if words.is_empty() || rng.once_in(3) {
        bytes[at..stretch(at, bytes.len(), rng)].to_vec()
    } else {
        rng.pick(words).clone()
    };
    if piece.is_empty() {
        return;
    }
    let longest = if rng.once_in(16) {
        bytes_max
    } else {
        REPEATED_BYTES_USUAL
    };
    let times = 1 + rng.below(longest / piece.len() + 1);
    insert(bytes, rng, &piece.repeat(times));
}

/// Another number in the place of one that is written in digits.
fn digits(bytes: &mut Vec<u8>, from: usize, rng: &mut Rng) {
    let Some(start) = bytes[from..].iter().position(u8::is_ascii_digit).map(|at| from + at) else {
        return;
    };
    let len = bytes[start..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    let sign = if rng.once_in(8) { "-" } else { "" };
    let text = format!("{sign}{}", rng.pick(&EDGES));
    bytes.splice(start..start + len, text.into_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_makes_the_same_inputs_and_none_is_too_long() {
        let words = vec![b"(".to_vec(), b"NOT ".to_vec()];
        let make = |seed| {
            let mut rng = Rng::new(seed);
            (0..500)
                .map(|_| mutate(b"a valid input 17", b"another one", &words, 5_000, &mut rng))
                .collect::<Vec<_>>()
        };
        assert_eq!(make(1), make(1));
        assert_ne!(make(1), make(2));
        assert!(make(3).iter().all(|input| input.len() <= 5_000));
        assert!(make(3).iter().any(|input| input.len() > 4_000), "some are long");
        assert!(make(4).iter().any(Vec::is_empty), "some are empty");
    }

    #[test]
    fn nothing_comes_of_nothing_without_a_panic() {
        let mut rng = Rng::new(7);
        for _ in 0..500 {
            mutate(b"", b"", &[], 100, &mut rng);
        }
    }
}
