//! Which destinations take part in the mesh, written as ActiveMQ users write it in a network connector.

use ferrymq_message::{Destination, DestinationKind};

/// The configured lists, parsed.
#[derive(Debug, Clone, Default)]
pub(crate) struct Filter {
    excluded: Vec<Pattern>,
    included: Vec<Pattern>,
}

/// `queue://A.*`, `topic://A.>`: `*` stands for one name between dots, `>` for all that follow, and `A.>` also means
/// `A` (ActiveMQ's `DestinationFilter`). Without a prefix it means queues and topics that are not temporary.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Pattern {
    kind: Option<DestinationKind>,
    names: Vec<String>,
}

impl Filter {
    pub(crate) fn new(excluded: &[String], included: &[String]) -> Self {
        let parse = |texts: &[String]| texts.iter().map(|text| Pattern::parse(text)).collect();
        Self {
            excluded: parse(excluded),
            included: parse(included),
        }
    }

    /// Exclusion wins. Temporary destinations need no inclusion: a reply must find its way back.
    pub(crate) fn permits(&self, destination: &Destination) -> bool {
        if self.excluded.iter().any(|pattern| pattern.matches(destination)) {
            return false;
        }
        self.included.is_empty()
            || destination.kind().is_temporary()
            || self.included.iter().any(|pattern| pattern.matches(destination))
    }
}

impl Pattern {
    fn parse(text: &str) -> Self {
        use DestinationKind::{Queue, TempQueue, TempTopic, Topic};
        let text = text.trim();
        let prefixes = [
            ("queue://", Queue),
            ("topic://", Topic),
            ("temp-queue://", TempQueue),
            ("temp-topic://", TempTopic),
        ];
        let (kind, name) = prefixes
            .into_iter()
            .find_map(|(prefix, kind)| text.strip_prefix(prefix).map(|name| (Some(kind), name)))
            .unwrap_or((None, text));
        Self {
            kind,
            names: name.split('.').map(str::to_owned).collect(),
        }
    }

    fn matches(&self, destination: &Destination) -> bool {
        let kind_fits = match self.kind {
            Some(kind) => kind == destination.kind(),
            None => !destination.kind().is_temporary(),
        };
        if !kind_fits {
            return false;
        }
        let mut names = destination.name().split('.');
        for pattern in &self.names {
            if pattern == ">" {
                return true;
            }
            match names.next() {
                Some(name) if pattern == "*" || pattern == name => {}
                _ => return false,
            }
        }
        names.next().is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_mean_what_they_mean_in_activemq() {
        let table = [
            ("A.*", "queue://A.B", true),
            ("A.*", "queue://A", false),
            ("A.*", "queue://A.B.C", false),
            ("A.>", "topic://A.B.C", true),
            ("A.>", "topic://A", true),
            ("A.>", "topic://AB", false),
            (">", "queue://x.y", true),
            ("queue://>", "topic://x", false),
            ("*.B", "queue://A.B", true),
            (">", "temp-queue://ID:1", false),
            ("temp-queue://>", "temp-queue://ID:1", true),
        ];
        for (pattern, destination, expected) in table {
            let found = Pattern::parse(pattern).matches(&destination.parse().unwrap());
            assert_eq!(found, expected, "{pattern} {destination}");
        }
    }

    #[test]
    fn exclusion_wins_and_temporary_destinations_need_no_inclusion() {
        let filter = Filter::new(&["A.SECRET.>".to_owned()], &["queue://A.>".to_owned()]);
        let permits = |text: &str| filter.permits(&text.parse().unwrap());
        assert!(permits("queue://A.B"));
        assert!(!permits("queue://A.SECRET.B"));
        assert!(!permits("queue://B"));
        assert!(!permits("topic://A.B"));
        assert!(permits("temp-queue://ID:x"));
    }
}
