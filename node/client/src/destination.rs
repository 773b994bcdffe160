//! Destinations as applications write them → as STOMP writes them.

use ferrymq_message::{Destination, DestinationKind, ParseDestinationError};

/// `queue://A`, `topic://A` and a bare `A` become `/queue/A` and so on; what is STOMP's form already stays.
///
/// # Errors
/// Where the destination is not a valid one.
pub(crate) fn wire_destination(text: &str) -> Result<String, ParseDestinationError> {
    const STOMP: [&str; 6] = [
        "/queue/",
        "/topic/",
        "/temp-queue/",
        "/temp-topic/",
        "/remote-temp-queue/",
        "/remote-temp-topic/",
    ];
    if let Some(name) = STOMP.iter().find_map(|prefix| text.strip_prefix(prefix)) {
        Destination::new(DestinationKind::Queue, name)?;
        return Ok(text.to_owned());
    }
    let destination: Destination = text.parse()?;
    let prefix = match destination.kind() {
        DestinationKind::Queue => "/queue/",
        DestinationKind::Topic => "/topic/",
        // Temporary destinations of any connection; one's own are written in STOMP's form.
        DestinationKind::TempQueue => "/remote-temp-queue/",
        DestinationKind::TempTopic => "/remote-temp-topic/",
    };
    Ok(format!("{prefix}{}", destination.name()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_of_writing() {
        for (text, wire) in [
            ("queue://A.B", "/queue/A.B"),
            ("topic://A", "/topic/A"),
            ("A", "/queue/A"),
            ("/topic/A", "/topic/A"),
            ("/temp-queue/r", "/temp-queue/r"),
            ("temp-queue://ID:1:r", "/remote-temp-queue/ID:1:r"),
        ] {
            assert_eq!(wire_destination(text).as_deref(), Ok(wire));
        }
        assert!(wire_destination("queue://").is_err());
        assert!(wire_destination("/queue/").is_err());
    }
}
