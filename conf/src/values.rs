//! Readers of single values: what was written → what it means, or what was expected.

use std::{fmt::Display, net::SocketAddr, ops::RangeInclusive, time::Duration};

use toml::de::DeValue;

use crate::{
    nearest,
    section::Raw,
    units::{parse_bytes, parse_duration, show_bytes, show_duration},
};

/// A text.
pub(crate) fn text(raw: &Raw<'_>) -> Result<String, String> {
    match raw {
        Raw::Variable(text) => Ok((*text).to_owned()),
        Raw::Toml(value) => value
            .as_str()
            .map(str::to_owned)
            .ok_or_else(|| format!("expected text in quotes, found {}", raw.kind())),
    }
}

/// A text that is not empty.
pub(crate) fn filled(raw: &Raw<'_>) -> Result<String, String> {
    let found = text(raw)?;
    if found.trim().is_empty() {
        Err("must not be empty".into())
    } else {
        Ok(found)
    }
}

/// `true` or `false`.
pub(crate) fn boolean(raw: &Raw<'_>) -> Result<bool, String> {
    match raw {
        Raw::Toml(DeValue::Boolean(value)) => Ok(*value),
        Raw::Variable("true") => Ok(true),
        Raw::Variable("false") => Ok(false),
        _ => Err(format!("expected true or false, found {}", raw.kind())),
    }
}

/// A whole number within limits.
pub(crate) fn whole<'a>(limits: RangeInclusive<u64>) -> impl Fn(&Raw<'a>) -> Result<u64, String> {
    move |raw| {
        let number = match raw {
            Raw::Variable(text) => text.trim().parse().ok(),
            Raw::Toml(DeValue::Integer(number)) => i128::from_str_radix(number.as_str(), number.radix()).ok(),
            Raw::Toml(_) => return Err(format!("expected a whole number, found {}", raw.kind())),
        };
        let number = number.and_then(|number| u64::try_from(number).ok());
        within(
            number.ok_or_else(|| expected(&limits, |n| n.to_string()))?,
            &limits,
            |n| n.to_string(),
        )
    }
}

/// A size within limits, in bytes.
pub(crate) fn bytes<'a>(limits: RangeInclusive<u64>) -> impl Fn(&Raw<'a>) -> Result<u64, String> {
    move |raw| {
        let size = match raw {
            Raw::Variable(text) => parse_bytes(text)?,
            Raw::Toml(DeValue::String(text)) => parse_bytes(text)?,
            Raw::Toml(DeValue::Integer(number)) => parse_bytes(number.as_str())?,
            Raw::Toml(_) => return Err(format!("expected a size such as \"64MiB\", found {}", raw.kind())),
        };
        within(size, &limits, |size| show_bytes(*size))
    }
}

/// A time within limits.
pub(crate) fn duration<'a>(limits: RangeInclusive<Duration>) -> impl Fn(&Raw<'a>) -> Result<Duration, String> {
    move |raw| {
        let time = match raw {
            Raw::Variable(text) => parse_duration(text)?,
            Raw::Toml(DeValue::String(text)) => parse_duration(text)?,
            Raw::Toml(DeValue::Integer(number)) => parse_duration(number.as_str())?,
            Raw::Toml(_) => return Err(format!("expected a time such as \"60ms\", found {}", raw.kind())),
        };
        within(time, &limits, |time| show_duration(*time))
    }
}

/// One word of a list.
pub(crate) fn choice<'a, T: Copy>(words: &'static [(&'static str, T)]) -> impl Fn(&Raw<'a>) -> Result<T, String> {
    move |raw| {
        let word = text(raw)?;
        let found = words.iter().find(|(known, _)| *known == word);
        found.map(|(_, value)| *value).ok_or_else(|| {
            format!(
                "{word:?} is not a choice{}",
                nearest::advice(&word, words.iter().map(|(known, _)| *known))
            )
        })
    }
}

/// An address to listen on, or "off" (`None`).
pub(crate) fn listen(raw: &Raw<'_>) -> Result<Option<SocketAddr>, String> {
    let written = text(raw)?;
    let written = written.trim();
    if written == "off" {
        return Ok(None);
    }
    let (host, port) = split_address(written)?;
    let host = if host.eq_ignore_ascii_case("localhost") {
        "127.0.0.1"
    } else {
        host
    };
    let Ok(ip) = host.trim_matches(['[', ']']).parse() else {
        return Err(format!(
            "{host:?} is not an IP address; a node listens on an address of its own machine, \"0.0.0.0\" being all"
        ));
    };
    Ok(Some(SocketAddr::new(ip, port)))
}

/// An address under which others reach a node: `host:port`, checked but not resolved.
pub(crate) fn reachable(raw: &Raw<'_>) -> Result<String, String> {
    let written = text(raw)?;
    let (host, port) = split_address(written.trim())?;
    let bare = host.trim_matches(['[', ']']);
    if bare.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_unspecified()) {
        return Err(format!(
            "{host} means every address of a machine; write the one at which others reach it"
        ));
    }
    Ok(format!("{host}:{port}"))
}

/// `host:port`, or `[v6]:port`.
pub(crate) fn split_address(written: &str) -> Result<(&str, u16), String> {
    let Some((host, port)) = written.rsplit_once(':') else {
        return Err(format!("{written:?} has no port; write it as \"host:port\""));
    };
    let port = match port.parse::<u16>() {
        Ok(port) if port > 0 => port,
        _ => return Err(format!("port {port:?} is not a number between 1 and 65535")),
    };
    let is_v6 = host.starts_with('[') && host.ends_with(']');
    if host.contains(':') && !is_v6 {
        return Err(format!("an IPv6 address stands in brackets: \"[{host}]:{port}\""));
    }
    let is_name = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
    if host.is_empty() || (!is_v6 && !host.chars().all(is_name)) {
        return Err(format!("{host:?} is not the name or address of a machine"));
    }
    Ok((host, port))
}

/// Destination patterns as ActiveMQ writes them: `queue://ORDERS.>`, `*` for one part of a name, `>` for the rest.
pub(crate) fn pattern(written: &str) -> Result<String, String> {
    let name = written.split_once("://").map_or(written, |(_, name)| name);
    let prefix = &written[..written.len() - name.len()];
    if !["", "queue://", "topic://"].contains(&prefix) {
        return Err(format!(
            "{written:?}: a pattern begins with queue:// or topic://, not with {prefix:?}"
        ));
    }
    if name.is_empty() || name.split('.').any(str::is_empty) {
        return Err(format!("{written:?}: a part of the name is empty"));
    }
    let parts: Vec<&str> = name.split('.').collect();
    for (number, part) in parts.iter().enumerate() {
        if *part == ">" && number + 1 < parts.len() {
            return Err(format!(
                "{written:?}: \">\" stands for all the rest and can only come last"
            ));
        }
        if part.len() > 1 && part.contains(['*', '>']) {
            return Err(format!(
                "{written:?}: \"*\" and \">\" stand for whole parts between dots"
            ));
        }
    }
    Ok(written.to_owned())
}

fn within<T: PartialOrd>(value: T, limits: &RangeInclusive<T>, show: impl Fn(&T) -> String) -> Result<T, String> {
    if limits.contains(&value) {
        Ok(value)
    } else {
        Err(expected(limits, show))
    }
}

fn expected<T>(limits: &RangeInclusive<T>, show: impl Fn(&T) -> String) -> String {
    let (low, high): (Box<dyn Display>, Box<dyn Display>) =
        (Box::new(show(limits.start())), Box::new(show(limits.end())));
    format!("must be between {low} and {high}")
}
