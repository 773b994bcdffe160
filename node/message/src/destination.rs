//! Where a message is sent to and consumed from: a queue or a topic, kept or temporary.

use std::{fmt, str::FromStr, sync::Arc};

/// What a destination does with a message. The numbers are part of the stored form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum DestinationKind {
    /// Each message goes to one of the competing consumers.
    Queue = 0,
    /// Each message goes to every subscription.
    Topic = 1,
    /// A queue that lives as long as the connection that made it.
    TempQueue = 2,
    /// A topic that lives as long as the connection that made it.
    TempTopic = 3,
}

impl DestinationKind {
    /// The kind behind a stored number.
    pub fn from_u8(number: u8) -> Option<Self> {
        Some(match number {
            0 => Self::Queue,
            1 => Self::Topic,
            2 => Self::TempQueue,
            3 => Self::TempTopic,
            _ => return None,
        })
    }

    /// True where every subscription gets its own copy.
    pub fn is_topic(self) -> bool {
        matches!(self, Self::Topic | Self::TempTopic)
    }

    /// True where the destination ends with the connection that made it.
    pub fn is_temporary(self) -> bool {
        matches!(self, Self::TempQueue | Self::TempTopic)
    }

    fn prefix(self) -> &'static str {
        match self {
            Self::Queue => "queue://",
            Self::Topic => "topic://",
            Self::TempQueue => "temp-queue://",
            Self::TempTopic => "temp-topic://",
        }
    }
}

/// A destination's kind and name; cheap to clone.
///
/// Written as ActiveMQ writes it (`ActiveMQDestination.getQualifiedName`): `queue://ORDERS`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Destination {
    kind: DestinationKind,
    name: Arc<str>,
}

/// Why a text is not a destination.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseDestinationError {
    /// Nothing follows the prefix.
    #[error("a destination needs a name after its prefix")]
    Empty,
    /// Longer than [`Destination::NAME_BYTES_MAX`].
    #[error("a destination's name has {0} bytes, at most {max} are allowed", max = Destination::NAME_BYTES_MAX)]
    TooLong(usize),
    /// A control character, which no tool could show or type.
    #[error("a destination's name contains a control character at byte {0}")]
    Control(usize),
}

impl Destination {
    /// Longest name, in bytes.
    pub const NAME_BYTES_MAX: usize = 1024;

    /// A destination of this kind and name.
    ///
    /// # Errors
    /// Where the name is empty, too long or holds a control character.
    pub fn new(kind: DestinationKind, name: &str) -> Result<Self, ParseDestinationError> {
        if name.is_empty() {
            return Err(ParseDestinationError::Empty);
        }
        if name.len() > Self::NAME_BYTES_MAX {
            return Err(ParseDestinationError::TooLong(name.len()));
        }
        if let Some(at) = name.find(char::is_control) {
            return Err(ParseDestinationError::Control(at));
        }
        Ok(Self {
            kind,
            name: name.into(),
        })
    }

    /// Shorthand for a queue whose name is known to be good, as in tests and constants.
    ///
    /// # Panics
    /// Where the name is not a valid one.
    pub fn queue(name: &str) -> Self {
        Self::new(DestinationKind::Queue, name).expect("the caller passes a valid name")
    }

    /// Shorthand for a topic whose name is known to be good.
    ///
    /// # Panics
    /// Where the name is not a valid one.
    pub fn topic(name: &str) -> Self {
        Self::new(DestinationKind::Topic, name).expect("the caller passes a valid name")
    }

    /// Queue, topic, or a temporary one.
    pub fn kind(&self) -> DestinationKind {
        self.kind
    }

    /// The name without its prefix.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.kind.prefix(), self.name)
    }
}

impl FromStr for Destination {
    type Err = ParseDestinationError;

    /// Reads `queue://A`, `topic://A`, `temp-queue://A`, `temp-topic://A`; without a prefix it is a queue, as in
    /// ActiveMQ (`ActiveMQDestination.createDestination`).
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        use DestinationKind::{Queue, TempQueue, TempTopic, Topic};
        for kind in [Queue, Topic, TempQueue, TempTopic] {
            if let Some(name) = text.strip_prefix(kind.prefix()) {
                return Self::new(kind, name);
            }
        }
        Self::new(Queue, text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_writes() {
        for text in ["queue://A.B", "topic://news", "temp-queue://ID:x:1", "temp-topic://t"] {
            assert_eq!(text.parse::<Destination>().unwrap().to_string(), text);
        }
        assert_eq!("A".parse::<Destination>().unwrap(), Destination::queue("A"));
    }

    #[test]
    fn refuses_names_that_no_tool_could_show() {
        assert_eq!("queue://".parse::<Destination>(), Err(ParseDestinationError::Empty));
        assert_eq!(
            "queue://a\nb".parse::<Destination>(),
            Err(ParseDestinationError::Control(1))
        );
        let long = "x".repeat(1025);
        assert_eq!(long.parse::<Destination>(), Err(ParseDestinationError::TooLong(1025)));
    }
}
