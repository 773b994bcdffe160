//! One row of demand: what one group's consumers want of one destination, with the way on which that was heard.
//!
//! ```text
//! key:  origin u64 | has destination u8 [kind u8, name text]
//! row:  key | flags u8 (1 durable, 2 linked) | consumers u32 | credit u32 | name text
//!       path count u32, group u64 … | selectors count u32, (present u8 [text]) …
//!       without a destination: | term u64 | change u64
//! ```
//!
//! A row without a destination says that its origin is there, or was, under which name, and as of which word of it the
//! teller's other rows of it are. It is told after them, so that whoever has heard it has heard them all.

use bytes::{BufMut, BytesMut};

use ferrymq_broker::{DemandVersion, GroupId};
use ferrymq_message::Destination;

use crate::{
    frame::FrameError,
    wire::{Reader, put_destination, put_list, put_option, put_text},
};

/// What a row is about. Rows of one destination lie next to each other, those without one in front.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// `None`: the row that says that the origin is there.
    pub destination: Option<Destination>,
    /// Whose consumers.
    pub origin: GroupId,
}

/// One group's demand for one destination, as told on a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// What it is about.
    pub key: Key,
    /// The origin's name; only in the row without a destination, empty otherwise.
    pub name: String,
    /// The groups from the teller to the origin, both included.
    pub path: Vec<GroupId>,
    /// Consumers at the origin.
    pub consumers: u32,
    /// Messages for which there is room now, as the teller sees it.
    pub credit: u32,
    /// Distinct selectors in ascending order; `None` among them wants all.
    pub selectors: Vec<Option<String>>,
    /// A durable subscription is among them.
    pub durable: bool,
    /// False where the teller has lost the way to the origin but remembers its durable demand.
    pub linked: bool,
    /// Which word of the origin the teller's rows of it are; only in the row without a destination.
    pub version: DemandVersion,
}

/// Longest group name, in bytes.
pub(crate) const GROUP_NAME_BYTES_MAX: usize = 256;
/// Longest selector, in bytes; a consumer with a longer one counts as one that wants all.
pub(crate) const SELECTOR_BYTES_MAX: usize = 64 * 1024;
/// Most distinct selectors in a row; a destination with more counts as one where all is wanted.
pub(crate) const SELECTORS_MAX: usize = 256;
/// Longest path that is read; [`Config::hops_max`](crate::Config::hops_max) is usually far below.
pub(crate) const PATH_GROUPS_MAX: usize = 255;

const DURABLE: u8 = 1;
const LINKED: u8 = 2;

impl Key {
    /// The key of this origin's demand for a destination.
    pub fn of(destination: &Destination, origin: GroupId) -> Self {
        Self {
            destination: Some(destination.clone()),
            origin,
        }
    }

    /// The key of the row that says that this group is there.
    pub fn presence(origin: GroupId) -> Self {
        Self {
            destination: None,
            origin,
        }
    }

    pub(crate) fn encode(&self, out: &mut BytesMut) {
        out.put_u64_le(self.origin);
        put_option(out, self.destination.as_ref(), put_destination);
    }

    pub(crate) fn decode(from: &mut Reader) -> Result<Self, FrameError> {
        let origin = from.u64()?;
        Ok(Self {
            origin,
            destination: from.option(Reader::destination)?,
        })
    }

    /// Bytes of the shortest key.
    pub(crate) const BYTES_MIN: usize = 9;
}

impl Row {
    /// The row by which a group says that it is there.
    pub fn presence(origin: GroupId, name: &str) -> Self {
        Self {
            key: Key::presence(origin),
            name: name.to_owned(),
            path: vec![origin],
            consumers: 0,
            credit: 0,
            selectors: Vec::new(),
            durable: false,
            linked: true,
            version: DemandVersion::default(),
        }
    }

    /// True where this row is as `other` would be with these consumers and this credit.
    pub(crate) fn is(&self, other: &Self, consumers: u32, credit: u32) -> bool {
        (self.consumers, self.credit) == (consumers, credit)
            && (self.durable, self.linked) == (other.durable, other.linked)
            && self.path == other.path
            && self.selectors == other.selectors
            && self.name == other.name
            && self.version == other.version
            && self.key == other.key
    }

    pub(crate) fn encode(&self, out: &mut BytesMut) {
        self.key.encode(out);
        out.put_u8(if self.durable { DURABLE } else { 0 } | if self.linked { LINKED } else { 0 });
        out.put_u32_le(self.consumers);
        out.put_u32_le(self.credit);
        put_text(out, &self.name);
        put_list(out, &self.path, |out, group| out.put_u64_le(*group));
        put_list(out, &self.selectors, |out, selector| {
            put_option(out, selector.as_ref(), |out, text| put_text(out, text));
        });
        if self.key.destination.is_none() {
            out.put_u64_le(self.version.term);
            out.put_u64_le(self.version.change);
        }
    }

    pub(crate) fn decode(from: &mut Reader) -> Result<Self, FrameError> {
        let key = Key::decode(from)?;
        let flags = from.u8()?;
        if flags & !(DURABLE | LINKED) != 0 {
            return Err(FrameError::Malformed("row flags"));
        }
        let consumers = from.u32()?;
        let credit = from.u32()?;
        let name = from.text("group name", GROUP_NAME_BYTES_MAX)?;
        let path = from.list(8, Reader::u64)?;
        if path.is_empty() || path.len() > PATH_GROUPS_MAX || path.last() != Some(&key.origin) {
            return Err(FrameError::Malformed("path"));
        }
        let selectors = from.list(1, |from| from.option(|from| from.text("selector", SELECTOR_BYTES_MAX)))?;
        if selectors.len() > SELECTORS_MAX {
            return Err(FrameError::Malformed("selectors"));
        }
        let mut version = DemandVersion::default();
        if key.destination.is_none() {
            (version.term, version.change) = (from.u64()?, from.u64()?);
        }
        let (durable, linked) = (flags & DURABLE != 0, flags & LINKED != 0);
        Ok(Self {
            key,
            name,
            path,
            consumers,
            credit,
            selectors,
            durable,
            linked,
            version,
        })
    }

    /// Bytes of the shortest row.
    pub(crate) const BYTES_MIN: usize = Key::BYTES_MIN + 29;

    /// About as many bytes as the encoded row has.
    pub(crate) fn bytes(&self) -> usize {
        let name = self
            .key
            .destination
            .as_ref()
            .map_or(0, |destination| destination.name().len());
        let selectors: usize = self.selectors.iter().flatten().map(|text| text.len() + 5).sum();
        Self::BYTES_MIN + name + self.name.len() + 8 * self.path.len() + selectors
    }

    /// This row's part in the hash over all rows of a link (P12). Both sides must agree on it whatever their version of
    /// any library, so it is FNV-1a over the encoded row with the SplitMix64 finaliser, spelled out here.
    pub(crate) fn hash(&self, scratch: &mut BytesMut) -> u64 {
        scratch.clear();
        self.encode(scratch);
        let fnv = scratch.iter().fold(0xcbf2_9ce4_8422_2325_u64, |h, b| {
            (h ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3)
        });
        crate::jitter::mix(fnv)
    }
}
