//! Which destinations a permission is about: `queue://orders.>`, `topic://*.news`, `>`.

use std::{fmt, str::FromStr};

use ferrymq_message::{Destination, DestinationKind};

/// A pattern of destinations as ActiveMQ writes them: `*` stands for one part between dots, `>` at the end for the rest,
/// which may be nothing (`DestinationFilter`). Without a prefix it is about queues and topics alike. Never about
/// temporary destinations, which belong to a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    kind: Option<DestinationKind>,
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Named(String),
    /// `*`
    One,
    /// `>`, the last.
    Rest,
}

/// Why a text is not a pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// Nothing of a name.
    #[error("a pattern needs a name, or > for all")]
    Empty,
    /// Something behind `>`.
    #[error("\">\" stands for all the rest and can only come last")]
    RestNotLast,
    /// Another prefix than those of queues and topics.
    #[error("a pattern begins with queue:// or topic://, or has no such prefix")]
    Prefix,
}

impl Pattern {
    /// Whether a destination is one of these.
    ///
    /// A destination that is itself a pattern (a subscription of `topic://news.>`) counts only where everything that it
    /// stands for is one of these: otherwise a wildcard would open what its parts do not.
    pub fn covers(&self, destination: &Destination) -> bool {
        let kind_fits = match self.kind {
            Some(kind) => kind == destination.kind(),
            None => !destination.kind().is_temporary(),
        };
        kind_fits && covers(&self.parts, &split(destination.name()))
    }
}

/// Whether every name that `inner` stands for is one that `outer` stands for.
fn covers(outer: &[Part], inner: &[Part]) -> bool {
    match (outer.split_first(), inner.split_first()) {
        (Some((Part::Rest, _)), _) => true,
        (None, None) => true,
        // What `>` leaves open may be longer than anything that names its parts.
        (_, Some((Part::Rest, _))) | (None, _) | (_, None) => false,
        (Some((Part::One, outer)), Some((_, inner))) => covers(outer, inner),
        (Some((Part::Named(a), outer)), Some((Part::Named(b), inner))) => a == b && covers(outer, inner),
        (Some((Part::Named(_), _)), Some((Part::One, _))) => false,
    }
}

fn split(name: &str) -> Vec<Part> {
    let mut parts = Vec::new();
    for part in name.split('.') {
        match part {
            "*" => parts.push(Part::One),
            ">" => {
                // As a subscription reads it: what follows has no meaning.
                parts.push(Part::Rest);
                return parts;
            }
            named => parts.push(Part::Named(named.to_owned())),
        }
    }
    parts
}

impl FromStr for Pattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (kind, name) = match text.split_once("://") {
            Some(("queue", name)) => (Some(DestinationKind::Queue), name),
            Some(("topic", name)) => (Some(DestinationKind::Topic), name),
            Some(_) => return Err(PatternError::Prefix),
            None => (None, text),
        };
        if name.is_empty() {
            return Err(PatternError::Empty);
        }
        if name.split('.').rev().skip(1).any(|part| part == ">") {
            return Err(PatternError::RestNotLast);
        }
        Ok(Self {
            kind,
            parts: split(name),
        })
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.kind {
            Some(DestinationKind::Queue) => "queue://",
            Some(_) => "topic://",
            None => "",
        })?;
        for (at, part) in self.parts.iter().enumerate() {
            if at > 0 {
                f.write_str(".")?;
            }
            f.write_str(match part {
                Part::Named(name) => name,
                Part::One => "*",
                Part::Rest => ">",
            })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_as_in_activemq_and_wildcards_only_as_a_whole() {
        let table = [
            ("queue://A.B", "queue://A.B", true),
            ("queue://A.B", "topic://A.B", false),
            ("A.B", "topic://A.B", true),
            (">", "queue://X.Y", true),
            (">", "temp-queue://X", false),
            ("queue://>", "topic://X", false),
            ("queue://A.>", "queue://A", true),
            ("queue://A.>", "queue://A.B.C", true),
            ("queue://A.>", "queue://AB", false),
            ("queue://A.*", "queue://A", false),
            ("queue://A.*", "queue://A.B", true),
            ("queue://A.*", "queue://A.B.C", false),
            ("queue://*.B", "queue://A.B", true),
            // A composite name is one name, and no name of its parts.
            ("queue://A", "queue://A,ADMIN", false),
            ("queue://A.*", "queue://A.B,ADMIN.Q", false),
            // Subscriptions with wildcards.
            ("topic://A.B", "topic://A.>", false),
            ("topic://A.B", "topic://A.*", false),
            ("topic://A.B", "topic://>", false),
            ("topic://A.*", "topic://A.*", true),
            ("topic://A.*", "topic://A.>", false),
            ("topic://A.>", "topic://A.>", true),
            ("topic://A.>", "topic://A.*.C", true),
            ("topic://A.>", "topic://*.B", false),
            ("topic://*.B", "topic://*.B", true),
            ("topic://*.B", "topic://>", false),
            ("topic://*.>", "topic://>", false),
            (">", "topic://>", true),
            // To a subscription, what follows `>` has no meaning.
            ("topic://A.>", "topic://>.A", false),
        ];
        for (pattern, destination, expected) in table {
            let parsed: Pattern = pattern.parse().unwrap();
            assert_eq!(parsed.to_string(), pattern);
            let destination: Destination = destination.parse().unwrap();
            assert_eq!(parsed.covers(&destination), expected, "{pattern} covers {destination}");
        }
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        let table = [
            ("", PatternError::Empty),
            ("queue://", PatternError::Empty),
            ("queue://>.A", PatternError::RestNotLast),
            ("temp-queue://A", PatternError::Prefix),
            ("stomp://A", PatternError::Prefix),
        ];
        for (text, error) in table {
            assert_eq!(text.parse::<Pattern>(), Err(error), "{text}");
        }
    }
}
