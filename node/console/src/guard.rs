//! Keeps other people's web pages away from the admin port: a page in the operator's browser can send requests to
//! loopback, and can point its own host name there (DNS rebinding).
//!
//! Three rules: `Host` names loopback, the address listened on or a configured name; anything but GET and HEAD carries
//! `X-FerryMQ: 1`, which a page of another origin cannot add without a preflight that is never granted; and `Origin`,
//! where there is one, is the same host.

use std::net::{IpAddr, SocketAddr};

use axum::http::{HeaderMap, Method, header};

use crate::{Refusal, RefusalKind};

/// The header that every changing request carries, with the value `1`.
pub(crate) const CHANGE_HEADER: &str = "x-ferrymq";

/// Decides whether a request may come in at all.
#[derive(Debug, Clone)]
pub(crate) struct Guard {
    local: SocketAddr,
    hosts: Vec<String>,
}

impl Guard {
    pub(crate) fn new(local: SocketAddr, hosts: Vec<String>) -> Self {
        Self { local, hosts }
    }

    /// Checks one request by its method and headers.
    ///
    /// # Errors
    /// A refusal that names the rule and how to keep it.
    pub(crate) fn admit(&self, method: &Method, headers: &HeaderMap) -> Result<(), Refusal> {
        let mut hosts = headers.get_all(header::HOST).iter();
        let (Some(host), None) = (hosts.next().and_then(|h| h.to_str().ok()), hosts.next()) else {
            return Err(refuse("a request needs exactly one Host header"));
        };
        if !self.allows(host) {
            return Err(refuse(&format!(
                "host {host:?} is not this admin port; ask by its address, or by localhost on the same machine"
            )));
        }
        if let Some(origin) = headers.get(header::ORIGIN)
            && origin.to_str().ok().and_then(|origin| origin.strip_prefix("http://")) != Some(host)
        {
            return Err(refuse("requests from pages of another origin are refused"));
        }
        let changes = *method != Method::GET && *method != Method::HEAD;
        if changes && headers.get(CHANGE_HEADER).is_none_or(|value| value != "1") {
            return Err(refuse(
                "a request that changes something needs the header \"X-FerryMQ: 1\"",
            ));
        }
        Ok(())
    }

    fn allows(&self, host: &str) -> bool {
        let (name, port) = split_host(host);
        if port.is_some_and(|port| port != self.local.port()) {
            // A forwarded port is fine on the same machine only: there nobody else's name can stand for it.
            return is_loopback(name);
        }
        if is_loopback(name) || self.hosts.iter().any(|allowed| allowed.eq_ignore_ascii_case(name)) {
            return true;
        }
        // An address cannot be rebound as a name can; listening on every address, any of them may be meant.
        name.parse::<IpAddr>()
            .is_ok_and(|ip| ip == self.local.ip() || self.local.ip().is_unspecified())
    }
}

/// `name`, `name:port`, `[v6]` or `[v6]:port`; a bad port leaves the whole text as the name, which then matches nothing.
fn split_host(host: &str) -> (&str, Option<u16>) {
    if let Some((v6, rest)) = host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        return match rest.strip_prefix(':').map(str::parse) {
            Some(Ok(port)) => (v6, Some(port)),
            None if rest.is_empty() => (v6, None),
            _ => (host, None),
        };
    }
    match host.rsplit_once(':') {
        Some((name, port)) => port.parse().map_or((host, None), |port| (name, Some(port))),
        None => (host, None),
    }
}

fn is_loopback(name: &str) -> bool {
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

fn refuse(text: &str) -> Refusal {
    Refusal {
        kind: RefusalKind::Forbidden,
        text: text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admits(listen: &str, method: Method, headers: &[(&'static str, &str)]) -> bool {
        let guard = Guard::new(listen.parse().unwrap(), vec!["broker.example".into()]);
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().unwrap());
        }
        guard.admit(&method, &map).is_ok()
    }

    #[test]
    fn host_is_ours_or_nobodys() {
        for (listen, host, expected) in [
            ("127.0.0.1:8161", "127.0.0.1:8161", true),
            ("127.0.0.1:8161", "localhost:8161", true),
            ("127.0.0.1:8161", "LOCALHOST", true),
            ("127.0.0.1:8161", "[::1]:8161", true),
            ("127.0.0.1:8161", "localhost:9000", true),
            ("127.0.0.1:8161", "broker.example:8161", true),
            ("127.0.0.1:8161", "broker.example:9000", false),
            ("127.0.0.1:8161", "evil.example:8161", false),
            ("127.0.0.1:8161", "localhost.evil.example", false),
            ("127.0.0.1:8161", "10.0.0.1:8161", false),
            ("127.0.0.1:8161", "", false),
            ("127.0.0.1:8161", "localhost:99999", false),
            ("10.0.0.1:8161", "10.0.0.1:8161", true),
            ("10.0.0.1:8161", "10.0.0.2:8161", false),
            ("0.0.0.0:8161", "10.0.0.2:8161", true),
            ("0.0.0.0:8161", "evil.example:8161", false),
        ] {
            assert_eq!(
                admits(listen, Method::GET, &[("host", host)]),
                expected,
                "{listen} {host}"
            );
        }
        assert!(!admits("127.0.0.1:8161", Method::GET, &[]));
        assert!(!admits(
            "127.0.0.1:8161",
            Method::GET,
            &[("host", "localhost"), ("host", "evil.example")]
        ));
    }

    #[test]
    fn changes_need_the_header_and_the_same_origin() {
        let host = ("host", "localhost:8161");
        let change = ("x-ferrymq", "1");
        let listen = "127.0.0.1:8161";
        assert!(admits(listen, Method::POST, &[host, change]));
        assert!(!admits(listen, Method::POST, &[host]));
        assert!(!admits(listen, Method::DELETE, &[host, ("x-ferrymq", "0")]));
        assert!(!admits(listen, Method::OPTIONS, &[host]));
        assert!(admits(
            listen,
            Method::POST,
            &[host, change, ("origin", "http://localhost:8161")]
        ));
        assert!(!admits(
            listen,
            Method::POST,
            &[host, change, ("origin", "http://evil.example")]
        ));
        assert!(!admits(listen, Method::GET, &[host, ("origin", "null")]));
    }
}
