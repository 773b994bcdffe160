//! The versions of STOMP and how one is agreed upon.

/// A version of the protocol; later ones compare greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Version {
    /// 1.0: no escapes, no heart-beats, subscriptions may lack an id.
    #[default]
    V1_0,
    /// 1.1: escapes, heart-beats, NACK.
    V1_1,
    /// 1.2: carriage returns before line ends, acknowledgement by the `ack` header.
    V1_2,
}

impl Version {
    /// What a server that offers all of them lists.
    pub const ALL: &str = "1.0,1.1,1.2";

    /// As headers write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V1_0 => "1.0",
            Self::V1_1 => "1.1",
            Self::V1_2 => "1.2",
        }
    }

    /// The version of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::V1_0, Self::V1_1, Self::V1_2]
            .into_iter()
            .find(|version| version.as_str() == name)
    }

    /// The highest version in an `accept-version` header; without the header it is 1.0 (STOMP 1.2, "Protocol
    /// Negotiation"). `None` where the two sides share none.
    pub fn negotiate(accept_version: Option<&str>) -> Option<Self> {
        match accept_version {
            None => Some(Self::V1_0),
            Some(list) => list.split(',').filter_map(|name| Self::from_name(name.trim())).max(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_common_version_is_taken() {
        assert_eq!(Version::negotiate(None), Some(Version::V1_0));
        assert_eq!(Version::negotiate(Some("1.1, 1.2,1.0")), Some(Version::V1_2));
        assert_eq!(Version::negotiate(Some("1.0,1.1,9.9")), Some(Version::V1_1));
        assert_eq!(Version::negotiate(Some("2.0")), None);
        assert_eq!(Version::negotiate(Some("")), None);
    }
}
