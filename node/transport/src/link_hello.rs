//! The first message of each stream of a link: who speaks, and what the stream carries.
//!
//! ```text
//! "FMQL" | version u16 LE | channel u8 | 0 u8 | node u64 LE | group length u8 | group 64
//! ```

use crate::link::Channel;
use crate::name::PeerName;

/// Length of a hello, always the same.
pub(crate) const HELLO_BYTES: usize = 81;
const MAGIC: &[u8; 4] = b"FMQL";
const VERSION: u16 = 1;

/// Who speaks, and what the stream carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LinkHello {
    pub(crate) channel: Channel,
    pub(crate) name: PeerName,
}

/// Bytes that are no hello.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum BadHello {
    Form(&'static str),
    Version(u16),
}

impl LinkHello {
    pub(crate) fn encode(&self) -> [u8; HELLO_BYTES] {
        let mut out = [0; HELLO_BYTES];
        out[..4].copy_from_slice(MAGIC);
        out[4..6].copy_from_slice(&VERSION.to_le_bytes());
        out[6] = self.channel as u8;
        out[8..16].copy_from_slice(&self.name.node().to_le_bytes());
        let group = self.name.group().as_bytes();
        out[16] = group.len() as u8;
        out[17..17 + group.len()].copy_from_slice(group);
        out
    }

    pub(crate) fn decode(bytes: &[u8; HELLO_BYTES]) -> Result<Self, BadHello> {
        if &bytes[..4] != MAGIC {
            return Err(BadHello::Form("it does not begin with FMQL"));
        }
        match u16::from_le_bytes([bytes[4], bytes[5]]) {
            VERSION => {}
            other => return Err(BadHello::Version(other)),
        }
        let channel = match bytes[6] {
            0 => Channel::Control,
            1 => Channel::Bulk,
            _ => return Err(BadHello::Form("it is for an unknown channel")),
        };
        let node = u64::from_le_bytes(*bytes[8..].first_chunk().expect("the offset lies within a hello"));
        let name = bytes[17..]
            .get(..bytes[16].into())
            .and_then(|group| std::str::from_utf8(group).ok())
            .and_then(|group| PeerName::new(group, node).ok())
            .ok_or(BadHello::Form("it holds no valid name"))?;
        Ok(Self { channel, name })
    }
}

impl std::fmt::Display for BadHello {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Form(what) => f.write_str(what),
            Self::Version(theirs) => write!(f, "theirs is {theirs}, ours {VERSION}: upgrade one of them"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hello_survives_the_round_trip_and_no_changed_byte_panics() {
        for channel in [Channel::Control, Channel::Bulk] {
            let hello = LinkHello {
                channel,
                name: PeerName::new("g".repeat(64), u64::MAX).unwrap(),
            };
            let good = hello.encode();
            assert_eq!(LinkHello::decode(&good), Ok(hello.clone()));
            for at in 0..HELLO_BYTES {
                for flip in 1..=255 {
                    let mut bad = good;
                    bad[at] ^= flip;
                    // Byte 7 is spare; every other one matters.
                    assert_eq!(LinkHello::decode(&bad) == Ok(hello.clone()), at == 7);
                }
            }
        }
    }

    #[test]
    fn another_version_is_named() {
        let mut bytes = LinkHello {
            channel: Channel::Control,
            name: PeerName::new("g", 1).unwrap(),
        }
        .encode();
        bytes[4] = 7;
        assert_eq!(LinkHello::decode(&bytes), Err(BadHello::Version(7)));
    }
}
