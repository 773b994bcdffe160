//! How STOMP writes destinations (`LegacyFrameTranslator.convertDestination` in ActiveMQ).
//!
//! `/temp-queue/NAME` is the connection's own temporary queue; in the broker it is named after the connection, so no
//! table is needed to tell them apart. Other connections' ones read `/remote-temp-queue/NAME`.

use ferrymq_message::{Destination, DestinationKind, ParseDestinationError};

/// Kinds by the prefix under which every client knows them.
const SHARED: [(&str, DestinationKind); 4] = [
    ("/queue/", DestinationKind::Queue),
    ("/topic/", DestinationKind::Topic),
    ("/remote-temp-queue/", DestinationKind::TempQueue),
    ("/remote-temp-topic/", DestinationKind::TempTopic),
];

/// Kinds by the prefix of what belongs to the connection.
const OWN: [(&str, DestinationKind); 2] = [
    ("/temp-queue/", DestinationKind::TempQueue),
    ("/temp-topic/", DestinationKind::TempTopic),
];

/// Reads a destination; `None` where it has none of the prefixes.
fn prefixed(text: &str, connection_id: &str) -> Option<Result<Destination, ParseDestinationError>> {
    let text = text.trim();
    for (prefix, kind) in SHARED {
        if let Some(name) = text.strip_prefix(prefix) {
            return Some(Destination::new(kind, name));
        }
    }
    for (prefix, kind) in OWN {
        if let Some(name) = text.strip_prefix(prefix) {
            let empty = name.is_empty();
            let name = format!("{connection_id}:{name}");
            return Some(if empty {
                Err(ParseDestinationError::Empty)
            } else {
                Destination::new(kind, &name)
            });
        }
    }
    None
}

/// Reads a destination. Without one of STOMP's prefixes it is read as `queue://NAME` and so on, or as a queue's name.
pub(super) fn read(text: &str, connection_id: &str) -> Result<Destination, ParseDestinationError> {
    prefixed(text, connection_id).unwrap_or_else(|| text.parse())
}

/// Reads a destination that must have a prefix, so that a `reply-to` of another kind stays a text.
pub(super) fn read_prefixed(text: &str, connection_id: &str) -> Option<Destination> {
    match prefixed(text, connection_id) {
        Some(result) => result.ok(),
        None => text.contains("://").then(|| text.parse().ok()).flatten(),
    }
}

/// Writes a destination as this connection knows it.
pub(super) fn write(destination: &Destination, connection_id: &str) -> String {
    let (kind, name) = (destination.kind(), destination.name());
    let own = name.strip_prefix(connection_id).and_then(|rest| rest.strip_prefix(':'));
    if let (Some(name), Some((prefix, _))) = (own, OWN.iter().find(|(_, k)| *k == kind)) {
        return format!("{prefix}{name}");
    }
    let prefix = match kind {
        DestinationKind::Queue => "/queue/",
        DestinationKind::Topic => "/topic/",
        DestinationKind::TempQueue => "/remote-temp-queue/",
        DestinationKind::TempTopic => "/remote-temp-topic/",
    };
    format!("{prefix}{name}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_writes() {
        let table = [
            ("/queue/A.B", "queue://A.B", "/queue/A.B"),
            (" /queue/A ", "queue://A", "/queue/A"),
            ("/topic/a/b", "topic://a/b", "/topic/a/b"),
            ("queue://A", "queue://A", "/queue/A"),
            ("topic://A", "topic://A", "/topic/A"),
            ("A", "queue://A", "/queue/A"),
            ("/exchange/A", "queue:///exchange/A", "/queue//exchange/A"),
            ("/temp-queue/r", "temp-queue://ID:c:r", "/temp-queue/r"),
            ("/temp-topic/r", "temp-topic://ID:c:r", "/temp-topic/r"),
            ("/remote-temp-queue/ID:c:r", "temp-queue://ID:c:r", "/temp-queue/r"),
            (
                "/remote-temp-queue/ID:cc:r",
                "temp-queue://ID:cc:r",
                "/remote-temp-queue/ID:cc:r",
            ),
            ("/queue/ID:c:r", "queue://ID:c:r", "/queue/ID:c:r"),
        ];
        for (text, meant, written) in table {
            let destination = read(text, "ID:c").unwrap();
            assert_eq!(destination.to_string(), meant);
            assert_eq!(write(&destination, "ID:c"), written);
        }
        assert_eq!(read("/temp-queue/", "ID:c"), Err(ParseDestinationError::Empty));
        assert_eq!(read("/queue/", "ID:c"), Err(ParseDestinationError::Empty));
        assert_eq!(read_prefixed("somewhere", "ID:c"), None);
        assert_eq!(read_prefixed("topic://t", "ID:c"), Some(Destination::topic("t")));
    }
}
