//! The four messages that open a connection inside a group, as bytes. Pure: peer.rs reads and writes them.
//!
//! ```text
//! caller → callee  Hello      "FMQP" | version u16 | purpose u8 | flags u8 | node u64 | expected node u64 | nonce 32
//!                             | group length u8 | group 64
//! callee → caller  Challenge  "FMQP" | version u16 | 0 u8 | flags u8 | node u64 | 0 u64 | nonce 32
//!                             | group length u8 | group 64
//! caller → callee  Proof      HMAC-SHA256(key, "caller" | Hello | Challenge), or zeros without a secret
//! callee → caller  Verdict    status u8 | HMAC-SHA256(key, "callee" | status | Hello | Challenge), or zeros
//! ```
//!
//! Integers are little-endian and every size is fixed, so a stranger cannot make a node reserve memory. The caller
//! proves first: whoever merely connects to the port learns nothing that depends on the secret.

use ring::hmac;
use subtle::ConstantTimeEq;

use crate::name::{PeerName, Purpose};

/// The version that this node speaks.
pub(crate) const VERSION: u16 = 1;
/// Magic and version, which every version begins with.
pub(crate) const HEAD_BYTES: usize = 6;
/// A whole Hello or Challenge.
pub(crate) const GREETING_BYTES: usize = 121;
pub(crate) const PROOF_BYTES: usize = 32;
pub(crate) const VERDICT_BYTES: usize = 1 + PROOF_BYTES;

pub(crate) type GreetingBytes = [u8; GREETING_BYTES];

/// A Hello or a Challenge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Greeting {
    pub(crate) name: PeerName,
    pub(crate) purpose: Purpose,
    /// The node that the caller looks for, 0 for any.
    pub(crate) expected: u64,
    pub(crate) has_secret: bool,
    pub(crate) nonce: [u8; 32],
}

/// How the callee answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Status {
    Welcome = 0,
    BadSecret = 1,
    WrongGroup = 2,
    WrongNode = 3,
    WrongName = 4,
}

/// Bytes that are no greeting.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Malformed {
    Magic,
    Version(u16),
    Name,
}

impl Greeting {
    pub(crate) fn encode(&self) -> GreetingBytes {
        let mut out = [0; GREETING_BYTES];
        out[..4].copy_from_slice(MAGIC);
        out[4..6].copy_from_slice(&VERSION.to_le_bytes());
        out[6] = self.purpose.0;
        out[7] = u8::from(self.has_secret);
        out[8..16].copy_from_slice(&self.name.node().to_le_bytes());
        out[16..24].copy_from_slice(&self.expected.to_le_bytes());
        out[24..56].copy_from_slice(&self.nonce);
        let group = self.name.group().as_bytes();
        out[56] = group.len() as u8;
        out[57..57 + group.len()].copy_from_slice(group);
        out
    }

    pub(crate) fn decode(bytes: &GreetingBytes) -> Result<Self, Malformed> {
        check_head(bytes.first_chunk().expect("a greeting is longer than its head"))?;
        let group = bytes[57..].get(..bytes[56].into()).ok_or(Malformed::Name)?;
        let group = std::str::from_utf8(group).map_err(|_| Malformed::Name)?;
        Ok(Self {
            name: PeerName::new(group, u64_at(bytes, 8)).map_err(|_| Malformed::Name)?,
            purpose: Purpose(bytes[6]),
            expected: u64_at(bytes, 16),
            has_secret: bytes[7] & 1 == 1,
            nonce: *bytes[24..].first_chunk().expect("a greeting has room for its nonce"),
        })
    }
}

/// Checks what every version begins with.
pub(crate) fn check_head(head: &[u8; HEAD_BYTES]) -> Result<(), Malformed> {
    if &head[..4] != MAGIC {
        return Err(Malformed::Magic);
    }
    match u16::from_le_bytes([head[4], head[5]]) {
        VERSION => Ok(()),
        other => Err(Malformed::Version(other)),
    }
}

/// What a node that speaks another version is answered.
pub(crate) fn head() -> [u8; HEAD_BYTES] {
    let [low, high] = VERSION.to_le_bytes();
    [MAGIC[0], MAGIC[1], MAGIC[2], MAGIC[3], low, high]
}

impl Status {
    pub(crate) fn from_byte(byte: u8) -> Option<Self> {
        [
            Self::Welcome,
            Self::BadSecret,
            Self::WrongGroup,
            Self::WrongNode,
            Self::WrongName,
        ]
        .into_iter()
        .find(|status| *status as u8 == byte)
    }
}

/// The caller's proof, over both greetings.
pub(crate) fn caller_proof(key: &hmac::Key, hello: &GreetingBytes, challenge: &GreetingBytes) -> [u8; PROOF_BYTES] {
    sign(key, b"caller", &[], hello, challenge)
}

/// The callee's proof, over both greetings and its answer.
pub(crate) fn callee_proof(
    key: &hmac::Key,
    status: u8,
    hello: &GreetingBytes,
    challenge: &GreetingBytes,
) -> [u8; PROOF_BYTES] {
    sign(key, b"callee", &[status], hello, challenge)
}

/// Compares in constant time.
pub(crate) fn same(expected: &[u8; PROOF_BYTES], found: &[u8; PROOF_BYTES]) -> bool {
    expected.ct_eq(found).into()
}

fn sign(
    key: &hmac::Key,
    side: &[u8],
    status: &[u8],
    hello: &GreetingBytes,
    challenge: &GreetingBytes,
) -> [u8; PROOF_BYTES] {
    let mut context = hmac::Context::with_key(key);
    for part in [side, status, hello, challenge] {
        context.update(part);
    }
    context.sign().as_ref().try_into().expect("HMAC-SHA256 gives 32 bytes")
}

fn u64_at(bytes: &GreetingBytes, at: usize) -> u64 {
    u64::from_le_bytes(*bytes[at..].first_chunk().expect("the offsets lie within a greeting"))
}

const MAGIC: &[u8; 4] = b"FMQP";

#[cfg(test)]
mod tests {
    use super::*;

    fn greeting() -> Greeting {
        Greeting {
            name: PeerName::new("g".repeat(64), 7).unwrap(),
            purpose: Purpose(3),
            expected: 9,
            has_secret: true,
            nonce: [5; 32],
        }
    }

    #[test]
    fn a_greeting_survives_the_round_trip() {
        assert_eq!(Greeting::decode(&greeting().encode()), Ok(greeting()));
    }

    #[test]
    fn no_changed_byte_panics_and_each_changes_the_proof() {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &[1; 32]);
        let good = greeting().encode();
        let proof = caller_proof(&key, &good, &good);
        for at in 0..GREETING_BYTES {
            for flip in [1, 0x80, 0xff] {
                let mut bad = good;
                bad[at] ^= flip;
                let _ = Greeting::decode(&bad);
                assert!(!same(&proof, &caller_proof(&key, &bad, &good)));
            }
        }
        assert!(
            !same(&proof, &callee_proof(&key, 0, &good, &good)),
            "a proof cannot be sent back as one's own"
        );
    }

    #[test]
    fn other_magic_version_and_names_are_told_apart() {
        let mut bytes = greeting().encode();
        bytes[4] = 2;
        assert_eq!(Greeting::decode(&bytes), Err(Malformed::Version(2)));
        bytes[0] = b'G';
        assert_eq!(Greeting::decode(&bytes), Err(Malformed::Magic));
        let mut bytes = greeting().encode();
        bytes[56] = 65;
        assert_eq!(Greeting::decode(&bytes), Err(Malformed::Name));
        assert_eq!(check_head(&head()), Ok(()));
    }
}
