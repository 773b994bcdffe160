//! The address of one node inside a list: a scheme, a host and a port.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

use crate::scan::{Scan, UriError, nearest};

/// Where a node listens. The scheme is kept as written; between nodes all of them mean the node's own port.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct NodeAddress {
    /// One of [`NODE_SCHEMES`].
    pub scheme: String,
    /// A name or an IP address, an IPv6 one without its brackets.
    pub host: String,
    /// 1 to 65535.
    pub port: u16,
}

/// The schemes that a node's address may have.
pub const NODE_SCHEMES: [&str; 10] = [
    "tcp",
    "ssl",
    "nio",
    "quic",
    "auto",
    "nio+ssl",
    "auto+nio",
    "auto+ssl",
    "auto+nio+ssl",
    "tcp+ssl",
];

impl NodeAddress {
    /// Reads `//host:port` after the scheme and its colon.
    pub(crate) fn parse_rest(scheme: &str, scan: &mut Scan<'_>) -> Result<Self, UriError> {
        if !scan.take("//") {
            return Err(scan.error(
                format!("missing // after '{scheme}:'"),
                format!("write {scheme}://host:port"),
            ));
        }
        let host = host(scan)?;
        if !scan.take(":") {
            return Err(scan.error("missing port", format!("write {scheme}://{}:61616", Host(&host))));
        }
        let port = scan.take_while(|c| !matches!(c, ',' | ')' | '}' | '?' | '/' | '(' | '{') && !c.is_whitespace());
        let Some(number) = port.text.parse().ok().filter(|port| *port != 0) else {
            return Err(port.error(
                format!("port '{}' @ is not a number between 1 and 65535", port.text),
                match port.text.trim_matches(|c: char| !c.is_ascii_digit()) {
                    "" => "write the number of the port after the colon".to_owned(),
                    digits if digits.parse::<u16>().is_ok_and(|d| d != 0) => format!("did you mean {digits}?"),
                    _ => "write a number in that range".to_owned(),
                },
            ));
        };
        scan.take("/");
        Ok(Self {
            scheme: scheme.to_owned(),
            host,
            port: number,
        })
    }

    /// The IP address, if the host is not a name.
    pub fn ip(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }
}

impl fmt::Display for NodeAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}:{}", self.scheme, Host(&self.host), self.port)
    }
}

/// A host with brackets where it needs them.
struct Host<'a>(&'a str);

impl fmt::Display for Host<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.contains(':') {
            write!(f, "[{}]", self.0)
        } else {
            f.write_str(self.0)
        }
    }
}

fn host(scan: &mut Scan<'_>) -> Result<String, UriError> {
    if scan.take("[") {
        let address = scan.take_while(|c| c.is_ascii_hexdigit() || matches!(c, ':' | '.'));
        if address.text.parse::<Ipv6Addr>().is_err() {
            return Err(address.error(
                format!("'{}' @ is not an IPv6 address", address.text),
                "write it as in [::1]",
            ));
        }
        if !scan.take("]") {
            return Err(scan.error("missing ]", "close the IPv6 address"));
        }
        return Ok(address.text.to_owned());
    }
    let host = scan.take_while(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_'));
    if host.text.is_empty() {
        return Err(match scan.peek() {
            Some(':') => scan.error("missing host", "write the node's name or IP address before the colon"),
            Some(',' | ')' | '}' | '?' | '/') | None => scan.error("missing host", "write //host:port"),
            Some(c) => scan.error(format!("'{c}' @ cannot begin a host"), "write a name or an IP address"),
        });
    }
    if let Some(c) = scan.peek().filter(|c| !c.is_whitespace() && !":,)}?/".contains(*c)) {
        return Err(scan.error(
            format!("'{c}' @ cannot stand in a host"),
            "write a name or an IP address",
        ));
    }
    Ok(host.text.to_owned())
}

/// Fails with the nearest scheme if `scheme` is none of `known`.
pub(crate) fn unknown_scheme(scheme: crate::scan::Piece<'_>, known: &[&str]) -> UriError {
    let cure = match nearest(scheme.text, known) {
        Some(near) => format!("did you mean '{near}'?"),
        None => format!("known are {}", known.join(", ")),
    };
    let what = format!("unknown scheme '{}'", scheme.text);
    // Reads as one sentence: unknown scheme 'x' at column 1, did you mean 'y'?
    let mut error = scheme.error(what, "");
    error.message = format!("{}, {cure}", error.message);
    error
}
