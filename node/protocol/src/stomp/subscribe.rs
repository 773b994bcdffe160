//! A SUBSCRIBE frame as a consumer (`ProtocolConverter.onStompSubscribe` in ActiveMQ).

use ferrymq_message::{Destination, DestinationKind, Selector, SelectorError};

use super::{Headers, StompError, StompLimits, Version, destination, session::NAME_BYTES_MAX};
use crate::{AckMode, Durable, Subscribe};

const PREFETCH_BROWSER: u32 = 500;
const PREFETCH_DURABLE: u32 = 100;
const PREFETCH_TOPIC: u32 = 32_766;

/// Whose frame it is.
#[derive(Debug)]
pub(super) struct Subscriber<'a> {
    /// The connection's version.
    pub(super) version: Version,
    /// The connection's id.
    pub(super) connection_id: &'a str,
    /// `client-id` of CONNECT.
    pub(super) client_id: Option<&'a str>,
}

/// The consumer that a SUBSCRIBE frame means, under the session's `number`.
pub(super) fn consumer(
    headers: &Headers,
    number: u32,
    subscriber: &Subscriber<'_>,
    limits: &StompLimits,
) -> Result<Subscribe, StompError> {
    let missing = StompError::MissingHeader {
        command: "SUBSCRIBE",
        header: "destination",
    };
    let destination = destination::read(headers.get("destination").ok_or(missing)?, subscriber.connection_id)?;
    let own = destination
        .name()
        .strip_prefix(subscriber.connection_id)
        .is_some_and(|rest| rest.starts_with(':'));
    if destination.kind().is_temporary() && !own {
        let text = "only the connection that made a temporary destination can consume from it";
        return Err(StompError::NotOffered(text));
    }
    let browser = flag(headers, "browser");
    if browser && subscriber.version == Version::V1_0 {
        return Err(StompError::NotOffered("browser needs STOMP 1.1 or later"));
    }
    if browser && destination.kind().is_topic() {
        return Err(StompError::NotOffered("only queues can be browsed"));
    }
    let durable = durable(headers, &destination, subscriber)?;
    let prefetch = prefetch(headers, &destination, durable.is_some(), browser, limits)?.clamp(1, limits.prefetch_max);
    Ok(Subscribe {
        subscription: number,
        selector: headers.get("selector").map_or(Ok(None), selector)?,
        prefetch,
        durable,
        no_local: flag(headers, "activemq.noLocal") || flag(headers, "no-local"),
        exclusive: flag(headers, "activemq.exclusive"),
        browser,
        priority: priority(headers)?,
        ack: ack_mode(headers)?,
        destination,
    })
}

/// The name of the durable subscription that a SUBSCRIBE or UNSUBSCRIBE frame means.
pub(super) fn durable_name(headers: &Headers) -> Result<Option<&str>, StompError> {
    let given = [
        "activemq.subscriptionName",
        "durable-subscription-name",
        "durable-subscriber-name",
    ]
    .into_iter()
    .find_map(|header| Some((header, headers.get(header)?)));
    match given {
        Some((header, name)) if name.len() > NAME_BYTES_MAX => Err(StompError::NameTooLong {
            header,
            max: NAME_BYTES_MAX,
        }),
        Some((_, name)) if !name.is_empty() => Ok(Some(name)),
        _ => Ok(None),
    }
}

fn durable(
    headers: &Headers,
    destination: &Destination,
    subscriber: &Subscriber<'_>,
) -> Result<Option<Durable>, StompError> {
    let Some(name) = durable_name(headers)? else {
        return Ok(None);
    };
    if destination.kind() != DestinationKind::Topic {
        return Err(StompError::NotOffered("only topics have durable subscriptions"));
    }
    let client_id = subscriber.client_id.ok_or(StompError::NoClientId)?;
    Ok(Some(Durable {
        client_id: client_id.to_owned(),
        name: name.to_owned(),
    }))
}

fn prefetch(
    headers: &Headers,
    destination: &Destination,
    durable: bool,
    browser: bool,
    limits: &StompLimits,
) -> Result<u32, StompError> {
    if let Some(text) = headers.get("activemq.prefetchSize") {
        let bad = StompError::BadHeader {
            header: "activemq.prefetchSize",
            expected: "a number of messages",
        };
        return text.trim().parse().map_err(|_| bad);
    }
    Ok(match (browser, durable, destination.kind().is_topic()) {
        (true, _, _) => PREFETCH_BROWSER,
        (_, true, _) => PREFETCH_DURABLE,
        (_, _, true) => PREFETCH_TOPIC,
        _ => limits.prefetch_queue,
    })
}

fn priority(headers: &Headers) -> Result<i8, StompError> {
    let bad = StompError::BadHeader {
        header: "activemq.priority",
        expected: "a number from -128 to 127",
    };
    headers
        .get("activemq.priority")
        .map_or(Ok(0), |text| text.trim().parse().map_err(|_| bad))
}

fn ack_mode(headers: &Headers) -> Result<AckMode, StompError> {
    match headers.get("ack").unwrap_or("auto") {
        "auto" => Ok(AckMode::Auto),
        "client" => Ok(AckMode::Client),
        "client-individual" => Ok(AckMode::Individual),
        _ => Err(StompError::BadHeader {
            header: "ack",
            expected: "auto, client or client-individual",
        }),
    }
}

/// STOMP's properties are all strings, so they are read as numbers where the selector compares them with some.
fn selector(text: &str) -> Result<Option<Selector>, StompError> {
    let prefix = Selector::CONVERT_STRINGS_PREFIX;
    if text.strip_prefix(prefix).unwrap_or(text).trim().is_empty() {
        return Ok(None);
    }
    if text.starts_with(prefix) {
        return Selector::parse(text).map(Some).map_err(StompError::Selector);
    }
    Selector::parse(&format!("{prefix}{text}")).map(Some).map_err(|error| {
        // The column in what the client wrote.
        let column = error.column.saturating_sub(prefix.len()).max(1);
        StompError::Selector(SelectorError {
            column,
            expected: error.expected,
        })
    })
}

fn flag(headers: &Headers, name: &str) -> bool {
    headers
        .get(name)
        .is_some_and(|value| value.trim().eq_ignore_ascii_case("true"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(headers: &[(&str, &str)]) -> Result<Subscribe, StompError> {
        read_as(headers, Version::V1_1, Some("me"))
    }

    fn read_as(headers: &[(&str, &str)], version: Version, client_id: Option<&str>) -> Result<Subscribe, StompError> {
        let mut all = Headers::default();
        for (name, value) in headers {
            all.add(*name, *value);
        }
        consumer(
            &all,
            3,
            &Subscriber {
                version,
                connection_id: "ID:c",
                client_id,
            },
            &StompLimits::default(),
        )
    }

    #[test]
    fn defaults() {
        let expected = Subscribe {
            subscription: 3,
            destination: Destination::queue("A"),
            selector: None,
            prefetch: 1000,
            durable: None,
            no_local: false,
            exclusive: false,
            browser: false,
            priority: 0,
            ack: AckMode::Auto,
        };
        assert_eq!(read(&[("destination", "/queue/A"), ("selector", " ")]), Ok(expected));
        assert_eq!(read(&[("destination", "/topic/A")]).unwrap().prefetch, 32_766);
    }

    #[test]
    fn every_header() {
        let subscribe = read(&[
            ("destination", "/topic/T"),
            ("ack", "client-individual"),
            ("selector", "n > 5"),
            ("activemq.prefetchSize", "0"),
            ("activemq.noLocal", "true"),
            ("activemq.exclusive", "TRUE"),
            ("activemq.priority", "-7"),
            ("activemq.subscriptionName", "news"),
            ("activemq.dispatchAsync", "whatever"),
        ])
        .unwrap();
        let expected = Subscribe {
            subscription: 3,
            destination: Destination::topic("T"),
            selector: Some(Selector::parse("convert_string_expressions:n > 5").unwrap()),
            prefetch: 1,
            durable: Some(Durable {
                client_id: "me".into(),
                name: "news".into(),
            }),
            no_local: true,
            exclusive: true,
            browser: false,
            priority: -7,
            ack: AckMode::Individual,
        };
        assert_eq!(subscribe, expected);
        let browser = read(&[("destination", "/queue/A"), ("browser", "true"), ("no-local", "true")]).unwrap();
        assert!(browser.browser && browser.no_local && browser.prefetch == 500);
        let huge = read(&[("destination", "/queue/A"), ("activemq.prefetchSize", "4000000000")]).unwrap();
        assert_eq!(huge.prefetch, 32_767);
    }

    #[test]
    fn refusals() {
        let refused = |headers: &[(&str, &str)]| read(headers).unwrap_err().to_string();
        assert_eq!(refused(&[]), "SUBSCRIBE needs the header destination");
        let queue = ("destination", "/queue/A");
        assert_eq!(
            refused(&[queue, ("selector", "n > ")]),
            "bad selector: a selector needs a name, a literal or ( at column 5"
        );
        assert!(refused(&[queue, ("ack", "Auto")]).contains("client-individual"));
        assert!(refused(&[queue, ("activemq.prefetchSize", "-1")]).contains("prefetchSize"));
        assert!(refused(&[queue, ("activemq.subscriptionName", "n")]).contains("only topics"));
        assert!(refused(&[("destination", "/topic/T"), ("browser", "true")]).contains("only queues"));
        let durable = [("destination", "/topic/T"), ("durable-subscription-name", "n")];
        assert_eq!(read_as(&durable, Version::V1_1, None), Err(StompError::NoClientId));
        for (bytes, fits) in [(NAME_BYTES_MAX, true), (NAME_BYTES_MAX + 1, false)] {
            for header in ["activemq.subscriptionName", "durable-subscriber-name"] {
                let name = "n".repeat(bytes);
                let durable = [("destination", "/topic/T"), (header, name.as_str())];
                assert_eq!(read(&durable).is_ok(), fits, "{header} of {bytes} bytes");
                let all = durable.iter().fold(Headers::default(), |mut all, (name, value)| {
                    all.add(*name, *value);
                    all
                });
                assert_eq!(durable_name(&all).is_ok(), fits, "UNSUBSCRIBE");
            }
        }
        assert!(read_as(&[queue, ("browser", "true")], Version::V1_0, None).is_err());
    }
}
