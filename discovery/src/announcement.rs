//! What a node says about itself to whoever listens: a compact datagram, with a tag when the mesh has a secret.
//!
//! ```text
//! "FMQA" | version u8 | flags u8 | group id u64 | epoch u64 | node u64 | incarnation u64
//! | length u8, mesh | length u8, group | count u8, endpoints | tag 16 bytes, if flagged
//! endpoint: 4 u8 | IPv4 4 | port u16      or      6 u8 | IPv6 16 | port u16
//! ```
//!
//! Integers are little-endian, ports too. The tag is the first half of HMAC-SHA256 over all bytes before it. It shows
//! that the sender knew the secret once, not that it is who it says nor that it says so now: a hint in any case.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ring::hmac;
use subtle::ConstantTimeEq;

/// What a node says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Announcement {
    /// The group's name, at most 64 bytes.
    pub group: String,
    /// The group's id.
    pub group_id: u64,
    /// Rises with each master of the group; the higher one knows better.
    pub epoch: u64,
    /// The node's number in its group.
    pub node: u64,
    /// When the node was started, so that what it said before a restart is recognised as old.
    pub incarnation: u64,
    /// Whether the node is its group's master.
    pub is_master: bool,
    /// Whether the node is about to stop.
    pub is_dead: bool,
    /// Where the node's link port can be reached, at most [`ENDPOINTS_MAX`]. An unspecified IP address (0.0.0.0, ::)
    /// stands for the address from which the announcement comes.
    pub endpoints: Vec<SocketAddr>,
}

/// Most endpoints in an announcement.
pub const ENDPOINTS_MAX: usize = 8;
/// Longest group and mesh name, in bytes.
pub const NAME_BYTES_MAX: usize = 64;

/// The key of an announcement's tag.
#[derive(Clone)]
pub(crate) struct TagKey(hmac::Key);

/// A datagram that is no announcement for us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NotForUs {
    /// Of another protocol, such as ActiveMQ's own discovery on the same address.
    Foreign,
    /// Of another mesh.
    OtherMesh,
    /// Of another version.
    Version,
    /// It begins as ours does and then makes no sense.
    Malformed,
    /// The mesh has a secret and the tag is missing or wrong.
    Unauthenticated,
}

impl TagKey {
    pub(crate) fn new(key: &[u8; 32]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, key))
    }

    fn tag(&self, bytes: &[u8]) -> [u8; TAG_BYTES] {
        *hmac::sign(&self.0, bytes)
            .as_ref()
            .first_chunk()
            .expect("HMAC-SHA256 is longer than a tag")
    }
}

impl Announcement {
    /// The datagram. Names and endpoints over their limits are cut.
    pub(crate) fn encode(&self, mesh: &str, key: Option<&TagKey>) -> Vec<u8> {
        let mut out = Vec::with_capacity(256);
        out.extend_from_slice(MAGIC);
        out.push(VERSION);
        let flags = [(self.is_master, MASTER), (self.is_dead, DEAD), (key.is_some(), TAGGED)];
        out.push(
            flags
                .iter()
                .filter(|(is_set, _)| *is_set)
                .fold(0, |all, (_, flag)| all | flag),
        );
        for number in [self.group_id, self.epoch, self.node, self.incarnation] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        for name in [mesh, &self.group] {
            let name = &name.as_bytes()[..name.len().min(NAME_BYTES_MAX)];
            out.push(name.len() as u8);
            out.extend_from_slice(name);
        }
        let endpoints = &self.endpoints[..self.endpoints.len().min(ENDPOINTS_MAX)];
        out.push(endpoints.len() as u8);
        for endpoint in endpoints {
            match endpoint.ip() {
                IpAddr::V4(ip) => {
                    out.push(4);
                    out.extend_from_slice(&ip.octets());
                }
                IpAddr::V6(ip) => {
                    out.push(6);
                    out.extend_from_slice(&ip.octets());
                }
            }
            out.extend_from_slice(&endpoint.port().to_le_bytes());
        }
        if let Some(key) = key {
            let tag = key.tag(&out);
            out.extend_from_slice(&tag);
        }
        out
    }

    /// Reads a datagram. With a key, only a rightly tagged one passes.
    pub(crate) fn decode(datagram: &[u8], mesh: &str, key: Option<&TagKey>) -> Result<Self, NotForUs> {
        let body = datagram.strip_prefix(MAGIC).ok_or(NotForUs::Foreign)?;
        let mut body = Reader(body);
        if body.byte()? != VERSION {
            return Err(NotForUs::Version);
        }
        let flags = body.byte()?;
        let [group_id, epoch, node, incarnation] = [body.number()?, body.number()?, body.number()?, body.number()?];
        let their_mesh = body.name()?;
        let group = body.name()?.to_owned();
        let count = usize::from(body.byte()?);
        if count > ENDPOINTS_MAX || group.is_empty() {
            return Err(NotForUs::Malformed);
        }
        let endpoints = (0..count).map(|_| body.endpoint()).collect::<Result<_, _>>()?;
        let tag = if flags & TAGGED == 0 {
            None
        } else {
            Some(*body.array::<TAG_BYTES>()?)
        };
        if !body.0.is_empty() {
            return Err(NotForUs::Malformed);
        }
        if their_mesh != mesh {
            return Err(NotForUs::OtherMesh);
        }
        if let Some(key) = key {
            let signed = &datagram[..datagram.len().saturating_sub(TAG_BYTES)];
            if tag.is_none_or(|tag| !same(&key.tag(signed), &tag)) {
                return Err(NotForUs::Unauthenticated);
            }
        }
        let (is_master, is_dead) = (flags & MASTER != 0, flags & DEAD != 0);
        Ok(Self {
            group,
            group_id,
            epoch,
            node,
            incarnation,
            is_master,
            is_dead,
            endpoints,
        })
    }

    /// The tag alone, for a carrier with its own form.
    pub(crate) fn tag(&self, mesh: &str, key: &TagKey) -> [u8; TAG_BYTES] {
        *self
            .encode(mesh, Some(key))
            .last_chunk()
            .expect("the tag stands at the end")
    }

    /// Whether this is the right tag.
    pub(crate) fn has_tag(&self, mesh: &str, key: &TagKey, tag: &[u8; TAG_BYTES]) -> bool {
        same(&self.tag(mesh, key), tag)
    }

    /// Whether `other` tells about the same node. Two groups of one name are apart by their ids.
    pub(crate) fn is_same_node(&self, other: &Self) -> bool {
        (self.group_id, self.node, &self.group) == (other.group_id, other.node, &other.group)
    }

    /// Puts the address from which it came in place of unspecified ones.
    pub(crate) fn fill_in(&mut self, from: IpAddr) {
        for endpoint in &mut self.endpoints {
            if endpoint.ip().is_unspecified() {
                endpoint.set_ip(from.to_canonical());
            }
        }
    }
}

/// What is left to read.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn array<const N: usize>(&mut self) -> Result<&'a [u8; N], NotForUs> {
        let (array, rest) = self.0.split_first_chunk().ok_or(NotForUs::Malformed)?;
        self.0 = rest;
        Ok(array)
    }

    fn byte(&mut self) -> Result<u8, NotForUs> {
        self.array::<1>().map(|[byte]| *byte)
    }

    fn number(&mut self) -> Result<u64, NotForUs> {
        self.array().map(|bytes| u64::from_le_bytes(*bytes))
    }

    fn name(&mut self) -> Result<&'a str, NotForUs> {
        let length = usize::from(self.byte()?);
        if length > NAME_BYTES_MAX {
            return Err(NotForUs::Malformed);
        }
        let (name, rest) = self.0.split_at_checked(length).ok_or(NotForUs::Malformed)?;
        self.0 = rest;
        std::str::from_utf8(name).map_err(|_| NotForUs::Malformed)
    }

    fn endpoint(&mut self) -> Result<SocketAddr, NotForUs> {
        let ip = match self.byte()? {
            4 => IpAddr::V4(Ipv4Addr::from(*self.array::<4>()?)),
            6 => IpAddr::V6(Ipv6Addr::from(*self.array::<16>()?)),
            _ => return Err(NotForUs::Malformed),
        };
        Ok(SocketAddr::new(ip, u16::from_le_bytes(*self.array()?)))
    }
}

/// Compares in constant time.
fn same(a: &[u8; TAG_BYTES], b: &[u8; TAG_BYTES]) -> bool {
    a.ct_eq(b).into()
}

/// The longest datagram, which any network carries in one piece.
pub(crate) const DATAGRAM_BYTES_MAX: usize = 1200;
const MAGIC: &[u8; 4] = b"FMQA";
const VERSION: u8 = 1;
/// Length of a tag.
pub(crate) const TAG_BYTES: usize = 16;
const MASTER: u8 = 1;
const DEAD: u8 = 2;
const TAGGED: u8 = 4;

#[cfg(test)]
mod tests {
    use super::*;

    fn announcement() -> Announcement {
        Announcement {
            group: "g".repeat(NAME_BYTES_MAX),
            group_id: 7,
            epoch: 8,
            node: 9,
            incarnation: u64::MAX,
            is_master: true,
            is_dead: false,
            endpoints: (0..ENDPOINTS_MAX as u16)
                .map(|i| {
                    if i % 2 == 0 {
                        ([10, 0, 0, 1], 1000 + i).into()
                    } else {
                        ([1; 8], 2000 + i).into()
                    }
                })
                .collect(),
        }
    }

    fn keys() -> (TagKey, TagKey) {
        (TagKey::new(&[1; 32]), TagKey::new(&[2; 32]))
    }

    #[test]
    fn the_longest_announcement_survives_the_round_trip_in_one_datagram() {
        let mesh = "m".repeat(NAME_BYTES_MAX);
        let (key, _) = keys();
        for (is_master, is_dead) in [(true, false), (false, true)] {
            let said = Announcement {
                is_master,
                is_dead,
                ..announcement()
            };
            for key in [None, Some(&key)] {
                let datagram = said.encode(&mesh, key);
                assert!(datagram.len() <= DATAGRAM_BYTES_MAX);
                assert_eq!(Announcement::decode(&datagram, &mesh, key), Ok(said.clone()));
            }
        }
    }

    #[test]
    fn every_truncation_and_extension_is_malformed() {
        let (key, _) = keys();
        for key in [None, Some(&key)] {
            let mut datagram = announcement().encode("m", key);
            for end in 0..datagram.len() {
                let expected = if end < 4 {
                    NotForUs::Foreign
                } else {
                    NotForUs::Malformed
                };
                assert_eq!(Announcement::decode(&datagram[..end], "m", key), Err(expected), "{end}");
            }
            datagram.push(0);
            assert_eq!(Announcement::decode(&datagram, "m", key), Err(NotForUs::Malformed));
        }
    }

    #[test]
    fn no_flipped_bit_passes_the_tag_and_none_panics() {
        let (key, _) = keys();
        let good = announcement().encode("m", Some(&key));
        for at in 0..good.len() {
            for bit in 0..8 {
                let mut bad = good.clone();
                bad[at] ^= 1 << bit;
                assert!(
                    Announcement::decode(&bad, "m", Some(&key)).is_err(),
                    "byte {at} bit {bit}"
                );
                let _ = Announcement::decode(&bad, "m", None);
            }
        }
    }

    #[test]
    fn others_are_told_apart() {
        let (key, wrong) = keys();
        let said = announcement();
        let decode = |datagram: &[u8]| Announcement::decode(datagram, "m", Some(&key));
        assert_eq!(decode(&said.encode("m", None)), Err(NotForUs::Unauthenticated));
        assert_eq!(decode(&said.encode("m", Some(&wrong))), Err(NotForUs::Unauthenticated));
        assert_eq!(decode(&said.encode("n", Some(&key))), Err(NotForUs::OtherMesh));
        let activemq = b"default.ActiveMQ-4.alive.%localhost%tcp://host:61616";
        assert_eq!(decode(activemq), Err(NotForUs::Foreign));
        let mut newer = said.encode("m", Some(&key));
        newer[4] = 2;
        assert_eq!(decode(&newer), Err(NotForUs::Version));
        assert!(
            Announcement::decode(&said.encode("m", Some(&wrong)), "m", None).is_ok(),
            "no secret, no check"
        );
    }

    #[test]
    fn an_unspecified_address_becomes_the_senders() {
        let mut said = announcement();
        said.endpoints = vec![([0, 0, 0, 0], 5).into(), ([10, 1, 1, 1], 6).into()];
        said.fill_in(IpAddr::from([10, 2, 2, 2]));
        assert_eq!(said.endpoints, [([10, 2, 2, 2], 5).into(), ([10, 1, 1, 1], 6).into()]);
    }
}
